/**
 * What a process did to the files of a directory, read from strace's output, and what a disk would hold of it after a
 * power cut. Pure.
 *
 * Taken for granted: a file's name is on disk as soon as it is made (the store syncs its directory, SQLite that of its
 * log), and a sector of 512 bytes is written whole or not at all.
 */

export type FileEvent =
  | { readonly type: 'write'; readonly file: string; readonly at: number; readonly data: Buffer }
  | { readonly type: 'truncate'; readonly file: string; readonly length: number }
  | { readonly type: 'sync'; readonly file: string }
  | { readonly type: 'remove'; readonly file: string }
  /** A line on standard output. */
  | { readonly type: 'told'; readonly text: string };

const SECTOR_BYTES = 512;

/**
 * Reads `strace -f -xx -s …` of openat, close, write, pwrite64, fsync, fdatasync, ftruncate and unlink.
 * A call counts when it has returned; one that never did is left out.
 * @param directory files elsewhere are left out, too
 */
export function parseTrace(trace: string, directory: string): FileEvent[] {
  const events: FileEvent[] = [];
  const open = new Map<number, string>();
  const unfinished = new Map<string, string>();
  for (const raw of trace.split('\n')) {
    const [, thread = '', rest = ''] = /^(\d+) +(.*)$/.exec(raw) ?? [];
    if (rest.endsWith('<unfinished ...>')) {
      unfinished.set(thread, rest.slice(0, -'<unfinished ...>'.length).trimEnd());
      continue;
    }
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(rest)?.[1];
    const line = resumed === undefined ? rest : (unfinished.get(thread) ?? '') + resumed;
    const [, call = '', args = '', result = ''] = /^(\w+)\((.*)\) += (-?\d+)/.exec(line) ?? [];
    if (call === '' || Number(result) < 0) continue;
    const event = eventOf(call, args, { result: Number(result), directory, open });
    if (event !== undefined) events.push(event);
  }
  return events;
}

function eventOf(
  call: string,
  args: string,
  context: { result: number; directory: string; open: Map<number, string> },
): FileEvent | undefined {
  const { result, directory, open } = context;
  const descriptor = Number.parseInt(args, 10);
  const file = open.get(descriptor);
  const inside = (path: string) =>
    path.startsWith(`${directory}/`) ? path.slice(directory.length + 1) : undefined;
  switch (call) {
    case 'openat': {
      const name = inside(bytesOf(args).toString());
      if (name !== undefined) open.set(result, name);
      else open.delete(result);
      return undefined;
    }
    case 'close':
      open.delete(descriptor);
      return undefined;
    case 'write':
      return descriptor === 1 ? { type: 'told', text: bytesOf(args).toString() } : undefined;
    case 'pwrite64': {
      if (file === undefined) return undefined;
      const data = bytesOf(args).subarray(0, result);
      if (data.length !== result) throw new RangeError('strace has cut the data of a write');
      return { type: 'write', file, at: lastNumber(args), data };
    }
    case 'fsync':
    case 'fdatasync':
      return file === undefined ? undefined : { type: 'sync', file };
    case 'ftruncate':
      return file === undefined ? undefined : { type: 'truncate', file, length: lastNumber(args) };
    case 'unlink': {
      const name = inside(bytesOf(args).toString());
      return name === undefined ? undefined : { type: 'remove', file: name };
    }
    default:
      return undefined;
  }
}

function lastNumber(args: string): number {
  const digits = /(\d+)$/.exec(args)?.[1];
  if (digits === undefined)
    throw new RangeError(`strace wrote a call that is not understood: ${args.slice(-80)}`);
  return Number(digits);
}

/** The first string of the arguments, all of it as `\x…`. */
function bytesOf(args: string): Buffer {
  const text = /"((?:\\x[0-9a-f]{2})*)"/.exec(args)?.[1] ?? '';
  return Buffer.from(text.replaceAll('\\x', ''), 'hex');
}

type Change = Extract<FileEvent, { type: 'write' | 'truncate' }>;

/** A disk with a cache that forgets when the power goes. */
export class LossyDisk {
  readonly #files = new Map<string, { stable: Buffer; pending: Change[] }>();

  take(event: FileEvent): void {
    if (event.type === 'told') return;
    if (event.type === 'remove') {
      this.#files.delete(event.file);
      return;
    }
    const file = this.#of(event.file);
    if (event.type !== 'sync') file.pending.push(event);
    else {
      for (const change of file.pending) file.stable = applied(file.stable, change);
      file.pending = [];
    }
  }

  /**
   * What is there after a power cut.
   * @param keeps asked for each sector that was written and not synced
   */
  afterPowerCut(keeps: () => boolean): Map<string, Buffer> {
    const left = new Map<string, Buffer>();
    for (const [name, { stable, pending }] of this.#files) {
      let content: Buffer = Buffer.from(stable);
      for (const change of pending.flatMap(sectorsOf))
        if (keeps()) content = applied(content, change);
      left.set(name, content);
    }
    return left;
  }

  #of(name: string): { stable: Buffer; pending: Change[] } {
    const known = this.#files.get(name);
    if (known !== undefined) return known;
    const made: { stable: Buffer; pending: Change[] } = { stable: Buffer.alloc(0), pending: [] };
    this.#files.set(name, made);
    return made;
  }
}

function applied(content: Buffer, change: Change): Buffer {
  const end = change.type === 'write' ? change.at + change.data.length : change.length;
  let next = content;
  if (end > content.length) next = Buffer.concat([content, Buffer.alloc(end - content.length)]);
  if (change.type === 'truncate') return next.subarray(0, change.length);
  change.data.copy(next, change.at);
  return next;
}

/** A write as the sectors it touches. */
function sectorsOf(change: Change): Change[] {
  if (change.type === 'truncate') return [change];
  const sectors: Change[] = [];
  for (let from = 0; from < change.data.length; ) {
    const at = change.at + from;
    const length = Math.min(SECTOR_BYTES - (at % SECTOR_BYTES), change.data.length - from);
    sectors.push({ ...change, at, data: change.data.subarray(from, from + length) });
    from += length;
  }
  return sectors;
}
