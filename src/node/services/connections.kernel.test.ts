/** What clients and connections keep, and what ends with an endpoint: affinity and conntrack, with real packets. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { SERVICE } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE } from '#api/discovery/v1/endpoint-slice.ts';
import type { FakeApi } from '#client/fake.ts';
import { ip, ipToBytes } from '#lib/ip.ts';
import { openConntrack } from '#linux/conntrack/kernel.ts';
import type { Conntrack } from '#linux/conntrack/port.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import type { Ruleset } from '../ruleset.ts';
import { startFlowFeature } from './testing/flow-feature.ts';
import {
  ADDRESS,
  type FlowService,
  serviceObject,
  sliceObject,
  TARGET_PORT,
} from './testing/flows.ts';
import { LOAD_SERVER } from './testing/load.ts';
import { type Steady, startSteady, until } from './testing/steady.ts';
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
const late: FlowService = { ...common, number: 4, affinity: false, protocol: 'UDP' };
const lasting: FlowService = { ...common, number: 5, affinity: false, protocol: 'TCP' };
const second: FlowService = { ...common, number: 6, affinity: false, protocol: 'TCP' };
const ECHO_PORT = 8090;
const addressOf = (service: FlowService) => `10.96.0.${service.number}`;

before(async () => {
  world = stack.use(new World());
  await world.serve(['podA', 'podB', 'remote']);
  for (const place of ['podA', 'remote'] as const) {
    const server = world.start(place, LOAD_SERVER, [ADDRESS[4][place], String(ECHO_PORT)]);
    await once(server.stdout, 'data');
  }
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

test('UDP from one port moves to another endpoint when its own goes, and nothing else is touched', async () => {
  api.put(ENDPOINT_SLICE, sliceObject({ ...udp, layout: 'here' }));
  await until(() => slotsOf(udp) === 1);
  await using moving = steady('UDP', addressOf(udp), 80);
  // Not a service's: a pod that asks another directly, from one port.
  await using direct = steady('UDP', ADDRESS[4].remote, TARGET_PORT);
  await moving.hears(ADDRESS[4].podA);
  await direct.hears(ADDRESS[4].remote);
  const entry = () =>
    conntrack.list({ protocol: 17, originalDestination: ADDRESS[4].remote }).map(({ id }) => id);
  const before = entry();
  assert.equal(before.length, 1);
  api.put(ENDPOINT_SLICE, sliceObject({ ...udp, layout: 'elsewhere' }));
  await moving.hears(ADDRESS[4].remote);
  assert.deepEqual(entry(), before);
});

test('UDP that was sent before there was the service reaches it, from the same port', async () => {
  const { externalIPs = [] } = serviceObject(late).spec;
  const [host = ''] = externalIPs;
  await using early = steady('UDP', host, 80);
  await until(() => conntrack.list({ protocol: 17, originalDestination: ip(host) }).length > 0);
  api.put(SERVICE, serviceObject(late));
  api.put(ENDPOINT_SLICE, sliceObject({ ...late, layout: 'here' }));
  await early.hears(ADDRESS[4].podA);
});

test('TCP to an endpoint that is removed is reset, and other connections live on', async () => {
  const slice = (layout: FlowService['layout']) => echoSlice(lasting, layout);
  api.put(SERVICE, serviceObject(lasting));
  api.put(ENDPOINT_SLICE, slice('elsewhere'));
  await until(() => slotsOf(lasting) === 1);
  await using lost = steady('TCP', addressOf(lasting), 80);
  await lost.hears(`${ADDRESS[4].remote}|${ECHO_PORT}`);
  api.put(ENDPOINT_SLICE, slice('mixed'));
  await until(() => slotsOf(lasting) === 2);
  await using kept = await connectTo('podA');
  api.put(ENDPOINT_SLICE, slice('here'));
  await lost.hears('ECONNRESET');
  const heard = kept.heard.length;
  await until(() => kept.heard.length > heard + 3);
  assert.ok(!kept.heard.some((line) => line.startsWith('E')), kept.heard.join());

  /** The choice is at random: until one leads there. */
  async function connectTo(place: 'podA' | 'remote'): Promise<Steady> {
    for (;;) {
      const client = steady('TCP', addressOf(lasting), 80);
      await until(() => client.heard.length > 0);
      if (client.heard[0]?.startsWith(ADDRESS[4][place])) return client;
      await client[Symbol.asyncDispose]();
    }
  }
});

test('TCP is reset also if the other endpoint has a connection of the same ports', async () => {
  const localPort = 45_000;
  const connect = (service: FlowService) =>
    startSteady(world, {
      ...{ place: 'podB', protocol: 'TCP', host: addressOf(service), port: 80, localPort },
    });
  for (const [service, layout] of [
    [lasting, 'elsewhere'],
    [second, 'here'],
  ] as const) {
    api.put(SERVICE, serviceObject(service));
    api.put(ENDPOINT_SLICE, echoSlice(service, layout));
    await until(() => slotsOf(service) === 1);
  }
  {
    await using dead = connect(lasting);
    await dead.hears(ADDRESS[4].remote);
    api.put(ENDPOINT_SLICE, echoSlice(lasting, 'none'));
    await dead.hears('ECONNRESET');
  }
  // Nobody has told the server of it: it would answer for that connection.
  const sockets = world.netns('remote').run('ss', '-Htn', 'state', 'established');
  assert.ok(sockets.includes(`${ADDRESS[4].podB}:${localPort}`), sockets);
  await using client = connect(second);
  await client.hears(ADDRESS[4].podA);
  api.put(ENDPOINT_SLICE, echoSlice(second, 'elsewhere'));
  await client.hears('ECONNRESET');
});

test('a packet of an endpoint that its connection has no place for ends no connection', async () => {
  api.put(SERVICE, serviceObject(lasting));
  api.put(ENDPOINT_SLICE, echoSlice(lasting, 'here'));
  await until(() => slotsOf(lasting) === 1);
  await using client = steady('TCP', addressOf(lasting), 80);
  await client.hears(`${ADDRESS[4].podA}|${ECHO_PORT}`);
  const argv = ['-e', STRAY_SENDER, String(ECHO_PORT)];
  world.netns('podA').run('perl', ...argv);
  const heard = client.heard.length;
  await until(
    () => client.heard.length > heard + 6 || client.heard.some((it) => it.startsWith('E')),
  );
  assert.ok(!client.heard.some((line) => line.startsWith('E')), client.heard.join());
});

test('an agent that starts again, with nothing changed, deletes no entry', async () => {
  await serversOf(tcp, 5);
  await serversOf(udp, 5);
  const ids = () => new Set(conntrack.list().map(({ id }) => id));
  const before = ids();
  await using again = new AsyncDisposableStack();
  const services = [sticky, udp, tcp, late];
  const started = await startFlowFeature(again, nftables, services, { conntrack });
  await until(() => (started.connections?.runs ?? 0) > 0);
  assert.equal(started.connections?.deleted, 0);
  assert.deepEqual(before.difference(ids()), new Set());
});

/** Waits for a packet to a port of its own, and answers far behind the window, but with the right acknowledgement. */
const STRAY_SENDER = `
use Socket;
my $port = shift;
socket(my $raw, AF_INET, SOCK_RAW, 6) or die $!;
while (1) {
  recv($raw, my $packet, 65536, 0);
  my ($source, $destination, $length) = (substr($packet, 12, 4), substr($packet, 16, 4), unpack('n', substr($packet, 2, 2)));
  my $tcp = substr($packet, 20);
  my ($from, $to, $seq, $ack, $offset) = unpack('nnNNC', $tcp);
  my $bytes = $length - 20 - ($offset >> 4) * 4;
  next if $to != $port || $bytes == 0;
  my $answer = pack('nnNNCCnnn', $to, $from, ($ack + 0x40000000) & 0xffffffff, $seq + $bytes, 0x50, 0x10, 500, 0, 0);
  my $sum = unpack('%32n*', $destination . $source . pack('nn', 6, length $answer) . $answer);
  $sum = ($sum & 0xffff) + ($sum >> 16); $sum = ($sum & 0xffff) + ($sum >> 16);
  substr($answer, 16, 2) = pack('n', ~$sum & 0xffff);
  send($raw, $answer, 0, sockaddr_in(0, $source)) or die $!;
  exit;
}`;

/** Its endpoints echo. */
function echoSlice(service: FlowService, layout: FlowService['layout']) {
  const ports = [{ name: '', protocol: 'TCP' as const, port: ECHO_PORT }];
  return { ...sliceObject({ ...service, layout }), ports };
}

/** A client at podB that goes on. */
const steady = (protocol: 'TCP' | 'UDP', host: string, port: number) =>
  startSteady(world, { place: 'podB', protocol, host, port });

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
