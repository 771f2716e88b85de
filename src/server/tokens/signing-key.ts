/**
 * The key that signs tokens of service accounts: ECDSA P-256, in `<directory>/sa.key` (PKCS #8, 0600).
 * Each server has its own; what they sign is accepted by all (`token-keys.ts`).
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
} from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '#lib/atomic-file.ts';
import { explainError, UserError } from '#lib/errors.ts';

export interface SigningKey {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
  /** Names the key in tokens: hash of its SubjectPublicKeyInfo. */
  readonly id: string;
}

/**
 * Loads the key of a directory, or makes one at the first start.
 * @throws UserError if the file cannot be read or is no such key
 */
export function openSigningKey({ directory }: { readonly directory: string }): SigningKey {
  const path = join(directory, 'sa.key');
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    if (!existsSync(path)) {
      const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
      const pem = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString();
      writeFileAtomic(path, pem, { mode: 0o600 });
    }
    return signingKeyOf(createPrivateKey(readFileSync(path, 'utf8')));
  } catch (cause) {
    throw new UserError(
      `Cannot open the key of service account tokens "${path}": ${explainError(cause)}`,
      {
        hint: 'Put it back from a copy, or remove it: a new one is made. What the old one signed holds until its end.',
        cause,
      },
    );
  }
}

/** A key that lives as long as the process, for tests and tries. */
export function createSigningKey(): SigningKey {
  return signingKeyOf(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey);
}

function signingKeyOf(privateKey: KeyObject): SigningKey {
  const curve = privateKey.asymmetricKeyDetails?.namedCurve;
  if (privateKey.asymmetricKeyType !== 'ec' || curve !== 'prime256v1')
    throw new Error(
      `it is no key of ECDSA on P-256 but "${curve ?? privateKey.asymmetricKeyType}"`,
    );
  const publicKey = createPublicKey(privateKey);
  const spki = publicKey.export({ format: 'der', type: 'spki' });
  return { privateKey, publicKey, id: createHash('sha256').update(spki).digest('base64url') };
}
