/**
 * The durable list of this node's attachments: one small file each.
 *
 * A record is on disk before the first thing is done that it speaks of, and is removed after the last is undone, so
 * that whatever was begun when the process died is found at the next start.
 */
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeFileSync,
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

export const DEFAULT_RECORDS_DIR = '/var/lib/tulle/cni';

export class AttachmentRecords {
  readonly #directory: string;
  readonly #records = new Map<string, AttachmentRecord>();

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
   * of an ADD.
   */
  async put(record: AttachmentRecord): Promise<void> {
    const path = this.#path(record.attachment.handle);
    writeFileSync(`${path}.tmp`, JSON.stringify(record), { mode: 0o600 });
    renameSync(`${path}.tmp`, path);
    this.#records.set(record.attachment.handle, record);
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
  }

  #load(name: string, log: Logger): void {
    const path = join(this.#directory, name);
    try {
      const record = JSON.parse(readFileSync(path, 'utf8')) as AttachmentRecord;
      if (record.version !== 1 || typeof record.attachment?.handle !== 'string')
        throw new Error('it is no record of version 1');
      this.#records.set(record.attachment.handle, record);
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
