import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { IP_BLOCK } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { FakeApi } from '#client/fake.ts';
import { FakeClock } from '#lib/clock.ts';
import { cidr, cidrAddress, ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import type { OwnAllocation } from './allocator.ts';
import { Allocator } from './allocator.ts';
import { createIpamGc, type GcState, planGc, planGiveBack } from './gc.ts';

const EMPTY: GcState = { suspects: new Map() };
const own = (handle: string, more: Partial<OwnAllocation['allocation']> = {}): OwnAllocation => ({
  address: {
    address: ip('192.0.2.1'),
    family: 4,
    pool: 'p',
    block: cidr('192.0.2.0/26'),
    sequence: 7,
  },
  allocation: {
    handle,
    sequence: 7,
    since: '2026-01-01T00:00:00Z',
    node: 'n1',
    purpose: 'Pod',
    ...more,
  },
});
const look = (allocations: OwnAllocation[], nowMs: number, state = EMPTY, live: string[] = []) =>
  planGc({
    node: 'n1',
    allocations,
    live: new Set(live),
    inUse: new Set(),
    state,
    nowMs,
    graceMs: 1000,
  });

describe('planGc()', () => {
  test('releases only what two looks, a grace period apart, see without its attachment', () => {
    const first = look([own('a')], 0);
    assert.deepEqual(first.release, []);
    const second = look([own('a')], 999, first.state);
    assert.deepEqual(second.release, []);
    assert.equal(look([own('a')], 1000, second.state).release.length, 1);
  });

  test('forgets a suspicion when the attachment is seen in between', () => {
    const first = look([own('a')], 0);
    const alive = look([own('a')], 500, first.state, ['a']);
    assert.deepEqual(look([own('a')], 5000, alive.state).release, []);
  });

  test('does not carry a suspicion over to the next life of the address', () => {
    const first = look([own('a')], 0);
    const next = { ...own('b'), address: { ...own('b').address, sequence: 8 } };
    assert.deepEqual(look([next], 5000, first.state).release, []);
  });

  test('releases what an earlier process kept warm, unless a record has it', () => {
    const left = own('warm-n1-before', { purpose: 'Warm' });
    const input = { node: 'n1', allocations: [left], nowMs: 0, graceMs: 0 };
    const live = new Set(['warm-n1-now']);
    const plan = (inUse: OwnAllocation[]) => {
      const addresses = new Set(inUse.map((it) => it.address.address));
      const first = planGc({ ...input, live, inUse: addresses, state: EMPTY });
      return planGc({ ...input, live, inUse: addresses, state: first.state }).release;
    };
    assert.deepEqual(plan([]), [left]);
    assert.deepEqual(plan([left]), []);
  });

  for (const [what, allocation] of [
    ['a tunnel address', own('t', { purpose: 'Tunnel' })],
    ["another node's allocation", own('a', { node: 'n2' })],
  ] as const)
    test(`never suspects ${what}`, () => {
      assert.equal(look([allocation], 0).state.suspects.size, 0);
    });
});

test('planGiveBack() leaves a block to others that two looks found empty, the grace period apart', () => {
  const first = planGiveBack(['a', 'b'], new Map(), 0, 1000);
  assert.deepEqual(first.giveBack, []);
  const used = planGiveBack(['a'], first.emptySinceMs, 500, 1000);
  const third = planGiveBack(['a', 'b'], used.emptySinceMs, 1000, 1000);
  assert.deepEqual(third.giveBack, ['a']);
});

const POOL: IPPool = {
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPPool',
  metadata: { name: 'v4' },
  spec: { cidr: '192.0.2.0/24', blockSize: 30 },
};

test('createIpamGc() looks once more right before it releases', async () => {
  const clock = new FakeClock();
  const released: string[] = [];
  let live: string[] = [];
  let comesBack = false;
  const gc = createIpamGc({
    node: 'n1',
    clock,
    log: silentLogger,
    graceMs: 1000,
    liveHandles: () => {
      const now = live;
      if (comesBack) live = ['a'];
      return now;
    },
    allocator: {
      allocations: async () => [own('a')],
      release: async (handle) => {
        released.push(handle);
        return [ip('192.0.2.1')];
      },
      allocate: async () => assert.fail('nothing is held'),
      emptyBlocks: async () => [],
      giveBack: async () => assert.fail('no block is empty'),
      warmHandle: 'warm-n1',
    },
  });
  await gc();
  clock.jump(86_400_000);
  assert.deepEqual(
    await gc(),
    [],
    'a clock that is set forward does not make the looks a grace period apart',
  );
  clock.advance(1000);
  comesBack = true;
  assert.deepEqual(await gc(), []);
  comesBack = false;
  live = [];
  await gc();
  clock.advance(1000);
  assert.deepEqual(await gc(), ['192.0.2.1']);
  assert.deepEqual(released, ['a']);
});

for (const [what, change] of [
  ['as the pool was', {}],
  ['of a pool that is disabled by now', { disabled: true }],
] as const)
  test(`createIpamGc() takes addresses in use again that an older copy of the store does not know, ${what}`, async () => {
    const api = new FakeApi();
    const pools = [POOL];
    const allocator = new Allocator({
      client: api,
      node: 'n1',
      pools: () => pools,
      log: silentLogger,
    });
    const owner = { handle: 'net.c1.eth0', purpose: 'Pod' } as const;
    const given = await allocator.allocate({ owner });
    assert.ok(given.kind === 'allocated');
    const addresses = given.addresses.map((it) => it.address);
    // The copy is from before the block was made.
    for (const block of api.objects(IP_BLOCK))
      await api.delete(IP_BLOCK, { name: block.metadata.name });
    pools.splice(0, 1, { ...POOL, spec: { ...POOL.spec, ...change } });
    const gc = createIpamGc({
      node: 'n1',
      allocator,
      log: silentLogger,
      liveHandles: () => [owner.handle],
      held: () => [{ owner, addresses }],
    });
    await gc();
    const known = (await allocator.allocations()).map((it) => it.address.address);
    assert.deepEqual(known, addresses);
  });

test('createIpamGc() takes an address in use again out of the block that another node has by now, also of a strict pool', async () => {
  const api = new FakeApi();
  const strict = { ...POOL, spec: { ...POOL.spec, strictAffinity: true } };
  const of = (node: string) =>
    new Allocator({ client: api, node, pools: () => [strict], log: silentLogger });
  const [allocator, other] = [of('n1'), of('n2')];
  const theirs = await other.allocate({ owner: { handle: 'x', purpose: 'Pod' } });
  assert.ok(theirs.kind === 'allocated');
  const [block] = api.objects(IP_BLOCK);
  assert.ok(block !== undefined);
  const address = cidrAddress(cidr(block.spec.cidr), block.spec.free[0] ?? 0);
  const owner = { handle: 'net.c1.eth0', purpose: 'Pod' } as const;
  const gc = createIpamGc({
    node: 'n1',
    allocator,
    log: silentLogger,
    liveHandles: () => [owner.handle],
    held: () => [{ owner, addresses: [address] }],
  });
  await gc();
  assert.deepEqual(
    (await allocator.allocations()).map((it) => it.address.address),
    [address],
  );
});
