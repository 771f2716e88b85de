import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ip } from './ip.ts';
import {
  addressesIn,
  formatIpRange,
  parseIpRange,
  rangeContains,
  rangeSize,
  rangesOverlap,
} from './ip-range.ts';

for (const [text, size, shown, first] of [
  ['192.0.2.0/28', 16n, '192.0.2.0/28', '192.0.2.0'],
  ['192.0.2.10-192.0.2.20', 11n, '192.0.2.10-192.0.2.20', '192.0.2.10'],
  [' 192.0.2.8 - 192.0.2.15 ', 8n, '192.0.2.8/29', '192.0.2.8'],
  ['192.0.2.7', 1n, '192.0.2.7', '192.0.2.7'],
  ['2001:db8::/120', 256n, '2001:db8::/120', '2001:db8::'],
  ['2001:db8::1-2001:db8::1:0', 65536n, '2001:db8::1-2001:db8::1:0', '2001:db8::1'],
] as const)
  test(`parseIpRange() reads "${text}"`, () => {
    const range = parseIpRange(text);
    assert.ok(range);
    assert.equal(rangeSize(range), size);
    assert.equal(formatIpRange(range), shown);
    assert.deepEqual(addressesIn(range)[Symbol.iterator]().next().value, first);
    assert.ok(rangeContains(range, ip(first)));
    assert.ok(!rangeContains(range, ip('198.51.100.1')));
  });

for (const text of [
  '',
  '192.0.2.1/28',
  '192.0.2.9-192.0.2.1',
  '192.0.2.1-2001:db8::1',
  'a-b-c',
  '-',
])
  test(`parseIpRange() refuses "${text}"`, () => assert.equal(parseIpRange(text), undefined));

test('rangesOverlap() compares ranges of one family', () => {
  const range = (text: string) => parseIpRange(text) ?? assert.fail(text);
  assert.ok(rangesOverlap(range('192.0.2.0/28'), range('192.0.2.15-192.0.2.30')));
  assert.ok(!rangesOverlap(range('192.0.2.0/28'), range('192.0.2.16-192.0.2.30')));
  assert.ok(!rangesOverlap(range('0.0.0.0/0'), range('::/0')));
});
