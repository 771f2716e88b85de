import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ip } from '#lib/ip.ts';
import {
  assignSlots,
  consistentSlots,
  orderedSlots,
  targetKey,
  type WeightedTarget,
} from './slots.ts';

const weighted = (...weights: number[]): WeightedTarget[] =>
  weights.map((weight, i) => ({ target: { address: ip(`10.0.0.${i + 1}`), port: 80 }, weight }));
const shares = (slots: readonly { address: string }[]) => {
  const counts: Record<string, number> = {};
  for (const { address } of slots) counts[address] = (counts[address] ?? 0) + 1;
  return counts;
};

test('assignSlots() gives slots by weight, as few as keep the proportions, and none for 0', () => {
  const slots = assignSlots([], weighted(30, 10, 0));
  assert.deepEqual(shares(slots), { '10.0.0.1': 3, '10.0.0.2': 1 });
  const drained = assignSlots(slots, weighted(0, 10, 0));
  assert.deepEqual(shares(drained), { '10.0.0.2': 1 });
  assert.deepEqual(assignSlots([], weighted(0)), []);
});

test('assignSlots() leaves who stays, fills holes with who is new, and moves who stood behind the end', () => {
  const names = (list: readonly { address: string; port: number }[]) =>
    list.map(({ address, port }) => `${address.slice(7)}:${port}`).join(' ');
  const one = (last: number, port = 80): WeightedTarget => ({
    ...{ target: { address: ip(`10.0.0.${last}`), port }, weight: 1 },
  });
  const before = assignSlots(
    [],
    [1, 2, 3, 4].map((last) => one(last)),
  );
  for (const [wanted, slots] of [
    [[one(4), one(3), one(2), one(1)], '1:80 2:80 3:80 4:80'],
    [[one(1), one(3), one(4)], '1:80 4:80 3:80'],
    [[one(5), one(1), one(6), one(3), one(7)], '1:80 5:80 3:80 6:80 7:80'],
    [[one(1), one(2, 81), one(3), one(4)], '1:80 2:81 3:80 4:80'],
    [[], ''],
  ] as const)
    assert.equal(names(assignSlots(before, wanted)), slots);
  const weightedBefore = assignSlots([], weighted(2, 1, 1));
  assert.equal(names(assignSlots(weightedBefore, [one(1), one(2)])), '1:80 2:80');
});

test('assignSlots() keeps slots when a weight changes', () => {
  const before = assignSlots([], weighted(2, 1, 1));
  const after = assignSlots(before, weighted(3, 1, 1));
  assert.deepEqual(after.slice(0, before.length).map(targetKey), before.map(targetKey));
  assert.deepEqual(shares(after), { '10.0.0.1': 3, '10.0.0.2': 1, '10.0.0.3': 1 });
});

test('orderedSlots() and consistentSlots() do not depend on the order of endpoints', () => {
  const wanted = weighted(1, 2, 1, 1);
  for (const fill of [orderedSlots, consistentSlots])
    assert.deepEqual(fill(wanted), fill([...wanted].reverse()));
});

test('consistentSlots() shares fairly and by weight', () => {
  const slots = consistentSlots(weighted(1, 1, 2, 0));
  const counts = shares(slots);
  assert.equal(counts['10.0.0.4'], undefined);
  for (const [address, share] of [
    ['10.0.0.1', 0.25],
    ['10.0.0.2', 0.25],
    ['10.0.0.3', 0.5],
  ] as const)
    assert.ok(
      Math.abs((counts[address] ?? 0) / slots.length - share) < 0.02,
      JSON.stringify(counts),
    );
});

test('consistentSlots() moves few clients of the endpoints that stay', () => {
  const all = weighted(...new Array<number>(10).fill(1));
  const before = consistentSlots(all);
  const after = consistentSlots(all.slice(0, 9));
  const moved = before.filter(
    (target, i) => target.address !== '10.0.0.10' && after[i]?.address !== target.address,
  ).length;
  assert.ok(moved / before.length < 0.05, `${moved} of ${before.length} moved`);
});
