/** What we wrote, read back with iproute2: a second opinion on every attribute. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cidr, ip, mac } from '#lib/ip.ts';
import { ScratchNetns } from '../testing/scratch-netns.ts';
import { openNetworkStack } from './kernel.ts';
import type { Link, NetworkStack } from './port.ts';

const MAC_A = mac('02:00:00:00:00:0a');
const MAC_B = mac('02:00:00:00:00:0b');
type Json = Record<string, unknown>;

interface Bed extends Disposable {
  readonly netns: ScratchNetns;
  readonly stack: NetworkStack;
  /** A veth end, up, with addresses of both families. */
  readonly link: Link;
}

function makeBed(): Bed {
  using cleanup = new DisposableStack();
  const netns = cleanup.use(new ScratchNetns());
  const stack = cleanup.use(openNetworkStack({ netns: netns.path }));
  const link = stack.links.create({
    kind: 'veth',
    name: 'tl0',
    mac: MAC_A,
    mtuBytes: 1400,
    up: true,
    peer: { name: 'eth0', mac: MAC_B, mtuBytes: 1400, up: true },
  });
  stack.addresses.add({ link: link.index, address: ip('192.0.2.1'), prefixLength: 24 });
  stack.addresses.add({
    link: link.index,
    address: ip('2001:db8::1'),
    prefixLength: 64,
    nodad: true,
  });
  const resources = cleanup.move();
  return { netns, stack, link, [Symbol.dispose]: () => resources.dispose() };
}

test('ip link sees links as they were asked for', () => {
  using bed = makeBed();
  const { netns, stack, link } = bed;
  stack.links.create({ kind: 'bridge', name: 'br0', ageingSeconds: 120, stp: true });
  const device = link.index;
  const base = { port: 4789, device, learning: false };
  stack.links.create({
    kind: 'vxlan',
    name: 'vx4',
    vxlan: { ...base, vni: 5390, local: ip('192.0.2.1') },
  });
  stack.links.create({
    kind: 'vxlan',
    name: 'vx6',
    vxlan: { ...base, vni: 5391, local: ip('2001:db8::1') },
  });
  stack.links.create({ kind: 'macvlan', name: 'mv0', parent: device, mode: 'private' });
  const show = (name: string) => first(netns.json<Json[]>('ip', '-j', '-d', 'link', 'show', name));
  const data = (name: string) => (show(name).linkinfo as { info_data: Json }).info_data;
  const veth = show('tl0');
  assert.deepEqual(
    [veth.address, veth.mtu, veth.operstate, veth.link],
    [MAC_A, 1400, 'UP', 'eth0'],
  );
  assert.deepEqual([data('br0').ageing_time, data('br0').stp_state], [12_000, 1]);
  for (const [name, vni, local] of [
    ['vx4', 5390, { local: '192.0.2.1' }],
    ['vx6', 5391, { local6: '2001:db8::1' }],
  ] as const) {
    const expected = {
      ...local,
      id: vni,
      link: 'tl0',
      port: 4789,
      learning: false,
      udp_csum: true,
      udp_zero_csum6_tx: false,
      udp_zero_csum6_rx: false,
    };
    const seen = data(name);
    assert.deepEqual(Object.fromEntries(Object.keys(expected).map((k) => [k, seen[k]])), expected);
  }
  assert.equal(data('mv0').mode, 'private');
});

test('ip link sees links as they were changed', () => {
  using bed = makeBed();
  const { netns, stack, link } = bed;
  const bridge = stack.links.create({ kind: 'bridge', name: 'br0' });
  stack.links.set(link.index, { mac: mac('02:00:00:00:00:0f'), mtuBytes: 1300, promiscuous: true });
  stack.links.set(link.index, { master: bridge.index });
  stack.links.setBridgePort(link.index, {
    hairpin: true,
    isolated: true,
    learning: false,
    neighSuppress: true,
  });
  const seen = first(netns.json<Json[]>('ip', '-j', '-d', 'link', 'show', 'tl0'));
  assert.deepEqual([seen.address, seen.mtu, seen.master], ['02:00:00:00:00:0f', 1300, 'br0']);
  assert.ok((seen.flags as string[]).includes('PROMISC'));
  const port = (seen.linkinfo as { info_slave_data: Json }).info_slave_data;
  assert.deepEqual(
    [port.hairpin, port.isolated, port.learning, port.neigh_suppress],
    [true, true, false, true],
  );
});

test('ip address sees addresses as they were asked for', () => {
  using bed = makeBed();
  const { netns, stack, link } = bed;
  stack.addresses.add({
    link: link.index,
    address: ip('169.254.1.1'),
    prefixLength: 32,
    scope: 253,
  });
  const [seen] = netns.json<{ addr_info: Json[] }[]>('ip', '-j', 'address', 'show', 'tl0');
  const list = seen?.addr_info.map((a) => [a.local, a.prefixlen, a.scope, a.nodad]);
  for (const expected of [
    ['192.0.2.1', 24, 'global', undefined],
    ['169.254.1.1', 32, 'link', undefined],
    ['2001:db8::1', 64, 'global', true],
  ])
    assert.ok(
      list?.some((a) => JSON.stringify(a) === JSON.stringify(expected)),
      `${expected} is not in ${JSON.stringify(list)}`,
    );
});

test('ip route sees routes as they were asked for', () => {
  using bed = makeBed();
  const { netns, stack, link } = bed;
  const on = { link: link.index, protocol: 84 };
  stack.routes.replace([
    { ...on, destination: cidr('10.1.0.0/16'), gateway: ip('192.0.2.9'), mtuBytes: 1280 },
    { ...on, destination: cidr('10.2.0.0/16'), gateway: ip('169.254.9.9'), onlink: true },
    { ...on, destination: cidr('10.3.0.0/16'), gateway: ip('2001:db8::9') },
    { ...on, destination: cidr('10.4.0.0/16'), source: ip('192.0.2.1'), metric: 50 },
    { ...on, destination: cidr('0.0.0.0/0'), gateway: ip('192.0.2.9'), table: 70_000 },
    { destination: cidr('10.6.0.0/26'), type: 'blackhole', protocol: 84 },
    { ...on, destination: cidr('2001:db8:1::/64'), gateway: ip('fe80::9'), metric: 7 },
    { destination: cidr('2001:db8:2::/64'), type: 'unreachable', protocol: 84 },
  ]);
  // The filter by protocol also proves it.
  const show = (...filter: string[]): Json[] =>
    netns.json<Json[]>('ip', '-j', '-d', ...filter, 'proto', '84').map(({ flags, ...route }) => ({
      ...route,
      onlink: (flags as string[] | undefined)?.includes('onlink') === true,
    }));
  const common = { scope: 'global', onlink: false };
  const unicast = { ...common, type: 'unicast', dev: 'tl0' };
  assert.deepEqual(show('-4', 'route', 'show'), [
    { ...unicast, dst: '10.1.0.0/16', gateway: '192.0.2.9', metrics: [{ mtu: 1280 }] },
    { ...unicast, dst: '10.2.0.0/16', gateway: '169.254.9.9', onlink: true },
    { ...unicast, dst: '10.3.0.0/16', via: { family: 'inet6', host: '2001:db8::9' } },
    { ...unicast, dst: '10.4.0.0/16', scope: 'link', prefsrc: '192.0.2.1', metric: 50 },
    { ...common, type: 'blackhole', dst: '10.6.0.0/26' },
  ]);
  assert.deepEqual(show('-4', 'route', 'show', 'table', '70000'), [
    { ...unicast, dst: 'default', gateway: '192.0.2.9' },
  ]);
  const v6 = show('-6', 'route', 'show').map(({ type, dst, gateway, metric }) => ({
    type,
    dst,
    gateway,
    metric,
  }));
  assert.deepEqual(v6, [
    { type: 'unicast', dst: '2001:db8:1::/64', gateway: 'fe80::9', metric: 7 },
    { type: 'unreachable', dst: '2001:db8:2::/64', gateway: undefined, metric: 1024 },
  ]);
});

test('routes.list() reads what ip route wrote, and so does lookup() what ip route get answers', () => {
  using bed = makeBed();
  const { netns, stack, link } = bed;
  netns.run('ip', 'route', 'add', '10.1.0.0/16', 'via', '192.0.2.9', 'metric', '5', 'proto', '99');
  netns.run('ip', 'route', 'add', 'prohibit', '10.2.0.0/16', 'table', '300', 'proto', '99');
  netns.run('ip', '-6', 'route', 'add', '2001:db8:1::/64', 'via', '2001:db8::9', 'proto', '99');
  assert.deepEqual(stack.routes.list({ protocol: 99 }).sort(byText), [
    {
      destination: '10.1.0.0/16',
      table: 254,
      type: 'unicast',
      protocol: 99,
      link: link.index,
      gateway: '192.0.2.9',
      metric: 5,
    },
    { destination: '10.2.0.0/16', table: 300, type: 'prohibit', protocol: 99 },
    {
      destination: '2001:db8:1::/64',
      table: 254,
      type: 'unicast',
      protocol: 99,
      link: link.index,
      gateway: '2001:db8::9',
    },
  ]);
  for (const address of ['10.1.2.3', '192.0.2.77', '2001:db8:1::5']) {
    const [answer] = netns.json<Json[]>('ip', '-j', 'route', 'get', address);
    const route = stack.routes.lookup(ip(address));
    assert.deepEqual([route.gateway, route.source], [answer?.gateway, answer?.prefsrc]);
  }
});

test('ip neigh and bridge fdb see entries as they were asked for', () => {
  using bed = makeBed();
  const { netns, stack, link } = bed;
  const vxlan = { vni: 1, port: 4789, local: ip('192.0.2.1'), device: undefined, learning: false };
  const vx = stack.links.create({ kind: 'vxlan', name: 'vx0', up: true, vxlan }).index;
  stack.neighbours.replace([
    { link: link.index, address: ip('192.0.2.7'), mac: MAC_B, permanent: true },
    { link: link.index, address: ip('2001:db8::7'), mac: MAC_B, permanent: true },
  ]);
  stack.fdb.replace([
    { link: vx, mac: MAC_B, destination: ip('198.51.100.2') },
    { link: vx, mac: mac('00:00:00:00:00:00'), destination: ip('198.51.100.3') },
    { link: vx, mac: mac('00:00:00:00:00:00'), destination: ip('198.51.100.4') },
  ]);
  const neighbours = netns.json<Json[]>('ip', '-j', 'neigh', 'show', 'nud', 'permanent');
  assert.deepEqual(neighbours.map(({ dst, dev, lladdr }) => ({ dst, dev, lladdr })).sort(byText), [
    { dst: '192.0.2.7', dev: 'tl0', lladdr: MAC_B },
    { dst: '2001:db8::7', dev: 'tl0', lladdr: MAC_B },
  ]);
  const fdb = netns.json<Json[]>('bridge', '-j', 'fdb', 'show', 'dev', 'vx0');
  assert.deepEqual(
    fdb.map(({ mac: address, dst, state, flags }) => [address, dst, state, flags]).sort(byText),
    [
      ['00:00:00:00:00:00', '198.51.100.3', 'permanent', ['self']],
      ['00:00:00:00:00:00', '198.51.100.4', 'permanent', ['self']],
      [MAC_B, '198.51.100.2', 'permanent', ['self']],
    ],
  );
});

test('ip rule sees rules as they were asked for', () => {
  using bed = makeBed();
  const { netns, stack } = bed;
  stack.rules.add({ family: 4, priority: 8400, table: 70_000, mark: 0x54, markMask: 0xff });
  stack.rules.add({
    family: 6,
    priority: 8401,
    table: 100,
    from: cidr('2001:db8::/32'),
    to: cidr('2001:db8:1::/48'),
  });
  const [v4] = netns.json<Json[]>('ip', '-j', 'rule', 'show', 'pref', '8400');
  assert.deepEqual(
    [v4?.priority, v4?.src, v4?.table, v4?.fwmark, v4?.fwmask],
    [8400, 'all', '70000', '0x54', '0xff'],
  );
  const [v6] = netns.json<Json[]>('ip', '-j', '-6', 'rule', 'show', 'pref', '8401');
  assert.deepEqual(
    [v6?.src, v6?.srclen, v6?.dst, v6?.dstlen, v6?.table],
    ['2001:db8::', 32, '2001:db8:1::', 48, '100'],
  );
});

test('sysctl sees settings of the namespace that were set', () => {
  using bed = makeBed();
  const { netns, stack } = bed;
  for (const name of ['net/ipv4/conf/tl0/proxy_arp', 'net/ipv6/conf/tl0/proxy_ndp']) {
    stack.sysctl.set(name, '1');
    assert.equal(netns.run('cat', `/proc/sys/${name}`).trim(), '1');
    netns.run('sh', '-c', `echo 0 > /proc/sys/${name}`);
    assert.equal(stack.sysctl.get(name), '0');
  }
});

function first<T>(list: readonly T[]): T {
  const [value] = list;
  assert.ok(value !== undefined, 'nothing was shown');
  return value;
}

function byText(a: unknown, b: unknown): number {
  return JSON.stringify(a) < JSON.stringify(b) ? -1 : 1;
}
