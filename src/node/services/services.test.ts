import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SERVICE } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE } from '#api/discovery/v1/endpoint-slice.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { silentLogger } from '#lib/log.ts';
import { FakeNftables } from '#linux/nftables/fake.ts';
import { Ruleset } from '../ruleset.ts';
import { Services } from './services.ts';
import { serviceOf, sliceOf } from './testing/many-services.ts';

/** A wait in vain ends after so many. */
const MAX_TURNS = 400;

test('Services follows the zone of the node', async () => {
  const [api, nftables, log] = [new FakeApi(), new FakeNftables(), silentLogger];
  api.put(SERVICE, serviceOf(1));
  const slice = sliceOf(1, 2);
  api.put(ENDPOINT_SLICE, {
    ...slice,
    endpoints: (slice.endpoints ?? []).map((endpoint, i) => ({
      ...endpoint,
      hints: { forZones: [{ name: `z${i}` }] },
    })),
  });
  await using stack = new AsyncDisposableStack();
  const ruleset = stack.use(
    new Ruleset({ nftables, log }, { family: 'ip', table: 'tulle', parts: [] }),
  );
  const services = stack.use(startCache(api, SERVICE, { log }));
  const slices = stack.use(startCache(api, ENDPOINT_SLICE, { log }));
  let zone: string | undefined;
  const feature = stack.use(
    new Services(
      { rulesets: [ruleset], services, slices, log },
      { node: { nodeName: 'm1', zone }, zone: () => zone, skipAddresses: [] },
    ),
  );
  const endpoints = () => {
    const sets = nftables.dumpTable('ip', 'tulle')?.sets ?? [];
    const elements = sets.find(({ set }) => set === 'endpoints')?.elements ?? [];
    return elements.map(({ data }) => data?.[3]).sort();
  };
  await feature.start();
  assert.deepEqual(endpoints(), [2, 3]);
  for (const [now, expected] of [
    ['z1', [3]],
    ['z0', [2]],
    ['elsewhere', [2, 3]],
  ] as const) {
    zone = now;
    feature.nodeChanged();
    for (let turn = 0; turn < MAX_TURNS && endpoints().join() !== expected.join(); turn++)
      await new Promise((resolve) => setTimeout(resolve, 5));
    assert.deepEqual(endpoints(), expected);
  }
});

test('Services writes nothing before its start, whatever it hears of the node', async () => {
  const [api, nftables, log] = [new FakeApi(), new FakeNftables(), silentLogger];
  await using stack = new AsyncDisposableStack();
  const ruleset = stack.use(
    new Ruleset({ nftables, log }, { family: 'ip', table: 'tulle', parts: [] }),
  );
  const services = stack.use(startCache(api, SERVICE, { log }));
  const slices = stack.use(startCache(api, ENDPOINT_SLICE, { log }));
  const feature = stack.use(
    new Services(
      { rulesets: [ruleset], services, slices, log },
      { node: { nodeName: 'm1', zone: undefined }, skipAddresses: [] },
    ),
  );
  feature.nodeChanged();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(nftables.committed.length, 0);
  assert.equal(feature.status().ready, false);
  await feature.start();
  assert.notEqual(nftables.committed.length, 0);
});
