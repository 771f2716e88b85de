/**
 * An etcd whose members die, freeze and are cut off, under concurrent clients of two stores. Afterwards every history is
 * checked: no acknowledged write lost, no change missing, doubled or out of order, no read back in time.
 *
 * `TULLE_FAULT_ROUNDS` repeats the faults (default 1).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { put, text } from '../contract.ts';
import { Workload } from '../testing/workload.ts';
import { openEtcdStore } from './etcd-store.ts';
import { etcdMissing, post, startEtcd } from './testing-etcd.ts';
import { gate } from './testing-gate.ts';

const skip = etcdMissing();
const ROUNDS = Number(process.env.TULLE_FAULT_ROUNDS ?? 1);
/** Acknowledged writes between one fault and the next. */
const WRITES = 150;

test('one member: connections cut, held and refused lose and double nothing', {
  skip,
}, async (t) => {
  await using etcd = await startEtcd();
  await using through = await gate(Number(new URL(etcd.urls[0] ?? '').port));
  await using one = await openEtcdStore({ endpoints: [through.url] });
  await using two = await openEtcdStore({ endpoints: etcd.urls });
  const workload = new Workload({ stores: [one, two], clients: 8, mayLag: true });
  for (let round = 0; round < ROUNDS; round++) {
    for (let cuts = 0; cuts < 10; cuts++) {
      await workload.progress(WRITES / 5);
      through.cut();
    }
    await workload.progress(WRITES);
    await through.close();
    await workload.progress(WRITES);
    await through.open();
    await workload.progress(WRITES);
    // Nothing goes through, and nobody is told: as a network that drops packets.
    through.hold();
    await workload.progress(2 * WRITES);
    through.release();
    await workload.progress(WRITES);
    // The only member dies, and comes back with its data.
    await etcd.members[0]?.kill();
    await etcd.members[0]?.restart();
    await workload.progress(WRITES);
  }
  await workload.check();
  t.diagnostic(workload.summary);
});

test('three members: the leader killed, frozen, cut off; compaction all the while', {
  skip,
}, async (t) => {
  await using etcd = await startEtcd({ members: 3 });
  await using one = await openEtcdStore({ endpoints: etcd.urls });
  await using two = await openEtcdStore({ endpoints: etcd.urls.toReversed() });
  const workload = new Workload({ stores: [one, two], clients: 8, mayLag: true });
  const compact = async () => await one.compact((await two.revision()) - 20);
  for (let round = 0; round < ROUNDS; round++) {
    await workload.progress(WRITES);
    await compact();
    const killed = await etcd.leader();
    await killed.kill();
    await workload.progress(WRITES);
    await compact();
    await killed.restart();
    await workload.progress(WRITES);
    // A frozen leader keeps its connections and says nothing.
    const frozen = await etcd.leader();
    frozen.freeze();
    await workload.progress(WRITES);
    frozen.thaw();
    await workload.progress(WRITES);
    await compact();
    // And a member that follows, with the watches that hang on it.
    const leader = await etcd.leader();
    const follower = etcd.members.find((member) => member !== leader);
    follower?.freeze();
    await workload.progress(WRITES);
    follower?.thaw();
    await workload.progress(WRITES);
  }
  await workload.check();
  t.diagnostic(workload.summary);
  // Each member has it all by itself in the end.
  const { entries } = await one.list('/load/');
  for (const url of etcd.urls) {
    await using alone = await openEtcdStore({ endpoints: [url] });
    assert.deepEqual((await alone.list('/load/')).entries, entries);
  }
});

test('a store whose watch lags far behind compaction reads the state anew and misses nothing', {
  skip,
}, async (t) => {
  await using etcd = await startEtcd();
  await using through = await gate(Number(new URL(etcd.urls[0] ?? '').port));
  await using far = await openEtcdStore({ endpoints: [through.url] });
  await using near = await openEtcdStore({ endpoints: etcd.urls });
  const workload = new Workload({ stores: [far, near], clients: 4, mayLag: true });
  for (let round = 0; round < 3; round++) {
    await workload.progress(WRITES);
    await through.close();
    await workload.progress(WRITES);
    await near.compact(await near.revision());
    await through.open();
    await workload.progress(WRITES);
  }
  await workload.check();
  t.diagnostic(workload.summary);
});

test('without a majority nothing is acknowledged, and afterwards all goes on', {
  skip,
}, async () => {
  await using etcd = await startEtcd({ members: 3 });
  await using store = await openEtcdStore({ endpoints: etcd.urls });
  await store.transact([], [put('/a', '1')]);
  const [first, second] = etcd.members;
  await Promise.all([first?.kill(), second?.kill()]);
  await assert.rejects(store.transact([], [put('/a', '2')]), { code: 'STORE_WRITE' });
  await assert.rejects(store.get('/a'), { code: 'STORE_UNAVAILABLE' });
  // What is known already can be read as it was.
  assert.equal(text((await store.get('/a', 1))?.value), '1');
  await Promise.all([first?.restart(), second?.restart()]);
  assert.match(text((await store.get('/a'))?.value), /^[12]$/);
  await store.transact([], [put('/a', '3')]);
  assert.equal(text((await store.get('/a'))?.value), '3');
});

test('a member of another cluster is refused', { skip }, async () => {
  await using mine = await startEtcd();
  await using other = await startEtcd();
  await using store = await openEtcdStore({ endpoints: [...mine.urls, ...other.urls] });
  await store.transact([], [put('/a', '1')]);
  await mine.members[0]?.kill();
  await assert.rejects(store.get('/a'), { code: 'STORE_UNAVAILABLE' });
  await assert.rejects(store.transact([], [put('/a', '2')]), { code: 'STORE_WRITE' });
  await mine.members[0]?.restart();
  assert.equal(text((await store.get('/a'))?.value), '1');
  await using untouched = await openEtcdStore({ endpoints: other.urls });
  assert.equal(await untouched.get('/a'), undefined);
});

test('an etcd that is out of space refuses writes, and goes on when there is space', {
  skip,
}, async () => {
  await using etcd = await startEtcd({ args: ['--quota-backend-bytes', String(4 * 1024 * 1024)] });
  await using store = await openEtcdStore({ endpoints: etcd.urls });
  const fill = async () => {
    for (let i = 0; ; i++)
      await store.transact(
        [],
        [{ type: 'put', key: '/big', value: new Uint8Array(500_000).fill(i) }],
      );
  };
  await assert.rejects(fill(), { code: 'STORE_WRITE', isOutOfSpace: true, isUncertain: false });
  const [url = ''] = etcd.urls;
  assert.equal((await store.get('/big'))?.value.length, 500_000);
  await store.compact(await store.revision());
  // As the operator of an etcd does: defragment, and take back the alarm.
  await post(url, 'maintenance/defragment', {});
  const { alarms } = (await post(url, 'maintenance/alarm', { action: 'GET' })) as {
    alarms: { memberID: string; alarm: string }[];
  };
  for (const { memberID, alarm } of alarms)
    await post(url, 'maintenance/alarm', { action: 'DEACTIVATE', memberID, alarm });
  await store.transact([], [put('/a', 'again')]);
});
