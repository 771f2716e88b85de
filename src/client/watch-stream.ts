/**
 * The body of a watch: JSON objects, each on a line.
 *
 *   {"type":"ADDED","object":{…}}\n {"type":"BOOKMARK","object":{…}}\n \n …
 *
 * Empty lines are allowed: some servers write them to keep a silent stream alive.
 */
import type { KubeObject, WatchEvent } from '#api/meta.ts';
import { DecodeError } from '#lib/errors.ts';

/** Servers limit an object to 1.5 to 3 MiB; a line this long is no event, and must not fill the memory. */
export const MAX_WATCH_LINE_BYTES = 8 * 1024 * 1024;

const NEWLINE = 0x0a;
const EVENT_TYPES: readonly unknown[] = ['ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK', 'ERROR'];

/** Cuts a stream of chunks into lines, wherever the chunks begin and end. */
export class LineSplitter {
  readonly #maxLineBytes: number;
  #parts: Uint8Array[] = [];
  #partsBytes = 0;

  constructor(maxLineBytes: number = MAX_WATCH_LINE_BYTES) {
    this.#maxLineBytes = maxLineBytes;
  }

  /** @returns the lines that end in this chunk, without their newlines @throws DecodeError for a line that is too long */
  push(chunk: Uint8Array): Uint8Array[] {
    const lines: Uint8Array[] = [];
    let start = 0;
    for (;;) {
      const end = chunk.indexOf(NEWLINE, start);
      this.#keep(chunk.subarray(start, end < 0 ? chunk.length : end));
      if (end < 0) return lines;
      lines.push(this.rest());
      start = end + 1;
    }
  }

  /** Takes what came after the last newline; empty if nothing did. */
  rest(): Uint8Array {
    const [only] = this.#parts;
    const line = this.#parts.length === 1 && only !== undefined ? only : Buffer.concat(this.#parts);
    this.#parts = [];
    this.#partsBytes = 0;
    return line;
  }

  #keep(part: Uint8Array): void {
    if (part.length === 0) return;
    this.#parts.push(part);
    this.#partsBytes += part.length;
    if (this.#partsBytes > this.#maxLineBytes)
      throw new DecodeError(`a line is longer than ${this.#maxLineBytes} bytes`, {
        protocol: 'watch stream',
        field: 'event',
      });
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

/**
 * Reads one line.
 * @returns the event, or `undefined` for an empty line
 * @throws DecodeError for what is no watch event
 */
export function decodeWatchEvent<T extends KubeObject>(
  line: Uint8Array,
): WatchEvent<T> | undefined {
  let event: unknown;
  try {
    const text = utf8.decode(line).trim();
    if (text === '') return undefined;
    event = JSON.parse(text);
  } catch (cause) {
    throw new DecodeError('the line is no JSON', where('event', cause));
  }
  const { type, object } = (event ?? {}) as { type?: unknown; object?: unknown };
  if (!EVENT_TYPES.includes(type))
    throw new DecodeError(`${JSON.stringify(type)} is no type of event`, where('type'));
  const { metadata } = (object ?? {}) as { metadata?: unknown };
  const hasMetadata = typeof metadata === 'object' && metadata !== null;
  if (type === 'ERROR' ? typeof object !== 'object' || object === null : !hasMetadata)
    throw new DecodeError(`a ${type} event needs an object`, where('object'));
  return event as WatchEvent<T>;
}

function where(field: string, cause?: unknown) {
  return { protocol: 'watch stream', field, cause };
}
