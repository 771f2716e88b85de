/** Services with real packets: a node with a client and two servers, each in a network namespace of its own. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { SERVICE, type Service } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE, type EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { cidr, ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { ScratchNetns } from '#linux/testing/scratch-netns.ts';
import { runOk } from '#proc/run.ts';
import { Ruleset } from '../ruleset.ts';
import { Services } from './services.ts';

const SERVERS = ['10.0.1.2', '10.0.2.2'];
const CLIENT = '10.0.0.2';
const CLUSTER_IP = '10.96.0.7';

const node = new ScratchNetns();
const pods = new Map<string, ScratchNetns>();
const processes: ChildProcess[] = [];
const stack = new AsyncDisposableStack();
const api = new FakeApi();

/** Answers each connection with its own address and that of the client. */
const SERVER_SCRIPT = `
require('node:net').createServer((s) => {
  s.end(s.localAddress + ' ' + s.remoteAddress);
  s.on('error', () => {});
}).listen(8080, process.argv[1], () => console.log('ready'));`;
/** Connects so many times; prints a line each: what was read, or the error. */
const CLIENT_SCRIPT = `
const [host, port, count] = process.argv.slice(1);
(async () => {
  for (let i = 0; i < Number(count); i++)
    await new Promise((done) => {
      let said = '';
      const s = require('node:net').connect(Number(port), host);
      s.on('data', (d) => (said += d));
      s.on('error', (e) => (said = e.code));
      s.on('close', () => { console.log(said); done(); });
      s.setTimeout(3000, () => { said = 'timeout'; s.destroy(); });
    });
})();`;

before(async () => {
  for (const [i, address] of [CLIENT, ...SERVERS].entries()) {
    const pod = new ScratchNetns();
    pods.set(address, pod);
    using host = openNetworkStack({ netns: node.path });
    const link = host.links.create({
      ...{ kind: 'veth', name: `tl${i}`, up: true },
      peer: { name: 'eth0', netns: pod.path, up: true },
    });
    host.addresses.add({ link: link.index, address: ip(`10.0.${i}.1`), prefixLength: 24 });
    host.sysctl.set('net/ipv4/ip_forward', '1');
    using inside = openNetworkStack({ netns: pod.path });
    const eth0 = inside.links.get('eth0');
    assert.ok(eth0);
    inside.addresses.add({ link: eth0.index, address: ip(address), prefixLength: 24 });
    inside.routes.replace([
      { destination: cidr('0.0.0.0/0'), gateway: ip(`10.0.${i}.1`), link: eth0.index, protocol: 4 },
    ]);
  }
  // As on every node: a route must lead somewhere before a packet to a cluster IP gets as far as our rules.
  using host = openNetworkStack({ netns: node.path });
  const link = host.links.get('tl0')?.index;
  assert.ok(link);
  host.routes.replace([{ destination: cidr('0.0.0.0/0'), gateway: ip(CLIENT), link, protocol: 4 }]);
  for (const address of SERVERS) {
    const argv = ['netns', 'exec', pods.get(address)?.name ?? '', process.execPath, '-e'];
    const server = spawn('ip', [...argv, SERVER_SCRIPT, address], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    processes.push(server);
    await once(server.stdout, 'data');
  }
  const nftables = stack.use(openNftables({ netns: node.path }));
  const rulesets = [
    stack.use(
      new Ruleset({ nftables, log: silentLogger }, { family: 'ip', table: 'tulle', parts: [] }),
    ),
  ];
  const services = stack.use(startCache(api, SERVICE, { log: silentLogger }));
  const slices = stack.use(startCache(api, ENDPOINT_SLICE, { log: silentLogger }));
  await api.create(SERVICE, service());
  await api.create(ENDPOINT_SLICE, slice(SERVERS));
  const balancer = stack.use(
    new Services(
      { rulesets, services, slices, log: silentLogger },
      { node: { nodeName: 'm1', zone: undefined }, skipAddresses: [] },
    ),
  );
  await balancer.start();
});

after(async () => {
  await stack.disposeAsync();
  for (const child of processes) {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  for (const pod of pods.values()) pod[Symbol.dispose]();
  node[Symbol.dispose]();
});

test('a service balances over its endpoints and keeps the client’s address', async () => {
  const answers = await connect(CLIENT, CLUSTER_IP, 80, 40);
  assert.deepEqual(
    [...new Set(answers)].sort(),
    SERVERS.map((server) => `${server} ${CLIENT}`),
  );
});

test('a pod reaches itself through a service, and then sees another source', async () => {
  const [server = ''] = SERVERS;
  const own = (await connect(server, CLUSTER_IP, 80, 40)).filter((said) => said.startsWith(server));
  assert.ok(own.length > 0, 'none of 40 connections came back');
  assert.ok(
    own.every((said) => !said.endsWith(` ${server}`)),
    own.join(),
  );
});

test('a port that the service has not is refused at once', async () => {
  assert.deepEqual(await connect(CLIENT, CLUSTER_IP, 81, 1), ['ECONNREFUSED']);
});

test('an endpoint that goes gets no new connection, and without any the service refuses', async () => {
  await replaceEndpoints(SERVERS.slice(0, 1));
  await until(async () => (await endpointElements()) === 1);
  assert.deepEqual(
    [...new Set(await connect(CLIENT, CLUSTER_IP, 80, 20))],
    [`${SERVERS[0]} ${CLIENT}`],
  );
  await replaceEndpoints([]);
  await until(async () => (await endpointElements()) === 0);
  assert.deepEqual(await connect(CLIENT, CLUSTER_IP, 80, 1), ['ECONNREFUSED']);
  await replaceEndpoints(SERVERS);
  await until(async () => (await endpointElements()) === 2);
  assert.equal(new Set(await connect(CLIENT, CLUSTER_IP, 80, 40)).size, 2);
});

test('the node itself reaches the service', async () => {
  const argv = [process.execPath, '-e', CLIENT_SCRIPT, CLUSTER_IP, '80', '20'];
  const said = await runOk(['ip', 'netns', 'exec', node.name, ...argv]);
  assert.equal(
    new Set(
      said
        .trim()
        .split('\n')
        .map((line) => line.split(' ')[0]),
    ).size,
    2,
  );
});

test('the rules read well', async () => {
  const ruleset = node.run('nft', 'list', 'table', 'ip', 'tulle');
  assert.match(ruleset, /map frontends \{\s+type ipv4_addr \. inet_proto \. inet_service : mark/);
  assert.match(ruleset, /10\.96\.0\.7 \. tcp \. 80 : 0x00000002/);
  assert.match(
    ruleset,
    /dnat (ip )?to ip daddr \. meta l4proto \. th dport \. numgen random mod 2 map @endpoints/,
  );
});

function service(): Service {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', namespace: 'default' },
    spec: {
      clusterIP: CLUSTER_IP,
      clusterIPs: [CLUSTER_IP],
      ports: [{ port: 80, protocol: 'TCP' }],
    },
  };
}

function slice(addresses: readonly string[]): EndpointSlice {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: 'web-1',
      namespace: 'default',
      labels: { 'kubernetes.io/service-name': 'web' },
    },
    addressType: 'IPv4',
    ports: [{ name: '', protocol: 'TCP', port: 8080 }],
    endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true } })),
  };
}

async function replaceEndpoints(addresses: readonly string[]): Promise<void> {
  const { metadata } = await api.get(ENDPOINT_SLICE, 'web-1', 'default');
  await api.update(ENDPOINT_SLICE, { ...slice(addresses), metadata });
}

async function connect(from: string, host: string, port: number, count: number): Promise<string[]> {
  const argv = [process.execPath, '-e', CLIENT_SCRIPT, host, String(port), String(count)];
  const said = await runOk(['ip', 'netns', 'exec', pods.get(from)?.name ?? '', ...argv]);
  return said.trim().split('\n');
}

/** How many endpoints the kernel has. */
async function endpointElements(): Promise<number> {
  using nftables = openNftables({ netns: node.path });
  const table = nftables.dumpTable('ip', 'tulle');
  return table?.sets.find((set) => set.set === 'endpoints')?.elements.length ?? -1;
}

/** The test runner's own time limit ends a wait in vain. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setImmediate(resolve));
}
