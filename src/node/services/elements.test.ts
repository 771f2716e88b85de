import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ip } from '#lib/ip.ts';
import {
  batchesOf,
  countElements,
  difference,
  elementsOf,
  FRONTEND_SETS,
  noElements,
} from './elements.ts';
import type { Choice, Frontend } from './plan.ts';
import { AFFINITY_ENDPOINTS, AFFINITY_SLOTS, ENDPOINTS } from './program.ts';

const balance = (...lastBytes: number[]): Choice => ({
  action: 'balance',
  slots: lastBytes.map((n) => ({ address: ip(`10.0.0.${n}`), port: 8080 })),
});
const frontend = (change: Partial<Frontend>): Frontend => {
  const inside = change.inside ?? balance(1, 2, 3);
  return {
    ...{ key: 'k', family: 4, address: ip('10.96.0.7'), protocol: 'TCP', port: 80 },
    ...{ kind: 'cluster', pick: 'random', affinitySeconds: undefined, sources: undefined },
    ...{ outside: inside, ...change, inside },
  };
};
const numberOf = ({ inside }: Frontend) => inside.slots.length;
const hex = (bytes: Uint8Array | undefined) => Buffer.from(bytes ?? []).toString('hex');

const FRONTENDS = [
  frontend({}),
  frontend({ kind: 'external', port: 81, outside: balance(1) }),
  frontend({ port: 82, affinitySeconds: 60, outside: balance(2, 3) }),
  frontend({ port: 83, inside: { action: 'reject', slots: [] } }),
];

for (const set of FRONTEND_SETS)
  test(`batches of ${set} are the elements of its frontends, as many as counted`, () => {
    const options = { family: 'ip', numberOf, maxElements: 2 } as const;
    const batches = [...batchesOf(set, FRONTENDS, options)].map((batch) => [...batch]);
    assert.ok(batches.every((batch) => batch.length > 0 && batch.length <= 2));
    const all = FRONTENDS.flatMap((one) => elementsOf(set, one, numberOf));
    assert.deepEqual(batches.flat(), all);
    const counts = noElements();
    for (const one of FRONTENDS) countElements(counts, one, 1);
    assert.equal(counts[set], all.length);
    for (const one of FRONTENDS) countElements(counts, one, -1);
    assert.deepEqual(counts, noElements());
  });

test('a removed endpoint costs two slots at most', () => {
  const change = { remove: [], add: [] };
  const [before, after] = [
    frontend({ inside: balance(1, 2, 3) }),
    frontend({ inside: balance(3, 2) }),
  ];
  difference(ENDPOINTS, { before, after }, { numberOf, change });
  assert.deepEqual([change.remove.length, change.add.length], [2, 1]);
});

test('an endpoint is remembered by the same number in every slot and in whatever company', () => {
  const idsOf = (choice: Choice) => {
    const one = frontend({ affinitySeconds: 60, inside: choice });
    const endpoints = elementsOf(AFFINITY_ENDPOINTS, one, numberOf);
    const byNumber = new Map(endpoints.map(({ key, data }) => [hex(key.slice(-4)), hex(data)]));
    assert.equal(byNumber.size, endpoints.length, 'numbers are distinct');
    const numbers = new Map<string | undefined, string>();
    const slots = elementsOf(AFFINITY_SLOTS, one, numberOf);
    const targets = elementsOf(ENDPOINTS, one, numberOf);
    slots.forEach(({ data }, i) => {
      assert.equal(byNumber.get(hex(data)), hex(targets[i]?.data));
      numbers.set(hex(targets[i]?.data), hex(data));
    });
    return numbers;
  };
  const many = idsOf(balance(...Array.from({ length: 200 }, (_, i) => i + 1)));
  for (const [target, number] of idsOf(balance(9, 4, 7, 4))) assert.equal(number, many.get(target));
});
