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
