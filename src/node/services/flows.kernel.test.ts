/** The table of flows with real packets: what the tracer says is what the kernel does. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { openNftables } from '#linux/nftables/kernel.ts';
import { startFlowFeature } from './testing/flow-feature.ts';
import {
  ADDRESS,
  type Flow,
  type FlowService,
  flowServices,
  flowsOf,
  PLACES,
  strayFlowsOf,
} from './testing/flows.ts';
import { World } from './testing/world.ts';

/** Enough that a choice of two is seen to be one of two; that it is drawn fairly is no question here. */
const TRIES = 2;
const stack = new AsyncDisposableStack();
const services = flowServices({ protocols: ['TCP', 'UDP'] });
const flows = [...services.flatMap(flowsOf), ...services.filter(isPlain).flatMap(strayFlowsOf)];
const heard = new Map<Flow, readonly string[]>();

before(async () => {
  const world = stack.use(new World());
  await world.serve(['podA', 'podB', 'remote']);
  const nftables = stack.use(openNftables({ netns: world.node.path }));
  await startFlowFeature(stack, nftables, services);
  for (const place of ['podA', 'podB', 'node', 'client', 'stranger'] as const) {
    const ours = flows.filter(({ source }) => source === place);
    const asks = ours.map(({ service, destination, port, expected }) => ({
      protocol: service.protocol === 'UDP' ? ('UDP' as const) : ('TCP' as const),
      ...{ host: destination, port, tries: expected.verdict === 'drop' ? 1 : TRIES },
      ...(place === 'node' ? {} : { from: ADDRESS[service.family][place] }),
    }));
    const answers = await world.ask(place, asks);
    ours.forEach((flow, i) => {
      heard.set(flow, answers[i] ?? []);
    });
  }
});
after(() => stack.disposeAsync());

/** One service of each family and protocol. */
function isPlain({ policy, layout, affinity }: FlowService): boolean {
  return policy === 'Cluster' && layout === 'mixed' && !affinity;
}

/** What a try hears if all is as expected. */
function isExpected({ expected, service, source }: Flow, answer: string): boolean {
  if (!('endpoints' in expected))
    return answer === (expected.verdict === 'drop' ? 'timeout' : 'ECONNREFUSED');
  const addresses = ADDRESS[service.family];
  const [server, client] = answer.split(' ');
  const endpoint = expected.endpoints.find(({ place }) => addresses[place] === server);
  if (endpoint === undefined) return false;
  const isPlace = PLACES.some((place) => place !== 'node' && addresses[place] === client);
  // The node has many addresses; which one it takes for itself is not the service's.
  if (source === 'node') return !isPlace;
  return endpoint.isMasqueraded ? !isPlace : client === addresses[source];
}

for (const family of [4, 6] as const)
  for (const protocol of ['TCP', 'UDP'] as const)
    for (const source of ['podA', 'podB', 'node', 'client', 'stranger'] as const)
      test(`packets of ${source} over ${protocol} and IPv${family} go where they should`, () => {
        const ours = flows.filter(
          ({ service, source: from }) =>
            service.family === family && service.protocol === protocol && from === source,
        );
        assert.ok(ours.length > 100, `${ours.length} flows`);
        const wrong = ours.flatMap((flow) =>
          (heard.get(flow) ?? ['nothing'])
            .filter((answer) => !isExpected(flow, answer))
            .map((answer) => `${flow.title}: ${answer}, not ${JSON.stringify(flow.expected)}`),
        );
        assert.deepEqual(wrong, []);
      });
