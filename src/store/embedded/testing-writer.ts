/**
 * A process for the tests of the embedded store to kill: opens the store in the directory of its argument and writes
 * transaction after transaction, several at a time, with no end. Standard output has a line `open`, and then for each
 * acknowledged transaction its number, which is also its revision.
 */
import { writeSync } from 'node:fs';
import { openEmbeddedStore } from './embedded-store.ts';

/** Transaction `n` writes its number to `/last` and to the slot `n % SLOTS`, and every tenth deletes a slot. */
export const SLOTS = 37;
/** Kept short, so that compaction takes part in the crashes. */
export const HISTORY_REVISIONS = 150;
const IN_FLIGHT = 8;

export function slotOf(n: number): string {
  return `/slot/${n % SLOTS}`;
}
export function deletedSlotOf(n: number): string | undefined {
  return n % 10 === 0 ? `/slot/${(n + 5) % SLOTS}` : undefined;
}

/** The reader may be slow, and the pipe is not one that waits: then it is full for a moment. */
function tell(line: string): void {
  for (;;) {
    try {
      writeSync(1, line);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

async function write(directory: string): Promise<never> {
  const store = await openEmbeddedStore({ directory, historyRevisions: HISTORY_REVISIONS });
  tell('open\n');
  let next = (await store.revision()) + 1;
  const one = async () => {
    const n = next++;
    const value = new TextEncoder().encode(String(n));
    const deleted = deletedSlotOf(n);
    await store.transact(
      [],
      [
        { type: 'put', key: '/last', value },
        { type: 'put', key: slotOf(n), value },
        ...(deleted === undefined ? [] : [{ type: 'delete' as const, key: deleted }]),
      ],
    );
    tell(`${n}\n`);
  };
  for (;;) await Promise.all(Array.from({ length: IN_FLIGHT }, one));
}

const directory = process.argv[2];
if (import.meta.main && directory !== undefined) await write(directory);
