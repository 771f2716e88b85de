import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openEmbeddedStore } from '../embedded/embedded-store.ts';
import { openMemoryStore } from '../memory/memory-store.ts';
import type { Store } from '../port.ts';
import { Workload } from './workload.ts';

const WRITES = Number(process.env.TULLE_HISTORY_WRITES ?? 1_500);

async function runOver(store: Store): Promise<Workload> {
  const workload = new Workload({ stores: [store], clients: 8, mayLag: true });
  await workload.progress(WRITES / 2);
  await store.compact(await store.revision());
  await workload.progress(WRITES / 2);
  return workload;
}

test('memory store: a history of concurrent clients is linearizable, and watches see all of it', async () => {
  await using store = openMemoryStore();
  await (await runOver(store)).check();
});

test('embedded store: a history of concurrent clients is linearizable, and watches see all of it', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'tulle-history-'));
  t.after(() => rmSync(directory, { recursive: true }));
  await using store = await openEmbeddedStore({ directory });
  await (await runOver(store)).check();
});

/** Stores with one defect each, that a check must find. */
const DEFECTS: Record<string, (store: Store) => Partial<Store>> = {
  'a read of the state before': (store) => {
    const old = new Map<string, Awaited<ReturnType<Store['get']>>>();
    return {
      async get(key) {
        const now = await store.get(key);
        const before = old.get(key);
        old.set(key, now);
        return Math.random() < 0.05 ? before : now;
      },
    };
  },
  'a write that is acknowledged and not done': (store) => ({
    async transact(compares, operations) {
      if (Math.random() < 0.98) return await store.transact(compares, operations);
      return { succeeded: true, revision: (await store.revision()) + 1 };
    },
  }),
  'a watch that leaves one change out': (store) => ({
    async *watch(...args) {
      let count = 0;
      // Of a put, because a deletion may be another client's, or nobody's.
      for await (const batch of store.watch(...args))
        if (batch.events[0]?.type !== 'put' || ++count !== 100) yield batch;
    },
  }),
  'a watch that shows one change twice': (store) => ({
    async *watch(...args) {
      for await (const batch of store.watch(...args)) {
        yield batch;
        if (batch.revision % 200 === 0) yield batch;
      }
    },
  }),
};

for (const [name, defect] of Object.entries(DEFECTS))
  test(`Workload finds ${name}`, async () => {
    await using store = openMemoryStore();
    const changes = defect(store);
    const broken = new Proxy(store, {
      get(target, property) {
        const changed = changes[property as keyof Store];
        const value = changed ?? Reflect.get(target, property, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    const workload = new Workload({ stores: [broken], clients: 4 });
    await workload.progress(1_000);
    await assert.rejects(workload.check());
  });
