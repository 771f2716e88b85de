/** The filter of encapsulated packets, with real ones: a node, a peer, and a stranger on the same underlay. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { ip } from '#lib/ip.ts';
import { VXLAN_PORT, VXLAN_VNI } from '#lib/kernel-objects.ts';
import { openConntrack } from '#linux/conntrack/kernel.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { ScratchNetns } from '#linux/testing/scratch-netns.ts';
import { CT_STATE, counter } from '#wire/nftables/expressions.ts';
import { anyBit, ct, IPPROTO } from '#wire/nftables/match.ts';
import { inTable } from '#wire/nftables/objects.ts';
import { FABRIC_PEERS, fabricPart, peerElements } from './filter.ts';

const NODE = '192.0.2.1';
const SENDERS = { peer: '192.0.2.2', stranger: '192.0.2.3' } as const;
const netns = new Map<string, ScratchNetns>();

before(() => {
  for (const name of ['node', ...Object.keys(SENDERS)]) netns.set(name, new ScratchNetns());
  using node = openNetworkStack({ netns: pathOf('node') });
  const bridge = node.links.create({ kind: 'bridge', name: 'br0', up: true });
  node.addresses.add({ link: bridge.index, address: ip(NODE), prefixLength: 24 });
  for (const [name, address] of Object.entries(SENDERS)) {
    node.links.create({
      ...{ kind: 'veth', name, up: true, master: bridge.index },
      peer: { name: 'eth0', netns: pathOf(name), up: true },
    });
    using sender = openNetworkStack({ netns: pathOf(name) });
    const eth0 = sender.links.get('eth0');
    assert.ok(eth0);
    sender.addresses.add({ link: eth0.index, address: ip(address), prefixLength: 24 });
  }
  using nftables = openNftables({ netns: pathOf('node') });
  const { table, set, chain, rule, elements } = inTable('ip', 'test');
  const part = fabricPart('ip');
  nftables.commit([
    table.add(),
    ...part.sets.map(({ set: name, ...rest }) => set.add(name, rest)),
    ...part.chains.map(({ name, base }) => chain.add(name, base === undefined ? {} : { base })),
    ...part.chains.flatMap(({ name, rules }) => rules.map((r) => rule.add(name, r.expressions))),
    elements.add(FABRIC_PEERS, peerElements([ip(SENDERS.peer)], 'ip')),
    // The kernel tracks connections of a network in which some rule asks for them.
    ...(['prerouting', 'output'] as const).flatMap((hook) => [
      chain.add(`ask-${hook}`, { base: { type: 'filter', hook, priority: 0 } }),
      rule.add(`ask-${hook}`, [...anyBit(ct('state'), CT_STATE.new), counter()]),
    ]),
  ]);
});
after(() => {
  for (const one of netns.values()) one[Symbol.dispose]();
});

for (const [sender, vni, arrives] of [
  ['peer', VXLAN_VNI, true],
  ['stranger', VXLAN_VNI, false],
  ['stranger', 42, true],
] as const)
  test(`a packet of VNI ${vni} from a ${sender} is ${arrives ? 'taken' : 'dropped'}`, async () => {
    assert.equal(await reaches(sender, vni), arrives);
  });

for (const [from, to] of [
  ['peer', NODE],
  ['node', SENDERS.peer],
] as const)
  test(`what goes from the ${from} between nodes is not tracked, another program’s overlay is`, () => {
    using conntrack = openConntrack({ netns: pathOf('node') });
    conntrack.flush({ protocol: IPPROTO.udp });
    const [ours, others] = [5001, 5002];
    const program = `
      const send = (port, hex) => new Promise((done) => {
        const s = require('node:dgram').createSocket('udp4');
        s.bind(port, () => s.send(Buffer.from(hex, 'hex'), ${VXLAN_PORT}, '${to}', () => { s.close(); done(); }));
      });
      send(${ours}, '${packetOf(VXLAN_VNI)}').then(() => send(${others}, '${packetOf(7)}'));`;
    netns.get(from)?.run(process.execPath, '-e', program);
    const ports = conntrack
      .list({ protocol: IPPROTO.udp })
      .filter(({ original }) => original.destinationPort === VXLAN_PORT)
      .map(({ original }) => original.sourcePort);
    assert.deepEqual(ports, [others]);
  });

function pathOf(name: string): string {
  const found = netns.get(name);
  assert.ok(found);
  return found.path;
}

/** An encapsulated packet, from its VXLAN header on, in hexadecimal. */
function packetOf(network: number): string {
  const bytes = Buffer.alloc(60);
  bytes.writeUInt8(0x08, 0);
  bytes.writeUIntBE(network, 4, 3);
  return bytes.toString('hex');
}

/** Whether a packet of that network reaches the node's VXLAN port; a packet that must arrive follows it. */
async function reaches(sender: 'peer' | 'stranger', vni: number): Promise<boolean> {
  const witness = packetOf(7);
  const program = `
    const s = require('node:dgram').createSocket('udp4');
    const send = (hex) => new Promise((done) => s.send(Buffer.from(hex, 'hex'), ${VXLAN_PORT}, '${NODE}', done));
    send('${packetOf(vni)}').then(() => send('${witness}')).then(() => s.close());`;
  const receiver = spawn(
    'ip',
    ['netns', 'exec', netns.get('node')?.name ?? '', process.execPath, '-e', RECEIVER],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const lines = createInterface({ input: receiver.stdout })[Symbol.asyncIterator]();
  try {
    assert.equal((await lines.next()).value, 'ready');
    netns.get(sender)?.run(process.execPath, '-e', program);
    const received: string[] = [];
    while (received.at(-1) !== witness) {
      const { value, done } = await lines.next();
      assert.ok(!done, 'the receiver goes on until the witness has come');
      received.push(value);
    }
    return received.includes(packetOf(vni));
  } finally {
    receiver.kill('SIGKILL');
    await once(receiver, 'exit');
  }
}

/** Prints each packet that reaches the VXLAN port. */
const RECEIVER = `
  const s = require('node:dgram').createSocket('udp4');
  s.on('message', (m) => console.log(m.toString('hex')));
  s.bind(${VXLAN_PORT}, '${NODE}', () => console.log('ready'));`;
