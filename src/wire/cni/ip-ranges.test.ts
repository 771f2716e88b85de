import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatIpRange } from '#lib/ip-range.ts';
import { CniError } from './error.ts';
import { parseIpRanges } from './ip-ranges.ts';

const read = (...sets: unknown[]) => parseIpRanges(sets).map(formatIpRange);

test('parseIpRanges() reads subnets, parts of them, and sets of each family', () => {
  assert.deepEqual(parseIpRanges(undefined), []);
  assert.deepEqual(read([{ subnet: '192.0.2.0/24' }], [{ subnet: '2001:db8::1/64' }]), [
    '192.0.2.0/24',
    '2001:db8::/64',
  ]);
  const part = { subnet: '192.0.2.0/24', rangeStart: '192.0.2.10', rangeEnd: '192.0.2.19' };
  assert.deepEqual(read([part, { subnet: '192.0.2.64/30' }]), [
    '192.0.2.10-192.0.2.19',
    '192.0.2.64/30',
  ]);
  // With the names that the fields have in Go.
  const inGo = { Subnet: '192.0.2.0/24', RangeStart: '', RangeEnd: '192.0.2.3', Gateway: '' };
  assert.deepEqual(read([inGo]), ['192.0.2.0/30']);
});

test('parseIpRanges() leaves the gateway out', () => {
  const subnet = '192.0.2.0/30';
  assert.deepEqual(read([{ subnet, gateway: '192.0.2.1' }]), ['192.0.2.0', '192.0.2.2/31']);
  assert.deepEqual(read([{ subnet, gateway: '192.0.2.3' }]), ['192.0.2.0-192.0.2.2']);
});

for (const [what, sets, code, message] of [
  ['no list of ranges', [{ subnet: '192.0.2.0/24' }], 6, /ipRanges\[0\]/],
  ['no subnet', [[{}]], 6, /ipRanges\[0\]\[0\]\.subnet/],
  ['a subnet that is none', [[{ subnet: '192.0.2.0' }]], 7, /no network prefix/],
  ['an end outside', [[{ subnet: '192.0.2.0/24', rangeEnd: '192.0.3.1' }]], 7, /not in the subnet/],
  [
    'ends the wrong way round',
    [[{ subnet: '192.0.2.0/24', rangeStart: '192.0.2.9', rangeEnd: '192.0.2.8' }]],
    7,
    /is after rangeEnd/,
  ],
  ['a mixed set', [[{ subnet: '192.0.2.0/24' }, { subnet: '2001:db8::/64' }]], 7, /mixes/],
  [
    'two of a family',
    [[{ subnet: '192.0.2.0/25' }], [{ subnet: '192.0.2.128/25' }]],
    7,
    /than one/,
  ],
] as const)
  test(`parseIpRanges() refuses ${what}`, () => {
    assert.throws(
      () => parseIpRanges(sets),
      (error) => error instanceof CniError && error.cniCode === code && message.test(error.message),
    );
  });
