import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Action, checkLinearizable, type Operation } from './linearizability.ts';

/** `[from, to]` in milliseconds, and what was done; all to one key. */
type Line = readonly [beganMs: number, endedMs: number, action: Action];
const LOST = Number.POSITIVE_INFINITY;
const wrote = (value: string, revision: number): Action => ({ type: 'write', value, revision });
const swapped = (expected: number, value: string, revision: number): Action => ({
  type: 'write',
  value,
  expected,
  revision,
});
const refused = (expected: number, revision: number): Action => ({
  type: 'refused',
  expected,
  revision,
});
const lost = (value: string): Action => ({ type: 'write', value, revision: undefined });
const removed = (revision: number): Action => ({ type: 'write', value: undefined, revision });
const read = (value: string | undefined, revision: number): Action => ({
  type: 'read',
  value,
  revision,
});

function history(lines: readonly Line[]): Operation[] {
  return lines.map(([beganMs, endedMs, action], client) => ({
    client,
    key: '/k',
    beganMs,
    endedMs,
    action,
  }));
}

const GOOD: Record<string, readonly Line[]> = {
  'nothing at all': [],
  'one after the other': [
    [0, 1, wrote('a', 1)],
    [2, 3, read('a', 1)],
    [4, 5, removed(2)],
    [6, 7, read(undefined, 0)],
  ],
  'a read beside a write sees it or not': [
    [0, 10, wrote('a', 1)],
    [1, 2, read(undefined, 0)],
    [3, 4, read('a', 1)],
  ],
  'two writes at once, in the order of their revisions': [
    [0, 10, wrote('a', 2)],
    [0, 10, wrote('b', 1)],
    [11, 12, read('a', 2)],
  ],
  'one of two swaps wins': [
    [0, 1, wrote('a', 1)],
    [2, 9, swapped(1, 'b', 2)],
    [2, 9, refused(1, 2)],
  ],
  'a lost write that happened, late': [
    [0, 1, wrote('a', 1)],
    [2, LOST, lost('b')],
    [3, 4, read('a', 1)],
    [5, 6, read('b', 7)],
  ],
  'a lost write that never happened': [
    [0, 1, wrote('a', 1)],
    [2, LOST, lost('b')],
    [3, 4, read('a', 1)],
  ],
};

const BAD: Record<string, readonly Line[]> = {
  'a lost acknowledged write': [
    [0, 1, wrote('a', 1)],
    [2, 3, wrote('b', 2)],
    [4, 5, read('a', 1)],
  ],
  'a read of nothing after a write': [
    [0, 1, wrote('a', 1)],
    [2, 3, read(undefined, 0)],
  ],
  'a read that goes back in time': [
    [0, 20, wrote('a', 1)],
    [1, 2, read('a', 1)],
    [3, 4, read(undefined, 0)],
  ],
  'a value that nobody wrote': [
    [0, 1, wrote('a', 1)],
    [2, 3, read('x', 1)],
  ],
  'two swaps that both win': [
    [0, 1, wrote('a', 1)],
    [2, 9, swapped(1, 'b', 2)],
    [2, 9, swapped(1, 'c', 3)],
  ],
  'a swap refused without a reason': [
    [0, 1, wrote('a', 1)],
    [2, 3, refused(1, 1)],
  ],
  'revisions against the order of time': [
    [0, 1, wrote('a', 5)],
    [2, 3, wrote('b', 4)],
  ],
  'a deleted value that comes back': [
    [0, 1, wrote('a', 1)],
    [2, 3, removed(2)],
    [4, 5, read('a', 1)],
  ],
  'a lost write that happened and was taken back': [
    [0, 1, wrote('a', 1)],
    [2, LOST, lost('b')],
    [3, 4, read('b', 2)],
    [5, 6, read('a', 1)],
  ],
};

for (const [name, lines] of Object.entries(GOOD))
  test(`checkLinearizable() accepts ${name}`, () => {
    assert.deepEqual(checkLinearizable(history(lines)), { kind: 'linearizable' });
  });

for (const [name, lines] of Object.entries(BAD))
  test(`checkLinearizable() finds ${name}`, () => {
    assert.equal(checkLinearizable(history(lines)).kind, 'violation');
  });

test('checkLinearizable() looks at each key by itself', () => {
  const [write] = history([[0, 1, wrote('a', 1)]]);
  const [later] = history([[2, 3, read(undefined, 0)]]);
  assert.ok(write !== undefined && later !== undefined);
  assert.equal(checkLinearizable([write, { ...later, key: '/other' }]).kind, 'linearizable');
});

/** A history as a correct register makes it: each operation takes effect at some instant between its ends. */
const anyTrueHistory = fc
  .array(
    fc.record({
      at: fc.nat(10_000),
      early: fc.nat(60),
      late: fc.nat(60),
      what: fc.constantFrom('put', 'read', 'delete', 'swap', 'lost'),
    }),
    { maxLength: 60 },
  )
  .map((wanted) => {
    let value: string | undefined;
    let revision = 0;
    let newest = 0;
    let count = 0;
    return wanted
      .toSorted((a, b) => a.at - b.at)
      .map(({ at, early, late, what }): Line => {
        const mine = `v${count++}`;
        const ends = [at - early, at + late] as const;
        if (what === 'read') return [...ends, read(value, revision)];
        const expected = revision;
        if (what === 'delete') {
          value = undefined;
          revision = 0;
          return [...ends, removed(++newest)];
        }
        value = mine;
        revision = ++newest;
        if (what === 'lost') return [ends[0], LOST, lost(mine)];
        return [
          ...ends,
          what === 'put' ? wrote(mine, revision) : swapped(expected, mine, revision),
        ];
      });
  });

test('checkLinearizable() accepts whatever a correct register answers', () => {
  fc.assert(
    fc.property(anyTrueHistory, (lines) => {
      assert.equal(checkLinearizable(history(lines)).kind, 'linearizable');
    }),
    { numRuns: 300 },
  );
});

test('checkLinearizable() finds one stale read put into a long true history', () => {
  const lines: Line[] = [];
  for (let n = 1; n <= 300; n++) {
    lines.push([n * 10, n * 10 + 15, wrote(`v${n}`, n)]);
    lines.push([n * 10 + 5, n * 10 + 18, read(`v${n}`, n)]);
  }
  assert.equal(checkLinearizable(history(lines)).kind, 'linearizable');
  lines.push([3_500, 3_501, read('v200', 200)]);
  assert.equal(checkLinearizable(history(lines)).kind, 'violation');
});
