import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DecodeError } from '#lib/errors.ts';
import {
  canonicalName,
  decodeName,
  isWithin,
  name,
  nameFromWire,
  nameToWire,
  parentOf,
  parseName,
  skipName,
} from './name.ts';

const text = (value: string) => Uint8Array.from(value, (c) => c.charCodeAt(0));

test('parseName() reads names and adds the final dot', () => {
  for (const [given, expected] of [
    ['.', '.'],
    ['example.com', 'example.com.'],
    ['Example.COM.', 'Example.COM.'],
    ['_http._tcp.web', '_http._tcp.web.'],
    ['a\\.b.c', 'a\\.b.c.'],
    ['\\065b.c', 'Ab.c.'],
    ['\\000.c', '\\000.c.'],
    ['x'.repeat(63), `${'x'.repeat(63)}.`],
  ] as const)
    assert.equal(parseName(given), expected, given);
});

test('parseName() refuses what is no name', () => {
  const four = Array(4).fill('x'.repeat(62)).join('.'); // 252 octets and the root's
  assert.ok(parseName(four));
  assert.ok(parseName(`${four}.x`)); // 255
  for (const bad of ['', '..', '.a', 'a..b', 'x'.repeat(64), `${four}.xy`, 'a\\', '\\999', 'ü€.de'])
    assert.equal(parseName(bad), undefined, bad);
});

test('nameToWire() and nameFromWire() are each other’s inverse', () => {
  for (const value of ['.', 'a.', 'Web.default.svc.cluster.local.', 'a\\.b.\\007.'])
    assert.equal(nameFromWire(nameToWire(name(value))), value);
  assert.deepEqual([...nameToWire(name('ab.c'))], [2, 97, 98, 1, 99, 0]);
});

test('decodeName() follows pointers and says where the name ends', () => {
  const bytes = text('\x03com\0\x07example\xc0\x00\x03www\xc0\x05!');
  assert.deepEqual(decodeName(bytes, 5), { name: 'example.com.', next: 15 });
  assert.deepEqual(decodeName(bytes, 15), { name: 'www.example.com.', next: 21 });
  assert.equal(skipName(bytes, 15), 21);
});

test('decodeName() refuses loops, forward pointers and what leaves the bytes', () => {
  for (const [bytes, at] of [
    [text('\xc0\x00'), 0],
    [text('\x01a\xc0\x00'), 0],
    [text('\xc0\x02\xc0\x00'), 2],
    [text('\xc0\x02\x00'), 0],
    [text('\x05ab'), 0],
    [text('\x01a'), 0],
    [text('\xc0'), 0],
    [text('\x80a\0'), 0],
    [text('\x40a\0'), 0],
    [text(''), 0],
  ] as const)
    assert.throws(() => decodeName(bytes, at), DecodeError, String(bytes));
});

test('decodeName() refuses a name of more than 255 octets made of pointers', () => {
  const label = `\x3f${'x'.repeat(63)}`;
  const bytes = text(`${label}${label}${label}\0${label}\xc0\x00`);
  assert.throws(() => decodeName(bytes, 193), /longer than 255/);
  assert.equal(decodeName(bytes, 0).name.length, 192);
});

test('parentOf() cuts one label', () => {
  assert.equal(parentOf(name('a.b.')), 'b.');
  assert.equal(parentOf(name('b.')), '.');
  assert.equal(parentOf(name('.')), '.');
  assert.equal(parentOf(name('a\\.b.c.')), 'c.');
});

test('isWithin() compares whole labels', () => {
  const zone = name('example.');
  assert.ok(isWithin(name('a.example.'), zone));
  assert.ok(isWithin(zone, zone));
  assert.ok(isWithin(zone, name('.')));
  assert.ok(!isWithin(name('anexample.'), zone));
  assert.ok(!isWithin(name('a\\.example.'), zone));
  assert.ok(isWithin(name('a\\\\.example.'), zone));
});

test('canonicalName() lowers ASCII letters only', () => {
  assert.equal(canonicalName(name('WeB.\\200.')), 'web.\\200.');
});
