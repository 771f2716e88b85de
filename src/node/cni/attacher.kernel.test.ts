/** The whole life of an attachment in real namespaces, with the agent dying wherever it can. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CniError } from '#wire/cni/error.ts';
import { encodeCniResult } from '#wire/cni/result.ts';
import { HOST_V4, HOST_V6, Machine } from '../pod-machine.ts';
import { ATTACH_POINTS, type Attacher } from './attacher.ts';
import { hostLinkName } from './plan.ts';

const NOTHING = { links: [], routes: [], addresses: [], records: [], elements: 0 };
const PING = 'ping -c 1 -W 2 -q';

function isCniError(code: number, text: RegExp): (error: unknown) => boolean {
  return (error) =>
    error instanceof CniError &&
    error.cniCode === code &&
    text.test(`${error.message}: ${error.details}`);
}

describe('Attacher', () => {
  test('connects pods with the host and with each other, over IPv4 and IPv6', async () => {
    await using machine = new Machine();
    const [a, b] = [machine.addNamespace('a'), machine.addNamespace('b')];
    const result = await machine.attacher.add(machine.request('ADD', a));
    await machine.attacher.add(machine.request('ADD', b));
    assert.deepEqual(
      result.ips.map((it) => [it.address, it.gateway, it.interface]),
      [
        ['192.0.2.1/32', '169.254.1.1', 1],
        ['2001:db8::1/128', 'fe80::1', 1],
      ],
    );
    for (const target of ['192.0.2.2', '2001:db8::2', HOST_V4, HOST_V6, '127.0.0.1'])
      machine.run(a, `${PING} ${target}`);
    machine.run(machine.host, `${PING} 192.0.2.1`);
    machine.run(machine.host, `${PING} 2001:db8::1`);
  });

  test('makes what the kernel shows: MTU, MACs, permanent neighbours, routes with our protocol', async () => {
    await using machine = new Machine();
    const pod = machine.addNamespace('a');
    const { interfaces } = await machine.attacher.add(machine.request('ADD', pod));
    const link = hostLinkName(pod, 'eth0');
    assert.deepEqual(interfaces[0], { name: link, mac: 'ee:ee:ee:ee:ee:ee', mtu: 1450 });
    const [eth0] = machine.json(pod, 'ip -j link show eth0');
    assert.deepEqual([eth0?.mtu, eth0?.address], [1450, interfaces[1]?.mac]);
    const [host] = machine.json(machine.host, `ip -j link show ${link}`);
    assert.deepEqual([host?.mtu, host?.address], [1450, 'ee:ee:ee:ee:ee:ee']);
    const [neighbour] = machine.json(pod, 'ip -j neigh show 169.254.1.1');
    assert.deepEqual([neighbour?.lladdr, neighbour?.state], ['ee:ee:ee:ee:ee:ee', ['PERMANENT']]);
    const [route] = machine.json(machine.host, 'ip -j route show 192.0.2.1');
    assert.deepEqual([route?.dev, route?.protocol, route?.scope], [link, '84', 'link']);
    const read = (name: string) => machine.stack.sysctl.get(name);
    assert.equal(read(`net/ipv4/conf/${link}/rp_filter`), '1');
    assert.equal(read(`net/ipv4/conf/${link}/proxy_arp`), '1');
    const linkLocal = machine.json(machine.host, `ip -j -6 address show dev ${link} scope link`);
    assert.equal(JSON.stringify(linkLocal).match(/fe80::/g)?.length, 1, 'no address but fe80::1');
  });

  test('does not let a pod send from an address that is not its own', async () => {
    await using machine = new Machine();
    const [a, b] = [machine.addNamespace('a'), machine.addNamespace('b')];
    await machine.attacher.add(machine.request('ADD', a));
    await machine.attacher.add(machine.request('ADD', b));
    const echoesAt = (pod: string) => {
      const [names, values] = machine
        .run(pod, 'cat /proc/net/snmp')
        .split('\n')
        .filter((line) => line.startsWith('Icmp:'))
        .map((line) => line.split(' '));
      return values?.[names?.indexOf('InEchos') ?? -1];
    };
    machine.run(a, 'ip address add 203.0.113.66/32 dev eth0');
    assert.throws(() => machine.run(a, 'ping -c 1 -W 1 -q -I 203.0.113.66 192.0.2.2'));
    assert.equal(echoesAt(b), '0');
    machine.run(a, `${PING} 192.0.2.2`);
    assert.equal(echoesAt(b), '1');
  });

  test('takes everything away on DEL, as often as it is called, and without namespace', async () => {
    await using machine = new Machine();
    const pod = machine.addNamespace('a');
    await machine.attacher.add(machine.request('ADD', pod));
    await machine.deleteNamespace(pod);
    for (let i = 0; i < 2; i++)
      await machine.attacher.delete(machine.request('DEL', pod, { env: { CNI_NETNS: '' } }));
    assert.deepEqual(await machine.leftovers(), NOTHING);
  });

  test('removes a link on DEL of which there is no record', async () => {
    await using machine = new Machine();
    const pod = machine.addNamespace('a');
    machine.run(machine.host, `ip link add ${hostLinkName(pod, 'eth0')} type veth peer name x0`);
    await machine.attacher.delete(machine.request('DEL', pod));
    assert.deepEqual(await machine.leftovers(), NOTHING);
  });

  test('gives requested address and MAC', async () => {
    await using machine = new Machine();
    const pod = machine.addNamespace('a');
    const config = { runtimeConfig: { ips: ['192.0.2.77'], mac: '02:00:00:00:00:77' } };
    const result = await machine.attacher.add(machine.request('ADD', pod, { config }));
    assert.deepEqual(
      result.ips.map((it) => it.address),
      ['192.0.2.77/32'],
    );
    const [eth0] = machine.json(pod, 'ip -j address show eth0');
    assert.equal(eth0?.address, '02:00:00:00:00:77');
  });

  test('undoes everything when ADD fails in the middle', async () => {
    await using machine = new Machine();
    const pod = machine.addNamespace('a');
    // The name is taken inside the namespace, which comes out only when the veth is made.
    machine.run(pod, 'ip link add eth0 type bridge');
    await assert.rejects(machine.attacher.add(machine.request('ADD', pod)), /EEXIST/);
    assert.deepEqual(await machine.leftovers(), NOTHING);
  });

  test('refuses a path that is no namespace, and its own namespace, with code 8', async () => {
    await using machine = new Machine();
    const add = (path: string) =>
      machine.attacher.add(machine.request('ADD', 'x', { env: { CNI_NETNS: path } }));
    await assert.rejects(add('/etc/passwd'), isCniError(8, /no network namespace/));
    await assert.rejects(add('/proc/self/ns/net'), isCniError(8, /the host's own/));
    assert.deepEqual(await machine.leftovers(), NOTHING);
  });

  test('tells the runtime to try later while the API is away, and says when pools are exhausted', async () => {
    await using machine = new Machine();
    const pod = machine.addNamespace('a');
    machine.addresses.failure = new Error('connection refused');
    const add = () => machine.attacher.add(machine.request('ADD', pod));
    await assert.rejects(add(), isCniError(11, /connection refused/));
    const { config, path } = machine.request('ADD', pod);
    const status = { command: 'STATUS', config, path } as const;
    await assert.rejects(machine.attacher.status(status), isCniError(50, /connection refused/));
    machine.addresses.failure = undefined;
    await machine.attacher.undone();
    machine.addresses.refusal = {
      kind: 'exhausted',
      family: 4,
      pools: [],
      message: 'pool is full',
    };
    await assert.rejects(add(), isCniError(100, /pool is full/));
    assert.deepEqual(await machine.leftovers(), NOTHING);
  });

  test('DEL succeeds while the API is away, and the address is given back when it returns', async () => {
    await using machine = new Machine();
    const pod = machine.addNamespace('a');
    await machine.attacher.add(machine.request('ADD', pod));
    machine.addresses.failure = new Error('connection refused');
    await machine.attacher.delete(machine.request('DEL', pod));
    assert.deepEqual(machine.attacher.list(), []);
    assert.equal(machine.stack.links.get(hostLinkName(pod, 'eth0')), undefined);
    machine.addresses.failure = undefined;
    await machine.attacher.undone();
    assert.deepEqual(await machine.leftovers(), NOTHING);
  });

  for (const point of ATTACH_POINTS.filter((it) => it.startsWith('add:')))
    test(`comes right after a death at "${point}": the runtime asks again, then removes`, async () => {
      await using machine = new Machine();
      const pod = machine.addNamespace('a');
      await machine.untilDeath((agent) => agent.add(machine.request('ADD', pod)), point);
      const agent = machine.start();
      agent.recover();
      await agent.add(machine.request('ADD', pod));
      machine.run(machine.host, `${PING} ${agent.list()[0]?.addresses[0]?.address}`);
      assert.equal(machine.addresses.given.size, 1);
      await agent.delete(machine.request('DEL', pod));
      assert.deepEqual(await machine.leftovers(), NOTHING);
    });

  for (const point of ATTACH_POINTS)
    test(`leaves nothing after a death at "${point}" and a runtime that has forgotten the pod`, async () => {
      await using machine = new Machine();
      const pod = machine.addNamespace('a');
      const add = (agent: Attacher) => agent.add(machine.request('ADD', pod));
      if (point.startsWith('add:')) await machine.untilDeath(add, point);
      else {
        await add(machine.attacher);
        const del = (agent: Attacher) => agent.delete(machine.request('DEL', pod));
        await machine.untilDeath(del, point);
      }
      const agent = machine.start();
      agent.recover();
      await agent.undone();
      await machine.deleteNamespace(pod);
      await agent.sweep();
      await agent.sweep();
      assert.deepEqual(await machine.leftovers(), NOTHING);
    });

  test('gives the same answer again if it died before the runtime had it', async () => {
    await using machine = new Machine();
    const pod = machine.addNamespace('a');
    await machine.untilDeath((agent) => agent.add(machine.request('ADD', pod)), 'add:attached');
    const agent = machine.start();
    agent.recover();
    const before = machine.json(pod, 'ip -j link show eth0')[0]?.ifindex;
    const result = await agent.add(machine.request('ADD', pod));
    assert.equal(result.ips[0]?.address, '192.0.2.1/32');
    assert.equal(machine.json(pod, 'ip -j link show eth0')[0]?.ifindex, before);
  });

  test('replaces the attachment of a container that comes back in another namespace', async () => {
    await using machine = new Machine();
    const [pod, next] = [machine.addNamespace('a'), machine.addNamespace('b')];
    await machine.attacher.add(machine.request('ADD', pod));
    const env = { CNI_NETNS: machine.path(next) };
    const result = await machine.attacher.add(machine.request('ADD', pod, { env }));
    assert.equal(result.ips[0]?.address, '192.0.2.2/32');
    assert.equal(machine.addresses.given.size, 1);
    machine.run(next, 'ip link show eth0');
  });

  test('CHECK passes after ADD and names what was broken', async () => {
    await using machine = new Machine();
    const pod = machine.addNamespace('a');
    const result = await machine.attacher.add(machine.request('ADD', pod));
    const prevResult = JSON.parse(encodeCniResult(result, '1.1.0')) as object;
    const check = (prev: object = prevResult) =>
      machine.attacher.check(machine.request('CHECK', pod, { config: { prevResult: prev } }));
    await check();
    await assert.rejects(
      check({ ...prevResult, ips: [{ address: '203.0.113.5/32' }] }),
      isCniError(101, /203\.0\.113\.5.*lacks address 192\.0\.2\.1/),
    );
    machine.run(pod, 'ip address del 192.0.2.1/32 dev eth0');
    await assert.rejects(check(), isCniError(101, /address 192\.0\.2\.1 is missing/));
    machine.run(machine.host, 'ip route del 192.0.2.1');
    await assert.rejects(check(), isCniError(101, /route 192\.0\.2\.1\/32 is missing/));
    machine.run(pod, 'ip link del eth0');
    await assert.rejects(check(), isCniError(101, /does not exist/));
    await machine.attacher.delete(machine.request('DEL', pod));
    await assert.rejects(check(), isCniError(3, /not attached/));
  });

  test('GC removes what the runtime does not list, of its own network only', async () => {
    await using machine = new Machine();
    const pods = ['a', 'b', 'c'].map((name) => machine.addNamespace(name));
    const [a = '', b = '', c = ''] = pods;
    for (const pod of [a, b]) await machine.attacher.add(machine.request('ADD', pod));
    await machine.attacher.add(machine.request('ADD', c, { config: { name: 'other' } }));
    const config = { 'cni.dev/valid-attachments': [{ containerID: a, ifname: 'eth0' }] };
    await machine.attacher.collect(machine.request('GC', '', { config }));
    assert.deepEqual(
      machine.attacher
        .list()
        .map((it) => it.containerId)
        .sort(),
      [a, c].sort(),
    );
    await assert.rejects(
      machine.attacher.collect(machine.request('GC', '')),
      isCniError(7, /valid/),
    );
  });

  test('sweeps away a pod whose namespace vanished, at the second look', async () => {
    await using machine = new Machine();
    const [gone, stays] = [machine.addNamespace('a'), machine.addNamespace('b')];
    for (const pod of [gone, stays]) await machine.attacher.add(machine.request('ADD', pod));
    await machine.deleteNamespace(gone);
    assert.equal(await machine.attacher.sweep(), true);
    assert.equal(machine.attacher.list().length, 2);
    assert.equal(await machine.attacher.sweep(), false);
    assert.deepEqual(
      machine.attacher.list().map((it) => it.containerId),
      [stays],
    );
    assert.equal(machine.addresses.given.size, 1);
  });

  test('sweeps away a pod that the runtime has forgotten although its namespace is there', async () => {
    await using machine = new Machine();
    const agent = machine.start({ containerExists: false });
    await agent.add(machine.request('ADD', machine.addNamespace('a')));
    await agent.sweep();
    await agent.sweep();
    assert.deepEqual(await machine.leftovers(), NOTHING);
  });

  test('repairs the host side after a restart', async () => {
    await using machine = new Machine();
    const pod = machine.addNamespace('a');
    await machine.attacher.add(machine.request('ADD', pod));
    machine.run(machine.host, 'ip route del 192.0.2.1');
    machine.run(machine.host, 'ip -6 route del 2001:db8::1');
    machine.start().recover();
    machine.run(machine.host, `${PING} 192.0.2.1`);
    machine.run(machine.host, `${PING} 2001:db8::1`);
  });
});
