/**
 * Certificates that the cluster's CA signs: for servers, for clients, and for keys that somebody else holds (CSR).
 * What a certificate says is decided here and by the caller, never by who asks for it.
 */
import 'reflect-metadata';
import { createPrivateKey } from 'node:crypto';
import type { JsonGeneralName, JsonName, PublicKey } from '@peculiar/x509';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Pkcs10CertificateRequest,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';
import type { Clock } from '#lib/clock.ts';
import { systemClock } from '#lib/clock.ts';
import { DecodeError, explainError } from '#lib/errors.ts';
import type { Ip } from '#lib/ip.ts';
import type { Ca } from './ca.ts';
import { CLOCK_SKEW_MS, newSerialNumber } from './certificate.ts';

/** A year: long enough not to run out under a machine that is off for a season. */
export const DEFAULT_VALIDITY_MS = 365 * 24 * 3600 * 1000;
/** A request with an RSA key of 16,384 bits has 6 KiB; ours have 400 bytes. */
export const MAX_CSR_BYTES = 16 * 1024;
const MIN_RSA_BITS = 2048;
const CSR_CURVES: readonly string[] = ['P-256', 'P-384', 'P-521'];

export interface IssuedCertificate {
  /** Behind it stand the authorities between its own and what clients trust. */
  readonly certificatePem: string;
  /** Milliseconds since the epoch; never after the CA's own end. */
  readonly notAfterMs: number;
}

export interface KeyAndCertificate extends IssuedCertificate {
  /** PKCS #8. */
  readonly keyPem: string;
}

export interface Subject {
  readonly commonName: string;
  /** A user's groups, for the API. */
  readonly organizations: readonly string[];
}

interface Validity {
  readonly validityMs?: number;
  readonly clock?: Clock;
}

/**
 * Makes a key and a certificate for a TLS server.
 * @param options.names DNS names, `*.` allowed
 * @param options.ips addresses by which clients connect
 */
export async function issueServerCertificate(
  ca: Ca,
  options: Validity & {
    readonly commonName: string;
    readonly names: readonly string[];
    readonly ips: readonly Ip[];
  },
): Promise<KeyAndCertificate> {
  const { publicKey, keyPem } = await newKey();
  const names = [
    ...options.names.map((value): JsonGeneralName => ({ type: 'dns', value })),
    ...options.ips.map((value): JsonGeneralName => ({ type: 'ip', value })),
  ];
  const issued = await sign(ca, publicKey, {
    ...options,
    subject: { commonName: options.commonName, organizations: [] },
    usage: ExtendedKeyUsage.serverAuth,
    names,
  });
  return { ...issued, keyPem };
}

/** Makes a key and a certificate for a client: the common name is the user, the organizations are its groups. */
export async function issueClientCertificate(
  ca: Ca,
  options: Validity & Subject,
): Promise<KeyAndCertificate> {
  const { publicKey, keyPem } = await newKey();
  const usage = ExtendedKeyUsage.clientAuth;
  const issued = await sign(ca, publicKey, { ...options, subject: options, usage });
  return { ...issued, keyPem };
}

/**
 * Signs a client certificate for the key of a request (RFC 2986). Of the request only the key is used; its subject and
 * the extensions it asks for are not.
 * @throws DecodeError if it is no request, its signature is not that of its key, or the key is weak
 */
export async function signCsr(
  ca: Ca,
  csrPem: string,
  options: Validity & { readonly subject: Subject },
): Promise<IssuedCertificate> {
  const publicKey = await keyOfCsr(csrPem);
  return sign(ca, publicKey, { ...options, usage: ExtendedKeyUsage.clientAuth });
}

async function keyOfCsr(csrPem: string): Promise<PublicKey> {
  if (csrPem.length > MAX_CSR_BYTES)
    throw csrError('length', `${csrPem.length} bytes, ${MAX_CSR_BYTES} are allowed`);
  let request: Pkcs10CertificateRequest;
  let proven: boolean;
  try {
    request = new Pkcs10CertificateRequest(csrPem);
    proven = await request.verify();
  } catch (cause) {
    throw csrError('request', explainError(cause), cause);
  }
  if (!proven) throw csrError('signature', 'it was not made with the key of the request');
  const problem = weakness(request.publicKey.algorithm);
  if (problem !== undefined) throw csrError('key', problem);
  return request.publicKey;
}

/** @returns what is wrong with a key of this kind, or `undefined` */
function weakness(algorithm: {
  name: string;
  namedCurve?: string;
  modulusLength?: number;
}): string | undefined {
  const { name, namedCurve, modulusLength } = algorithm;
  if (name === 'Ed25519') return undefined;
  if (name === 'ECDSA' && namedCurve !== undefined && CSR_CURVES.includes(namedCurve))
    return undefined;
  if (name.startsWith('RSA') && modulusLength !== undefined)
    return modulusLength >= MIN_RSA_BITS
      ? undefined
      : `RSA of ${modulusLength} bits, at least ${MIN_RSA_BITS} are needed`;
  return `"${namedCurve ?? name}" is not accepted: use ECDSA on ${CSR_CURVES.join(', ')}, Ed25519 or RSA`;
}

function csrError(field: string, message: string, cause?: unknown): DecodeError {
  return new DecodeError(message, { protocol: 'certificate request', field, cause });
}

async function newKey(): Promise<{ publicKey: CryptoKey; keyPem: string }> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256' };
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const der = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey));
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  return {
    publicKey: keys.publicKey,
    keyPem: key.export({ format: 'pem', type: 'pkcs8' }).toString(),
  };
}

async function sign(
  ca: Ca,
  publicKey: PublicKey | CryptoKey,
  options: Validity & {
    readonly subject: Subject;
    readonly usage: ExtendedKeyUsage;
    readonly names?: readonly JsonGeneralName[];
  },
): Promise<IssuedCertificate> {
  const nowMs = (options.clock ?? systemClock).now();
  const wantedMs = nowMs + (options.validityMs ?? DEFAULT_VALIDITY_MS);
  const notAfterMs = Math.min(wantedMs, ca.certificate.notAfter.getTime());
  const names = options.names ?? [];
  const certificate = await X509CertificateGenerator.create({
    serialNumber: newSerialNumber(),
    issuer: ca.certificate.subjectName,
    subject: nameOf(options.subject),
    notBefore: new Date(nowMs - CLOCK_SKEW_MS),
    notAfter: new Date(notAfterMs),
    publicKey,
    signingKey: ca.privateKey,
    signingAlgorithm: ca.signature,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([options.usage]),
      await AuthorityKeyIdentifierExtension.create(ca.certificate.publicKey),
      await SubjectKeyIdentifierExtension.create(publicKey),
      ...(names.length === 0 ? [] : [new SubjectAlternativeNameExtension([...names])]),
    ],
  });
  return { certificatePem: `${certificate.toString('pem')}\n${ca.shownPem}`, notAfterMs };
}

/** As values, not as text: a comma or an equals sign in a name stays a character. */
function nameOf(subject: Subject): JsonName {
  return [
    ...subject.organizations.map((organization) => ({ O: [organization] })),
    { CN: [subject.commonName] },
  ];
}
