/** The contract of addresses, routes and lookups. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EHOSTUNREACH, EINVAL, ENETDOWN, ENETUNREACH, ENODEV, isErrno } from '#lib/errors.ts';
import { cidr, ip } from '#lib/ip.ts';
import { routeKey, sameRoute } from './compare.ts';
import {
  type Context,
  errnoIs,
  found,
  NO_LINK,
  OWNER,
  sorted,
  vethPair,
} from './contract-support.ts';
import type { Route } from './port.ts';

export function addressContract({ host }: Context): void {
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

export function routeContract({ host }: Context): void {
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

export function lookupContract({ host }: Context): void {
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
