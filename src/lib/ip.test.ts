import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  cidr,
  cidrAddress,
  cidrContains,
  cidrOf,
  cidrSize,
  cidrsOverlap,
  familyOf,
  hostCidr,
  ip,
  ipFromBigInt,
  ipFromBytes,
  ipToBigInt,
  ipToBytes,
  linkLocalAddress,
  mac,
  macFromBytes,
  macToBytes,
  networkAddress,
  parseCidr,
  parseIp,
  parseMac,
  prefixLengthOf,
  splitCidr,
} from './ip.ts';

test('parseIp() gives the canonical text of RFC 5952', () => {
  const cases: readonly (readonly [string, string])[] = [
    ['192.0.2.1', '192.0.2.1'],
    ['0.0.0.0', '0.0.0.0'],
    ['2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'], // one zero group alone is not shortened
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'], // the longest run
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'], // of two equal ones the first
    ['::', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['0:0:1:0:0:0:0:0', '0:0:1::'],
    ['::ffff:192.0.2.1', '::ffff:c000:201'],
    ['fe80::0001:00a0', 'fe80::1:a0'],
  ];
  for (const [text, canonical] of cases) assert.equal(parseIp(text), canonical, text);
});

test('parseIp() refuses what is no address', () => {
  for (const text of [
    '',
    '1.2.3',
    '1.2.3.256',
    '01.2.3.4',
    '1.2.3.4 ',
    '::1%eth0',
    ':::',
    '1::2::3',
    'g::',
    '1.2.3.4/32',
  ])
    assert.equal(parseIp(text), undefined, text);
  assert.throws(() => ip('localhost'), /"localhost" is not an IP address/);
});

test('addresses survive bytes and big integers', () => {
  for (const length of [4, 16]) {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: length, maxLength: length }), (bytes) => {
        const address = ipFromBytes(bytes);
        assert.equal(parseIp(address), address);
        assert.deepEqual(ipToBytes(address), new Uint8Array(bytes));
        assert.equal(ipFromBigInt(ipToBigInt(address), familyOf(address)), address);
      }),
    );
  }
  assert.throws(() => ipFromBytes(new Uint8Array(5)), TypeError);
  assert.throws(() => ipFromBigInt(1n << 32n, 4), RangeError);
  assert.throws(() => ipFromBigInt(-1n, 6), RangeError);
});

test('parseCidr() takes prefixes whose host bits are zero', () => {
  assert.equal(parseCidr('10.0.0.0/8'), '10.0.0.0/8');
  assert.equal(parseCidr('2001:DB8::/32'), '2001:db8::/32');
  assert.equal(parseCidr('0.0.0.0/0'), '0.0.0.0/0');
  for (const text of [
    '10.0.0.1/8',
    '10.0.0.0',
    '10.0.0.0/33',
    '10.0.0.0/08',
    '::/129',
    '/8',
    '10.0.0.0/8/8',
  ])
    assert.equal(parseCidr(text), undefined, text);
  assert.throws(() => cidr('10.0.0.1/8'), /"10\.0\.0\.1\/8"/);
  assert.deepEqual(splitCidr('192.0.2.7/24'), { address: '192.0.2.7', prefixLength: 24 });
});

test('cidrOf() cuts the host bits, at and between byte borders', () => {
  assert.equal(cidrOf(ip('10.1.2.255'), 26), '10.1.2.192/26');
  assert.equal(cidrOf(ip('10.1.2.3'), 0), '0.0.0.0/0');
  assert.equal(cidrOf(ip('10.1.2.3'), 32), '10.1.2.3/32');
  assert.equal(cidrOf(ip('2001:db8::ffff'), 122), '2001:db8::ffc0/122');
  assert.equal(hostCidr(ip('2001:db8::1')), '2001:db8::1/128');
  const prefix = cidr('10.1.2.192/26');
  assert.deepEqual([networkAddress(prefix), prefixLengthOf(prefix)], ['10.1.2.192', 26]);
});

test('cidrContains() and cidrsOverlap() compare the prefix bits of one family', () => {
  const prefix = cidr('10.1.2.192/26');
  assert.equal(cidrContains(prefix, ip('10.1.2.192')), true);
  assert.equal(cidrContains(prefix, ip('10.1.2.255')), true);
  assert.equal(cidrContains(prefix, ip('10.1.2.191')), false);
  assert.equal(cidrContains(cidr('0.0.0.0/0'), ip('::1')), false);
  assert.equal(cidrContains(cidr('::/0'), ip('::1')), true);
  assert.equal(cidrsOverlap(prefix, cidr('10.1.0.0/16')), true);
  assert.equal(cidrsOverlap(cidr('10.1.0.0/16'), prefix), true);
  assert.equal(cidrsOverlap(prefix, cidr('10.1.2.128/26')), false);
  assert.equal(cidrsOverlap(cidr('::/0'), cidr('0.0.0.0/0')), false);
});

test('cidrAddress() counts through the prefix and no further', () => {
  const prefix = cidr('10.1.2.192/26');
  assert.equal(cidrSize(prefix), 64n);
  assert.equal(cidrAddress(prefix, 0), '10.1.2.192');
  assert.equal(cidrAddress(prefix, 63n), '10.1.2.255');
  assert.throws(() => cidrAddress(prefix, 64), RangeError);
  assert.throws(() => cidrAddress(prefix, -1), RangeError);
  assert.equal(cidrAddress(cidr('2001:db8::/64'), 1n << 63n), '2001:db8:0:0:8000::');
});

test('parseMac() takes six hex pairs and gives lower case', () => {
  assert.equal(parseMac('02:AB:00:00:00:0A'), '02:ab:00:00:00:0a');
  for (const text of [
    '',
    '02-ab-00-00-00-0a',
    '02:ab:00:00:00',
    '2:ab:0:0:0:a',
    '02:ab:00:00:00:0g',
  ])
    assert.equal(parseMac(text), undefined, text);
  assert.throws(() => mac('x'), /"x" is not a MAC address/);
  const address = mac('02:ab:00:00:00:0a');
  assert.equal(macFromBytes(macToBytes(address)), address);
});

test('linkLocalAddress() is the modified EUI-64 of the MAC', () => {
  // RFC 2464 section 4 has this MAC and its interface identifier.
  assert.equal(linkLocalAddress(mac('34:56:78:9a:bc:de')), 'fe80::3656:78ff:fe9a:bcde');
  assert.equal(linkLocalAddress(mac('02:00:00:00:00:01')), 'fe80::ff:fe00:1');
});
