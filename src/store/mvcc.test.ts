import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DecodeError } from '#lib/errors.ts';
import { put, remove, text } from './contract.ts';
import { holdOp } from './held-entry.ts';
import type { JournalRow } from './journal.ts';
import { Mvcc } from './mvcc.ts';
import type { WriteOp } from './port.ts';

function write(state: Mvcc, ...operations: WriteOp[]): void {
  const stage = state.stage();
  stage.transact([], operations.map(holdOp));
  state.apply(stage.records);
}

function compact(state: Mvcc, revision: number): void {
  const compaction = state.planCompaction(revision);
  if (compaction !== undefined) state.compact(compaction);
}

test('Mvcc.stage() changes nothing until it is applied', () => {
  const state = new Mvcc();
  write(state, put('/a', '1'));
  const stage = state.stage();
  assert.equal(stage.transact([], [holdOp(put('/a', '2'))]).revision, 2);
  assert.equal(
    stage.transact([{ key: '/a', modRevision: 2 }], [holdOp(put('/b', '3'))]).succeeded,
    true,
  );
  assert.equal(state.revision, 1);
  assert.equal(text(state.get('/a')?.value), '1');
  assert.equal(state.list('').entries.length, 1);
  state.apply(stage.records);
  assert.equal(state.revision, 3);
  assert.throws(() => state.apply(stage.records), RangeError, 'a stage can be applied once');
});

test('Mvcc.compact() leaves nothing of keys that are gone', () => {
  const state = new Mvcc();
  for (let i = 0; i < 5000; i++) {
    write(state, put(`/${i}`, 'x'));
    write(state, remove(`/${i}`));
    if (i % 700 === 0) compact(state, state.revision - 1);
  }
  compact(state, state.revision);
  assert.equal(state.keyCount, 0);
  assert.equal(state.historyBytes, 0);
  write(state, put('/a', '1'));
  assert.equal(state.changesAfter('', state.revision - 1).events.length, 1);
});

test('Mvcc.planCompaction() names each superseded version once', () => {
  const state = new Mvcc();
  write(state, put('/a', '1'), put('/b', '1'));
  write(state, put('/a', '2'));
  write(state, remove('/a'));
  write(state, put('/a', '4'));
  assert.deepEqual(state.planCompaction(2)?.dropped, [{ revision: 1, key: '/a' }]);
  compact(state, 2);
  assert.deepEqual(state.planCompaction(4), {
    revision: 4,
    dropped: [
      { revision: 2, key: '/a' },
      { revision: 3, key: '/a' },
    ],
  });
  assert.equal(state.planCompaction(2), undefined);
});

test('Mvcc.compactionTarget() bounds history by count and by size', () => {
  const state = new Mvcc();
  for (let i = 0; i < 10; i++) write(state, put('/a', 'x'.repeat(1000)));
  assert.equal(state.compactionTarget(20, 1e9), 0);
  assert.equal(state.compactionTarget(4, 1e9), 6);
  const target = state.compactionTarget(20, 5000);
  compact(state, target);
  assert.ok(state.historyBytes <= 5000 && state.historyBytes > 3000, `${state.historyBytes}`);
  assert.equal(state.compactionTarget(20, 0), 10);
});

test('Mvcc refuses rows that cannot be a history', () => {
  const row = (revision: number, key: string, value?: string): JournalRow => ({
    revision,
    key,
    createRevision: value === undefined ? 0 : 1,
    value: value === undefined ? undefined : new TextEncoder().encode(value),
  });
  const cases: [string, number, JournalRow[]][] = [
    ['a hole', 0, [row(1, '/a', 'x'), row(3, '/a', 'y')]],
    ['a hole after the compact revision', 4, [row(2, '/a', 'x'), row(6, '/a', 'y')]],
    ['out of order', 0, [row(1, '/a', 'x'), row(2, '/a', 'y'), row(1, '/b', 'z')]],
    ['a deletion in the compacted state', 2, [row(1, '/a')]],
    ['two versions in the compacted state', 2, [row(1, '/a', 'x'), row(2, '/a', 'y')]],
    ['a deletion of what never was', 0, [row(1, '/a')]],
  ];
  for (const [name, compactRevision, rows] of cases)
    assert.throws(() => new Mvcc({ compactRevision, rows }), DecodeError, name);
  const good = new Mvcc({ compactRevision: 2, rows: [row(1, '/a', 'x'), row(3, '/a')] });
  assert.equal(good.revision, 3);
});
