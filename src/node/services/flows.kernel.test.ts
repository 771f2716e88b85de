/** The table of flows with real packets: what the tracer says is what the kernel does. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { SERVICE } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE } from '#api/discovery/v1/endpoint-slice.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { silentLogger } from '#lib/log.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { Ruleset } from '../ruleset.ts';
import { Services } from './services.ts';
import {
  ADDRESS,
  type Flow,
  flowServices,
  flowsOf,
  PLACES,
  serviceObject,
  sliceObject,
} from './testing/flows.ts';
import { World } from './testing/world.ts';

/** Enough that a choice of two is seen to be one of two; that it is drawn fairly is no question here. */
const TRIES = 2;
const stack = new AsyncDisposableStack();
const flows = flowServices({ protocols: ['TCP', 'UDP'] }).flatMap(flowsOf);
const heard = new Map<Flow, readonly string[]>();

before(async () => {
  const world = stack.use(new World());
  await world.serve(['podA', 'podB', 'remote']);
  const api = new FakeApi();
  for (const service of flowServices({ protocols: ['TCP', 'UDP'] })) {
    api.put(SERVICE, serviceObject(service));
    api.put(ENDPOINT_SLICE, sliceObject(service));
  }
  const log = silentLogger;
  const nftables = stack.use(openNftables({ netns: world.node.path }));
  const rulesets = (['ip', 'ip6'] as const).map((family) =>
    stack.use(new Ruleset({ nftables, log }, { family, table: 'tulle', parts: [] })),
  );
  const caches = {
    services: stack.use(startCache(api, SERVICE, { log })),
    slices: stack.use(startCache(api, ENDPOINT_SLICE, { log })),
  };
  const feature = stack.use(
    new Services(
      { rulesets, ...caches, log },
      {
        node: { nodeName: 'm1', zone: undefined },
        skipAddresses: [],
        nodePortAddresses: () => [ADDRESS[4].node, ADDRESS[6].node],
      },
    ),
  );
  await feature.start();
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
