/** The contract of links and their kinds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EEXIST, EINVAL, ENODEV, EOPNOTSUPP, KernelError } from '#lib/errors.ts';
import { cidr, ip } from '#lib/ip.ts';
import {
  type Context,
  errnoIs,
  found,
  MAC_A,
  MAC_B,
  NO_LINK,
  names,
  OWNER,
  vethPair,
} from './contract-support.ts';
import { LOOPBACK_INDEX, type VxlanConfig } from './port.ts';

export function linkContract({ host, pod, podNetns }: Context): void {
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

  test('links.createOnThread() makes a veth as create() does, and refuses what create() refuses', async () => {
    const veth = (name: string) =>
      ({
        kind: 'veth',
        name,
        mac: MAC_A,
        mtuBytes: 1400,
        peer: { name: `pod-${name}`, netns: podNetns(), up: true },
      }) as const;
    const links = await Promise.all(
      ['t0', 't1'].map((name) => host().links.createOnThread(veth(name))),
    );
    for (const link of links) {
      const { name, mac, mtuBytes, up, peerIndex } = link;
      assert.deepEqual([mac, mtuBytes, up], [MAC_A, 1400, false]);
      assert.deepEqual(link, host().links.get(name));
      const peer = pod().links.get(`pod-${name}`);
      assert.deepEqual([peer?.index, peer?.up], [peerIndex, true]);
    }
    await assert.rejects(host().links.createOnThread(veth('t0')), errnoIs(EEXIST));
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

export function linkKindContract({ host, pod, podNetns }: Context): void {
  test('a bridge has ports, with settings of their own', () => {
    const bridge = host().links.create({ kind: 'bridge', name: 'br0', up: true, stp: false });
    const port = host().links.create({
      kind: 'veth',
      name: 'tl0',
      master: bridge.index,
      peer: { name: 'eth0', netns: podNetns() },
    });
    assert.equal(port.master, bridge.index);
    host().links.setBridgeFilter(bridge.index, true);
    assert.throws(() => host().links.setBridgeFilter(NO_LINK, true), errnoIs(ENODEV));
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

  test('configure() does for several links what the single calls do, in order, past failures', () => {
    const made = host().links.create({
      kind: 'veth',
      name: 'tl0',
      peer: { name: 'eth0', netns: podNetns(), mac: MAC_B },
    });
    const { index } = found(pod().links.get('eth0'));
    const gateway = { address: ip('192.0.2.1'), mac: MAC_A, permanent: true };
    const setup = {
      link: index,
      up: true,
      addresses: [{ address: ip('192.0.2.9'), prefixLength: 32, scope: 0 }],
      neighbours: [gateway],
      routes: [
        { destination: cidr('192.0.2.1/32'), scope: 253, protocol: OWNER },
        { destination: cidr('0.0.0.0/0'), gateway: ip('192.0.2.1'), protocol: OWNER },
      ],
    };
    const ipv4 = { forwarding: 1, proxy_arp: 1, rp_filter: 1, route_localnet: 1 };
    host().configure([{ link: made.index, ipv4, up: true }]);
    for (const name of Object.keys(ipv4))
      assert.equal(host().sysctl.get(`net/ipv4/conf/tl0/${name}`), '1', name);
    host().configure([{ link: made.index, ipv4: { rp_filter: 2 } }]);
    assert.equal(host().sysctl.get('net/ipv4/conf/tl0/rp_filter'), '2');
    assert.equal(host().sysctl.get('net/ipv4/conf/tl0/proxy_arp'), '1');
    pod().configure([]);
    pod().configure([{ link: LOOPBACK_INDEX, up: true }, setup]);
    // Again, as a repair does.
    pod().configure([setup]);
    const [lo, eth0] = ['lo', 'eth0'].map((name) => found(pod().links.get(name)));
    assert.deepEqual([lo?.index, lo?.up, eth0?.up], [LOOPBACK_INDEX, true, true]);
    assert.deepEqual(
      pod()
        .addresses.list({ link: index, family: 4 })
        .map(({ address }) => address),
      ['192.0.2.9'],
    );
    assert.deepEqual(
      pod()
        .neighbours.list({ link: index, family: 4 })
        .map(({ address, mac, permanent }) => ({ address, mac, permanent })),
      [gateway],
    );
    assert.equal(pod().routes.list({ protocol: OWNER, family: 4 }).length, 2);
    assert.throws(
      () =>
        pod().configure([
          { link: NO_LINK, ipv4, up: true },
          { ...setup, up: false },
        ]),
      errnoIs(ENODEV),
    );
    assert.equal(found(pod().links.get('eth0')).up, false);
  });

  test('several links are deleted together, and those that are gone are no error', async () => {
    const made = ['d0', 'd1', 'd2'].map(
      (name) => host().links.create({ kind: 'bridge', name }).index,
    );
    const stays = host().links.create({ kind: 'bridge', name: 'stays' });
    await host().links.deleteAll([...made, NO_LINK]).gone;
    assert.deepEqual(
      names(host()).filter((name) => /^(d\d|stays)$/.test(name)),
      ['stays'],
    );
    await host().links.deleteAll(made).gone;
    await host().links.deleteAll([]).freed;
    await host().links.deleteAll([stays.index]).gone;
    assert.equal(host().links.get('stays'), undefined);
  });

  test('a deleted link is gone at both ends, with its routes, before the kernel has freed it', async () => {
    const veth = (name: string) =>
      host().links.create({
        kind: 'veth',
        name,
        up: true,
        peer: { name: `pod-${name}`, netns: podNetns(), up: true },
      });
    const made = [veth('e0'), veth('e1'), veth('e2')];
    host().routes.replace(
      made.map(({ index }, i) => ({
        destination: cidr(`10.0.${i}.0/24`),
        link: index,
        protocol: OWNER,
      })),
    );
    const [first, ...others] = made.map(({ index }) => index);
    const deletions = [
      host().links.deleteAll([found(first)]),
      host().links.deleteAll(others),
      host().links.deleteAll(others),
    ];
    await Promise.all(deletions.map(({ gone }) => gone));
    assert.deepEqual(
      [...names(host()), ...names(pod())].filter((name) => /e\d$/.test(name)),
      [],
    );
    assert.deepEqual(host().routes.list({ protocol: OWNER }), []);
    // The names are free at once.
    veth('e0');
    await Promise.all(deletions.map(({ freed }) => freed));
    assert.notEqual(host().links.get('e0'), undefined);
  });

  test('a deletion that the kernel refuses is told of', async () => {
    const { gone, freed } = host().links.deleteAll([found(host().links.get('lo')).index]);
    await assert.rejects(gone, errnoIs(EOPNOTSUPP));
    await freed;
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
