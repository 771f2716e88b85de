/** What clients and connections keep, and what ends with an endpoint: affinity and conntrack, with real packets. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { ENDPOINT_SLICE } from '#api/discovery/v1/endpoint-slice.ts';
import type { FakeApi } from '#client/fake.ts';
import { ip, ipToBytes } from '#lib/ip.ts';
import { openConntrack } from '#linux/conntrack/kernel.ts';
import type { Conntrack } from '#linux/conntrack/port.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import type { Ruleset } from '../ruleset.ts';
import { startFlowFeature } from './testing/flow-feature.ts';
import { ADDRESS, type FlowService, sliceObject } from './testing/flows.ts';
import { World } from './testing/world.ts';

const stack = new AsyncDisposableStack();
let api: FakeApi;
let world: World;
let ruleset: Ruleset | undefined;
let conntrack: Conntrack;
let nftables: Nftables;
const common = { policy: 'Cluster', layout: 'mixed', family: 4 } as const;
const sticky: FlowService = { ...common, number: 1, affinity: true, protocol: 'TCP' };
const udp: FlowService = { ...common, number: 2, affinity: false, protocol: 'UDP' };
const tcp: FlowService = { ...common, number: 3, affinity: false, protocol: 'TCP' };
const addressOf = (service: FlowService) => `10.96.0.${service.number}`;

before(async () => {
  world = stack.use(new World());
  await world.serve(['podA', 'podB', 'remote']);
  nftables = stack.use(openNftables({ netns: world.node.path }));
  conntrack = stack.use(openConntrack({ netns: world.node.path }));
  const started = await startFlowFeature(stack, nftables, [sticky, udp, tcp], { conntrack });
  api = started.api;
  ruleset = started.rulesets[0];
});
after(() => stack.disposeAsync());

test('a client stays with its endpoint, also when the table is made anew, until the endpoint goes', async () => {
  const first = await serversOf(sticky);
  assert.equal(first.size, 1, [...first].join());
  world.node.run('nft', 'add', 'chain', 'ip', 'tulle', 'foreign');
  await until(() => (ruleset?.status().repairs ?? 0) > 0);
  assert.ok(nftables.dumpTable('ip', 'tulle')?.chains.every(({ chain }) => chain !== 'foreign'));
  assert.deepEqual(await serversOf(sticky), first);
  const isPodA = first.has(ADDRESS[4].podA);
  api.put(ENDPOINT_SLICE, sliceObject({ ...sticky, layout: isPodA ? 'elsewhere' : 'here' }));
  const other = isPodA ? ADDRESS[4].remote : ADDRESS[4].podA;
  await until(async () => (await serversOf(sticky)).has(other));
  // Back again, it is not remembered: the client has a new endpoint now.
  api.put(ENDPOINT_SLICE, sliceObject(sticky));
  await until(() => slotsOf(sticky) === 2);
  assert.deepEqual(await serversOf(sticky), new Set([other]));
});

for (const service of [udp, tcp])
  test(`${service.protocol} to an endpoint that is gone is forgotten, and nothing else`, async () => {
    await serversOf(service, 20);
    const to = (place: 'podA' | 'remote') =>
      conntrack
        .list()
        .filter(
          ({ original, reply }) =>
            original.destination === addressOf(service) && reply.source === ADDRESS[4][place],
        ).length;
    const stays = to('podA');
    assert.ok(to('remote') > 0 && stays > 0, `${to('remote')} and ${stays} entries`);
    api.put(ENDPOINT_SLICE, sliceObject({ ...service, layout: 'here' }));
    await until(() => to('remote') === 0);
    assert.equal(to('podA'), stays);
  });

/** Which endpoints answered the client. */
async function serversOf(service: FlowService, tries = 12): Promise<Set<string>> {
  const protocol = service.protocol === 'UDP' ? 'UDP' : 'TCP';
  const ask = { protocol, host: addressOf(service), port: 80, tries } as const;
  const [heard = []] = await world.ask('podB', [ask]);
  return new Set(heard.map((answer) => answer.split(' ')[0] ?? ''));
}

function slotsOf(service: FlowService): number {
  const endpoints = nftables
    .dumpTable('ip', 'tulle')
    ?.sets.find(({ set }) => set === 'endpoints')?.elements;
  const address = Buffer.from(ipToBytes(ip(addressOf(service))));
  return endpoints?.filter(({ key }) => address.equals(key.subarray(0, 4))).length ?? 0;
}

/** The test runner's own time limit ends a wait in vain. */
async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
}
