/**
 * Rules of policies as nftables expressions, and the sets that they look into. Pure.
 *
 * A rule names sets, never addresses: `addr-…` the pods (and nodes) that selectors mean, `net-…` prefixes, `ports-…`
 * several ports, `named-…` the pods that have a port of that name. Sets are named by what they hold, so equal peers of
 * different rules and policies share one.
 */
import {
  type Cidr,
  cidrSize,
  familyOf,
  ipFromBigInt,
  ipToBigInt,
  ipToBytes,
  networkAddress,
} from '#lib/ip.ts';
import type { CompiledRule, Direction, Peer, PortMatch } from '#policy/model.ts';
import { MAX_PORT } from '#policy/model.ts';
import type { Expression } from '#wire/nftables/expressions.ts';
import { between, betweenExcept, equals, inSet, ip, ip6, meta, th } from '#wire/nftables/match.ts';
import type { SetElement } from '#wire/nftables/objects.ts';
import { concat, intervalElements, portBytes, protocolBytes } from '#wire/nftables/values.ts';
import type { SetContent } from '../ruleset.ts';
import { shortHash } from './names.ts';

export type NftFamilyName = 'ip' | 'ip6';
/** Peers whose addresses come and go. */
export type MovingPeer = Extract<Peer, { kind: 'pods' | 'nodes' | 'domain' }>;
type NetworkPeer = Extract<Peer, { kind: 'network' }>;

/** A set that a rule needs, with what it must hold. */
export type NeededSet =
  | { readonly kind: 'addresses'; readonly name: string; readonly peers: readonly MovingPeer[] }
  | { readonly kind: 'named port'; readonly name: string; readonly portName: string }
  /** Holds the same for ever: its name says what. */
  | { readonly kind: 'fixed'; readonly name: string; readonly elements: readonly SetElement[] };

export interface RuleMatch {
  /** Each alone matches; empty: nothing can match in this family. */
  readonly alternatives: readonly (readonly Expression[])[];
  readonly sets: readonly NeededSet[];
}

export function matchOf(
  rule: CompiledRule,
  direction: Direction,
  family: NftFamilyName,
): RuleMatch {
  const peers = peerMatches(rule.peers, direction, family);
  const ports = portMatches(rule.ports, family);
  return {
    alternatives: peers.alternatives.flatMap((peer) =>
      // Addresses first: that decides for most packets.
      ports.alternatives.map((port) => [...peer, ...port]),
    ),
    sets: [...peers.sets, ...ports.sets],
  };
}

/** How a set of this name looks in the kernel. */
export function setContent(needed: NeededSet, family: NftFamilyName): SetContent {
  const address = family === 'ip' ? ('ipv4_addr' as const) : ('ipv6_addr' as const);
  if (needed.kind === 'addresses') return { set: needed.name, key: [address] };
  if (needed.kind === 'named port')
    return { set: needed.name, key: [address, 'inet_proto', 'inet_service'] };
  return needed.name.startsWith('net-')
    ? { set: needed.name, key: [address], interval: true }
    : { set: needed.name, key: ['inet_proto', 'inet_service'], interval: true };
}

const ANY: RuleMatch = { alternatives: [[]], sets: [] };

function peerMatches(
  peers: readonly Peer[] | undefined,
  direction: Direction,
  family: NftFamilyName,
): RuleMatch {
  if (peers === undefined) return ANY;
  const header = family === 'ip' ? ip : ip6;
  const other = direction === 'ingress' ? header.saddr : header.daddr;
  const sets: NeededSet[] = [];
  const moving = peers.filter(isMoving);
  if (moving.length > 0)
    sets.push({ kind: 'addresses', name: addressSetName(moving), peers: moving });
  const networks = peers.filter(
    (peer): peer is NetworkPeer =>
      peer.kind === 'network' && familyOf(peer.cidr) === (family === 'ip' ? 4 : 6),
  );
  const ranges = rangesOf(networks);
  if (ranges.length > 0) {
    const text = ranges.map(({ first, last }) => `${first}-${last}`).join();
    const elements = ranges.flatMap(({ first, last }) => {
      const version = family === 'ip' ? 4 : 6;
      return intervalElements(
        ipToBytes(ipFromBigInt(first, version)),
        ipToBytes(ipFromBigInt(last, version)),
      );
    });
    sets.push({ kind: 'fixed', name: `net-${shortHash(text)}`, elements });
  }
  return { alternatives: sets.map((set) => inSet([other], set.name)), sets };
}

function isMoving(peer: Peer): peer is MovingPeer {
  return peer.kind === 'pods' || peer.kind === 'nodes' || peer.kind === 'domain';
}

function addressSetName(peers: readonly MovingPeer[]): string {
  const texts = peers.map((peer) => JSON.stringify(peer)).sort();
  return `addr-${shortHash([...new Set(texts)].join())}`;
}

interface Range {
  readonly first: bigint;
  readonly last: bigint;
}

/** All blocks less their own exceptions, joined: an address that one block excepts may be in another. */
function rangesOf(networks: readonly NetworkPeer[]): Range[] {
  const parts = networks
    .flatMap(({ cidr, except }) => subtract(rangeOf(cidr), except.map(rangeOf)))
    .sort((a, b) => (a.first < b.first ? -1 : 1));
  const joined: Range[] = [];
  for (const part of parts) {
    const before = joined.at(-1);
    if (before === undefined || part.first > before.last + 1n) joined.push(part);
    else if (part.last > before.last) joined[joined.length - 1] = { ...before, last: part.last };
  }
  return joined;
}

function rangeOf(prefix: Cidr): Range {
  const first = ipToBigInt(networkAddress(prefix));
  return { first, last: first + cidrSize(prefix) - 1n };
}

function subtract(range: Range, holes: readonly Range[]): Range[] {
  let left = [range];
  for (const hole of holes)
    left = left.flatMap((part) => {
      if (hole.last < part.first || hole.first > part.last) return [part];
      const pieces: Range[] = [];
      if (hole.first > part.first) pieces.push({ first: part.first, last: hole.first - 1n });
      if (hole.last < part.last) pieces.push({ first: hole.last + 1n, last: part.last });
      return pieces;
    });
  return left;
}

/** @param ports undefined: all, and whatever has none */
export function portMatches(
  ports: readonly PortMatch[] | undefined,
  family: NftFamilyName,
): RuleMatch {
  if (ports === undefined) return ANY;
  const alternatives: Expression[][] = [];
  const sets: NeededSet[] = [];
  const ranges = joinPorts(ports.filter((port) => port.kind === 'range'));
  const [only] = ranges;
  if (only !== undefined && ranges.length === 1) alternatives.push(rangeMatch(only));
  else if (areFewOfOneProtocol(ranges)) alternatives.push(rangesMatch(ranges));
  else if (ranges.length > 1) {
    const text = ranges.map(({ protocol, low, high }) => `${protocol}:${low}-${high}`).join();
    const name = `ports-${shortHash(text)}`;
    const elements = ranges.map(({ protocol, low, high }) => ({
      key: concat([protocolBytes(protocol), portBytes(low)]),
      keyEnd: concat([protocolBytes(protocol), portBytes(high)]),
    }));
    sets.push({ kind: 'fixed', name, elements });
    alternatives.push(inSet([meta.l4proto, th.dport], name));
  }
  const header = family === 'ip' ? ip : ip6;
  for (const port of ports) {
    if (port.kind !== 'named') continue;
    const name = `named-${shortHash(port.name)}`;
    sets.push({ kind: 'named port', name, portName: port.name });
    const protocol =
      port.protocol === undefined ? [] : equals(meta.l4proto, protocolBytes(port.protocol));
    alternatives.push([...protocol, ...inSet([header.daddr, meta.l4proto, th.dport], name)]);
  }
  return { alternatives, sets };
}

type PortRange = Extract<PortMatch, { kind: 'range' }>;

/** Ranges of one set must not overlap. */
function joinPorts(ranges: readonly PortRange[]): PortRange[] {
  const sorted = [...ranges].sort((a, b) => a.protocol - b.protocol || a.low - b.low);
  const joined: PortRange[] = [];
  for (const range of sorted) {
    const before = joined.at(-1);
    if (before?.protocol === range.protocol && range.low <= before.high + 1)
      joined[joined.length - 1] = { ...before, high: Math.max(before.high, range.high) };
    else joined.push(range);
  }
  return joined;
}

/**
 * Some ranges are compared with faster than a set of them is looked into, and a set costs the kernel more than a rule:
 * it finds sets by walking the list of their names.
 */
const MAX_COMPARED_RANGES = 4;

function areFewOfOneProtocol(ranges: readonly PortRange[]): boolean {
  return (
    ranges.length > 1 &&
    ranges.length <= MAX_COMPARED_RANGES &&
    ranges.every(({ protocol }) => protocol === ranges[0]?.protocol)
  );
}

/** From the lowest to the highest port, less the gaps. The ranges are in order, and do not touch. */
function rangesMatch(ranges: readonly PortRange[]): Expression[] {
  const [first, last] = [ranges[0], ranges.at(-1)];
  if (first === undefined || last === undefined) return [];
  const gaps = ranges.slice(1).map(({ low }, i) => ({
    low: portBytes((ranges[i]?.high ?? 0) + 1),
    high: portBytes(low - 1),
  }));
  return [
    ...equals(meta.l4proto, protocolBytes(first.protocol)),
    ...betweenExcept(th.dport, portBytes(first.low), portBytes(last.high), gaps),
  ];
}

function rangeMatch({ protocol, low, high }: PortRange): Expression[] {
  const isProtocol = equals(meta.l4proto, protocolBytes(protocol));
  if (low <= 0 && high >= MAX_PORT) return isProtocol;
  return low === high
    ? [...isProtocol, ...equals(th.dport, portBytes(low))]
    : [...isProtocol, ...between(th.dport, portBytes(low), portBytes(high))];
}
