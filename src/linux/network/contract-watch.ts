/** The contract of events. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cidr, ip } from '#lib/ip.ts';
import { sameRoute } from './compare.ts';
import { type Context, found, MAC_A, OWNER, Recorder, vethPair } from './contract-support.ts';
import type { NetworkEvent, Route } from './port.ts';

export function watchContract({ host, pod, podNetns }: Context): void {
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

  test('watch() tells of forwarding, rp_filter and proxy ARP of links, and not of what a new link begins with', async () => {
    using seen = new Recorder(host());
    const { index } = vethPair(host());
    host().sysctl.set('net/ipv4/conf/a0/rp_filter', '1');
    host().sysctl.set('net/ipv4/conf/a0/proxy_arp', '1');
    host().sysctl.set('net/ipv6/conf/a0/forwarding', '1');
    host().sysctl.set('net/ipv4/conf/all/forwarding', '1');
    await seen.next('setting', (e) => e.link === 'all' && e.family === 4);
    assert.deepEqual(
      seen.all
        .flatMap((e) =>
          e.type === 'setting' && e.link === index ? [[e.family, e.setting, e.value]] : [],
        )
        .slice(0, 3),
      [
        [4, 'rp_filter', 1],
        [4, 'proxy_neigh', 1],
        [6, 'forwarding', 1],
      ],
    );
    host().sysctl.set('net/ipv4/conf/a0/proxy_arp', '0');
    await seen.next('setting', (e) => e.link === index && e.family === 4 && e.value === 0);
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

  test('watch() tells a link that is made from one that is changed', async () => {
    using seen = new Recorder(host());
    const { index } = vethPair(host());
    await seen.next('link', (e) => e.link.name === 'a0' && e.isNew === true);
    host().links.set(index, { up: false });
    const down = await seen.next('link', (e) => e.link.name === 'a0' && !e.link.up && !e.isNew);
    assert.equal(down.deleted, false);
    host().links.delete(index);
    const gone = await seen.next('link', (e) => e.deleted && e.link.name === 'a0');
    assert.equal(gone.isNew, undefined);
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
