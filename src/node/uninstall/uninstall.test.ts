import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { cidr, ip } from '#lib/ip.ts';
import { ROUTE_PROTOCOL, VXLAN_LINK } from '#lib/kernel-objects.ts';
import { FakeNetwork } from '#linux/network/fake.ts';
import { FakeNftables } from '#linux/nftables/fake.ts';
import { inTable } from '#wire/nftables/objects.ts';
import { recordBridges } from '../bridge-record.ts';
import { readSysctlRecord, recordSysctls } from '../sysctl-record.ts';
import { uninstall } from './uninstall.ts';

let directory: string;
before(() => {
  directory = mkdtempSync(join(tmpdir(), 'tulle-uninstall-'));
});
after(() => rmSync(directory, { recursive: true }));

function world(name: string) {
  const network = new FakeNetwork();
  const card = network.addCard('eth0');
  const stack = network.open();
  const nftables = new FakeNftables();
  const options = {
    ...{ stack, nftables, force: false },
    cniSocket: join(directory, `${name}.sock`),
    sysctlFile: join(directory, `${name}.json`),
    bridgeFile: join(directory, `${name}-bridges.json`),
    paths: [join(directory, `${name}.json`)],
  };
  return { network, stack, nftables, card, options };
}

test('uninstall() removes what is ours, and nothing else', async () => {
  const { stack, nftables, card, options } = world('mine');
  const recorded = recordSysctls(stack, options.sysctlFile);
  const before = stack.sysctl.get('net/ipv4/ip_forward');
  recorded.sysctl.set('net/ipv4/ip_forward', '1');
  const vxlan = { vni: 1, port: 4789, local: undefined, device: undefined, learning: false };
  stack.links.create({ kind: 'vxlan', name: VXLAN_LINK, vxlan });
  stack.links.create({ kind: 'bridge', name: 'tulip' });
  stack.links.set(card.index, { up: true });
  stack.addresses.add({ link: card.index, address: ip('192.0.2.1'), prefixLength: 24 });
  stack.routes.replace([
    { destination: cidr('10.1.0.0/16'), link: card.index, protocol: ROUTE_PROTOCOL },
    { destination: cidr('10.2.0.0/16'), link: card.index, protocol: 4 },
  ]);
  nftables.commit([inTable('ip', 'tulle').table.add(), inTable('ip', 'other').table.add()]);

  const removed = await uninstall(options);
  assert.ok(removed.includes(`link ${VXLAN_LINK}`), removed.join());
  assert.equal(stack.links.get(VXLAN_LINK), undefined);
  assert.ok(stack.links.get('tulip'));
  const destinations: string[] = stack.routes.list().map((route) => route.destination);
  assert.ok(destinations.includes('10.2.0.0/16') && !destinations.includes('10.1.0.0/16'));
  assert.deepEqual(
    nftables.listTables().map(({ table }) => table),
    ['other'],
  );
  assert.equal(stack.sysctl.get('net/ipv4/ip_forward'), before);
  assert.deepEqual(await uninstall(options), []);
});

test('uninstall() refuses while an agent runs, and while containers are attached', async () => {
  const { network, stack, options } = world('busy');
  network.addNamespace('/run/netns/pod');
  const peer = { name: 'eth0', netns: '/run/netns/pod' };
  stack.links.create({ kind: 'veth', name: 'tl0123456789a', peer });
  await assert.rejects(uninstall(options), /1 container of this machine would lose its network/);
  assert.ok(stack.links.get('tl0123456789a'));
  const agent = createServer().listen(options.cniSocket);
  await new Promise((resolve) => agent.once('listening', resolve));
  await assert.rejects(uninstall({ ...options, force: true }), /An agent is running/);
  agent.close();
  await uninstall({ ...options, force: true });
  assert.equal(stack.links.get('tl0123456789a'), undefined);
});

test('uninstall() removes the bridges that the agent made, and none that others made or use', async () => {
  const { network, stack, options } = world('bridges');
  stack.links.create({ kind: 'bridge', name: 'theirs' });
  network.addNamespace('/run/netns/pod');
  for (const name of ['cni0', 'shared', 'cni0']) {
    const recorded = recordBridges(stack, options.bridgeFile);
    if (stack.links.get(name) === undefined) recorded.links.create({ kind: 'bridge', name });
    else assert.throws(() => recorded.links.create({ kind: 'bridge', name }));
  }
  assert.throws(() =>
    recordBridges(stack, options.bridgeFile).links.create({ kind: 'bridge', name: 'theirs' }),
  );
  const master = (name: string) => stack.links.get(name)?.index;
  for (const [name, bridge] of [
    ['tl0123456789a', master('cni0')],
    ['veth7', master('shared')],
  ] as const)
    stack.links.create({
      ...{ kind: 'veth', name, peer: { name: `p-${bridge}`, netns: '/run/netns/pod' } },
      ...(bridge === undefined ? {} : { master: bridge }),
    });
  const removed = await uninstall({ ...options, force: true });
  assert.deepEqual(removed, ['link tl0123456789a', 'link cni0']);
  assert.ok(stack.links.get('theirs') && stack.links.get('shared'));
});

test('recordSysctls() remembers the first value only, and nothing of our own links', () => {
  const { stack, options } = world('sysctl');
  const recorded = recordSysctls(stack, options.sysctlFile);
  const name = 'net/ipv4/ip_forward';
  const first = stack.sysctl.get(name) ?? '';
  recorded.sysctl.set(name, '1');
  recordSysctls(stack, options.sysctlFile).sysctl.set(name, '0');
  recorded.sysctl.set(name, '1');
  assert.deepEqual(readSysctlRecord(options.sysctlFile), { [name]: first });
});
