/**
 * Who stands in which slot of a frontend. The kernel draws or computes a slot number; what stands there is the choice.
 * Weights, consistent choice and stable slots are all only ways to fill the same table. Pure.
 */
import type { Ip } from '#lib/ip.ts';

export interface EndpointTarget {
  readonly address: Ip;
  readonly port: number;
}

export interface WeightedTarget {
  readonly target: EndpointTarget;
  /** Share of new connections beside the others'; 0 gets none. */
  readonly weight: number;
}

/** `numgen` draws from this many at most; a service with more endpoints than this uses the first ones. */
export const MAX_SLOTS = 65_536;
/** Weights beyond this say nothing more, and every unit may cost a slot. */
export const MAX_WEIGHT = 1000;
/**
 * Sizes of a consistent table: primes, so that every skip visits every slot. With a hundred slots for each endpoint
 * the shares differ by about one percent, and a change moves little beyond what it must.
 */
const TABLE_SIZES = [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521];
const SLOTS_PER_ENDPOINT = 100;

/**
 * Slots for a random choice: who stays keeps its slots unless they lie behind the new end; who is new takes a hole.
 * So a change writes few elements.
 */
export function assignSlots(
  previous: readonly EndpointTarget[],
  wanted: readonly WeightedTarget[],
): readonly EndpointTarget[] {
  if (isPlain(wanted))
    return previous.length === 0
      ? wanted.map(({ target }) => target)
      : plainSlots(previous, wanted);
  const shares = sharesOf(wanted);
  if (previous.length === 0) return shares.flatMap(({ target, count }) => repeat(target, count));
  const rest = new Map(shares.map((share) => [targetKey(share.target), { ...share }]));
  const total = shares.reduce((sum, { count }) => sum + count, 0);
  const slots: (EndpointTarget | undefined)[] = Array.from({ length: total }, (_, i) => {
    const old = previous[i];
    const stays = old && rest.get(targetKey(old));
    if (stays === undefined || stays.count === 0) return undefined;
    stays.count--;
    return stays.target;
  });
  const newcomers = [...rest.values()].flatMap(({ target, count }) => repeat(target, count));
  let next = 0;
  return slots.flatMap((slot) => slot ?? newcomers[next++] ?? []);
}

/** {@link assignSlots} for targets with one slot each, as nearly all are: an address says which one it is. */
function plainSlots(
  previous: readonly EndpointTarget[],
  wanted: readonly WeightedTarget[],
): readonly EndpointTarget[] {
  const rest = new Map<Ip, EndpointTarget>();
  for (const { target } of wanted) rest.set(target.address, target);
  const slots: (EndpointTarget | undefined)[] = previous.slice(0, wanted.length);
  for (let i = 0; i < wanted.length; i++) {
    const old = slots[i];
    const stays = old !== undefined && rest.get(old.address)?.port === old.port;
    if (stays) rest.delete(old.address);
    else slots[i] = undefined;
  }
  const newcomers = [...rest.values()];
  let next = 0;
  return slots.flatMap((slot) => slot ?? newcomers[next++] ?? []);
}

/** Slots for a choice by hash: the same on every node, whatever the history. */
export function orderedSlots(wanted: readonly WeightedTarget[]): readonly EndpointTarget[] {
  return sharesOf(inOrder(wanted)).flatMap(({ target, count }) => repeat(target, count));
}

/**
 * Slots for a consistent choice by hash: when endpoints come and go, few clients of the others move
 * (Eisenbud et al., "Maglev", NSDI 2016, section 3.4). The same on every node.
 */
export function consistentSlots(wanted: readonly WeightedTarget[]): readonly EndpointTarget[] {
  const targets = inOrder(wanted.filter(({ weight }) => weight > 0));
  if (targets.length === 0) return [];
  const size =
    TABLE_SIZES.find((candidate) => candidate >= targets.length * SLOTS_PER_ENDPOINT) ??
    TABLE_SIZES.at(-1) ??
    0;
  const heaviest = Math.max(...targets.map(({ weight }) => weight));
  const walkers = targets.slice(0, size).map(({ target, weight }) => {
    const key = targetKey(target);
    return {
      ...{ target, share: weight / heaviest, turns: 0 },
      next: hashText(key, 1) % size,
      skip: 1 + (hashText(key, 2) % (size - 1)),
    };
  });
  const slots = new Array<EndpointTarget | undefined>(size);
  for (let filled = 0; filled < size; ) {
    for (const walker of walkers) {
      // A lighter target sits out some of the turns.
      walker.turns += walker.share;
      if (walker.turns < 1) continue;
      walker.turns -= 1;
      while (slots[walker.next] !== undefined) walker.next = (walker.next + walker.skip) % size;
      slots[walker.next] = walker.target;
      if (++filled === size) break;
    }
  }
  return slots.filter((slot) => slot !== undefined);
}

export function targetKey(target: EndpointTarget): string {
  return `${target.address}|${target.port}`;
}

/** Many endpoints are told apart by a set, few faster by looking at each other. */
const FEW = 16;

/** True if each target has one slot: all have the same weight, and no address stands there twice. */
function isPlain(wanted: readonly WeightedTarget[]): boolean {
  const weight = wanted[0]?.weight ?? 0;
  if (weight === 0 || wanted.length > MAX_SLOTS) return false;
  const seen = wanted.length > FEW ? new Set<Ip>() : undefined;
  for (let i = 0; i < wanted.length; i++) {
    const one = wanted[i];
    if (one === undefined || one.weight !== weight) return false;
    const { address } = one.target;
    if (seen !== undefined) {
      if (seen.size === seen.add(address).size) return false;
    } else for (let j = 0; j < i; j++) if (wanted[j]?.target.address === address) return false;
  }
  return true;
}

/** Each target once, with as few slots as keep the proportions. */
function sharesOf(wanted: readonly WeightedTarget[]): { target: EndpointTarget; count: number }[] {
  const live = wanted.filter(({ weight }) => weight > 0);
  const divisor = live.reduce((a, { weight }) => greatestCommonDivisor(a, weight), 0);
  const seen = new Set<string>();
  const shares: { target: EndpointTarget; count: number }[] = [];
  let room = MAX_SLOTS;
  for (const { target, weight } of live) {
    const key = targetKey(target);
    if (seen.has(key)) continue;
    seen.add(key);
    const count = Math.min(weight / divisor, room);
    if (count === 0) break;
    shares.push({ target, count });
    room -= count;
  }
  return shares;
}

function repeat(target: EndpointTarget, count: number): readonly EndpointTarget[] {
  return count === 1 ? [target] : new Array<EndpointTarget>(count).fill(target);
}

function inOrder(wanted: readonly WeightedTarget[]): WeightedTarget[] {
  return [...wanted].sort((a, b) => (targetKey(a.target) < targetKey(b.target) ? -1 : 1));
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/** FNV-1a with a final mix. All nodes must agree on it for ever: a change moves every client once. */
export function hashText(text: string, seed: number): number {
  let h = (0x811c9dc5 ^ Math.imul(seed, 0x9e3779b1)) >>> 0;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
