import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cidr, ip } from '#lib/ip.ts';
import type { Address } from '#linux/network/port.ts';
import { chooseNodePortAddresses } from './node-addresses.ts';

const RT_SCOPE_LINK = 253;
const address = (text: string, link: number, scope = 0): Address => ({
  ...{ link, address: ip(text), scope },
  prefixLength: text.includes(':') ? 64 : 24,
});
const ADDRESSES = [
  address('192.0.2.1', 2),
  address('192.0.2.9', 2),
  address('198.51.100.1', 3),
  address('2001:db8::1', 2),
  address('2001:db8:1::1', 3),
  address('fe80::1', 2, RT_SCOPE_LINK),
];

const CASES: readonly [string, string[], string[], string[]][] = [
  [
    'the node’s own, and one of the other family beside it',
    ['192.0.2.1'],
    [],
    ['192.0.2.1', '2001:db8::1'],
  ],
  [
    'the node’s own of both families',
    ['192.0.2.1', '2001:db8:1::1'],
    [],
    ['192.0.2.1', '2001:db8:1::1'],
  ],
  [
    'those in the prefixes that are chosen',
    ['192.0.2.1'],
    ['198.51.100.0/24', '2001:db8:1::/64'],
    ['198.51.100.1', '2001:db8:1::1'],
  ],
  ['none, if no address is in the prefixes', ['192.0.2.1'], ['203.0.113.0/24'], []],
  [
    'no link-local address, whatever is chosen',
    ['192.0.2.1'],
    ['::/0'],
    ['2001:db8:1::1', '2001:db8::1'],
  ],
];
for (const [name, nodeIps, wanted, expected] of CASES)
  test(`chooseNodePortAddresses() gives ${name}`, () => {
    assert.deepEqual(
      chooseNodePortAddresses(ADDRESSES, nodeIps.map(ip), wanted.map(cidr)),
      expected,
    );
  });
