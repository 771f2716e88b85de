import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cidr, ip } from '#lib/ip.ts';
import {
  addressProtocolPort,
  concat,
  hostU32,
  ifnameBytes,
  intervalElements,
  portBytes,
  prefixBounds,
  prefixElements,
  protocolBytes,
} from './values.ts';

const hex = (value: Uint8Array | undefined) => Buffer.from(value ?? []).toString('hex');

test('concat() pads each field of several to four bytes, and a single one not', () => {
  const fields = [Uint8Array.of(10, 96, 0, 1), protocolBytes(6), portBytes(80), hostU32(2)];
  assert.equal(hex(concat(fields)), '0a600001 06000000 00500000 02000000'.replaceAll(' ', ''));
  assert.equal(hex(concat([portBytes(80)])), '0050');
});

test('addressProtocolPort() is the concatenation of the three', () => {
  assert.equal(hex(addressProtocolPort(ip('10.96.0.1'), 17, 5353)), '0a6000011100000014e90000');
  assert.equal(
    hex(addressProtocolPort(ip('2001:db8::1'), 6, 443)),
    '20010db8000000000000000000000001 06000000 01bb0000'.replaceAll(' ', ''),
  );
});

test('prefixElements() ends an interval with the first address after it', () => {
  const ends = (prefix: string) =>
    prefixElements(cidr(prefix)).map((e) => `${hex(e.key)}${e.intervalEnd === true ? ' end' : ''}`);
  assert.deepEqual(ends('10.0.0.0/8'), ['0a000000', '0b000000 end']);
  assert.deepEqual(ends('192.0.2.255/32'), ['c00002ff', 'c0000300 end']);
  // Up to the last address there is none after it.
  assert.deepEqual(ends('224.0.0.0/3'), ['e0000000']);
  assert.deepEqual(ends('0.0.0.0/0'), ['00000000']);
});

test('intervalElements() puts data on the start only', () => {
  const [start, end] = intervalElements(portBytes(80), portBytes(90), { comment: 'web' });
  assert.deepEqual(start, { key: portBytes(80), comment: 'web' });
  assert.deepEqual(end, { key: portBytes(91), intervalEnd: true });
});

test('prefixBounds() gives first and last address', () => {
  const { first, last } = prefixBounds(cidr('192.0.2.128/25'));
  assert.deepEqual([hex(first), hex(last)], ['c0000280', 'c00002ff']);
  assert.equal(hex(prefixBounds(cidr('2001:db8::/33')).last), `20010db87fff${'f'.repeat(20)}`);
});

test('ifnameBytes() fills the field and refuses a name that is too long', () => {
  assert.equal(hex(ifnameBytes('eth0')), `65746830${'0'.repeat(24)}`);
  assert.equal(ifnameBytes('a'.repeat(15)).length, 16);
  assert.throws(() => ifnameBytes('a'.repeat(16)), RangeError);
});
