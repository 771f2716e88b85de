/**
 * Real connections through the service layout.
 *
 * ```text
 *  client 10.0.1.2 ── 10.0.1.1 node 10.0.2.254 ── server 10.0.2.1, 10.0.2.2
 *                     service 10.96.0.1:80 → 10.0.2.{1,2}:8080, sources masqueraded
 * ```
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { ScratchNetns } from '../testing/scratch-netns.ts';
import { EXAMPLE_V4, EXAMPLE_V6, type ExampleLayout, exampleLayout } from './example-layout.ts';
import { openNftables } from './kernel.ts';

/** Of two endpoints at random, one gets none of 40 connections once in 5 * 10^11 runs. */
const CONNECTIONS = 40;

interface Addresses {
  readonly layout: ExampleLayout;
  readonly client: string;
  readonly nodeToClient: string;
  readonly nodeToServer: string;
  readonly clientPrefix: number;
  readonly serverPrefix: number;
}

const CASES: readonly Addresses[] = [
  {
    layout: EXAMPLE_V4,
    client: '10.0.1.2',
    nodeToClient: '10.0.1.1',
    nodeToServer: '10.0.2.254',
    clientPrefix: 24,
    serverPrefix: 24,
  },
  {
    layout: EXAMPLE_V6,
    client: 'fd00:1::2',
    nodeToClient: 'fd00:1::1',
    nodeToServer: 'fd00:2::fe',
    clientPrefix: 64,
    serverPrefix: 64,
  },
];

for (const addresses of CASES)
  test(`connections to a service of ${addresses.layout.family} reach all endpoints, masqueraded`, async () => {
    const { layout } = addresses;
    using client = new ScratchNetns();
    using node = new ScratchNetns();
    using server = new ScratchNetns();
    connect(addresses, client, node, server);
    using nft = openNftables({ netns: node.path });
    nft.commit(exampleLayout(layout));
    const process = await serve(server);
    try {
      const answers = await dial(client, layout.service, CONNECTIONS);
      assert.deepEqual(
        [...new Set(answers)].sort(),
        layout.endpoints.map((endpoint) => `${endpoint} from ${addresses.nodeToServer}`),
      );
      const refused = await dial(client, layout.emptyService, 1);
      assert.deepEqual(refused, ['ECONNREFUSED']);
      nft.commit([{ verb: 'flush', kind: 'set', ref: { ...tulle(layout), set: 'no-endpoints' } }]);
      // Not a service any more: nobody has the address.
      const [lost] = await dial(client, layout.emptyService, 1);
      assert.notEqual(lost, 'ECONNREFUSED');
    } finally {
      process.kill();
      await once(process, 'exit');
    }
  });

const tulle = (layout: ExampleLayout) => ({ family: layout.family, table: 'tulle' });

function connect(
  a: Addresses,
  client: ScratchNetns,
  node: ScratchNetns,
  server: ScratchNetns,
): void {
  const ip = (netns: ScratchNetns, ...words: string[]) => netns.run('ip', ...words);
  for (const [peer, name] of [
    [client, 'client'],
    [server, 'server'],
  ] as const) {
    const link = ['link', 'add', name, 'type', 'veth', 'peer', 'name', 'eth0'];
    ip(node, ...link, 'netns', peer.name);
    ip(node, 'link', 'set', name, 'up');
    ip(peer, 'link', 'set', 'eth0', 'up');
    ip(peer, 'link', 'set', 'lo', 'up');
  }
  const address = (netns: ScratchNetns, link: string, text: string, prefix: number) =>
    ip(
      netns,
      'address',
      'add',
      `${text}/${prefix}`,
      'dev',
      link,
      ...(text.includes(':') ? ['nodad'] : []),
    );
  address(client, 'eth0', a.client, a.clientPrefix);
  address(node, 'client', a.nodeToClient, a.clientPrefix);
  address(node, 'server', a.nodeToServer, a.serverPrefix);
  for (const endpoint of a.layout.endpoints) address(server, 'eth0', endpoint, a.serverPrefix);
  ip(client, 'route', 'add', 'default', 'via', a.nodeToClient);
  // The server has no route back to the client: only masqueraded connections can be answered.
  // The node routes services nowhere, so what is not translated is told so at once.
  const services = a.layout.family === 'ip' ? '10.96.0.0/24' : 'fd00:96::/64';
  ip(node, 'route', 'add', 'prohibit', services);
  node.run('sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
}

/** A server on port 8080 that answers with its own address and the peer's. */
async function serve(server: ScratchNetns): Promise<ChildProcess> {
  const script = `
    const plain = (address) => address.replace(/^::ffff:/, '');
    require('node:net')
      .createServer((socket) => {
        socket.on('error', () => {});
        socket.end(plain(socket.localAddress) + ' from ' + plain(socket.remoteAddress));
      })
      .listen(8080, '::', () => console.log('ready'));`;
  const child = spawn('ip', ['netns', 'exec', server.name, process.execPath, '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return child;
}

/** What each of several connections, one after another, said, or the code of its error. */
async function dial(client: ScratchNetns, address: string, times: number): Promise<string[]> {
  const script = `
    const net = require('node:net');
    const one = () => new Promise((resolve) => {
      const socket = net.connect(80, ${JSON.stringify(address)});
      let text = '';
      socket.on('data', (data) => { text += data; });
      socket.on('end', () => resolve(text));
      socket.on('error', (error) => resolve(error.code));
    });
    (async () => {
      const answers = [];
      for (let i = 0; i < ${times}; i++) answers.push(await one());
      console.log(JSON.stringify(answers));
    })();`;
  const { stdout } = await promisify(execFile)('ip', [
    'netns',
    'exec',
    client.name,
    process.execPath,
    '-e',
    script,
  ]);
  return JSON.parse(stdout) as string[];
}
