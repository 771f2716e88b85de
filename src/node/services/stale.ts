/**
 * Which conntrack entries mislead. A connection's endpoint is decided by its first packet and kept in its entry, so:
 *
 * - UDP: a client that keeps its port would send to a lost endpoint, or past a service that came after its first
 *   packet, for as long as it keeps sending. Its next packet must be decided anew.
 * - TCP and SCTP: a connection to a removed endpoint ends: what comes next belongs to no connection and is answered
 *   with a reset. One to an endpoint that is only not ready, or ending, lives on. One that was begun past the service
 *   and never answered is begun anew with its next packet, which comes within a second.
 * - While another program had our rules in pieces, packets may have been translated by half. What was begun then and not
 *   answered is begun anew.
 *
 * Pure. Nothing is said of entries that lead where they should, so a restart in which nothing changed deletes nothing.
 */
import type { Protocol } from '#api/core/v1/protocol.ts';
import type { Ip } from '#lib/ip.ts';
import { CONNTRACK_STATUS, type ConntrackEntry } from '#wire/conntrack/codec.ts';
import { frontendKey } from './plan.ts';
import { PROTOCOL_NUMBERS } from './program.ts';
import { targetKey } from './slots.ts';

/** Endpoints of a frontend, named by `targetKey`, whatever the policies say of new connections. */
export interface KnownTargets {
  /** Undefined: the service is gone, which ends no connection. */
  readonly present: ReadonlySet<string> | undefined;
  readonly serving: ReadonlySet<string>;
}

const PROTOCOL_NAMES = new Map(
  Object.entries(PROTOCOL_NUMBERS).map(([name, number]) => [number, name as Protocol]),
);

/**
 * @param options `unanswered`: what never had an answer is stale wherever it leads
 * @param targetsOf by {@link frontendKey}; undefined for what is no frontend
 */
export function staleEntries(
  entries: Iterable<ConntrackEntry>,
  targetsOf: (frontend: string) => KnownTargets | undefined,
  options: { readonly unanswered?: boolean } = {},
): ConntrackEntry[] {
  const known = new Map<string, KnownTargets | undefined>();
  const stale: ConntrackEntry[] = [];
  for (const entry of entries) {
    const { destination, destinationPort, protocol: number } = entry.original;
    const protocol = PROTOCOL_NAMES.get(number);
    if (protocol === undefined || destinationPort === undefined) continue;
    const key = frontendKey({ address: destination, protocol, port: destinationPort });
    if (!known.has(key)) known.set(key, targetsOf(key));
    const targets = known.get(key);
    if (targets === undefined) continue;
    if ((options.unanswered === true && !isAnswered(entry)) || isStale(entry, protocol, targets))
      stale.push(entry);
  }
  return stale;
}

function isStale(entry: ConntrackEntry, protocol: Protocol, targets: KnownTargets): boolean {
  const { original, reply } = entry;
  const isTranslated =
    reply.source !== original.destination || reply.sourcePort !== original.destinationPort;
  const target = targetKey({ address: reply.source as Ip, port: reply.sourcePort ?? 0 });
  if (protocol === 'UDP') return !targets.serving.has(target);
  if (targets.present === undefined) return false;
  // What was connected before there was a service is not the service's.
  return isTranslated ? !targets.present.has(target) : !isAnswered(entry);
}

function isAnswered({ status }: ConntrackEntry): boolean {
  return (status & CONNTRACK_STATUS.seenReply) !== 0;
}
