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
import { serviceState } from './testing/kernel-state.ts';

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
    internalLocal: fc.boolean(),
    affinitySeconds: fc.constantFrom(undefined, undefined, 60, 10_800),
    ranges: fc.subarray(['203.0.113.0/24', '203.0.113.128/25', '198.51.100.0/24']),
    ports: fc.constantFrom(1, 2),
    balance: fc.constantFrom('random', 'source-hash', 'maglev'),
  })
  .map(
    ({
      name: n,
      external,
      local,
      internalLocal,
      affinitySeconds,
      ranges,
      ports,
      balance,
    }): Step => {
      const clusterIP = `10.96.0.${1 + NAMES.indexOf(n)}`;
      return {
        put: 'service',
        object: {
          apiVersion: 'v1',
          kind: 'Service',
          metadata: {
            ...{ name: n, namespace: 'default' },
            // All of one age: the clock has no say in who is the owner of a contested address.
            creationTimestamp: '2026-01-01T00:00:00Z',
            annotations: { 'tulle.dev/balance': balance },
          },
          spec: {
            ...{ type: 'LoadBalancer', clusterIP, clusterIPs: [clusterIP], externalIPs: external },
            ports: Array.from({ length: ports }, (_, i) => ({
              ...{ name: i === 0 ? '' : 'more', port: 80 + i, protocol: 'TCP' as const },
              nodePort: 30_000 + NAMES.indexOf(n) + 100 * i,
            })),
            internalTrafficPolicy: internalLocal ? 'Local' : 'Cluster',
            loadBalancerSourceRanges: ranges,
            externalTrafficPolicy: local ? 'Local' : 'Cluster',
            ...(affinitySeconds === undefined
              ? {}
              : {
                  sessionAffinity: 'ClientIP' as const,
                  sessionAffinityConfig: { clientIP: { timeoutSeconds: affinitySeconds } },
                }),
          },
          status: { loadBalancer: { ingress: [{ ip: `198.51.100.${10 + NAMES.indexOf(n)}` }] } },
        },
      };
    },
  );
const sliceStep = fc
  .record({
    ...{ name, part: fc.constantFrom('1', '2'), endpoints: fc.subarray([1, 2, 3, 4, 5]) },
    weights: fc.constantFrom(undefined, undefined, '10.0.0.1=3,10.0.0.2=0', '10.0.0.3=2'),
    ending: fc.subarray([1, 2, 3]),
    port: fc.constantFrom('', 'more'),
  })
  .map(
    ({ name: n, part, endpoints, weights, ending, port }): Step => ({
      put: 'slice',
      object: {
        apiVersion: 'discovery.k8s.io/v1',
        kind: 'EndpointSlice',
        metadata: {
          ...{ name: `${n}-${part}`, namespace: 'default' },
          labels: { 'kubernetes.io/service-name': n },
          annotations: weights === undefined ? {} : { 'tulle.dev/weights': weights },
        },
        addressType: 'IPv4',
        ports: [{ name: port, port: 8080, protocol: 'TCP' }],
        endpoints: endpoints.map((i) => ({
          addresses: [`10.0.0.${i}`],
          nodeName: i < 3 ? 'm1' : 'm2',
          conditions: {
            ready: !ending.includes(i),
            serving: true,
            terminating: ending.includes(i),
          },
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
      // Two in a row find nothing any more to damage.
      if (nftables.dumpTable('ip', 'tulle') === undefined) continue;
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
  return serviceState(nftables);
}

async function rest(): Promise<void> {
  for (let i = 0; i < 8; i++) await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => setTimeout(resolve, 3));
}

/** Before each object comes another of its name, and what is removed comes once more before. */
function detoured(steps: readonly Step[]): Step[] {
  const last = new Map<string, Step>();
  return steps.flatMap((step) => {
    if ('fault' in step) return [step];
    if ('remove' in step) {
      const other = last.get(`${step.remove} ${step.key}`);
      return other === undefined ? [step] : [other, step];
    }
    const key = `${step.put} default/${step.object.metadata.name}`;
    const other = last.get(key);
    last.set(key, step);
    return other === undefined ? [step] : [step, other, step];
  });
}

test('the end of a history does not depend on how it arrived', async () => {
  await fc.assert(
    fc.asyncProperty(history, async (steps) => {
      const slow = await play(steps, true);
      assert.deepEqual(await play(steps, false), slow, 'all at once');
      const doubled = steps.flatMap((step) => [step, step]);
      assert.deepEqual(await play(doubled, false), slow, 'each step twice');
      assert.deepEqual(await play(detoured(steps), true), slow, 'by a detour');
    }),
    { numRuns: Number(process.env.TULLE_TEST_HISTORIES ?? 15) },
  );
});
