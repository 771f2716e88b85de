/**
 * A copy of a store's newest state in a text file. Pure.
 *
 *     {"tulle":"backup","version":1,"revision":4711}                     what it is, and the revision it is of
 *     {"key":"/a","value":"<base64>","create":3,"modified":17}           one line an entry, in order
 *     {"entries":1,"sha256":"<of all lines before>"}                     that it is whole
 */
import { createHash } from 'node:crypto';
import { DecodeError } from '#lib/errors.ts';
import type { StoreEntry } from './port.ts';

const VERSION = 1;

export interface BackupPage {
  readonly revision: number;
  readonly entries: readonly BackupEntry[];
  readonly more: boolean;
}

/** An entry as it stands in a file and in an answer of the API. */
export interface BackupEntry {
  readonly key: string;
  /** Base64. */
  readonly value: string;
  readonly create: number;
  readonly modified: number;
}

export function toBackupEntry(entry: StoreEntry): BackupEntry {
  return {
    key: entry.key,
    value: Buffer.from(entry.value).toString('base64'),
    create: entry.createRevision,
    modified: entry.modRevision,
  };
}

/** The lines of a file, each with its end. */
export class BackupWriter {
  readonly #hash = createHash('sha256');
  #entries = 0;

  head(revision: number): string {
    return this.#line({ tulle: 'backup', version: VERSION, revision });
  }

  entry({ key, value, create, modified }: BackupEntry): string {
    this.#entries++;
    return this.#line({ key, value, create, modified });
  }

  end(): string {
    return `${JSON.stringify({ entries: this.#entries, sha256: this.#hash.digest('hex') })}\n`;
  }

  #line(content: object): string {
    const line = `${JSON.stringify(content)}\n`;
    this.#hash.update(line);
    return line;
  }
}

export interface Backup {
  readonly revision: number;
  readonly entries: readonly StoreEntry[];
}

/**
 * Reads a file's lines.
 * @throws DecodeError if it is no backup, of a newer version, or not whole
 */
export async function readBackup(lines: AsyncIterable<string> | Iterable<string>): Promise<Backup> {
  const hash = createHash('sha256');
  const entries: StoreEntry[] = [];
  let revision: number | undefined;
  let number = 0;
  for await (const line of lines) {
    number++;
    const content = parse(line, number);
    if (revision === undefined) revision = decodeHead(content);
    else if (typeof content.sha256 === 'string') {
      if (content.entries !== entries.length || content.sha256 !== hash.digest('hex'))
        throw problem('end', 'the file was changed after it was written');
      return { revision, entries };
    } else entries.push(decodeEntry(content, number));
    hash.update(`${line}\n`);
  }
  throw problem('end', `the file ends after ${number} lines, before its last one`);
}

function parse(line: string, number: number): Record<string, unknown> {
  try {
    const content: unknown = JSON.parse(line);
    if (content !== null && typeof content === 'object') return content as Record<string, unknown>;
  } catch (cause) {
    throw problem(`line ${number}`, 'it is no JSON', cause);
  }
  throw problem(`line ${number}`, 'it is no object');
}

function decodeHead({ tulle, version, revision }: Record<string, unknown>): number {
  if (tulle !== 'backup') throw problem('line 1', 'the file is no backup of Tulle');
  if (version !== VERSION)
    throw problem('version', `it is ${JSON.stringify(version)}, this program knows ${VERSION}`);
  return revisionOf(revision, 'revision');
}

function decodeEntry(content: Record<string, unknown>, number: number): StoreEntry {
  const { key, value, create, modified } = content;
  if (typeof key !== 'string' || key === '' || typeof value !== 'string')
    throw problem(`line ${number}`, 'it is no entry');
  return {
    key,
    value: new Uint8Array(Buffer.from(value, 'base64')),
    createRevision: revisionOf(create, `line ${number}`),
    modRevision: revisionOf(modified, `line ${number}`),
  };
}

function revisionOf(value: unknown, field: string): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw problem(field, `${JSON.stringify(value)} is no revision`);
}

function problem(field: string, message: string, cause?: unknown): DecodeError {
  return new DecodeError(message, { protocol: 'backup', field, cause });
}
