/** The elements of frontends in the balancer's sets. Pure. */
import { bitsOf, type Cidr, familyOf, type Ip, ipToBytes, writeIp } from '#lib/ip.ts';
import type { ConntrackTuple } from '#wire/conntrack/codec.ts';
import type { SetElement } from '#wire/nftables/objects.ts';
import { ElementPacker } from '#wire/nftables/packed-elements.ts';
import {
  addressProtocolPort,
  concat,
  hostU32,
  portBytes,
  prefixBounds,
} from '#wire/nftables/values.ts';
import type { Choice, Frontend } from './plan.ts';
import {
  AFFINITY_ENDPOINTS,
  AFFINITY_SLOTS,
  ALLOWED_SOURCES,
  ENDPOINTS,
  EXTERNAL_FRONTENDS,
  FRONTENDS,
  OUTSIDE_AFFINITY_ENDPOINTS,
  OUTSIDE_FRONTENDS,
  OUTSIDE_SLOT,
  PROTOCOL_NUMBERS,
  RESTRICTED_FRONTENDS,
} from './program.ts';
import { type EndpointTarget, hashText, targetKey } from './slots.ts';

/** All agents must agree on it for ever: a change makes them forget every client once. */
const AFFINITY_SEED = 3;

/** The sets whose elements come from frontends. */
export const FRONTEND_SETS = [
  FRONTENDS,
  OUTSIDE_FRONTENDS,
  ENDPOINTS,
  EXTERNAL_FRONTENDS,
  RESTRICTED_FRONTENDS,
  ALLOWED_SOURCES,
  AFFINITY_SLOTS,
  AFFINITY_ENDPOINTS,
  OUTSIDE_AFFINITY_ENDPOINTS,
] as const;
export type FrontendSet = (typeof FRONTEND_SETS)[number];

/** The number of a frontend's balancing chain, see `choices.ts`. */
export type NumberOf = (frontend: Frontend, isOutside: boolean) => number;

/** What must go out of a set and come into it. */
export interface ElementChange {
  readonly remove: SetElement[];
  readonly add: SetElement[];
}

/** The elements of a frontend in one of the sets. */
export function elementsOf(set: FrontendSet, frontend: Frontend, numberOf: NumberOf): SetElement[] {
  const { inside, outside, kind, sources, affinitySeconds } = frontend;
  const key = keyOf(frontend);
  const isDivided = inside !== outside;
  switch (set) {
    case FRONTENDS:
      return [{ key, data: hostU32(numberOf(frontend, false)) }];
    case OUTSIDE_FRONTENDS:
      return isDivided ? [{ key, data: hostU32(numberOf(frontend, true)) }] : [];
    case EXTERNAL_FRONTENDS:
      return kind === 'external' ? [{ key }] : [];
    case RESTRICTED_FRONTENDS:
      return sources === undefined ? [] : [{ key }];
    case ALLOWED_SOURCES:
      return sources?.map((range) => sourceElement(key, range)) ?? [];
    case ENDPOINTS:
    case AFFINITY_SLOTS: {
      if (set === AFFINITY_SLOTS && affinitySeconds === undefined) return [];
      const dataOf = set === ENDPOINTS ? targetBytes : affinityBytes(frontend);
      const slots = (choice: Choice, first: number) =>
        choice.slots.map((target, i) => ({
          key: withNumber(key, first + i),
          data: dataOf(target),
        }));
      return [...slots(inside, 0), ...(isDivided ? slots(outside, OUTSIDE_SLOT) : [])];
    }
    case AFFINITY_ENDPOINTS:
    case OUTSIDE_AFFINITY_ENDPOINTS: {
      if (affinitySeconds === undefined) return [];
      if (set === OUTSIDE_AFFINITY_ENDPOINTS && !isDivided) return [];
      const idOf = affinityBytes(frontend);
      const { slots } = set === AFFINITY_ENDPOINTS ? inside : outside;
      return distinct(slots).map((target) => ({
        key: concat([key, idOf(target)]),
        data: targetBytes(target),
      }));
    }
  }
}

/** In the set of connections that ended. */
export function endedElement(connection: ConntrackTuple): SetElement {
  const { source, sourcePort = 0, destination, destinationPort = 0 } = connection;
  const [from, to] = [ipToBytes(source), ipToBytes(destination)];
  return { key: concat([from, portBytes(sourcePort), to, portBytes(destinationPort)]) };
}

/** How many elements frontends have in each of the sets. */
export type ElementCounts = Record<FrontendSet, number>;

export function noElements(): ElementCounts {
  return Object.fromEntries(FRONTEND_SETS.map((set) => [set, 0])) as ElementCounts;
}

/** Adds `times` what {@link elementsOf} gives of a frontend in each set, without making it. */
export function countElements(counts: ElementCounts, frontend: Frontend, times: 1 | -1): void {
  const { inside, outside, kind, sources, affinitySeconds } = frontend;
  const isDivided = inside !== outside;
  const slots = inside.slots.length + (isDivided ? outside.slots.length : 0);
  counts[FRONTENDS] += times;
  counts[ENDPOINTS] += times * slots;
  if (isDivided) counts[OUTSIDE_FRONTENDS] += times;
  if (kind === 'external') counts[EXTERNAL_FRONTENDS] += times;
  if (sources !== undefined) {
    counts[RESTRICTED_FRONTENDS] += times;
    counts[ALLOWED_SOURCES] += times * sources.length;
  }
  if (affinitySeconds === undefined) return;
  counts[AFFINITY_SLOTS] += times * slots;
  counts[AFFINITY_ENDPOINTS] += times * distinct(inside.slots).length;
  if (isDivided) counts[OUTSIDE_AFFINITY_ENDPOINTS] += times * distinct(outside.slots).length;
}

/**
 * The elements of all frontends in one set, cut into batches. The sets that grow with the cluster come packed: a
 * million objects would cost more than all the rest.
 */
export function* batchesOf(
  set: FrontendSet,
  frontends: Iterable<Frontend>,
  options: { family: 'ip' | 'ip6'; numberOf: NumberOf; maxElements: number },
): Generator<Iterable<SetElement>> {
  const { family, numberOf, maxElements } = options;
  if (set === FRONTENDS || set === ENDPOINTS) {
    const addressBytes = family === 'ip' ? 4 : 16;
    const packer = new ElementPacker({
      keyBytes: addressBytes + (set === FRONTENDS ? 8 : 12),
      dataBytes: set === FRONTENDS ? 4 : addressBytes + 4,
      maxElements,
    });
    const key = new Uint8Array(addressBytes + 8);
    const data = new Uint8Array(addressBytes + 4);
    for (const frontend of frontends) {
      writeKey(frontend, key);
      if (set === FRONTENDS) {
        if (packer.isFull) yield packer.take();
        packer.add(key, undefined, hostU32(numberOf(frontend, false)));
        continue;
      }
      const { inside, outside } = frontend;
      let slot = 0;
      for (const { slots } of inside === outside ? [inside] : [inside, outside]) {
        for (const target of slots) {
          if (packer.isFull) yield packer.take();
          writeTarget(target, data);
          packer.add(key, slot++, data);
        }
        slot = OUTSIDE_SLOT;
      }
    }
    if (!packer.isEmpty) yield packer.take();
    return;
  }
  let batch: SetElement[] = [];
  for (const frontend of frontends)
    for (const element of elementsOf(set, frontend, numberOf)) {
      batch.push(element);
      if (batch.length < maxElements) continue;
      yield batch;
      batch = [];
    }
  if (batch.length > 0) yield batch;
}

/** What must go and come in a set for one frontend. An element with other data goes and comes. */
export function difference(
  set: FrontendSet,
  { before, after }: { before: Frontend | undefined; after: Frontend | undefined },
  options: { numberOf: NumberOf; change: ElementChange },
): void {
  const { numberOf, change } = options;
  if (set === ENDPOINTS && before !== undefined && after !== undefined) {
    changedSlots(before, after, change);
    return;
  }
  const olds = before === undefined ? [] : elementsOf(set, before, numberOf);
  const news = after === undefined ? [] : elementsOf(set, after, numberOf);
  if (olds.length === 0 || news.length === 0) {
    for (const element of olds) change.remove.push(element);
    for (const element of news) change.add.push(element);
    return;
  }
  const old = new Map(olds.map((element) => [nameOf(element), element]));
  for (const element of news) {
    const name = nameOf(element);
    const was = old.get(name);
    old.delete(name);
    if (was !== undefined && hasSameData(was, element)) continue;
    if (was !== undefined) change.remove.push(was);
    change.add.push(element);
  }
  for (const element of old.values()) change.remove.push(element);
}

export function clusterIpElement(address: Ip): SetElement {
  return { key: ipToBytes(address) };
}

/** A local endpoint as source and, after translation, destination of one packet. */
export function hairpinElement(address: Ip): SetElement {
  const bytes = ipToBytes(address);
  return { key: concat([bytes, bytes]) };
}

/** The same frontend's slots, compared one by one. */
function changedSlots(before: Frontend, after: Frontend, change: ElementChange): void {
  const key = keyOf(after);
  const compare = (olds: Choice['slots'], news: Choice['slots'], first: number) => {
    for (let i = 0; i < Math.max(olds.length, news.length); i++) {
      const old = olds[i];
      const now = news[i];
      if (old === now || (old && now && isSameTarget(old, now))) continue;
      const slot = withNumber(key, first + i);
      if (old !== undefined) change.remove.push({ key: slot, data: targetBytes(old) });
      if (now !== undefined) change.add.push({ key: slot, data: targetBytes(now) });
    }
  };
  compare(before.inside.slots, after.inside.slots, 0);
  const outside = ({ inside, outside: choice }: Frontend) =>
    inside === choice ? [] : choice.slots;
  compare(outside(before), outside(after), OUTSIDE_SLOT);
}

function isSameTarget(a: EndpointTarget, b: EndpointTarget): boolean {
  return a.address === b.address && a.port === b.port;
}

function keyOf({ address, protocol, port }: Frontend): Uint8Array {
  return addressProtocolPort(address, PROTOCOL_NUMBERS[protocol], port);
}

/** What {@link keyOf} gives, into an array that has had another frontend's. */
function writeKey({ address, protocol, port }: Frontend, into: Uint8Array): void {
  const at = writeIp(address, into, 0);
  into[at] = PROTOCOL_NUMBERS[protocol];
  into[at + 4] = port >>> 8;
  into[at + 5] = port;
}

/** A key and one more field: a slot or a client's endpoint, in host order as `numgen` and marks are. */
function withNumber(key: Uint8Array, number: number): Uint8Array {
  const bytes = new Uint8Array(key.length + 4);
  bytes.set(key);
  bytes[key.length] = number;
  bytes[key.length + 1] = number >>> 8;
  bytes[key.length + 2] = number >>> 16;
  bytes[key.length + 3] = number >>> 24;
  return bytes;
}

function sourceElement(frontend: Uint8Array, range: Cidr): SetElement {
  const { first, last } = prefixBounds(range);
  return { key: concat([frontend, first]), keyEnd: concat([frontend, last]) };
}

function targetBytes(target: EndpointTarget): Uint8Array {
  const bytes = new Uint8Array(bitsOf(familyOf(target.address)) / 8 + 4);
  writeTarget(target, bytes);
  return bytes;
}

/** Address and port, which has a field of four bytes. */
function writeTarget({ address, port }: EndpointTarget, into: Uint8Array): void {
  const at = writeIp(address, into, 0);
  into[at] = port >>> 8;
  into[at + 1] = port;
}

function distinct(slots: Choice['slots']): EndpointTarget[] {
  return [...new Map(slots.map((target) => [targetKey(target), target])).values()];
}

/**
 * The number under which a client's endpoint is remembered. It hangs on nothing but the endpoint, unless two of one
 * frontend would have the same one: so what is remembered outlives the agent and the table.
 */
function affinityBytes({ inside, outside }: Frontend): (target: EndpointTarget) => Uint8Array {
  const keys = new Set([...inside.slots, ...outside.slots].map(targetKey));
  const taken = new Set<number>();
  const ids = new Map<string, Uint8Array>();
  for (const key of [...keys].sort()) {
    let id = hashText(key, AFFINITY_SEED);
    while (taken.has(id)) id = (id + 1) >>> 0;
    taken.add(id);
    ids.set(key, hostU32(id));
  }
  return (target) => ids.get(targetKey(target)) ?? hostU32(0);
}

function nameOf({ key, keyEnd }: SetElement): string {
  const name = Buffer.from(key.buffer, key.byteOffset, key.length).toString('latin1');
  return keyEnd === undefined ? name : `${name}-${Buffer.from(keyEnd).toString('latin1')}`;
}

function hasSameData(a: SetElement, b: SetElement): boolean {
  if (a.data === undefined || b.data === undefined) return a.data === b.data;
  return Buffer.compare(a.data, b.data) === 0;
}
