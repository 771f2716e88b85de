import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IP_BLOCK } from '#api/tulle/v1alpha1/ip-block.ts';
import { releaseOrdinals } from '#api/tulle/v1alpha1/ip-block-release.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { FakeApi } from '#client/fake.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { allocateTunnelAddresses, startAddressGc } from './addressing.ts';
import { Allocator } from './ipam/allocator.ts';

const POOL: IPPool = {
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPPool',
  metadata: { name: 'v4' },
  spec: { cidr: '192.0.2.0/24' },
};

test('startAddressGc() takes the node’s own address again that somebody has released', async () => {
  const client = new FakeApi();
  const of = (node: string) =>
    new Allocator({ client, node, pools: () => [POOL], log: silentLogger });
  const allocator = of('n1');
  const tunnelAddresses = await allocateTunnelAddresses(allocator, [POOL]);
  const [block] = client.objects(IP_BLOCK);
  assert.ok(block);
  await client.update(
    IP_BLOCK,
    releaseOrdinals(block, Object.keys(block.spec.allocations), Date.now()),
  );
  const cni = { handles: () => [], list: () => [] };
  await using _ = startAddressGc({
    ...{ node: 'n1', allocator, cni, tunnelAddresses, log: silentLogger },
  });
  const held = () =>
    client.objects(IP_BLOCK).flatMap(({ spec }) => Object.values(spec.allocations));
  await until(() => held().some(({ purpose }) => purpose === 'Tunnel'));
  assert.deepEqual(await allocateTunnelAddresses(of('n1'), [POOL]), tunnelAddresses);
});
