/**
 * The durable list of this node's attachments: one small file each.
 *
 * A record is on disk before the first thing is done that it speaks of, and is removed after the last is undone, so
 * that whatever was begun when the process died is found at the next start.
 */
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { explainError, UserError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Attachment } from '../attachment.ts';

/**
 * - `adding`: may have an address and half an interface; is undone at start;
 * - `attached`: complete;
 * - `deleting`: may still have them; is undone at start, and again until it succeeds.
 */
export type RecordPhase = 'adding' | 'attached' | 'deleting';

export interface AttachmentRecord {
  readonly version: 1;
  readonly phase: RecordPhase;
  readonly attachment: Attachment;
}

/** The kernel writes so much to a file's page without a place to be killed in between. */
const MAX_WHOLE_BYTES = 4096;
const SPACE = 0x20;

export const DEFAULT_RECORDS_DIR = '/var/lib/tulle/cni';

export class AttachmentRecords {
  readonly #directory: string;
  readonly #records = new Map<string, AttachmentRecord>();
  /** Length of each one's file. */
  readonly #bytes = new Map<string, number>();

  /**
   * Reads all records.
   * @param directory is made if it is missing, readable by its owner only
   * @throws UserError if it cannot be read
   */
  constructor(directory: string, log: Logger) {
    this.#directory = directory;
    try {
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      for (const name of readdirSync(directory)) if (name.endsWith('.json')) this.#load(name, log);
    } catch (cause) {
      throw new UserError(`Cannot read the attachments in "${directory}": ${explainError(cause)}`, {
        hint: 'The agent needs to own this folder; run it as root.',
        cause,
      });
    }
  }

  get(handle: string): AttachmentRecord | undefined {
    return this.#records.get(handle);
  }

  values(): readonly AttachmentRecord[] {
    return [...this.#records.values()];
  }

  /**
   * Resolves when a process that comes after this one would read it.
   *
   * It is not forced to the disk: what makes a machine forget its page cache takes links and namespaces with it, and the
   * addresses of attachments without a record are found by their handles. Two calls of fsync cost more than all the rest
   * of an ADD. Nor does a new file take the place of the old one in the ordinary case: file systems (ext4) send that
   * to the disk at once.
   */
  async put(record: AttachmentRecord): Promise<void> {
    const { handle } = record.attachment;
    const text = Buffer.from(JSON.stringify(record));
    const had = this.#bytes.get(handle) ?? 0;
    const bytes = Math.max(text.length, had);
    if (bytes <= MAX_WHOLE_BYTES) {
      // What was longer ends in spaces, which are nothing to JSON.
      const padded = Buffer.alloc(bytes, SPACE);
      text.copy(padded);
      writeWhole(this.#path(handle), padded, had === 0);
      this.#bytes.set(handle, bytes);
    } else {
      const path = this.#path(handle);
      writeFileSync(`${path}.tmp`, text, { mode: 0o600 });
      renameSync(`${path}.tmp`, path);
      this.#bytes.set(handle, text.length);
    }
    this.#records.set(handle, record);
  }

  /** Removing what is gone succeeds. */
  async delete(handle: string): Promise<void> {
    if (!this.#records.has(handle)) return;
    // If the removal is lost in a crash, what comes back is undone once more, which does nothing.
    try {
      unlinkSync(this.#path(handle));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    this.#records.delete(handle);
    this.#bytes.delete(handle);
  }

  #load(name: string, log: Logger): void {
    const path = join(this.#directory, name);
    try {
      const text = readFileSync(path);
      // Whoever made the file died before it wrote and did nothing before that, or the machine died, and the rest with it.
      if (text.length === 0) {
        unlinkSync(path);
        return;
      }
      const record = JSON.parse(text.toString()) as AttachmentRecord;
      if (record.version !== 1 || typeof record.attachment?.handle !== 'string')
        throw new Error('it is no record of version 1');
      this.#records.set(record.attachment.handle, record);
      this.#bytes.set(record.attachment.handle, text.length);
    } catch (error) {
      // Kept for a person to look at. Its interface and address are found by the garbage collection.
      log.error({ path, reason: explainError(error) }, 'set aside an unreadable attachment record');
      renameSync(path, `${path}.unreadable`);
    }
  }

  #path(handle: string): string {
    return join(this.#directory, `${handle}.json`);
  }
}

/** All of it in one call, over what was there. */
function writeWhole(path: string, bytes: Uint8Array, isNew: boolean): void {
  const { O_WRONLY, O_CREAT, O_TRUNC } = constants;
  const fd = openSync(path, O_WRONLY | O_CREAT | (isNew ? O_TRUNC : 0), 0o600);
  try {
    const written = writeSync(fd, bytes, 0, bytes.length, 0);
    if (written !== bytes.length)
      throw new Error(`Cannot write "${path}": ${written} of ${bytes.length} bytes were taken`);
  } finally {
    closeSync(fd);
  }
}
