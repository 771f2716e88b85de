/**
 * Many changes of one kind in few system calls: messages go out in chunks, each chunk one `send`, and the
 * acknowledgements are read together. 5,000 routes cost some tens of milliseconds this way.
 */
import { KernelError } from '#lib/errors.ts';
import { NLM_F_ACK, NLM_F_REQUEST } from '#wire/netlink/constants.ts';
import type { NetlinkWriter } from '#wire/netlink/writer.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';

/**
 * Messages in one `send`. The kernel queues one acknowledgement for each before we can read any; one that says an error
 * in words takes up to 2 KiB of {@link RECEIVE_QUEUE_BYTES}. 512 messages of about 100 bytes also stay below the
 * default send buffer of 208 KiB.
 */
const MAX_MESSAGES_PER_SEND = 512;
/** Queue towards us of a socket that sends batches: room for every acknowledgement of one chunk, twice. */
export const RECEIVE_QUEUE_BYTES = 2 * 1024 * 1024;

export interface BatchKind<T> {
  /** `RTM_…` */
  readonly type: number;
  /** `NLM_F_…` beside REQUEST and ACK. */
  flags(item: T): number;
  encode(writer: NetlinkWriter, item: T): void;
  /** What is being done to the item, for the error: `delete route "10.0.0.0/24"`. */
  op(item: T): string;
  /** These answers count as success: "is gone already". */
  readonly ignore?: readonly number[];
}

/**
 * Applies every item, going on past failures.
 * @throws KernelError for the first item that failed, with its index in `items`, and how many others failed
 */
export function applyBatch<T>(
  socket: NetlinkSocket,
  items: readonly T[],
  kind: BatchKind<T>,
): void {
  const failures: BatchFailure[] = [];
  for (let from = 0; from < items.length; from += MAX_MESSAGES_PER_SEND) {
    const chunk = items.slice(from, from + MAX_MESSAGES_PER_SEND);
    const op = `${kind.op(chunk[0] as T)}${chunk.length > 1 ? ` and ${chunk.length - 1} more` : ''}`;
    const results = socket.pipeline(op, (writer) => {
      for (const item of chunk) {
        const start = writer.beginMessage(kind.type, NLM_F_REQUEST | NLM_F_ACK | kind.flags(item));
        kind.encode(writer, item);
        writer.endMessage(start);
      }
    });
    results.forEach(({ errno, extack }, i) => {
      if (errno !== 0 && !kind.ignore?.includes(errno))
        failures.push({ index: from + i, errno, extack });
    });
  }
  throwFailures(failures, items, kind.op);
}

export interface BatchFailure {
  /** Place of the item in the list. */
  readonly index: number;
  readonly errno: number;
  readonly extack?: string | undefined;
}

/** @throws KernelError for the first of the failures, if there is one */
export function throwFailures<T>(
  failures: readonly BatchFailure[],
  items: readonly T[],
  op: (item: T) => string,
): void {
  const first = failures[0];
  if (first === undefined) return;
  const others = failures.length - 1;
  const more = others > 0 ? ` (and ${others} of the ${items.length - 1} others)` : '';
  throw new KernelError(`${op(items[first.index] as T)}${more}`, first.errno, {
    extack: first.extack,
    index: first.index,
  });
}
