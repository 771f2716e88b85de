import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IP_BLOCK, type IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import { IP_POOL, type IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { systemClock } from '#lib/clock.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { planPoolStatus } from './plan.ts';
import { startPoolStatus } from './pool-status.ts';

const pool = (name: string, status?: IPPool['status']): IPPool => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPPool',
  metadata: { name },
  spec: { cidr: '10.244.0.0/16' },
  ...(status === undefined ? {} : { status }),
});
const block = (name: string, poolName: string, count: number): IPBlock => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPBlock',
  metadata: { name },
  spec: {
    ...{ cidr: '10.244.0.0/26', pool: poolName, node: 'm1', affinity: 'Confirmed', sequence: 1 },
    ...{ free: [], releasedAt: {} },
    allocations: Object.fromEntries(
      Array.from({ length: count }, (_, i) => [
        String(i),
        { handle: `h${i}`, sequence: 1, since: '', node: 'm1', purpose: 'Pod' },
      ]),
    ),
  },
});

test('planPoolStatus() sums the blocks of each pool, and is silent when the status is right', () => {
  const blocks = [block('x', 'a', 3), block('y', 'a', 2), block('z', 'b', 1)];
  const wrong = planPoolStatus(
    [pool('a'), pool('b', { allocated: 1, blocks: 1 }), pool('c')],
    blocks,
  );
  assert.deepEqual(
    wrong.map(({ pool: { metadata }, status }) => [metadata.name, status.allocated, status.blocks]),
    [
      ['a', 5, 2],
      ['c', 0, 0],
    ],
  );
});

test('startPoolStatus() writes what the blocks say, and then nothing', async () => {
  const api = new FakeApi();
  api.put(IP_POOL, pool('a'));
  api.put(IP_BLOCK, block('x', 'a', 3));
  const log = silentLogger;
  await using pools = startCache(api, IP_POOL, { log });
  await using blocks = startCache(api, IP_BLOCK, { log });
  await using status = startPoolStatus({ client: api, pools, blocks, log, clock: systemClock });
  await status.settled();
  assert.equal((await api.get(IP_POOL, 'a')).status?.allocated, 3);
  await until(() => pools.get('a')?.status !== undefined);
  const writes = api.writes.length;
  await status.settled();
  assert.equal(api.writes.length, writes);
});
