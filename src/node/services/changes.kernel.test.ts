/**
 * A service that changes: its type, ports, labels, affinity, way of balancing and endpoints, each with real packets. These
 * are upstream's end-to-end cases that are no row of the table of flows.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, beforeEach, describe, test } from 'node:test';
import { SERVICE, type Service, type ServiceSpec } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE, type EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import type { FakeApi } from '#client/fake.ts';
import { type Family, ip } from '#lib/ip.ts';
import { openConntrack } from '#linux/conntrack/kernel.ts';
import type { Conntrack } from '#linux/conntrack/port.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import { WEIGHTS_ANNOTATION } from './endpoints.ts';
import { BALANCE_ANNOTATION } from './plan.ts';
import { AFFINITY, PROTOCOL_NUMBERS } from './program.ts';
import { startFlowFeature } from './testing/flow-feature.ts';
import { ADDRESS, type Place, TARGET_PORT } from './testing/flows.ts';
import { startSteady, until } from './testing/steady.ts';
import { World } from './testing/world.ts';

const CLUSTER_IP = '10.96.0.7';
const NODE_PORT = 30_080;
const HERE = ADDRESS[4].podA;
const ELSEWHERE = ADDRESS[4].remote;
/** Of two endpoints at random, all the same one once in a thousand years of tests. */
const MANY = 30;

const stack = new AsyncDisposableStack();
let world: World;
let api: FakeApi;
let nftables: Nftables;
let conntrack: Conntrack;

before(async () => {
  world = stack.use(new World());
  await world.serve(['podA', 'podB', 'remote', 'node']);
  nftables = stack.use(openNftables({ netns: world.node.path }));
  conntrack = stack.use(openConntrack({ netns: world.node.path }));
  ({ api } = await startFlowFeature(stack, nftables, [], { conntrack }));
});
after(() => stack.disposeAsync());
beforeEach(() => {
  api.remove(SERVICE, 'default/web');
  put({});
  endpoints(['podA', 'remote']);
});

function put(spec: Partial<ServiceSpec>, metadata: Partial<Service['metadata']> = {}): void {
  api.put(SERVICE, {
    ...{ apiVersion: 'v1', kind: 'Service' },
    metadata: { name: 'web', namespace: 'default', ...metadata },
    spec: {
      ...{ type: 'ClusterIP', clusterIP: CLUSTER_IP, clusterIPs: [CLUSTER_IP] },
      ports: [{ port: 80, protocol: 'TCP' }],
      ...spec,
    },
  });
}

const PORT_TCP = { name: '', protocol: 'TCP', port: TARGET_PORT } as const;
const PORT_UDP = { name: 'u', protocol: 'UDP', port: TARGET_PORT } as const;

function endpoints(
  places: readonly Place[],
  options: {
    readonly ports?: EndpointSlice['ports'];
    readonly ready?: boolean;
    readonly family?: Family;
    readonly annotations?: Readonly<Record<string, string>>;
    /** Each endpoint is for clients of its own node. */
    readonly hinted?: boolean;
  } = {},
): void {
  const { ports = [PORT_TCP], ready = true, family = 4, annotations, hinted = false } = options;
  api.put(ENDPOINT_SLICE, {
    ...{ apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', addressType: `IPv${family}` },
    metadata: {
      ...{ name: 'web-1', namespace: 'default' },
      labels: { 'kubernetes.io/service-name': 'web' },
      ...(annotations === undefined ? {} : { annotations: { ...annotations } }),
    },
    ports,
    endpoints: places.map((place) => {
      const nodeName = place === 'remote' ? 'm2' : 'm1';
      return {
        addresses: [ADDRESS[family][place]],
        conditions: { ready, serving: ready },
        nodeName,
        ...(hinted ? { hints: { forNodes: [{ name: nodeName }] } } : {}),
      };
    }),
  });
}

interface Question {
  readonly place?: Place;
  readonly host?: string;
  readonly port?: number;
  readonly protocol?: 'TCP' | 'UDP';
  readonly from?: string;
  readonly tries?: number;
}

/** What the service answers: the endpoints' addresses, or the name of an error. */
async function heard(question: Question = {}): Promise<Set<string>> {
  const { place = 'podB', host = CLUSTER_IP, port = 80, protocol = 'TCP', tries = 1 } = question;
  const from = question.from === undefined ? {} : { from: question.from };
  const [answers = []] = await world.ask(place, [{ host, port, protocol, tries, ...from }]);
  return new Set(answers.map((answer) => answer.split(' ')[0] ?? ''));
}

/** Asks until it is so: the kernel has a change a moment later. */
async function hears(wanted: readonly string[], question: Question = {}): Promise<void> {
  const tries = wanted.length > 1 ? MANY : 1;
  let last = new Set<string>();
  for (let i = 0; i < 50; i++) {
    last = await heard({ tries, ...question });
    if (last.symmetricDifference(new Set(wanted)).size === 0) return;
  }
  assert.deepEqual(last, new Set(wanted));
}

const REFUSED = 'ECONNREFUSED';
const AT_NODE_PORT: Question = { place: 'client', host: ADDRESS[4].node, port: NODE_PORT };
const nodePort = {
  type: 'NodePort' as const,
  ports: [{ port: 80, nodePort: NODE_PORT }],
} satisfies Partial<ServiceSpec>;

describe('a service', () => {
  test('changes its type', async () => {
    await hears([HERE, ELSEWHERE]);
    await hears([REFUSED], AT_NODE_PORT);
    put(nodePort);
    await hears([HERE, ELSEWHERE], AT_NODE_PORT);
    put({ type: 'ExternalName', externalName: 'example.org', clusterIP: '', clusterIPs: [] });
    await hears([REFUSED], AT_NODE_PORT);
    await hears([REFUSED]);
    put(nodePort);
    await hears([HERE, ELSEWHERE], AT_NODE_PORT);
    put({ clusterIP: 'None', clusterIPs: ['None'] });
    await hears([REFUSED]);
    put({});
    await hears([HERE, ELSEWHERE]);
    await hears([REFUSED], AT_NODE_PORT);
  });

  test('gets more ports, and fewer, and has one number for two protocols', async () => {
    put({
      ports: [{ port: 80 }, { name: 'u', port: 80, protocol: 'UDP' }, { name: 'more', port: 81 }],
    });
    endpoints(['podA'], { ports: [PORT_TCP, PORT_UDP, { ...PORT_TCP, name: 'more' }] });
    for (const question of [{}, { protocol: 'UDP' }, { port: 81 }] as const)
      await hears([HERE], question);
    put({ ports: [{ name: 'u', port: 80, protocol: 'UDP' }] });
    await hears([REFUSED]);
    await hears([REFUSED], { port: 81 });
    await hears([HERE], { protocol: 'UDP' });
  });

  test('goes and comes again, with its endpoints before it or after it', async () => {
    await hears([HERE, ELSEWHERE]);
    api.remove(SERVICE, 'default/web');
    await hears([REFUSED]);
    put({});
    await hears([HERE, ELSEWHERE]);
    api.remove(ENDPOINT_SLICE, 'default/web-1');
    await hears([REFUSED]);
    endpoints(['remote']);
    await hears([ELSEWHERE]);
  });

  for (const label of ['service-proxy-name', 'headless'])
    test(`is another's while it has the label ${label}`, async () => {
      await hears([HERE, ELSEWHERE]);
      put({}, { labels: { [`service.kubernetes.io/${label}`]: 'other' } });
      await hears([REFUSED]);
      put({});
      await hears([HERE, ELSEWHERE]);
    });

  for (const [what, question, spec] of [
    ['its cluster IP', {}, {}],
    ['a node port', AT_NODE_PORT, nodePort],
  ] as const)
    test(`remembers clients of ${what} while it is to, and as long as it is to`, async () => {
      const isRemembered = () =>
        (nftables.dumpTable('ip', 'tulle')?.sets.find(({ set }) => set === AFFINITY)?.elements
          .length ?? 0) > 0;
      put(spec);
      await hears([HERE, ELSEWHERE], question);
      const sessionAffinityConfig = { clientIP: { timeoutSeconds: 2 } };
      put({ ...spec, sessionAffinity: 'ClientIP', sessionAffinityConfig });
      await until(async () => {
        await heard(question);
        return isRemembered();
      });
      const first = await heard({ ...question, tries: MANY });
      assert.equal(first.size, 1);
      // Each connection begins the time anew.
      for (const endMs = performance.now() + 3000; performance.now() < endMs; )
        assert.deepEqual(await heard(question), first);
      await until(() => !isRemembered());
      put(spec);
      await hears([HERE, ELSEWHERE], question);
    });

  test('chooses by the client’s address when it is to', async () => {
    for (const balance of ['source-hash', 'maglev']) {
      put({ externalIPs: ['198.18.0.1'] }, { annotations: { [BALANCE_ANNOTATION]: balance } });
      const clients = [
        { place: 'podB' },
        { place: 'client', host: '198.18.0.1', from: ADDRESS[4].client },
        { place: 'client', host: '198.18.0.1', from: ADDRESS[4].stranger },
      ] as const;
      await until(async () => (await heard({ tries: MANY })).size === 1);
      const before = await Promise.all(clients.map((it) => heard({ ...it, tries: MANY })));
      assert.deepEqual(
        before.map(({ size }) => size),
        [1, 1, 1],
        balance,
      );
      // Whoever has lost its endpoint has the other one, and all have theirs when it is back.
      endpoints(['remote']);
      for (const it of clients) await hears([ELSEWHERE], it);
      endpoints(['podA', 'remote']);
      for (const [i, it] of clients.entries()) await hears([...(before[i] ?? [])], it);
    }
  });

  test('gives no new connection to an endpoint whose weight is 0', async () => {
    const weights = (weight: number) =>
      endpoints(['podA', 'remote'], {
        annotations: { [WEIGHTS_ANNOTATION]: `${HERE}=${weight}` },
      });
    weights(0);
    await hears([ELSEWHERE], { tries: MANY });
    weights(1);
    await hears([HERE, ELSEWHERE]);
  });

  for (const [what, place, host, port] of [
    ['the cluster IP', 'podB', CLUSTER_IP, 80],
    ['a node port', 'client', ADDRESS[4].node, NODE_PORT],
    ['a node port of the node itself', 'node', ADDRESS[4].node, NODE_PORT],
  ] as const)
    test(`keeps a client that sends UDP to ${what} from one port, whatever its endpoints do`, async () => {
      const ports = [{ name: 'u', port: 80, protocol: 'UDP', nodePort: NODE_PORT }] as const;
      endpoints(['podA'], { ports: [PORT_UDP], ready: false });
      put({ type: 'NodePort', ports: [...ports] });
      // Its first packets come before there is an endpoint.
      await using client = startSteady(world, { place, protocol: 'UDP', host, port });
      await new Promise((resolve) => setTimeout(resolve, 300));
      for (const [at, answer] of [
        [['podA'], HERE],
        [['remote'], ELSEWHERE],
        [['podA', 'remote'], ELSEWHERE],
        [['podA'], HERE],
      ] as const) {
        endpoints(at, { ports: [PORT_UDP] });
        await client.hears(answer, client.heard.length);
      }
    });

  test('prefers endpoints that are hinted for its node, as long as there are any', async () => {
    await hears([HERE, ELSEWHERE]);
    endpoints(['podA', 'remote'], { hinted: true });
    await hears([HERE], { tries: MANY });
    endpoints(['remote'], { hinted: true });
    await hears([ELSEWHERE]);
  });

  test('leads to a pod in the node’s own network, from everywhere', async () => {
    const node = ADDRESS[4].node;
    put(nodePort);
    endpoints(['node']);
    for (const place of ['podB', 'node'] as const) await hears([node], { place });
    await hears([node], AT_NODE_PORT);
    put({ ...nodePort, internalTrafficPolicy: 'Local', externalTrafficPolicy: 'Local' });
    for (const place of ['podB', 'node'] as const) await hears([node], { place });
    await hears([node], AT_NODE_PORT);
  });

  test('takes a datagram that comes in pieces', async () => {
    put({ ports: [{ name: 'u', port: 80, protocol: 'UDP' }] });
    endpoints(['remote'], { ports: [PORT_UDP] });
    await hears([ELSEWHERE], { protocol: 'UDP' });
    const client = world.start('podB', LARGE_DATAGRAM, [CLUSTER_IP]);
    const [answer] = (await once(client.stdout, 'data')) as [Buffer];
    assert.match(String(answer), new RegExp(`^${ELSEWHERE} `));
  });

  for (const [family, clusterIP] of [
    [4, CLUSTER_IP],
    [6, 'fd00:96::7'],
  ] as const)
    test(`leads SCTP to its endpoint, IPv${family}`, async () => {
      put({
        ...{ clusterIP, clusterIPs: [clusterIP] },
        ports: [{ name: 's', port: 80, protocol: 'SCTP' }],
      });
      endpoints(['podA'], { family, ports: [{ ...PORT_TCP, name: 's', protocol: 'SCTP' }] });
      // No kernel that tests run on need speak SCTP itself: what matters is where the packet is led, and that it passes.
      const led = () =>
        conntrack
          .list({ protocol: PROTOCOL_NUMBERS.SCTP, originalDestination: ip(clusterIP) })
          .map(({ reply }) => `${reply.source} ${reply.sourcePort}`);
      await until(() => {
        world.netns('podB').run('perl', '-e', SCTP_SENDER, clusterIP, '80');
        return led().length > 0;
      });
      assert.deepEqual(new Set(led()), new Set([`${ADDRESS[family].podA} ${TARGET_PORT}`]));
    });
});

/** Sends more than a packet holds to port 80, and prints the answer. */
const LARGE_DATAGRAM = `
const s = require('node:dgram').createSocket('udp4');
s.on('message', (m) => { console.log(String(m)); process.exit(); });
s.bind(0, () => setInterval(() => s.send(Buffer.alloc(9000), 80, process.argv[1]), 200));`;

/** Sends an INIT chunk, RFC 9260 section 3.3.2. */
const SCTP_SENDER = `
use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6);
my ($host, $port) = @ARGV;
my $is6 = $host =~ /:/;
my $to = $is6 ? pack_sockaddr_in6(0, inet_pton(AF_INET6, $host)) : pack_sockaddr_in(0, inet_aton($host));
socket(my $raw, $is6 ? AF_INET6 : AF_INET, SOCK_RAW, 132) or die $!;
my $init = pack('CCnNNnnN', 1, 0, 20, 4711, 65536, 1, 1, 1);
my $packet = sub { pack('nnNV', 20000 + int rand 20000, $port, 0, 0) . $init }->();
my $crc = 0xffffffff;
for my $byte (unpack 'C*', $packet) {
  $crc ^= $byte;
  $crc = $crc & 1 ? ($crc >> 1) ^ 0x82f63b78 : $crc >> 1 for 1 .. 8;
}
substr($packet, 8, 4) = pack('V', $crc ^ 0xffffffff);
send($raw, $packet, 0, $to) or die $!;`;
