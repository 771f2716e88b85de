/**
 * The cluster's certificate authority: an ECDSA P-256 key and a certificate it signed itself, or what it was given
 * (`given-ca.ts`), which may be of another kind and below other authorities.
 *
 *     <directory>/ca.key     PKCS #8, 0600
 *     <directory>/ca.crt     0644; with the certificates above it, up to one that signed itself
 *
 * The key is the identity: join tokens pin that of the uppermost, so its certificate may be made anew from it.
 */
import 'reflect-metadata';
import type { webcrypto } from 'node:crypto';
import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto';
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
import { type CaChain, pemOf, readCaChain } from './ca-chain.ts';
import { CLOCK_SKEW_MS, newSerialNumber, SIGNATURE } from './certificate.ts';

const RESTORE_HINT =
  'Put back "ca.key" and "ca.crt" from a copy. Without one, remove both: every node must then join again.';
const USELESS_HINT =
  'A CA that Tulle made itself: remove "ca.crt", not "ca.key", and a new one is made of the same key; every node must then join again. One that was given: give one that serves with --ca-cert, --ca-key and --replace-ca.';
const MIN_RSA_BITS = 2048;
const CA_VALIDITY_MS = 10 * 365 * 24 * 3600 * 1000;

export interface Ca {
  /** What clients trust. */
  readonly certificatePem: string;
  /** Of the key that signs: the same, unless other authorities are above it. */
  readonly issuingPem: string;
  /** Stands behind every certificate that it signs, so that those who trust the uppermost find the way up. Often empty. */
  readonly shownPem: string;
  readonly certificate: X509Certificate;
  /** Signs only; cannot be exported. */
  readonly privateKey: CryptoKey;
  readonly signature: webcrypto.AlgorithmIdentifier & { readonly hash?: string };
  /** The pin of join tokens: `sha256:` and the hash of the SubjectPublicKeyInfo of what clients trust. */
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
    const key = await importCaKey(readFileSync(keyPath, 'utf8'));
    if (!existsSync(certificatePath)) {
      const certificate = await selfSign(key, options.commonName ?? 'tulle-ca', clock.now());
      writeFileAtomic(certificatePath, `${certificate.toString('pem')}\n`, { mode: 0o644 });
    }
    return checkedCa(readFileSync(certificatePath, 'utf8'), key, clock.now());
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

/** How keys of each kind are imported, and how they sign. */
const KEY_KINDS: Readonly<
  Record<
    string,
    {
      import: webcrypto.EcKeyImportParams | webcrypto.RsaHashedImportParams;
      signature: Ca['signature'];
    }
  >
> = {
  prime256v1: { import: EC, signature: SIGNATURE },
  secp384r1: {
    import: { name: 'ECDSA', namedCurve: 'P-384' },
    signature: { name: 'ECDSA', hash: 'SHA-384' },
  },
  secp521r1: {
    import: { name: 'ECDSA', namedCurve: 'P-521' },
    signature: { name: 'ECDSA', hash: 'SHA-512' },
  },
  rsa: {
    import: { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' },
    signature: { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' },
  },
};

interface CaKeys {
  readonly keys: webcrypto.CryptoKeyPair;
  readonly publicKey: KeyObject;
  readonly signature: Ca['signature'];
}

/** @throws UserError for a key that is none, is encrypted, or of a kind that is not supported */
export async function importCaKey(keyPem: string): Promise<CaKeys> {
  if (/ENCRYPTED/.test(keyPem))
    throw new UserError('the key is encrypted', {
      hint: 'Give it without a passphrase (openssl pkey -in FILE -out FILE), readable by this user only.',
    });
  const key = createPrivateKey(keyPem);
  const { asymmetricKeyType = '', asymmetricKeyDetails: details } = key;
  const kind = KEY_KINDS[details?.namedCurve ?? asymmetricKeyType];
  const isWeak = asymmetricKeyType === 'rsa' && (details?.modulusLength ?? 0) < MIN_RSA_BITS;
  if (kind === undefined || isWeak)
    throw new UserError(
      `the key is of ${details?.namedCurve ?? `${details?.modulusLength ?? ''} ${asymmetricKeyType}`.trim()}`,
      {
        hint: `Give one of ECDSA (P-256, P-384, P-521) or RSA with at least ${MIN_RSA_BITS} bits.`,
      },
    );
  const publicKey = createPublicKey(key);
  const pkcs8 = key.export({ format: 'der', type: 'pkcs8' });
  const spki = publicKey.export({ format: 'der', type: 'spki' });
  return {
    keys: {
      privateKey: await crypto.subtle.importKey('pkcs8', pkcs8, kind.import, false, ['sign']),
      publicKey: await crypto.subtle.importKey('spki', spki, kind.import, true, ['verify']),
    },
    publicKey,
    signature: kind.signature,
  };
}

async function selfSign(
  { keys, signature }: CaKeys,
  commonName: string,
  nowMs: number,
): Promise<X509Certificate> {
  return X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerialNumber(),
    name: [{ CN: [commonName] }],
    notBefore: new Date(nowMs - CLOCK_SKEW_MS),
    notAfter: new Date(nowMs + CA_VALIDITY_MS),
    keys,
    signingAlgorithm: signature,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
}

function checkedCa(
  certificatePem: string,
  { keys, publicKey, signature }: CaKeys,
  nowMs: number,
): Ca {
  const chain = checkedChain(certificatePem, publicKey, nowMs);
  return {
    certificatePem: pemOf(chain.root),
    issuingPem: pemOf(chain.issuing),
    shownPem: chain.shownPem,
    certificate: new X509Certificate(pemOf(chain.issuing)),
    privateKey: keys.privateKey,
    signature,
    fingerprint: spkiFingerprint(chain.root),
  };
}

function checkedChain(certificatePem: string, publicKey: KeyObject, nowMs: number): CaChain {
  try {
    return readCaChain(certificatePem, publicKey, nowMs);
  } catch (cause) {
    throw new UserError(`"ca.crt" does not serve with "ca.key": ${explainError(cause)}`, {
      hint: USELESS_HINT,
      ...(cause instanceof UserError ? {} : { cause }),
    });
  }
}
