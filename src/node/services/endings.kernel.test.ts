/**
 * What becomes of TCP connections whose endpoint is removed, by every kind of frontend, with real packets: they are reset
 * at the client's next packet, also where a new connection would be dropped. Those to an endpoint that is only not ready,
 * and those of a service that is gone, live on.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { SERVICE } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE } from '#api/discovery/v1/endpoint-slice.ts';
import { openConntrack } from '#linux/conntrack/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { STEADY_CLIENTS } from './testing/flow-agent.ts';
import { startFlowFeature } from './testing/flow-feature.ts';
import {
  ADDRESS,
  type Flow,
  type FlowService,
  flowsOf,
  type Layout,
  type Policy,
  serviceObject,
  sliceObject,
  TARGET_PORT,
} from './testing/flows.ts';
import { LOAD_SERVER } from './testing/load.ts';
import { World } from './testing/world.ts';

/** Where the clients are. The service's kernel is the node's own, so its connections need no other path. */
const CLIENTS = ['podB', 'node', 'client'] as const;
/** For what must come: a busy machine gets its time. */
const WAIT_MS = 20_000;
/** Echoes that a connection has after the change if nothing ends it: many times what the cleanup waits. */
const ECHOES = 8;

interface Case {
  readonly what: string;
  readonly policy: Policy;
  readonly first: Layout;
  readonly then: Layout | 'no service';
  readonly end: 'reset' | 'kept';
}

const row = (
  what: string,
  policy: Policy,
  [first, then]: readonly [Layout, Layout | 'no service'],
  end: Case['end'],
): Case => ({ what, policy, first, then, end });
const CASES: readonly Case[] = [
  row('one here goes, another stays', 'Cluster', ['here', 'elsewhere'], 'reset'),
  row('one elsewhere goes, another stays', 'Cluster', ['elsewhere', 'here'], 'reset'),
  row('the last one goes, which is here', 'Cluster', ['here', 'none'], 'reset'),
  row('the last one goes, which is elsewhere', 'Cluster', ['elsewhere', 'none'], 'reset'),
  row('the last one here goes', 'external Local', ['here', 'elsewhere'], 'reset'),
  row('the last one here goes', 'internal Local', ['here', 'elsewhere'], 'reset'),
  row('the last one of all goes', 'external Local', ['here', 'none'], 'reset'),
  row('one is ending', 'Cluster', ['here', 'ending here'], 'kept'),
  row('one is not ready any more', 'Cluster', ['elsewhere', 'not ready'], 'kept'),
  row('the service goes', 'Cluster', ['here', 'no service'], 'kept'),
];

const stack = new AsyncDisposableStack();
const services: (FlowService & Case)[] = ([4, 6] as const).flatMap((family, f) =>
  CASES.map((it, i) => ({
    ...{ ...it, family, layout: it.first, affinity: false, protocol: 'TCP' as const },
    number: 1 + i + f * CASES.length,
  })),
);
interface Steady {
  readonly flow: Flow;
  readonly heard: string[];
  /** How much it had heard when its endpoint went. */
  before: number;
}
const connections: Steady[] = [];
const isError = (line: string) => line.startsWith('E');

before(async () => {
  const world = stack.use(new World());
  for (const place of ['podA', 'remote'] as const) {
    const hosts = ([4, 6] as const).map((family) => ADDRESS[family][place]);
    const server = world.start(place, LOAD_SERVER, [hosts.join(), String(TARGET_PORT)]);
    await once(server.stdout, 'data');
  }
  const nftables = stack.use(openNftables({ netns: world.node.path }));
  const conntrack = stack.use(openConntrack({ netns: world.node.path }));
  const { api } = await startFlowFeature(stack, nftables, services, { conntrack });
  for (const place of CLIENTS) connect(world, place);
  await until(() => connections.every(({ heard }) => heard.length > 1));
  for (const steady of connections) {
    assert.ok(!steady.heard.some(isError), `${steady.flow.title}: ${steady.heard.join()}`);
    steady.before = steady.heard.length;
  }
  for (const { number, then, ...service } of services)
    if (then === 'no service') {
      api.remove(SERVICE, `default/s${number}`);
      api.remove(ENDPOINT_SLICE, `default/s${number}-1`);
    } else {
      api.put(SERVICE, serviceObject({ ...service, number }));
      api.put(ENDPOINT_SLICE, sliceObject({ ...service, number, layout: then }));
    }
});
after(() => stack.disposeAsync());

for (const service of services)
  test(`${service.what}, policy ${service.policy}, IPv${service.family}: its connections are ${service.end}`, async () => {
    const ours = connections.filter(({ flow }) => flow.service === service);
    assert.equal(ours.length, CLIENTS.length * 4);
    const isDone = ({ heard, before: had }: Steady) =>
      heard.some(isError) || (service.end === 'kept' && heard.length > had + ECHOES);
    await until(() => ours.every(isDone));
    const end = ({ heard }: Steady) => heard.find(isError) ?? 'none';
    assert.deepEqual(
      ours.map((it) => `${it.flow.title}: ${end(it)}, ${isDone(it)}`),
      ours.map(
        (it) => `${it.flow.title}: ${service.end === 'reset' ? 'ECONNRESET' : 'none'}, true`,
      ),
    );
  });

/** Connects from a place to every frontend of every service. */
function connect(world: World, place: (typeof CLIENTS)[number]): void {
  const flows = services.flatMap(flowsOf).filter(({ source }) => source === place);
  const asked = flows.map(({ destination, port }) => [destination, port]);
  const client = world.start(place, STEADY_CLIENTS, [JSON.stringify(asked)]);
  const all = flows.map((flow): Steady => ({ flow, heard: [], before: 0 }));
  connections.push(...all);
  createInterface({ input: client.stdout }).on('line', (line) => {
    const [, number, text = ''] = /^(\d+) (.*)/.exec(line) ?? [];
    all[Number(number)]?.heard.push(text);
  });
}

/** Waits for it, or as long as that may take: what is not so then is said by the assertions. */
async function until(condition: () => boolean): Promise<void> {
  const endMs = performance.now() + WAIT_MS;
  while (performance.now() < endMs && !condition())
    await new Promise((resolve) => setTimeout(resolve, 20));
}
