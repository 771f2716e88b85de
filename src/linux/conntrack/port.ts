/**
 * The connection tracking table of one network namespace.
 *
 * A translation is decided once, by the first packet, and kept in its entry. So when an endpoint of a UDP service goes,
 * entries that lead there must be deleted, or a client that keeps its source port sends into the void for as long as
 * it keeps sending.
 */
import type { Family, Ip } from '#lib/ip.ts';
import type { ConntrackEntry } from '#wire/conntrack/codec.ts';

/** An entry matches if it matches everything that is given. */
export interface ConntrackFilter {
  readonly family?: Family;
  /** IP protocol number. */
  readonly protocol?: number;
  /** Where the client sent to: the address and port of a service. */
  readonly originalDestination?: Ip;
  readonly originalDestinationPort?: number;
  readonly originalSource?: Ip;
  /** Where it really went: the endpoint. */
  readonly replySource?: Ip;
  readonly replySourcePort?: number;
}

/** What names an entry; an entry of a list does. With `id` a later entry of the same tuple is left alone. */
export type ConntrackName = Pick<ConntrackEntry, 'original'> &
  Partial<Pick<ConntrackEntry, 'id' | 'zone'>>;

export interface Conntrack extends Disposable {
  /**
   * The entries that match. The kernel walks the whole table; call it once for many questions.
   * @throws KernelError
   */
  list(filter?: ConntrackFilter): ConntrackEntry[];
  /**
   * All entries. The walk takes milliseconds even where there are few, because it visits every bucket of the hash
   * table; here it is made on a thread of the pool, and the event loop goes on.
   * @throws KernelError
   */
  listOnThread(): Promise<ConntrackEntry[]>;
  /**
   * Deletes entries. One that is gone already is no error.
   * @returns how many were deleted
   * @throws KernelError
   */
  delete(entries: Iterable<ConntrackName>): number;
  /**
   * Changes the bits `mask` of the entries' marks to those of `value`. An entry that is gone is no error.
   * @returns how many were changed
   * @throws KernelError
   */
  mark(
    entries: Iterable<ConntrackName>,
    change: { readonly mask: number; readonly value: number },
  ): number;
  /** Deletes the entries that match: `delete(list(filter))`. An empty filter empties the table. */
  flush(filter: ConntrackFilter): number;
}

/** True if the entry matches everything that the filter gives. */
export function matchesFilter(entry: ConntrackEntry, filter: ConntrackFilter): boolean {
  const { original, reply } = entry;
  return (
    is(filter.family, entry.family) &&
    is(filter.protocol, original.protocol) &&
    is(filter.originalSource, original.source) &&
    is(filter.originalDestination, original.destination) &&
    is(filter.originalDestinationPort, original.destinationPort) &&
    is(filter.replySource, reply.source) &&
    is(filter.replySourcePort, reply.sourcePort)
  );
}

function is<T>(wanted: T | undefined, found: T | undefined): boolean {
  return wanted === undefined || wanted === found;
}
