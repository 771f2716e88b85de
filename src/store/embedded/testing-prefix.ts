/** What `testing-writer.ts` must have left behind. */
import assert from 'node:assert/strict';
import { take, text } from '../contract.ts';
import type { Store } from '../port.ts';
import { deletedSlotOf, HISTORY_REVISIONS, SLOTS, slotOf } from './testing-writer.ts';

/** The store holds exactly what transactions 1 to `last` leave behind, and all history since it was compacted. */
export async function assertPrefix(store: Store, last: number): Promise<void> {
  const expected = new Map<string, string>();
  for (let n = Math.max(1, last - 20 * SLOTS); n <= last; n++) {
    expected.set('/last', String(n));
    expected.set(slotOf(n), String(n));
    const deleted = deletedSlotOf(n);
    if (deleted !== undefined) expected.delete(deleted);
  }
  const { entries } = await store.list('/');
  const found = new Map(entries.map((entry) => [entry.key, text(entry.value)]));
  assert.deepEqual(new Map([...found].toSorted()), new Map([...expected].toSorted()));
  const from = Math.max(0, last - HISTORY_REVISIONS);
  const end = new AbortController();
  const batches = await take(store.watch('/last', from, { signal: end.signal }), last - from);
  assert.deepEqual(
    batches.map((batch) => batch.revision),
    Array.from({ length: last - from }, (_, i) => from + 1 + i),
  );
}
