/**
 * Who may talk to whom, on which ports: for one pair, for all pairs, and the difference of two sets of policies.
 *
 * Ports are not tried one by one: policies divide the range at the ports that they name, and between two such borders
 * every port has the same verdict.
 */
import { evaluate } from './evaluate.ts';
import type { End } from './match.ts';
import {
  type CompiledPolicy,
  DIRECTIONS,
  MAX_PORT,
  PROTOCOL_NUMBERS,
  protocolName,
  type World,
} from './model.ts';

export interface PortRange {
  readonly protocol: number;
  readonly low: number;
  readonly high: number;
}

/** First ports of the classes of equal verdict, in order; always 1. */
export function bordersOf(worlds: readonly World[], protocol: number): readonly number[] {
  const borders = new Set([1]);
  const add = (low: number, high: number) => {
    if (low > 1) borders.add(low);
    if (high < MAX_PORT) borders.add(high + 1);
  };
  for (const world of worlds) {
    for (const policy of world.policies)
      for (const direction of DIRECTIONS)
        for (const rule of policy[direction] ?? [])
          for (const port of rule.ports ?? [])
            if (port.kind === 'range' && port.protocol === protocol) add(port.low, port.high);
    if (!namesPorts(world.policies)) continue;
    for (const pod of world.pods.values())
      for (const port of pod.ports) if (port.protocol === protocol) add(port.port, port.port);
  }
  return [...borders].sort((a, b) => a - b);
}

function namesPorts(policies: readonly CompiledPolicy[]): boolean {
  return policies.some((policy) =>
    DIRECTIONS.some((direction) =>
      (policy[direction] ?? []).some((rule) => rule.ports?.some((port) => port.kind === 'named')),
    ),
  );
}

export type Borders = ReadonlyMap<number, readonly number[]>;

export function allBorders(worlds: readonly World[]): Borders {
  return new Map(
    Object.values(PROTOCOL_NUMBERS).map((protocol) => [protocol, bordersOf(worlds, protocol)]),
  );
}

/** The ports on which the one may begin to talk to the other, joined to ranges. */
export function reachable(
  world: World,
  pair: { from: End; to: End },
  borders: Borders = allBorders([world]),
): PortRange[] {
  const ranges: PortRange[] = [];
  for (const [protocol, starts] of borders)
    starts.forEach((low, i) => {
      if (!evaluate(world, { ...pair, protocol, port: low }).allowed) return;
      const high = (starts[i + 1] ?? MAX_PORT + 1) - 1;
      const last = ranges.at(-1);
      if (last?.protocol === protocol && last.high === low - 1)
        ranges[ranges.length - 1] = { ...last, high };
      else ranges.push({ protocol, low, high });
    });
  return ranges;
}

/** `all`, `none`, or `80/TCP 53/UDP`. */
export function describeRanges(ranges: readonly PortRange[]): string {
  if (ranges.length === 0) return 'none';
  const isWhole = ({ low, high }: PortRange) => low === 1 && high === MAX_PORT;
  if (ranges.length === Object.keys(PROTOCOL_NUMBERS).length && ranges.every(isWhole)) return 'all';
  return ranges
    .map((range) => {
      const { low, high, protocol } = range;
      const name = protocolName(protocol);
      return isWhole(range) ? name : `${low === high ? low : `${low}-${high}`}/${name}`;
    })
    .join(' ');
}

export interface MatrixCell {
  readonly from: End;
  readonly to: End;
  readonly ranges: readonly PortRange[];
}

export function matrixOf(world: World, ends: readonly End[]): MatrixCell[] {
  const borders = allBorders([world]);
  return ends.flatMap((from) =>
    ends.map((to) => ({ from, to, ranges: reachable(world, { from, to }, borders) })),
  );
}

export interface ReachChange {
  readonly from: End;
  readonly to: End;
  readonly opened: readonly PortRange[];
  readonly closed: readonly PortRange[];
}

/**
 * What going from one set of policies to another opens and closes, for the ends that are in both.
 * @param pairs ends by which each world knows them
 */
export function diffOf(
  before: World,
  after: World,
  ends: readonly { readonly before: End; readonly after: End }[],
): ReachChange[] {
  const borders = allBorders([before, after]);
  const changes: ReachChange[] = [];
  for (const from of ends)
    for (const to of ends) {
      const old = reachable(before, { from: from.before, to: to.before }, borders);
      const now = reachable(after, { from: from.after, to: to.after }, borders);
      const opened = without(now, old);
      const closed = without(old, now);
      if (opened.length > 0 || closed.length > 0)
        changes.push({ from: from.after, to: to.after, opened, closed });
    }
  return changes;
}

/** What is in the one list and not in the other. */
function without(ranges: readonly PortRange[], holes: readonly PortRange[]): PortRange[] {
  return ranges.flatMap((range) => {
    let left = [range];
    for (const hole of holes) {
      if (hole.protocol !== range.protocol) continue;
      left = left.flatMap((part) => {
        if (hole.high < part.low || hole.low > part.high) return [part];
        const pieces: PortRange[] = [];
        if (hole.low > part.low) pieces.push({ ...part, high: hole.low - 1 });
        if (hole.high < part.high) pieces.push({ ...part, low: hole.high + 1 });
        return pieces;
      });
    }
    return left;
  });
}
