/** People look at the rules with `nft` first, so it must be able to list them, whatever of a service is in use. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { after, before, test } from 'node:test';
import { SERVICE } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE } from '#api/discovery/v1/endpoint-slice.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { cidr } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { ScratchNetns } from '#linux/testing/scratch-netns.ts';
import { Ruleset } from '../ruleset.ts';
import { BALANCE_ANNOTATION } from './plan.ts';
import { Services } from './services.ts';
import { ADDRESS, flowServices, serviceObject, sliceObject } from './testing/flows.ts';

const namespace = new ScratchNetns();
const stack = new AsyncDisposableStack();

before(async () => {
  const api = new FakeApi();
  for (const flow of flowServices({ protocols: ['TCP'] })) {
    const service = serviceObject(flow);
    // A few with the large tables of a consistent hash: more would only take longer to list.
    const balance =
      flow.number % 3 === 0 ? 'source-hash' : flow.number % 19 === 1 ? 'maglev' : undefined;
    api.put(SERVICE, {
      ...service,
      metadata: {
        ...service.metadata,
        ...(balance === undefined ? {} : { annotations: { [BALANCE_ANNOTATION]: balance } }),
      },
    });
    api.put(ENDPOINT_SLICE, sliceObject(flow));
  }
  const log = silentLogger;
  const nftables = stack.use(openNftables({ netns: namespace.path }));
  const feature = stack.use(
    new Services(
      {
        rulesets: (['ip', 'ip6'] as const).map((family) =>
          stack.use(new Ruleset({ nftables, log }, { family, table: 'tulle', parts: [] })),
        ),
        services: stack.use(startCache(api, SERVICE, { log })),
        slices: stack.use(startCache(api, ENDPOINT_SLICE, { log })),
        log,
      },
      {
        node: { nodeName: 'm1', zone: undefined },
        skipAddresses: [],
        nodePortAddresses: () => [ADDRESS[4].node, ADDRESS[6].node],
        serviceNetworks: () => [cidr('10.96.0.0/16'), cidr('fd00:10:96::/112')],
      },
    ),
  );
  await feature.start();
});

after(async () => {
  await stack.disposeAsync();
  namespace[Symbol.dispose]();
});

for (const argv of [
  ['list', 'ruleset'],
  ['list', 'table', 'ip6', 'tulle'],
])
  test(`nft ${argv.join(' ')}`, () => {
    const { status, signal, stderr } = run(argv);
    assert.deepEqual({ status, signal, stderr }, { status: 0, signal: null, stderr: '' });
  });

test('nft -j list ruleset', () => {
  // It warns of what it has no JSON for: `update @map`.
  const { status, signal } = run(['-j', 'list', 'ruleset']);
  assert.deepEqual({ status, signal }, { status: 0, signal: null });
});

test('a frontend can be followed to its endpoint', () => {
  const { stdout } = run(['list', 'table', 'ip', 'tulle']);
  assert.match(
    stdout,
    /meta mark set ip daddr \. meta l4proto \. th dport map @frontends meta mark set meta mark meta mark vmap @choices/,
  );
  assert.match(stdout, /0x00000002 : goto n2[,\s]/);
  assert.match(
    stdout,
    /chain n2 \{\s+dnat (ip )?to ip daddr \. meta l4proto \. th dport \. numgen random mod 2 map @endpoints/,
  );
  assert.match(
    stdout,
    /meta mark set ip saddr \. ip daddr \. meta l4proto \. th dport map @affinity /,
  );
});

function run(argv: readonly string[]) {
  return spawnSync('ip', ['netns', 'exec', namespace.name, 'nft', ...argv], {
    ...{ encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 },
  });
}
