import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cidr, ip } from '#lib/ip.ts';
import { routeDefaults, routeKey, sameRoute } from './compare.ts';
import type { Route } from './port.ts';

const v4: Route = { destination: cidr('10.0.0.0/24'), link: 2, protocol: 84 };
const v6: Route = { destination: cidr('2001:db8::/64'), link: 2, protocol: 84 };

test('sameRoute() takes a default for what it stands for', () => {
  assert.ok(
    sameRoute(v4, { ...v4, table: 254, type: 'unicast', metric: 0, scope: 253, onlink: false }),
  );
  assert.ok(sameRoute(v6, { ...v6, table: 254, type: 'unicast', metric: 1024, scope: 0 }));
  const gateway = ip('192.0.2.1');
  assert.ok(sameRoute({ ...v4, gateway }, { ...v4, gateway, scope: 0 }));
  const local: Route = { ...v4, type: 'local' };
  assert.ok(sameRoute(local, { ...local, scope: 254 }));
});

test('sameRoute() sees every difference', () => {
  const differences: Partial<Route>[] = [
    { destination: cidr('10.0.1.0/24') },
    { table: 100 },
    { type: 'local' },
    { link: 3 },
    { gateway: ip('192.0.2.1') },
    { onlink: true },
    { scope: 0 },
    { source: ip('192.0.2.1') },
    { metric: 1 },
    { mtuBytes: 1400 },
    { protocol: 2 },
  ];
  for (const difference of differences)
    assert.equal(sameRoute(v4, { ...v4, ...difference }), false, JSON.stringify(difference));
});

test('sameRoute() takes no account of the link of a route that leads nowhere', () => {
  const hole: Route = { destination: v6.destination, type: 'blackhole', protocol: 84 };
  assert.ok(sameRoute(hole, { ...hole, link: 1 }));
});

test('routeKey() is what the kernel tells routes apart by', () => {
  assert.equal(routeKey(v6), routeKey({ ...v6, metric: 1024, link: 9, protocol: 2 }));
  const keys = [v4, v6, { ...v4, metric: 1 }, { ...v4, table: 7 }].map(routeKey);
  assert.equal(new Set(keys).size, 4);
  assert.equal(routeDefaults(v4).scope, 253);
});
