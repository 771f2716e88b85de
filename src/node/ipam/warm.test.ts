import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { IP_BLOCK, type IPAllocation } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { FakeApi } from '#client/fake.ts';
import { FakeClock } from '#lib/clock.ts';
import type { Ip } from '#lib/ip.ts';
import { parseIpRange } from '#lib/ip-range.ts';
import { silentLogger } from '#lib/log.ts';
import type { AddressResult, AllocatedAddress } from '../addresses.ts';
import { Allocator } from './allocator.ts';
import { allocationsOf } from './block.ts';
import type { WarmInit } from './warm.ts';

const pod = (handle: string) => ({ owner: { handle, purpose: 'Pod' as const } });

/** A node with one block of 32 addresses that belongs to it, and what is warm in it. */
async function setup(warm: WarmInit = { count: 2 }) {
  const clock = new FakeClock();
  const api = new FakeApi({ clock });
  let spec: IPPool['spec'] = { cidr: '192.0.2.0/24', blockSize: 27 };
  const pools = (): IPPool[] => [
    { apiVersion: 'tulle.dev/v1alpha1', kind: 'IPPool', metadata: { name: 'v4' }, spec },
  ];
  const start = (node = 'n1') =>
    new Allocator({ client: api, node, pools, log: silentLogger, clock, warm });
  const allocator = start();
  await allocator.tunnelAddress(4);
  await allocator.tendWarm();
  const allocations = () => api.objects(IP_BLOCK).flatMap(allocationsOf);
  return {
    ...{ clock, api, allocator, start },
    setPool: (change: Partial<IPPool['spec']>) => {
      spec = { ...spec, ...change };
    },
    warm: () => allocations().filter(({ allocation }) => allocation.purpose === 'Warm'),
    of: (address: Ip | undefined): IPAllocation | undefined =>
      allocations().find((it) => it.address.address === address)?.allocation,
  };
}

function only(result: AddressResult): AllocatedAddress {
  assert.ok(result.kind === 'allocated', 'message' in result ? result.message : '');
  const [address, ...others] = result.addresses;
  assert.ok(address !== undefined && others.length === 0);
  return address;
}

describe('Allocator with warm addresses', () => {
  test('gives one without a request to the API, and tells the API after', async () => {
    const { api, allocator, warm, of } = await setup();
    assert.equal(warm().length, 2);
    const before = api.requests.length;
    const address = only(await allocator.allocate(pod('p')));
    assert.equal(api.requests.length, before);
    assert.equal(of(address.address)?.purpose, 'Warm');
    await allocator.tendWarm();
    const told = of(address.address);
    assert.deepEqual([told?.handle, told?.purpose], ['p', 'Pod']);
    assert.equal(told?.sequence, address.sequence, 'it is the same life');
    assert.equal(warm().length, 2, 'and there is a new one');
    assert.equal(api.requests.length, before + 1, 'in one write');
  });

  test('tells the API by itself a moment later', async () => {
    const { clock, allocator, of } = await setup();
    const address = only(await allocator.allocate(pod('p')));
    clock.advance(10);
    clock.advance(0);
    for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(of(address.address)?.handle, 'p');
  });

  test('gives what is warm while the API is away, and gives it back when it is there again', async () => {
    const { api, allocator, of } = await setup();
    api.setReachable(false);
    const [a, b] = [
      only(await allocator.allocate(pod('a'))),
      only(await allocator.allocate(pod('b'))),
    ];
    await assert.rejects(allocator.tendWarm());
    await assert.rejects(allocator.allocate(pod('c')));
    await assert.rejects(allocator.release('b'));
    api.setReachable(true);
    assert.deepEqual(await allocator.release('b'), [b.address]);
    await allocator.tendWarm();
    assert.deepEqual([of(a.address)?.handle, of(b.address)], ['a', undefined]);
  });

  test('gives a handle the same address again, told or not', async () => {
    const { allocator } = await setup();
    const first = only(await allocator.allocate(pod('p')));
    assert.deepEqual(only(await allocator.allocate(pod('p'))), first);
    await allocator.tendWarm();
    assert.deepEqual(only(await allocator.allocate(pod('p'))), first);
  });

  test('gives a warm address to who asks for it by name, unless a pod has it', async () => {
    const { allocator, warm, start } = await setup();
    const named = warm()[0]?.address;
    assert.ok(named !== undefined);
    const byName = (handle: string) => ({ ...pod(handle), requested: [named.address] });
    assert.equal((await start('n2').allocate(byName('other node'))).kind, 'refused');
    assert.equal(only(await allocator.allocate(byName('p'))).sequence, named.sequence);
    assert.equal((await allocator.allocate(byName('q'))).kind, 'refused');
    const next = only(await allocator.allocate(pod('q')));
    assert.notEqual(next.address, named.address);
    assert.equal(
      (await allocator.allocate({ ...pod('r'), requested: [next.address] })).kind,
      'refused',
      'handed out, and the API does not know yet',
    );
  });

  test('gives one of the ranges that are named, and no other', async () => {
    const { api, allocator, warm } = await setup();
    const wanted = warm()[1]?.address.address;
    assert.ok(wanted !== undefined);
    const range = parseIpRange(wanted);
    assert.ok(range !== undefined);
    const before = api.requests.length;
    const address = only(await allocator.allocate({ ...pod('p'), ranges: [range] }));
    assert.deepEqual([address.address, api.requests.length], [wanted, before]);
    assert.equal((await allocator.allocate({ ...pod('q'), ranges: [range] })).kind, 'exhausted');
  });

  const changes: [what: string, change: Partial<IPPool['spec']>][] = [
    ['is disabled', { disabled: true }],
    ['reserves them', { reserved: ['192.0.2.0/24'] }],
    ['is for some namespaces only', { namespaceSelector: { matchLabels: { team: 'a' } } }],
  ];
  for (const [what, change] of changes)
    test(`gives them back when their pool ${what}, and nobody gets one meanwhile`, async () => {
      const { allocator, warm, setPool } = await setup();
      setPool(change);
      assert.equal((await allocator.allocate(pod('p'))).kind, 'exhausted');
      await allocator.tendWarm();
      assert.deepEqual(warm(), []);
    });

  test('does not give out what it is about to give back, even if that cannot be written', async () => {
    const { api, allocator, setPool, warm } = await setup();
    const before = warm().map((it) => it.address.address);
    setPool({ reserved: ['192.0.2.0/24'] });
    api.setReachable(false);
    await assert.rejects(allocator.tendWarm());
    api.setReachable(true);
    await allocator.tendWarm();
    setPool({ reserved: [] });
    const address = only(await allocator.allocate(pod('p')));
    assert.equal(before.includes(address.address), false);
  });

  test('counts a block with nothing but warm addresses as empty, and forgets them with it', async () => {
    const { allocator, api, warm } = await setup();
    await allocator.release('vxlan-tunnel-addr-n1');
    const [name] = await allocator.emptyBlocks();
    assert.ok(name !== undefined);
    assert.equal(await allocator.giveBack(name), true);
    assert.deepEqual(warm(), []);
    api.setReachable(false);
    await assert.rejects(allocator.allocate(pod('p')), 'nothing is ready any more');
  });

  test('a node that stops gives them back, and the next process does not take over what is left', async () => {
    const { allocator, warm, start } = await setup();
    const left = warm().map((it) => it.address.address);
    const next = start();
    const address = only(await next.allocate(pod('p')));
    assert.equal(left.includes(address.address), false);
    await allocator[Symbol.asyncDispose]();
    assert.deepEqual(warm(), []);
  });

  test('gives them back when others have borrowed much of the block', async () => {
    const { allocator, start, warm } = await setup({ count: 8 });
    assert.equal(warm().length, 8);
    const other = start('n2');
    // Its own blocks are those of the other seven eighths of the pool.
    for (let i = 0; i < 7 * 32 + 23; i++) await other.allocate(pod(`b${i}`));
    await allocator.allocations();
    await allocator.tendWarm();
    assert.deepEqual(warm(), []);
  });

  test('what becomes a pod’s again while the pod goes is released with it', async () => {
    const { allocator, start, of } = await setup();
    const { address } = only(await allocator.allocate(pod('p')));
    const next = start();
    const again = next.allocate({ ...pod('p'), requested: [address], inUse: true });
    await next.release('p');
    assert.equal(only(await again).address, address);
    assert.equal(of(address), undefined);
  });

  test('keeps addresses free for others, and more warm after a burst', async () => {
    const { clock, allocator, warm } = await setup({ count: 2, keepFree: 20 });
    for (let i = 0; i < 6; i++) await allocator.allocate(pod(`p${i}`));
    await allocator.tendWarm();
    // 32 - 7 in use - 20 = 5, and half of it.
    assert.equal(warm().length, 2);
    const roomy = await setup({ count: 2, keepFree: 8 });
    for (let i = 0; i < 6; i++) await roomy.allocator.allocate(pod(`p${i}`));
    await roomy.allocator.tendWarm();
    assert.equal(roomy.warm().length, 6);
    roomy.clock.advance(60_000);
    await roomy.allocator.tendWarm();
    assert.equal(roomy.warm().length, 2);
    clock.advance(0);
  });
});
