/** Histories of services and slices: the end state must not depend on how the news arrived. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SERVICE, type Service } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE, type EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { silentLogger } from '#lib/log.ts';
import { FakeNftables } from '#linux/nftables/fake.ts';
import { inTable } from '#wire/nftables/objects.ts';
import { Ruleset } from '../ruleset.ts';
import { Services } from './services.ts';

type Step =
  | { readonly put: 'service'; readonly object: Service }
  | { readonly put: 'slice'; readonly object: EndpointSlice }
  | { readonly remove: 'service' | 'slice'; readonly key: string }
  | { readonly fault: 'table' | 'elements' };

const NAMES = ['a', 'b', 'c'];
const name = fc.constantFrom(...NAMES);
const serviceStep = fc
  .record({
    name,
    external: fc.subarray(['198.51.100.1', '198.51.100.2']),
    local: fc.boolean(),
    affinity: fc.boolean(),
    balance: fc.constantFrom('random', 'source-hash', 'maglev'),
  })
  .map(({ name: n, external, local, affinity, balance }): Step => {
    const clusterIP = `10.96.0.${1 + NAMES.indexOf(n)}`;
    return {
      put: 'service',
      object: {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: n, namespace: 'default', annotations: { 'tulle.dev/balance': balance } },
        spec: {
          ...{ type: 'NodePort', clusterIP, clusterIPs: [clusterIP], externalIPs: external },
          ports: [{ port: 80, protocol: 'TCP', nodePort: 30_000 + NAMES.indexOf(n) }],
          externalTrafficPolicy: local ? 'Local' : 'Cluster',
          sessionAffinity: affinity ? 'ClientIP' : 'None',
        },
      },
    };
  });
const sliceStep = fc
  .record({ name, part: fc.constantFrom('1', '2'), endpoints: fc.subarray([1, 2, 3, 4, 5]) })
  .map(
    ({ name: n, part, endpoints }): Step => ({
      put: 'slice',
      object: {
        apiVersion: 'discovery.k8s.io/v1',
        kind: 'EndpointSlice',
        metadata: {
          ...{ name: `${n}-${part}`, namespace: 'default' },
          labels: { 'kubernetes.io/service-name': n },
        },
        addressType: 'IPv4',
        ports: [{ name: '', port: 8080, protocol: 'TCP' }],
        endpoints: endpoints.map((i) => ({
          addresses: [`10.0.0.${i}`],
          nodeName: i < 3 ? 'm1' : 'm2',
        })),
      },
    }),
  );
const removal = fc.oneof(
  name.map((n): Step => ({ remove: 'service', key: `default/${n}` })),
  fc
    .record({ name, part: fc.constantFrom('1', '2') })
    .map(({ name: n, part }): Step => ({ remove: 'slice', key: `default/${n}-${part}` })),
);
const fault = fc.constantFrom<Step>({ fault: 'table' }, { fault: 'elements' });
const history = fc.array(
  fc.oneof(
    { weight: 4, arbitrary: serviceStep },
    { weight: 6, arbitrary: sliceStep },
    { weight: 2, arbitrary: removal },
    { weight: 1, arbitrary: fault },
  ),
  { maxLength: 25 },
);

/** Plays a history. @param settle waits after each step, else everything arrives at once */
async function play(steps: readonly Step[], settle: boolean): Promise<unknown> {
  const api = new FakeApi();
  const nftables = new FakeNftables();
  const log = silentLogger;
  await using stack = new AsyncDisposableStack();
  const ruleset = stack.use(
    new Ruleset({ nftables, log }, { family: 'ip', table: 'tulle', parts: [] }),
  );
  const services = stack.use(startCache(api, SERVICE, { log }));
  const slices = stack.use(startCache(api, ENDPOINT_SLICE, { log }));
  const feature = stack.use(
    new Services(
      { rulesets: [ruleset], services, slices, log },
      {
        ...{ node: { nodeName: 'm1', zone: undefined }, skipAddresses: [] },
        nodePortAddresses: () => ['192.0.2.1' as never],
      },
    ),
  );
  await feature.start();
  for (const step of steps) {
    if ('fault' in step) {
      const table = inTable('ip', 'tulle');
      nftables.commitAsOther([
        step.fault === 'table' ? table.table.destroy() : table.set.flush('endpoints'),
      ]);
    } else if ('remove' in step)
      api.remove(step.remove === 'service' ? SERVICE : ENDPOINT_SLICE, step.key);
    else if (step.put === 'service') api.put(SERVICE, step.object);
    else api.put(ENDPOINT_SLICE, step.object);
    if (settle) await rest();
  }
  await rest();
  // A foreign change is repaired by the watch; the mirror then says that all is well.
  for (let i = 0; i < 200 && !ruleset.status().inSync; i++) await rest();
  return stateOf(nftables);
}

async function rest(): Promise<void> {
  for (let i = 0; i < 8; i++) await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => setTimeout(resolve, 3));
}

/** What packets can tell: slots in any order, and only chains that something leads to. */
function stateOf(nftables: FakeNftables): unknown {
  const sets = nftables.dumpTable('ip', 'tulle')?.sets ?? [];
  const hex = (bytes: Uint8Array | undefined) => Buffer.from(bytes ?? []).toString('hex');
  const chains = new Map(
    sets
      .find(({ set }) => set === 'choices')
      ?.elements.map(({ key, verdict }) => [hex(key), JSON.stringify(verdict)]),
  );
  return sets
    .filter(({ set, elements }) => !/^(affinity|choices)$/.test(set) && elements.length > 0)
    .map(({ set, elements }) => [
      set,
      elements
        .map(({ key, data }) => {
          const isSlot = set === 'endpoints' || set === 'affinity-slots';
          const shown = isSlot ? key.subarray(0, key.length - 4) : key;
          // Chains are numbered in the order of their coming.
          const isFrontend = set.endsWith('frontends') && data !== undefined;
          return `${hex(shown)} ${isFrontend ? chains.get(hex(data)) : hex(data)}`;
        })
        .sort(),
    ])
    .sort();
}

test('the end of a history does not depend on how it arrived', async () => {
  await fc.assert(
    fc.asyncProperty(history, async (steps) => {
      const slow = await play(steps, true);
      assert.deepEqual(await play(steps, false), slow, 'all at once');
      const doubled = steps.flatMap((step) => [step, step]);
      assert.deepEqual(await play(doubled, false), slow, 'each step twice');
    }),
    { numRuns: Number(process.env.TULLE_TEST_HISTORIES ?? 15) },
  );
});
