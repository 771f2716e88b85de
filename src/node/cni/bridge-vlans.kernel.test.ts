/** Containers in VLANs of a bridge whose addresses come out of IPPools. Most kernels of virtual machines have no VLANs there. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { until } from '#lib/testing/until.ts';
import { CniError } from '#wire/cni/error.ts';
import { HOST_V4, HOST_V6, Machine } from '../pod-machine.ts';

const PING = 'ping -c 1 -W 2 -q';
const fixture = (name: string) => join(import.meta.dirname, '../pod-rules', `${name}.fixture.ts`);

async function add(machine: Machine, name: string, config: Record<string, unknown>) {
  const pod = machine.addNamespace(name);
  const { ips } = await machine.attacher.add(machine.request('ADD', pod, { config }));
  return { pod, ips: ips.map((it) => it.address.split('/')[0] ?? '') };
}
const inVlan = (vlan: number) => ({ mode: 'bridge', vlan, preserveDefaultVlan: false });
const skipped = 'this kernel has no VLAN filtering';

test('containers of two VLANs, routed pods and the node reach each other by the node', async (t) => {
  await using machine = new Machine();
  if (!machine.hasVlanFiltering()) return t.skip(skipped);
  const [a, b] = [await add(machine, 'a', inVlan(100)), await add(machine, 'b', inVlan(100))];
  const c = await add(machine, 'c', inVlan(200));
  const plain = await add(machine, 'd', { mode: 'bridge', vlanTrunk: [{ id: 7 }] });
  const routed = await add(machine, 'e', {});
  const all = [a, b, c, plain, routed];
  for (const from of all)
    for (const to of [...all.flatMap((it) => it.ips), HOST_V4, HOST_V6])
      machine.run(from.pod, `${PING} ${to}`);
  for (const to of all.flatMap((it) => it.ips)) machine.run(machine.host, `${PING} ${to}`);
  const routes = machine.run(machine.host, 'ip route show proto 84');
  assert.match(routes, new RegExp(`${a.ips[0]} dev cni0\\.100`));
  assert.match(routes, new RegExp(`${c.ips[0]} dev cni0\\.200`));
  await machine.attacher.delete({ ...machine.request('DEL', a.pod, { config: inVlan(100) }) });
  const left = machine.run(machine.host, 'ip route show proto 84');
  assert.doesNotMatch(left, new RegExp(`${a.ips[0]} `));
});

test('host ports lead to a container in a VLAN, and from there to others', async (t) => {
  await using machine = new Machine();
  if (!machine.hasVlanFiltering()) return t.skip(skipped);
  const publish = (hostPort: number) => ({
    runtimeConfig: { portMappings: [{ hostPort, containerPort: 80 }] },
  });
  const a = await add(machine, 'a', { ...inVlan(100), ...publish(8080) });
  const b = await add(machine, 'b', inVlan(100));
  const c = await add(machine, 'c', publish(8081));
  for (const { pod, ips } of [a, c])
    await machine.spawn(pod, [process.execPath, fixture('echo'), ips[0] ?? '', '80']);
  const ask = (from: string, to: string, port: number) =>
    machine.run(from, `${process.execPath} ${fixture('ask')} tcp ${to} ${port}`);
  for (const from of [b.pod, machine.host]) assert.match(ask(from, HOST_V4, 8080), /192\.0\.2\.1/);
  assert.match(ask(machine.host, '127.0.0.1', 8080), /192\.0\.2\.1/);
  assert.match(ask(a.pod, HOST_V4, 8080), /192\.0\.2\.1/);
  for (const from of [a.pod, b.pod]) assert.match(ask(from, HOST_V4, 8081), /192\.0\.2\.3/);
});

test('followMtu() reaches the gateway of a VLAN', async (t) => {
  await using machine = new Machine();
  if (!machine.hasVlanFiltering()) return t.skip(skipped);
  let mtuBytes = 1450;
  machine.start({ mtuBytes: () => mtuBytes });
  const a = await add(machine, 'a', inVlan(100));
  for (const bytes of [1400, 1450]) {
    mtuBytes = bytes;
    machine.attacher.followMtu();
    const mtuOf = (where: string, link: string) =>
      machine.json(where, `ip -j link show ${link}`)[0]?.mtu;
    await until(() =>
      [mtuOf(machine.host, 'cni0.100'), mtuOf(a.pod, 'eth0')].every((it) => it === bytes),
    );
    machine.run(a.pod, `${PING} -M do -s ${bytes - 28} ${HOST_V4}`);
    machine.run(machine.host, `${PING} -M do -s ${bytes - 28} ${a.ips[0]}`);
  }
});

test('a container that has addresses and no VLAN to their gateway is refused', async () => {
  await using machine = new Machine();
  const config = { mode: 'bridge', vlanTrunk: [{ id: 5 }], preserveDefaultVlan: false };
  await assert.rejects(
    add(machine, 'a', config),
    (error) => error instanceof CniError && error.cniCode === 7 && /no VLAN/.test(error.message),
  );
  assert.equal(machine.addresses.given.size, 0);
});
