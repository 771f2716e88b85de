/**
 * What every implementation of `NetworkStack` must do, as tests: run over the fake, and over the kernel in scratch
 * namespaces. A difference between the two is found here, so that code tested on the fake holds on the kernel.
 */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { EEXIST, EINVAL, isErrno, KernelError } from '#lib/errors.ts';
import { cidr, type Ip, ip, mac } from '#lib/ip.ts';
import type { NetnsPath } from '../netns.ts';
import { routeKey, sameRoute } from './compare.ts';
import type { Link, NetworkEvent, NetworkStack, Route, VxlanConfig } from './port.ts';

/** Two empty namespaces: only `lo`, which is down. */
export interface ContractStacks extends Disposable {
  readonly host: NetworkStack;
  readonly pod: NetworkStack;
  readonly podNetns: NetnsPath;
}

const ENODEV = 19;
const EOPNOTSUPP = 95;
const EAFNOSUPPORT = 97;
const ENETDOWN = 100;
const ENETUNREACH = 101;
const EHOSTUNREACH = 113;
/** No link has it. */
const NO_LINK = 4711;
const OWNER = 84;
const MAC_A = mac('02:00:00:00:00:0a');
const MAC_B = mac('02:00:00:00:00:0b');
/** Long enough for a loaded machine; the tests do not wait for it to pass. */
const EVENT_DEADLINE_MS = 20_000;

export function networkStackContract(name: string, makeStacks: () => ContractStacks): void {
  describe(`NetworkStack on ${name}`, () => {
    let stacks: ContractStacks;
    const context: Context = {
      host: () => stacks.host,
      pod: () => stacks.pod,
      podNetns: () => stacks.podNetns,
    };
    beforeEach(() => {
      stacks = makeStacks();
    });
    afterEach(() => stacks[Symbol.dispose]());
    linkContract(context);
    linkKindContract(context);
    addressContract(context);
    routeContract(context);
    lookupContract(context);
    neighbourContract(context);
    fdbContract(context);
    ruleContract(context);
    sysctlContract(context);
    watchContract(context);
  });
}

interface Context {
  host(): NetworkStack;
  pod(): NetworkStack;
  podNetns(): NetnsPath;
}

function linkContract({ host, pod, podNetns }: Context): void {
  test('links.create() makes a veth with its peer, up, in another namespace', () => {
    const link = host().links.create({
      kind: 'veth',
      name: 'tl0',
      mac: MAC_A,
      mtuBytes: 1400,
      up: true,
      peer: { name: 'eth0', netns: podNetns(), mac: MAC_B, mtuBytes: 1300, up: true },
    });
    const peer = found(pod().links.get('eth0'));
    assert.equal(link.kind, 'veth');
    assert.deepEqual([link.mac, link.mtuBytes, link.up], [MAC_A, 1400, true]);
    assert.deepEqual([peer.mac, peer.mtuBytes, peer.up, peer.carrier], [MAC_B, 1300, true, true]);
    assert.deepEqual([link.peerIndex, peer.peerIndex], [peer.index, link.index]);
    assert.notEqual(link.peerNetnsId, undefined);
    assert.equal(found(host().links.get(link.index)).carrier, true);
    assert.equal(host().links.get('eth0'), undefined);
  });

  test('links.create() makes both ends of a veth here when no namespace is named', () => {
    const link = host().links.create({ kind: 'veth', name: 'a0', peer: { name: 'b0', up: true } });
    const peer = found(host().links.get('b0'));
    assert.deepEqual([link.up, peer.up, link.carrier], [false, true, false]);
    assert.equal(peer.peerIndex, link.index);
    assert.equal(peer.peerNetnsId, undefined);
    assert.notEqual(link.mac, undefined);
    assert.equal(link.mtuBytes, 1500);
  });

  test('links.create() refuses a taken name and leaves nothing behind', () => {
    pod().links.create({ kind: 'bridge', name: 'eth0' });
    const before = names(host());
    const spec = { kind: 'veth', name: 'tl0', peer: { name: 'eth0', netns: podNetns() } } as const;
    assert.throws(() => host().links.create(spec), errnoIs(EEXIST));
    assert.deepEqual(names(host()), before);
    host().links.create({ kind: 'bridge', name: 'tl0' });
    assert.throws(() => host().links.create({ ...spec, peer: { name: 'x0' } }), errnoIs(EEXIST));
    assert.equal(host().links.get('x0'), undefined);
  });

  test('links.create() names the link and what is wrong with it', () => {
    const bridge = (more: object) =>
      host().links.create({ kind: 'bridge', name: 'br0', ...more } as const);
    assert.throws(() => bridge({ master: NO_LINK }), errnoIs(EINVAL));
    assert.equal(host().links.get('br0'), undefined);
    assert.throws(
      () => bridge({ name: 'a-name-of-16-byte' }),
      (error) => error instanceof KernelError && error.op.includes('"a-name-of-16-byte"'),
    );
  });

  test('links.get() and list() agree, and know no link that is not there', () => {
    const link = host().links.create({ kind: 'bridge', name: 'br0', mac: MAC_A });
    assert.deepEqual(host().links.get('br0'), link);
    assert.deepEqual(host().links.get(link.index), link);
    assert.deepEqual(
      host()
        .links.list()
        .find((l) => l.name === 'br0'),
      link,
    );
    for (const absent of ['br1', '', 'a-name-of-16-byte', NO_LINK, 0])
      assert.equal(host().links.get(absent), undefined);
    const lo = found(host().links.get('lo'));
    assert.deepEqual([lo.index, lo.loopback, lo.up, lo.kind], [1, true, false, undefined]);
  });

  test('links.set() changes what is named and nothing else', () => {
    const { index } = vethPair(host());
    host().links.set(index, { mac: MAC_B, mtuBytes: 1280 });
    host().links.set(index, { promiscuous: true });
    host().links.set(index, { name: 'renamed' });
    const link = found(host().links.get('renamed'));
    assert.deepEqual(
      [link.index, link.mac, link.mtuBytes, link.up, link.promiscuous],
      [index, MAC_B, 1280, true, true],
    );
    host().links.set(index, { up: false, promiscuous: false });
    const down = found(host().links.get(index));
    assert.deepEqual([down.up, down.carrier, down.promiscuous], [false, false, false]);
    assert.equal(found(host().links.get('b0')).carrier, false);
  });

  test('links.set() refuses an unknown link, a taken name and an impossible MTU', () => {
    const { index } = vethPair(host());
    assert.throws(() => host().links.set(NO_LINK, { up: true }), errnoIs(ENODEV));
    assert.throws(() => host().links.set(index, { name: 'b0' }), errnoIs(EEXIST));
    assert.throws(() => host().links.set(index, { mtuBytes: 20 }), errnoIs(EINVAL));
  });

  test('links.set() moves a link to another namespace, down and without its addresses', () => {
    const { index, mac: was } = vethPair(host());
    host().addresses.add({ link: index, address: ip('192.0.2.1'), prefixLength: 24 });
    host().links.set(index, { netns: podNetns(), name: 'eth9' });
    assert.equal(host().links.get('a0'), undefined);
    const moved = found(pod().links.get('eth9'));
    assert.deepEqual([moved.mac, moved.up], [was, false]);
    assert.deepEqual(pod().addresses.list({ link: moved.index }), []);
    assert.equal(found(host().links.get('b0')).peerIndex, moved.index);
  });

  test('links.delete() takes the peer, addresses, routes and neighbours along; twice is well', () => {
    const link = host().links.create({
      kind: 'veth',
      name: 'tl0',
      up: true,
      peer: { name: 'eth0', netns: podNetns(), up: true },
    });
    host().addresses.add({ link: link.index, address: ip('192.0.2.1'), prefixLength: 24 });
    host().routes.replace([
      { destination: cidr('198.51.100.0/24'), link: link.index, protocol: OWNER },
      { destination: cidr('2001:db8::/64'), link: link.index, protocol: OWNER },
    ]);
    host().neighbours.replace([
      { link: link.index, address: ip('192.0.2.2'), mac: MAC_B, permanent: true },
    ]);
    host().links.delete(link.index);
    assert.equal(pod().links.get('eth0'), undefined);
    assert.deepEqual(host().addresses.list({ link: link.index }), []);
    assert.deepEqual(host().routes.list({ protocol: OWNER }), []);
    assert.deepEqual(host().neighbours.list({ link: link.index }), []);
    host().links.delete(link.index);
  });

  test('links.delete() refuses the loopback link', () => {
    assert.throws(() => host().links.delete(1), errnoIs(EOPNOTSUPP));
  });
}

function linkKindContract({ host, pod, podNetns }: Context): void {
  test('a bridge has ports, with settings of their own', () => {
    const bridge = host().links.create({ kind: 'bridge', name: 'br0', up: true, stp: false });
    const port = host().links.create({
      kind: 'veth',
      name: 'tl0',
      master: bridge.index,
      peer: { name: 'eth0', netns: podNetns() },
    });
    assert.equal(port.master, bridge.index);
    host().links.setBridgePort(port.index, { hairpin: true, isolated: true, learning: false });
    assert.deepEqual(found(host().links.get(port.index)).bridgePort, {
      hairpin: true,
      isolated: true,
      learning: false,
      neighSuppress: false,
    });
    host().links.set(port.index, { master: 0 });
    const free = found(host().links.get(port.index));
    assert.deepEqual([free.master, free.bridgePort], [undefined, undefined]);
    assert.throws(
      () => host().links.setBridgePort(port.index, { hairpin: true }),
      errnoIs(EOPNOTSUPP),
    );
  });

  test('deleting a bridge frees its ports', () => {
    const bridge = host().links.create({ kind: 'bridge', name: 'br0' });
    const { index } = vethPair(host());
    host().links.set(index, { master: bridge.index });
    host().links.delete(bridge.index);
    assert.equal(found(host().links.get(index)).master, undefined);
  });

  test('a vxlan link reads as it was made, over IPv4 and IPv6', () => {
    const { index } = vethPair(host());
    const v4: VxlanConfig = {
      vni: 5390,
      port: 4789,
      local: ip('192.0.2.1'),
      device: index,
      learning: false,
    };
    const v6: VxlanConfig = { ...v4, vni: 5391, port: 4790, local: ip('2001:db8::1') };
    const first = host().links.create({
      kind: 'vxlan',
      name: 'vx4',
      mac: MAC_A,
      mtuBytes: 1400,
      up: true,
      vxlan: v4,
    });
    assert.deepEqual(first.vxlan, v4);
    assert.deepEqual(
      [first.kind, first.mac, first.mtuBytes, first.up],
      ['vxlan', MAC_A, 1400, true],
    );
    const second = host().links.create({ kind: 'vxlan', name: 'vx6', vxlan: v6 });
    assert.deepEqual(second.vxlan, v6);
    // What the underlay has left: 14 Ethernet, 8 VXLAN, 8 UDP and 20 or 40 IP.
    assert.equal(second.mtuBytes, 1430);
    const bare = { vni: 7, port: 4789, local: undefined, device: undefined, learning: true };
    const third = host().links.create({ kind: 'vxlan', name: 'vx0', vxlan: bare });
    assert.deepEqual(third.vxlan, bare);
  });

  test('a second vxlan link with the same VNI and port is refused', () => {
    const vxlan = { vni: 9, port: 4789, local: undefined, device: undefined, learning: false };
    host().links.create({ kind: 'vxlan', name: 'vx0', vxlan });
    const again = () => host().links.create({ kind: 'vxlan', name: 'vx1', vxlan });
    assert.throws(again, errnoIs(EEXIST));
    assert.equal(host().links.get('vx1'), undefined);
  });

  test('links on top of another go when it is deleted', () => {
    const { index } = vethPair(host());
    const vxlan = { vni: 9, port: 4789, local: undefined, device: index, learning: false };
    host().links.create({ kind: 'vxlan', name: 'vx0', vxlan });
    const macvlan = host().links.create({
      kind: 'macvlan',
      name: 'mv0',
      parent: index,
      mode: 'bridge',
      mac: MAC_B,
      up: true,
    });
    assert.deepEqual(
      [macvlan.kind, macvlan.mac, macvlan.up, macvlan.peerIndex],
      ['macvlan', MAC_B, true, index],
    );
    host().links.delete(index);
    assert.equal(host().links.get('vx0'), undefined);
    assert.equal(host().links.get('mv0'), undefined);
    assert.deepEqual(names(pod()), ['lo']);
  });

  test('macvlan and vxlan need their parent to be there', () => {
    const macvlan = { kind: 'macvlan', name: 'mv0', parent: NO_LINK, mode: 'private' } as const;
    assert.throws(() => host().links.create(macvlan), errnoIs(ENODEV));
    const vxlan = { vni: 9, port: 4789, local: undefined, device: NO_LINK, learning: false };
    assert.throws(
      () => host().links.create({ kind: 'vxlan', name: 'vx0', vxlan }),
      errnoIs(ENODEV),
    );
  });
}

function addressContract({ host }: Context): void {
  test('addresses.add() adds once, list() filters, delete() deletes once', () => {
    const { index } = vethPair(host());
    const v4 = { link: index, address: ip('192.0.2.1'), prefixLength: 24, scope: 0 };
    const local = { link: index, address: ip('169.254.1.1'), prefixLength: 32, scope: 253 };
    const v6 = { link: index, address: ip('2001:db8::1'), prefixLength: 64, scope: 0, nodad: true };
    for (const address of [v4, local, v6, v4, v6]) host().addresses.add(address);
    assert.deepEqual(
      sorted(host().addresses.list({ link: index, family: 4 })),
      sorted([v4, local]),
    );
    assert.deepEqual(
      host()
        .addresses.list({ family: 6 })
        .filter((a) => a.scope === 0),
      [v6],
    );
    assert.deepEqual(host().addresses.list({ link: NO_LINK }), []);
    for (const address of [v4, v6, v4, v6]) host().addresses.delete(address);
    assert.deepEqual(
      host()
        .addresses.list({ link: index })
        .filter((a) => a.scope === 0),
      [],
    );
    host().addresses.delete({ ...v4, link: NO_LINK });
  });

  test('addresses.add() refuses an unknown link, naming the address', () => {
    assert.throws(
      () => host().addresses.add({ link: NO_LINK, address: ip('192.0.2.1'), prefixLength: 24 }),
      (error) => isErrno(error, ENODEV) && error.op.includes('"192.0.2.1/24"'),
    );
  });

  test('an address brings the route to its prefix, and takes it along', () => {
    const { index } = vethPair(host());
    const address = { link: index, address: ip('192.0.2.1'), prefixLength: 24 };
    host().addresses.add(address);
    const connected = {
      destination: cidr('192.0.2.0/24'),
      table: 254,
      type: 'unicast',
      protocol: 2,
      link: index,
      source: ip('192.0.2.1'),
    };
    assert.deepEqual(host().routes.list({ family: 4, table: 254 }), [connected]);
    const [local] = host().routes.list({ family: 4, table: 255 });
    assert.deepEqual([local?.destination, local?.type], ['192.0.2.1/32', 'local']);
    host().addresses.delete(address);
    assert.deepEqual(host().routes.list({ family: 4 }), []);
  });

  test('IPv6 addresses go when their link goes down, IPv4 addresses stay without their routes', () => {
    const { index } = vethPair(host());
    const v4 = { link: index, address: ip('192.0.2.1'), prefixLength: 24, scope: 0 };
    host().addresses.add(v4);
    host().addresses.add({ link: index, address: ip('2001:db8::1'), prefixLength: 64 });
    host().links.set(index, { up: false });
    assert.deepEqual(host().addresses.list({ link: index }), [v4]);
    assert.deepEqual(host().routes.list({ family: 4, table: 254 }), []);
    assert.deepEqual(
      host()
        .routes.list({ family: 6 })
        .filter((r) => r.link === index),
      [],
    );
    host().links.set(index, { up: true });
    assert.equal(host().routes.list({ family: 4, table: 254 }).length, 1);
  });
}

function routeContract({ host }: Context): void {
  test('routes.replace() writes every kind of route so that list() reads it as it was', () => {
    const { index } = vethPair(host());
    host().addresses.add({ link: index, address: ip('192.0.2.1'), prefixLength: 24 });
    host().addresses.add({
      link: index,
      address: ip('2001:db8::1'),
      prefixLength: 64,
      nodad: true,
    });
    const on = { link: index, table: 254, type: 'unicast', protocol: OWNER } as const;
    const off = { table: 254, protocol: OWNER } as const;
    const gateway = ip('192.0.2.9');
    const routes: Route[] = [
      { ...on, destination: cidr('10.0.0.7/32') },
      { ...on, destination: cidr('10.1.0.0/16'), gateway },
      { ...on, destination: cidr('10.2.0.0/16'), gateway: ip('169.254.9.9'), onlink: true },
      { ...on, destination: cidr('10.3.0.0/16'), gateway: ip('2001:db8::9') },
      { ...on, destination: cidr('10.4.0.0/16'), source: ip('192.0.2.1'), metric: 50 },
      { ...on, destination: cidr('10.5.0.0/16'), gateway, mtuBytes: 1280, table: 1000 },
      { ...on, destination: cidr('0.0.0.0/0'), gateway, table: 7 },
      { ...off, destination: cidr('10.6.0.0/26'), type: 'blackhole' },
      { ...off, destination: cidr('10.7.0.0/26'), type: 'unreachable', metric: 9 },
      { ...off, destination: cidr('10.8.0.0/26'), type: 'prohibit' },
      { ...off, destination: cidr('10.9.0.0/26'), type: 'throw', table: 70_000 },
      { ...on, destination: cidr('10.10.0.0/24'), type: 'local', table: 100 },
      { ...on, destination: cidr('2001:db8:1::7/128') },
      { ...on, destination: cidr('2001:db8:2::/64'), gateway: ip('2001:db8::9'), metric: 5 },
      { ...on, destination: cidr('2001:db8:3::/64'), gateway: ip('fe80::9'), mtuBytes: 1400 },
      { ...on, destination: cidr('2001:db8:4::/64'), gateway: ip('2001:db8:f::1'), onlink: true },
      { ...on, destination: cidr('::/0'), gateway: ip('fe80::9'), table: 70_000 },
      { ...off, destination: cidr('2001:db8:5::/122'), type: 'blackhole' },
      { ...off, destination: cidr('2001:db8:6::/122'), type: 'unreachable' },
    ];
    host().routes.replace(routes);
    assert.deepEqual(sorted(host().routes.list({ protocol: OWNER })), sorted(routes));
    assert.deepEqual(
      sorted(host().routes.list({ protocol: OWNER, family: 4, table: 70_000 })),
      sorted(routes.filter((r) => r.table === 70_000 && !r.destination.includes(':'))),
    );
    assert.deepEqual(host().routes.list({ table: 4000 }), []);
    host().routes.delete([...routes].reverse());
    assert.deepEqual(host().routes.list({ protocol: OWNER }), []);
    host().routes.delete(routes);
  });

  test('routes.replace() replaces by destination, table and metric', () => {
    const { index } = vethPair(host());
    const other = found(host().links.get('b0')).index;
    for (const destination of [cidr('10.0.0.0/24'), cidr('2001:db8:1::/64')]) {
      const route: Route = { destination, link: index, protocol: OWNER };
      host().routes.replace([route, { ...route, metric: 2000 }, { ...route, table: 99 }]);
      host().routes.replace([
        { ...route, link: other },
        { ...route, link: other },
      ]);
      const routes = host()
        .routes.list({ protocol: OWNER })
        .filter((r) => r.destination === destination);
      assert.equal(routes.length, 3);
      const changed = routes.find((r) => routeKey(r) === routeKey(route));
      assert.ok(changed && sameRoute(changed, { ...route, link: other }));
    }
  });

  test('routes.replace() turns a route into a blackhole and back', () => {
    const { index } = vethPair(host());
    const route: Route = { destination: cidr('10.0.0.0/24'), link: index, protocol: OWNER };
    const hole: Route = { destination: route.destination, type: 'blackhole', protocol: OWNER };
    for (const next of [route, hole, route]) {
      host().routes.replace([next]);
      const [now, ...more] = host().routes.list({ protocol: OWNER });
      assert.ok(now && sameRoute(now, next));
      assert.deepEqual(more, []);
    }
  });

  test('routes.delete() leaves routes of another owner or metric alone', () => {
    const { index } = vethPair(host());
    const foreign: Route = { destination: cidr('10.0.0.0/24'), link: index, protocol: 99 };
    const other: Route = {
      destination: cidr('10.1.0.0/24'),
      link: index,
      protocol: OWNER,
      metric: 5,
    };
    host().routes.replace([foreign, other]);
    host().routes.delete([
      { ...foreign, protocol: OWNER },
      { ...other, metric: 6 },
    ]);
    assert.equal(host().routes.list({ protocol: 99 }).length, 1);
    assert.equal(host().routes.list({ protocol: OWNER }).length, 1);
  });

  test('routes.replace() goes on past a failure and reports it by its destination', () => {
    const { index } = vethPair(host());
    const route = (n: number, link: number): Route => ({
      destination: cidr(`10.0.${n >> 8}.${n & 255}/32`),
      link,
      protocol: OWNER,
    });
    const many = Array.from({ length: 1200 }, (_, n) =>
      route(n, n === 600 || n === 1100 ? NO_LINK : index),
    );
    assert.throws(
      () => host().routes.replace(many),
      (error) =>
        isErrno(error, ENODEV) && error.index === 600 && error.op.includes('"10.0.2.88/32"'),
    );
    assert.equal(host().routes.list({ protocol: OWNER }).length, 1198);
    host().routes.delete(many);
    assert.deepEqual(host().routes.list({ protocol: OWNER }), []);
    host().routes.replace([]);
  });

  test('routes.replace() refuses what leads nowhere', () => {
    const { index } = vethPair(host());
    const v4 = { destination: cidr('10.0.0.0/24'), protocol: OWNER };
    const v6 = { destination: cidr('2001:db8:1::/64'), protocol: OWNER };
    const cases: readonly (readonly [Route, number])[] = [
      [{ ...v4, link: NO_LINK }, ENODEV],
      [{ ...v6, link: NO_LINK }, ENODEV],
      [{ ...v4, link: index, gateway: ip('203.0.113.1') }, ENETUNREACH],
      [{ ...v6, link: index, gateway: ip('2001:db8:f::1') }, EHOSTUNREACH],
      [{ ...v4, link: index, source: ip('203.0.113.1') }, EINVAL],
      [{ ...v6, link: index, source: ip('2001:db8:f::1') }, EINVAL],
    ];
    for (const [route, errno] of cases)
      assert.throws(() => host().routes.replace([route]), errnoIs(errno), JSON.stringify(route));
    host().links.set(index, { up: false });
    for (const route of [v4, v6])
      assert.throws(() => host().routes.replace([{ ...route, link: index }]), errnoIs(ENETDOWN));
  });
}

function lookupContract({ host }: Context): void {
  test('routes.lookup() gives the link, the gateway and the source address', () => {
    const { index } = vethPair(host());
    host().addresses.add({ link: index, address: ip('192.0.2.1'), prefixLength: 24 });
    host().addresses.add({
      link: index,
      address: ip('2001:db8::1'),
      prefixLength: 64,
      nodad: true,
    });
    host().routes.replace([
      { destination: cidr('10.0.0.0/8'), link: index, gateway: ip('192.0.2.9'), protocol: OWNER },
      { destination: cidr('10.1.0.0/16'), link: index, gateway: ip('192.0.2.8'), protocol: OWNER },
      { destination: cidr('10.2.0.0/16'), type: 'blackhole', protocol: OWNER },
      { destination: cidr('10.3.0.0/16'), type: 'unreachable', protocol: OWNER },
    ]);
    const at = (address: string) => {
      const { destination, link, gateway, source, type, table } = host().routes.lookup(ip(address));
      return { destination, link, gateway, source, type, table };
    };
    const near = { link: index, gateway: undefined, type: 'unicast', table: 254 };
    assert.deepEqual(at('192.0.2.7'), {
      ...near,
      destination: '192.0.2.7/32',
      source: '192.0.2.1',
    });
    assert.equal(at('10.9.9.9').gateway, '192.0.2.9');
    assert.equal(at('10.1.9.9').gateway, '192.0.2.8');
    assert.equal(at('10.1.9.9').source, '192.0.2.1');
    assert.equal(at('192.0.2.1').type, 'local');
    assert.equal(at('2001:db8::7').source, '2001:db8::1');
    assert.equal(at('2001:db8::7').link, index);
    assert.throws(() => at('10.2.0.1'), errnoIs(EINVAL));
    assert.throws(() => at('10.3.0.1'), errnoIs(EHOSTUNREACH));
    assert.throws(() => at('203.0.113.1'), errnoIs(ENETUNREACH));
    assert.throws(() => at('2001:db8:f::1'), errnoIs(ENETUNREACH));
  });
}

function neighbourContract({ host }: Context): void {
  test('neighbours.replace() adds and changes, delete() deletes, list() filters', () => {
    const { index } = vethPair(host());
    const other = found(host().links.get('b0')).index;
    const entry = (address: Ip, link = index) => ({ link, address, mac: MAC_A, permanent: true });
    const v4 = entry(ip('192.0.2.7'));
    const v6 = entry(ip('2001:db8::7'));
    host().neighbours.replace([v4, v6, entry(ip('192.0.2.7'), other)]);
    host().neighbours.replace([{ ...v4, mac: MAC_B }]);
    const list = (filter: { link?: number; family?: 4 | 6 }) =>
      host()
        .neighbours.list(filter)
        .filter((n) => n.permanent)
        .map(({ link, address, mac }) => ({ link, address, mac }));
    assert.deepEqual(list({ link: index, family: 4 }), [
      { link: index, address: v4.address, mac: MAC_B },
    ]);
    assert.equal(list({ link: index }).length, 2);
    assert.equal(list({}).length, 3);
    assert.deepEqual(list({ link: NO_LINK }), []);
    host().neighbours.delete([v4, v6, v4, { ...v4, link: NO_LINK }]);
    assert.deepEqual(list({ link: index }), []);
    assert.equal(list({ link: other }).length, 1);
  });

  test('neighbours.replace() reports an unknown link by the address', () => {
    assert.throws(
      () =>
        host().neighbours.replace([
          { link: NO_LINK, address: ip('192.0.2.7'), mac: MAC_A, permanent: true },
        ]),
      (error) => isErrno(error, ENODEV) && error.op.includes('"192.0.2.7"'),
    );
  });

  test('neighbours go when their link goes down', () => {
    const { index } = vethPair(host());
    host().neighbours.replace([
      { link: index, address: ip('192.0.2.7'), mac: MAC_A, permanent: true },
    ]);
    host().links.set(index, { up: false });
    assert.deepEqual(host().neighbours.list({ link: index, family: 4 }), []);
  });
}

function fdbContract({ host }: Context): void {
  const vxlan = { vni: 9, port: 4789, local: ip('192.0.2.1'), device: undefined, learning: false };
  const make = (name: string, config: VxlanConfig) =>
    host().links.create({ kind: 'vxlan', name, up: true, vxlan: config }).index;

  test('fdb.replace() adds and changes, delete() deletes exactly, list() shows one link', () => {
    const link = make('vx0', vxlan);
    const other = make('vx1', { ...vxlan, vni: 10 });
    const a = { link, mac: MAC_A, destination: ip('192.0.2.2') };
    const b = { link, mac: MAC_B, destination: ip('192.0.2.3') };
    const moved = { ...a, destination: ip('192.0.2.4') };
    host().fdb.replace([a, b, { ...a, link: other }]);
    host().fdb.replace([moved, moved]);
    assert.deepEqual(sorted(host().fdb.list(link)), sorted([moved, b]));
    host().fdb.delete([a]);
    assert.equal(host().fdb.list(link).length, 2);
    host().fdb.delete([moved, b, b, { ...b, link: NO_LINK }]);
    assert.deepEqual(host().fdb.list(link), []);
    assert.equal(host().fdb.list(other).length, 1);
    assert.deepEqual(host().fdb.list(NO_LINK), []);
  });

  test('fdb.replace() collects the destinations of the unknown MAC', () => {
    const link = make('vx0', vxlan);
    const flood = ['192.0.2.2', '192.0.2.3'].map((destination) => ({
      link,
      mac: mac('00:00:00:00:00:00'),
      destination: ip(destination),
    }));
    host().fdb.replace([...flood, ...flood]);
    assert.deepEqual(sorted(host().fdb.list(link)), sorted(flood));
    host().fdb.delete(flood.slice(0, 1));
    assert.deepEqual(host().fdb.list(link), flood.slice(1));
  });

  test('entries outlive the link’s going down and go with the link', () => {
    const link = make('vx0', { ...vxlan, local: ip('2001:db8::1') });
    const entry = { link, mac: MAC_A, destination: ip('2001:db8::2') };
    host().fdb.replace([entry]);
    host().links.set(link, { up: false });
    assert.deepEqual(host().fdb.list(link), [entry]);
    host().links.delete(link);
    assert.deepEqual(host().fdb.list(link), []);
  });

  test('fdb.replace() refuses an unknown link and a destination of the other family', () => {
    const link = make('vx0', vxlan);
    const entry = { link, mac: MAC_A, destination: ip('2001:db8::2') };
    assert.throws(() => host().fdb.replace([entry]), errnoIs(EAFNOSUPPORT));
    assert.throws(
      () => host().fdb.replace([{ ...entry, link: NO_LINK }]),
      (error) => isErrno(error, ENODEV) && error.op.includes(`"${MAC_A}"`),
    );
  });
}

function ruleContract({ host }: Context): void {
  test('rules.add() adds once, delete() deletes once, list() reads them as they were', () => {
    for (const [family, from, to] of [
      [4, cidr('10.0.0.0/8'), cidr('192.0.2.0/24')],
      [6, cidr('2001:db8::/32'), cidr('2001:db8:1::/48')],
    ] as const) {
      const before = host().rules.list(family);
      assert.deepEqual(before[0], { family, priority: 0, table: 255 });
      const rules = [
        { family, priority: 8400, table: 70_000, mark: 0x54, markMask: 0xff },
        { family, priority: 8401, table: 100, from, to },
        { family, priority: 8402, table: 254, mark: 0xffff_fff0 },
      ];
      for (const rule of [...rules, ...rules]) host().rules.add(rule);
      assert.deepEqual(
        host()
          .rules.list(family)
          .filter((r) => r.priority >= 8400 && r.priority < 8500),
        rules,
      );
      for (const rule of [...rules, ...rules]) host().rules.delete(rule);
      assert.deepEqual(host().rules.list(family), before);
    }
  });
}

function sysctlContract({ host, pod }: Context): void {
  test('sysctl is of its own namespace', () => {
    const name = 'net/ipv4/ip_forward';
    assert.equal(host().sysctl.get(name), '0');
    host().sysctl.set(name, '1');
    assert.equal(host().sysctl.get(name), '1');
    assert.equal(pod().sysctl.get(name), '0');
  });

  test('sysctl of a link comes and goes with it', () => {
    const { index } = vethPair(host());
    const name = 'net/ipv4/conf/a0/proxy_arp';
    host().sysctl.set(name, '1');
    assert.equal(host().sysctl.get(name), '1');
    host().links.delete(index);
    assert.equal(host().sysctl.get(name), undefined);
  });

  test('sysctl knows no setting that is not there and refuses paths that lead away', () => {
    assert.equal(host().sysctl.get('net/ipv4/no_such_setting'), undefined);
    assert.throws(
      () => host().sysctl.set('net/ipv4/no_such_setting', '1'),
      (error) => isErrno(error, 2) && error.op.includes('"net/ipv4/no_such_setting"'),
    );
    for (const name of ['../kernel/pid', '/proc/sys/net/ipv4/ip_forward', 'net//x'])
      assert.throws(() => host().sysctl.get(name), errnoIs(EINVAL));
  });
}

function watchContract({ host, pod, podNetns }: Context): void {
  test('watch() tells of links, addresses, routes, neighbours, FDB entries and rules', async () => {
    using seen = new Recorder(host());
    const { index } = vethPair(host());
    const link = await seen.next('link', (e) => e.link.name === 'a0' && e.link.up && !e.deleted);
    assert.equal(link.link.kind, 'veth');
    const address = { link: index, address: ip('192.0.2.1'), prefixLength: 24, scope: 0 };
    host().addresses.add(address);
    const added = await seen.next('address', (e) => !e.deleted && e.address.link === index);
    assert.deepEqual(added.address, address);
    const route: Route = { destination: cidr('10.0.0.0/24'), link: index, protocol: OWNER };
    host().routes.replace([route]);
    const told = await seen.next('route', (e) => e.route.protocol === OWNER);
    assert.ok(!told.deleted && sameRoute(told.route, route));
    host().routes.delete([route]);
    await seen.next('route', (e) => e.deleted && e.route.protocol === OWNER);
    const neighbour = { link: index, address: ip('192.0.2.7'), mac: MAC_A, permanent: true };
    host().neighbours.replace([neighbour]);
    await seen.next('neighbour', (e) => !e.deleted && e.neighbour.mac === MAC_A);
    host().neighbours.delete([neighbour]);
    await seen.next('neighbour', (e) => e.deleted && e.neighbour.address === neighbour.address);
    host().rules.add({ family: 6, priority: 8400, table: 100 });
    await seen.next('rule', (e) => !e.deleted);
    host().addresses.delete(address);
    await seen.next('address', (e) => e.deleted && e.address.address === address.address);
    host().links.delete(index);
    await seen.next('link', (e) => e.deleted && e.link.name === 'a0');
  });

  test('watch() tells of FDB entries of VXLAN links', async () => {
    const vxlan = { vni: 9, port: 4789, local: undefined, device: undefined, learning: false };
    const { index: link } = host().links.create({ kind: 'vxlan', name: 'vx0', up: true, vxlan });
    const entry = { link, mac: MAC_A, destination: ip('192.0.2.2') };
    using seen = new Recorder(host());
    host().fdb.replace([entry]);
    assert.deepEqual((await seen.next('fdb', (e) => !e.deleted)).entry, entry);
    host().fdb.delete([entry]);
    assert.deepEqual((await seen.next('fdb', (e) => e.deleted)).entry, entry);
  });

  test('watch() says nothing is deleted when a link leaves its bridge', async () => {
    const bridge = host().links.create({ kind: 'bridge', name: 'br0' });
    const { index } = vethPair(host());
    host().links.set(index, { master: bridge.index });
    using seen = new Recorder(host());
    host().links.set(index, { master: 0 });
    await seen.next('link', (e) => e.link.name === 'a0' && e.link.master === undefined);
    host().links.set(index, { mtuBytes: 1300 });
    await seen.next('link', (e) => e.link.name === 'a0' && e.link.mtuBytes === 1300);
    assert.deepEqual(
      seen.all.filter((e) => e.type === 'link' && e.deleted),
      [],
    );
  });

  test('watch() tells of a pod’s end going away, each namespace of its own links', async () => {
    using onHost = new Recorder(host());
    using onPod = new Recorder(pod());
    const link = host().links.create({
      kind: 'veth',
      name: 'tl0',
      peer: { name: 'eth0', netns: podNetns(), up: true },
    });
    await onPod.next('link', (e) => e.link.name === 'eth0' && e.link.up);
    pod().links.delete(found(pod().links.get('eth0')).index);
    const gone = await onHost.next('link', (e) => e.deleted);
    assert.equal(gone.link.index, link.index);
    await onPod.next('link', (e) => e.deleted && e.link.name === 'eth0');
    assert.ok(onHost.all.every((e) => e.type !== 'link' || e.link.name !== 'eth0'));
  });

  test('watch() stops when told, while other watches go on', async () => {
    const stopped: NetworkEvent[] = [];
    const stop = host().watch((event) => stopped.push(event));
    using seen = new Recorder(host());
    stop();
    stop();
    host().links.create({ kind: 'bridge', name: 'br0' });
    await seen.next('link', (e) => e.link.name === 'br0');
    assert.deepEqual(stopped, []);
  });
}

/** Keeps the events of a stack and lets a test await one. */
class Recorder implements Disposable {
  readonly all: NetworkEvent[] = [];
  readonly #stop: () => void;
  /** Events before this one have been awaited. */
  #next = 0;
  #wake: (() => void) | undefined;
  constructor(stack: NetworkStack) {
    this.#stop = stack.watch((event) => {
      this.all.push(event);
      this.#wake?.();
    });
  }

  /** The next event of this type that fits; those before it are passed over. */
  async next<T extends NetworkEvent['type']>(
    type: T,
    fits: (event: Extract<NetworkEvent, { type: T }>) => boolean,
  ): Promise<Extract<NetworkEvent, { type: T }>> {
    const deadline = AbortSignal.timeout(EVENT_DEADLINE_MS);
    for (;;) {
      while (this.#next < this.all.length) {
        const event = this.all[this.#next++] as Extract<NetworkEvent, { type: T }>;
        if (event.type === type && fits(event)) return event;
      }
      await new Promise<void>((resolve, reject) => {
        this.#wake = resolve;
        deadline.addEventListener('abort', () =>
          reject(new Error(`no such ${type} event came; there were ${JSON.stringify(this.all)}`)),
        );
      });
    }
  }

  [Symbol.dispose](): void {
    this.#stop();
  }
}

/** `a0` and `b0`, both up. */
function vethPair(stack: NetworkStack): Link {
  return stack.links.create({
    kind: 'veth',
    name: 'a0',
    mac: MAC_A,
    up: true,
    peer: { name: 'b0', up: true },
  });
}

function names(stack: NetworkStack): string[] {
  return stack.links
    .list()
    .map((link) => link.name)
    .sort();
}

function sorted<T>(values: readonly T[]): T[] {
  const text = (value: T) => JSON.stringify(Object.entries(value as object).sort());
  return [...values].sort((a, b) => (text(a) < text(b) ? -1 : 1));
}

function found<T>(value: T | undefined): T {
  assert.notEqual(value, undefined);
  return value as T;
}

function errnoIs(errno: number): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof KernelError, String(error));
    assert.equal(error.errno, errno, error.message);
    return true;
  };
}
