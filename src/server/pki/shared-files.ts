/**
 * Secret files that all servers of a cluster must have the same of (the key and certificate of the CA), kept in the store.
 *
 *     /tulle/pki/shared    {"version", "salt", "nonce", "sealed"}    AES-256-GCM, key by scrypt from the cluster's secret
 *
 * The first server makes the files; the others find them. Who reads the store, or a copy of it, learns nothing without
 * the secret, which is on the servers only.
 */
import { createCipheriv, createDecipheriv, randomBytes, scryptSync } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomic } from '#lib/atomic-file.ts';
import { UserError } from '#lib/errors.ts';
import type { Store, StoreEntry } from '#store/port.ts';

const SHARED_FILES_KEY = '/tulle/pki/shared';
const VERSION = 1;
const CIPHER = 'aes-256-gcm';
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const SALT_BYTES = 16;
/** 64 MiB and about a tenth of a second a guess; a secret of random letters would be safe with much less. */
const SCRYPT = { N: 2 ** 16, r: 8, p: 1, maxmem: 128 * 1024 * 1024 };
const MIN_SECRET_LENGTH = 16;
/** Servers that start at once race; each lost round means that another one has won. */
const MAX_ROUNDS = 20;

export interface SharedFilesOptions {
  readonly store: Store;
  /** Where this server has the files. */
  readonly directory: string;
  /** Names of the files in it, with their modes. */
  readonly files: readonly { readonly name: string; readonly mode: number }[];
  /** What all servers of the cluster were given. */
  readonly secret: string;
  /** Names of files of which this directory's own become the cluster's, whatever the others have. */
  readonly replaces?: readonly string[];
  /** Makes the files that are missing in the directory. */
  readonly make: () => Promise<unknown>;
}

/**
 * Makes the directory's files those of the cluster, and at the first start the cluster's those of the directory.
 * @throws UserError if the secret is not the cluster's, or a file here is another one than the cluster's
 */
export async function shareFiles(options: SharedFilesOptions): Promise<void> {
  const { store, directory, files, secret, make, replaces = [] } = options;
  if (secret.length < MIN_SECRET_LENGTH)
    throw new UserError(`The cluster's secret has ${secret.length} characters`, {
      hint: `Give one of at least ${MIN_SECRET_LENGTH}, for example of "openssl rand -hex 16", the same to every server.`,
    });
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const path = (name: string) => join(directory, name);
  /** Files that were here before us: those must not be replaced without being asked. */
  const own = new Set(files.filter(({ name }) => existsSync(path(name))).map(({ name }) => name));
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const entry = await store.get(SHARED_FILES_KEY);
    const shared = { ...(entry === undefined ? {} : open(entry, secret)) };
    for (const name of replaces) if (own.has(name)) delete shared[name];
    for (const { name, mode } of files) {
      const content = shared[name];
      if (content === undefined) continue;
      if (own.has(name) && readFileSync(path(name), 'utf8') !== content)
        throw new UserError(`"${path(name)}" is not the file that the cluster's servers share`, {
          hint: 'If the authority of the cluster was replaced, start this server too with --ca-cert, --ca-key and --replace-ca. Else it was of another cluster: give it an empty data directory, or the store of its own cluster.',
        });
      if (!own.has(name)) writeFileAtomic(path(name), content, { mode });
    }
    if (files.every(({ name }) => shared[name] !== undefined)) return;
    await make();
    const all = { ...shared };
    for (const { name } of files) all[name] = readFileSync(path(name), 'utf8');
    const compare = { key: SHARED_FILES_KEY, modRevision: entry?.modRevision ?? 0 };
    const value = seal(all, secret);
    if (
      (await store.transact([compare], [{ type: 'put', key: SHARED_FILES_KEY, value }])).succeeded
    )
      return;
  }
  throw new UserError('The files that the servers share cannot be agreed upon: they keep changing');
}

function seal(files: Readonly<Record<string, string>>, secret: string): Uint8Array {
  const salt = randomBytes(SALT_BYTES);
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, keyOf(secret, salt), nonce);
  const sealed = Buffer.concat([
    cipher.update(JSON.stringify(files), 'utf8'),
    cipher.final(),
    cipher.getAuthTag(),
  ]);
  const text = (bytes: Buffer) => bytes.toString('base64');
  return new TextEncoder().encode(
    JSON.stringify({
      version: VERSION,
      salt: text(salt),
      nonce: text(nonce),
      sealed: text(sealed),
    }),
  );
}

function open(entry: StoreEntry, secret: string): Record<string, string> {
  const stored = JSON.parse(Buffer.from(entry.value).toString('utf8')) as Record<string, unknown>;
  const { version, salt, nonce, sealed } = stored;
  if (version !== VERSION)
    throw new UserError(`The servers' shared files have format ${JSON.stringify(version)}`, {
      hint: `This program knows format ${VERSION}: run the version of Tulle that the other servers run.`,
    });
  const bytes = Buffer.from(String(sealed), 'base64');
  const key = keyOf(secret, Buffer.from(String(salt), 'base64'));
  const decipher = createDecipheriv(CIPHER, key, Buffer.from(String(nonce), 'base64'), {
    authTagLength: TAG_BYTES,
  });
  decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
  try {
    const plain = Buffer.concat([decipher.update(bytes.subarray(0, -TAG_BYTES)), decipher.final()]);
    return JSON.parse(plain.toString('utf8')) as Record<string, string>;
  } catch (cause) {
    throw new UserError("The cluster's secret does not open what the servers share", {
      hint: 'Give the same secret (--cluster-secret-file) to every server of the cluster.',
      cause,
    });
  }
}

function keyOf(secret: string, salt: Buffer): Buffer {
  return scryptSync(secret, salt, KEY_BYTES, SCRYPT);
}
