/** The whole table of flows through the tables that the feature makes, without a kernel. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { familyOf, type Ip } from '#lib/ip.ts';
import { FakeNftables } from '#linux/nftables/fake.ts';
import { ENDPOINTS, PROTOCOL_NUMBERS } from './program.ts';
import { startFlowFeature } from './testing/flow-feature.ts';
import {
  ADDRESS,
  type Expected,
  type Flow,
  flowServices,
  flowsOf,
  LINK,
  PLACES,
  type Place,
  strayFlowsOf,
} from './testing/flows.ts';
import { Tracer } from './tracer.ts';

const stack = new AsyncDisposableStack();
const nftables = new FakeNftables();
const services = flowServices();

before(() => startFlowFeature(stack, nftables, services));
after(() => stack.disposeAsync());

let draw: (modulus: number) => number = () => 0;
const tracers = new Map<string, Tracer>();
function tracerOf(family: 'ip' | 'ip6'): Tracer {
  const made = tracers.get(family);
  if (made !== undefined) return made;
  const table = nftables.dumpTable(family, 'tulle');
  assert.ok(table);
  const isLocal = (address: Ip) => linkTo(address) === 'lo';
  const tracer = new Tracer(table, { route: linkTo, isLocal, draw: (modulus) => draw(modulus) });
  tracers.set(family, tracer);
  return tracer;
}

/** What becomes of a flow, over all slots that could be drawn. */
function traced(flow: Flow): Expected {
  const { family, protocol } = flow.service;
  const tracer = tracerOf(family === 4 ? 'ip' : 'ip6');
  const endpoints = new Map<string, { place: Place; isMasqueraded: boolean }>();
  for (let slot = 0, slots = 1; slot < slots; slot++) {
    draw = (modulus) => {
      slots = modulus;
      return slot;
    };
    tracer.forget();
    const result = tracer.trace({
      source: ADDRESS[family][flow.source],
      destination: flow.destination,
      protocol: PROTOCOL_NUMBERS[protocol],
      sourcePort: 40_000,
      destinationPort: flow.port,
      ...(flow.source === 'node' ? {} : { link: LINK[flow.source] }),
    });
    if (result.verdict !== 'accept') return { verdict: result.verdict };
    const place = placeOf(result.destination);
    assert.ok(place, `${flow.title}: it goes to ${result.destination}`);
    assert.equal(result.destinationPort, 8080);
    endpoints.set(place, { place, isMasqueraded: result.isMasqueraded });
  }
  return { verdict: 'accept', endpoints: [...endpoints.values()].sort(byPlace) };
}

const byPlace = (a: { place: Place }, b: { place: Place }) => (a.place < b.place ? -1 : 1);
const placeOf = (address: Ip) =>
  PLACES.find((place) => ADDRESS[familyOf(address)][place] === address);
const linkTo = (address: Ip) => LINK[placeOf(address) ?? 'client'];

for (const service of services)
  test(`flows of a service: policy ${service.policy}, endpoints ${service.layout}, affinity ${service.affinity}, ${service.protocol}, IPv${service.family}`, () => {
    for (const flow of flowsOf(service)) assert.deepEqual(traced(flow), flow.expected, flow.title);
  });

for (const service of services)
  if (service.policy === 'Cluster' && service.layout === 'mixed' && !service.affinity)
    test(`flows to what no service has, ${service.protocol}, IPv${service.family}`, () => {
      for (const flow of strayFlowsOf(service))
        assert.deepEqual(traced(flow), flow.expected, flow.title);
    });

for (const family of ['ip', 'ip6'] as const)
  test(`a packet that finds no endpoint because the rules change is dropped, and not refused, ${family}`, () => {
    const table = nftables.dumpTable(family, 'tulle');
    assert.ok(table);
    const torn = new Tracer(
      {
        ...table,
        sets: table.sets.map((it) => (it.set === ENDPOINTS ? { ...it, elements: [] } : it)),
      },
      { route: linkTo, isLocal: (address) => linkTo(address) === 'lo', draw: () => 0 },
    );
    const balanced = services
      .filter((it) => it.family === (family === 'ip' ? 4 : 6) && !it.affinity)
      .flatMap(flowsOf)
      .filter((it) => it.frontend === 'cluster IP' && it.expected.verdict === 'accept');
    assert.ok(balanced.length > 100, `${balanced.length} flows`);
    for (const { service, source, destination, port, title } of balanced) {
      torn.forget();
      const { verdict } = torn.trace({
        source: ADDRESS[service.family][source],
        ...{ destination, protocol: PROTOCOL_NUMBERS[service.protocol] },
        ...{ sourcePort: 40_000, destinationPort: port },
        ...(source === 'node' ? {} : { link: LINK[source] }),
      });
      assert.equal(verdict, 'drop', title);
    }
  });
