/**
 * Ports that nodes keep for services: a record in the store per protocol and number, written in the same transaction as
 * the service that uses it, as with cluster IPs.
 *
 * Numbers are counted per protocol: `TCP/30053` of one service and `UDP/30053` of another do not disturb each other.
 * Like kubernetes (KEP-3668), random choice keeps away from the low end as long as it can, so that a person who asks for
 * 30080 finds it free.
 */
import type { Protocol } from '#api/core/v1/protocol.ts';
import type { StoreReader } from '#store/port.ts';
import { NODE_PORT_PREFIX } from '../registry/keys.ts';

export interface PortRange {
  readonly first: number;
  readonly last: number;
}

/** Upstream's `--service-node-port-range`. */
export const DEFAULT_NODE_PORT_RANGE: PortRange = { first: 30000, last: 32767 };

/** Random probes before the whole range is looked through. */
const MAX_PROBES = 16;
/** Bounds of the low end that is kept for requested ports, and its share of the range. */
const MIN_RESERVED = 16;
const MAX_RESERVED = 128;
const RESERVED_SHARE = 32;

export type NodePortChoice =
  | { readonly kind: 'chosen'; readonly port: number }
  | { readonly kind: 'exhausted' };

export function nodePortKey(protocol: Protocol, port: number): string {
  return `${NODE_PORT_PREFIX}${protocol}/${port}`;
}

/** `30000-32767` */
export function formatPortRange({ first, last }: PortRange): string {
  return `${first}-${last}`;
}

export function isInRange(range: PortRange, port: number): boolean {
  return port >= range.first && port <= range.last;
}

/** The first number of the upper band, from which ports are chosen first. */
export function upperPortBandStart({ first, last }: PortRange): number {
  const size = last - first + 1;
  if (size <= MIN_RESERVED) return first;
  const share = Math.floor(size / RESERVED_SHARE);
  return first + Math.min(MAX_RESERVED, Math.max(MIN_RESERVED, share));
}

/**
 * Chooses a number that is free in each of the protocols.
 * The choice holds only if the transaction that writes its records finds none there.
 * @param wanted.isTaken what the same service uses in the same transaction
 * @param random a number in [0, 1)
 */
export async function chooseNodePort(
  store: StoreReader,
  range: PortRange,
  wanted: {
    protocols: readonly Protocol[];
    isTaken: (protocol: Protocol, port: number) => boolean;
  },
  random: () => number,
): Promise<NodePortChoice> {
  const upper = upperPortBandStart(range);
  const clashes = (port: number) => wanted.protocols.some((p) => wanted.isTaken(p, port));
  for (let probe = 0; probe < MAX_PROBES; probe++) {
    const port = upper + Math.floor(random() * (range.last - upper + 1));
    if (clashes(port)) continue;
    const records = await Promise.all(wanted.protocols.map((p) => store.get(nodePortKey(p, port))));
    if (records.every((record) => record === undefined)) return { kind: 'chosen', port };
  }
  const used = new Set((await store.list(NODE_PORT_PREFIX)).entries.map(({ key }) => key));
  const isFree = (port: number) =>
    !clashes(port) && wanted.protocols.every((p) => !used.has(nodePortKey(p, port)));
  const port =
    firstFree(upper, range.last, isFree, random) ??
    firstFree(range.first, upper - 1, isFree, random);
  return port === undefined ? { kind: 'exhausted' } : { kind: 'chosen', port };
}

/** Looks from a random place on, around the end of the band. */
function firstFree(
  first: number,
  last: number,
  isFree: (port: number) => boolean,
  random: () => number,
): number | undefined {
  const size = last - first + 1;
  const start = Math.floor(random() * size);
  for (let step = 0; step < size; step++) {
    const port = first + ((start + step) % size);
    if (isFree(port)) return port;
  }
  return undefined;
}
