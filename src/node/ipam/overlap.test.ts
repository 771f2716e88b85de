import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cidr, ip } from '#lib/ip.ts';
import type { Link, Route } from '#linux/network/port.ts';
import { findOverlap, hostPrefixes } from './overlap.ts';

const link = (index: number, name: string) => ({ index, name }) as Link;
const route = (destination: string, more: Partial<Route> = {}): Route => ({
  destination: cidr(destination),
  protocol: 4,
  link: 2,
  ...more,
});
const LINKS = [link(1, 'lo'), link(2, 'eth0'), link(3, 'tulle-vxlan'), link(4, 'tl0123456789a')];
const POOL = [{ name: 'default', cidr: cidr('10.244.0.0/16') }];

test('findOverlap() names the pool, the prefix and where it is', () => {
  const host = hostPrefixes({
    links: LINKS,
    addresses: [{ link: 2, address: ip('10.244.7.2'), prefixLength: 24 }],
    routes: [],
  });
  const [overlap] = findOverlap(POOL, host);
  assert.match(
    overlap?.message ?? '',
    /^pool "default" 10\.244\.0\.0\/16 overlaps 10\.244\.7\.0\/24 \(address 10\.244\.7\.2 on eth0\)/,
  );
});

test('findOverlap() finds a host network that holds the whole pool', () => {
  const host = hostPrefixes({ links: LINKS, addresses: [], routes: [route('10.0.0.0/8')] });
  assert.equal(findOverlap(POOL, host).length, 1);
});

test('hostPrefixes() leaves out what is ours, defaults, link-local and multicast', () => {
  const host = hostPrefixes({
    links: LINKS,
    addresses: [
      { link: 1, address: ip('127.0.0.1'), prefixLength: 8 },
      { link: 3, address: ip('10.244.0.0'), prefixLength: 32 },
      { link: 2, address: ip('fe80::2'), prefixLength: 64 },
    ],
    routes: [
      route('0.0.0.0/0'),
      route('10.244.1.1/32', { link: 4 }),
      route('10.244.2.0/26', { protocol: 84 }),
      route('10.244.3.0/24', { table: 255 }),
      route('ff00::/8'),
    ],
  });
  assert.deepEqual(host, []);
});
