/**
 * The cluster's own certificate authority: an ECDSA P-256 key and a certificate it signed itself.
 *
 *     <directory>/ca.key     PKCS #8, 0600
 *     <directory>/ca.crt     0644
 *
 * The key is the identity: join tokens pin it, so the certificate may be made anew from it.
 */
import 'reflect-metadata';
import type { webcrypto } from 'node:crypto';
import { createPrivateKey, createPublicKey, X509Certificate as NodeCertificate } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  BasicConstraintsExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { spkiFingerprint } from '#client/join-token.ts';
import { writeFileAtomic } from '#lib/atomic-file.ts';
import type { Clock } from '#lib/clock.ts';
import { systemClock } from '#lib/clock.ts';
import { explainError, UserError } from '#lib/errors.ts';
import { CLOCK_SKEW_MS, newSerialNumber, SIGNATURE } from './certificate.ts';

const RESTORE_HINT =
  'Put back "ca.key" and "ca.crt" from a copy. Without one, remove both: every node must then join again.';
const CA_VALIDITY_MS = 10 * 365 * 24 * 3600 * 1000;

export interface Ca {
  readonly certificatePem: string;
  readonly certificate: X509Certificate;
  /** Signs only; cannot be exported. */
  readonly privateKey: CryptoKey;
  /** The pin of join tokens: `sha256:` and the hash of the CA's SubjectPublicKeyInfo. */
  readonly fingerprint: string;
}

export interface CaOptions {
  /** Made, with mode 0700, if it is missing. */
  readonly directory: string;
  /** Common name of a new CA. */
  readonly commonName?: string;
  readonly clock?: Clock;
}

/**
 * Loads the CA of a directory, or makes one at the first start. A crash at any point leaves a directory from which the
 * next start goes on. Only one process at a time may use the directory.
 * @throws UserError if the files are not readable, do not belong together, or the certificate has run out
 */
export async function openCa(options: CaOptions): Promise<Ca> {
  const { directory } = options;
  const clock = options.clock ?? systemClock;
  const keyPath = join(directory, 'ca.key');
  const certificatePath = join(directory, 'ca.crt');
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    if (!existsSync(keyPath) && existsSync(certificatePath))
      throw new UserError(`the key "${keyPath}" is missing, its certificate is there`);
    if (!existsSync(keyPath)) writeFileAtomic(keyPath, await newKeyPem(), { mode: 0o600 });
    const keys = await importKeys(readFileSync(keyPath, 'utf8'));
    if (!existsSync(certificatePath)) {
      const certificate = await selfSign(keys, options.commonName ?? 'tulle-ca', clock.now());
      writeFileAtomic(certificatePath, `${certificate.toString('pem')}\n`, { mode: 0o644 });
    }
    return await checkedCa(readFileSync(certificatePath, 'utf8'), keys, clock.now());
  } catch (cause) {
    const hint = cause instanceof UserError ? cause.hint : undefined;
    throw new UserError(
      `Cannot open the certificate authority in "${directory}": ${explainError(cause)}`,
      { hint: hint ?? RESTORE_HINT, cause },
    );
  }
}

const EC = { name: 'ECDSA', namedCurve: 'P-256' };

async function newKeyPem(): Promise<string> {
  const { privateKey } = await crypto.subtle.generateKey(EC, true, ['sign', 'verify']);
  const der = Buffer.from(await crypto.subtle.exportKey('pkcs8', privateKey));
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  return key.export({ format: 'pem', type: 'pkcs8' }).toString();
}

async function importKeys(keyPem: string): Promise<webcrypto.CryptoKeyPair> {
  const key = createPrivateKey(keyPem);
  const pkcs8 = key.export({ format: 'der', type: 'pkcs8' });
  const spki = createPublicKey(key).export({ format: 'der', type: 'spki' });
  return {
    privateKey: await crypto.subtle.importKey('pkcs8', pkcs8, EC, false, ['sign']),
    publicKey: await crypto.subtle.importKey('spki', spki, EC, true, ['verify']),
  };
}

async function selfSign(
  keys: webcrypto.CryptoKeyPair,
  commonName: string,
  nowMs: number,
): Promise<X509Certificate> {
  return X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerialNumber(),
    name: [{ CN: [commonName] }],
    notBefore: new Date(nowMs - CLOCK_SKEW_MS),
    notAfter: new Date(nowMs + CA_VALIDITY_MS),
    keys,
    signingAlgorithm: SIGNATURE,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
}

async function checkedCa(
  certificatePem: string,
  keys: webcrypto.CryptoKeyPair,
  nowMs: number,
): Promise<Ca> {
  const certificate = new X509Certificate(certificatePem);
  const spki = Buffer.from(await crypto.subtle.exportKey('spki', keys.publicKey));
  if (!spki.equals(Buffer.from(certificate.publicKey.rawData)))
    throw new UserError('"ca.crt" is not the certificate of "ca.key"');
  if (nowMs > certificate.notAfter.getTime())
    throw new UserError(`"ca.crt" has run out on ${certificate.notAfter.toISOString()}`, {
      hint: 'Remove "ca.crt", not "ca.key": a new one is made of the same key. Every node must then join again.',
    });
  const fingerprint = spkiFingerprint(new NodeCertificate(certificatePem));
  return { certificatePem, certificate, privateKey: keys.privateKey, fingerprint };
}
