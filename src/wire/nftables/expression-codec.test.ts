import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readAttributes } from '#wire/netlink/reader.ts';
import { NetlinkWriter } from '#wire/netlink/writer.ts';
import { decodeExpressions } from './expression-decoder.ts';
import { encodeExpressions } from './expression-encoder.ts';
import type { Expression } from './expressions.ts';

type Kind = Expression['kind'];
type Examples = { readonly [K in Kind]: readonly Extract<Expression, { kind: K }>[] };

const mask = Uint8Array.of(0xff, 0xff, 0, 0);

/** Each kind at least once, with every option somewhere. */
const EXAMPLES: Examples = {
  meta: [{ kind: 'meta', key: 'l4proto', to: 15 }],
  'set meta': [{ kind: 'set meta', key: 'mark', from: 1 }],
  payload: [{ kind: 'payload', base: 'network', offset: 16, bytes: 4, to: 4 }],
  'set payload': [
    { kind: 'set payload', base: 'link', offset: 0, bytes: 6, from: 0 },
    {
      kind: 'set payload',
      base: 'network',
      offset: 12,
      bytes: 4,
      from: 2,
      checksumOffset: 10,
      pseudoHeader: true,
    },
  ],
  ct: [
    { kind: 'ct', key: 'state', to: 0 },
    { kind: 'ct', key: 'proto-dst', direction: 'reply', to: 0 },
    { kind: 'ct', key: 'ip daddr', direction: 'original', to: 0 },
  ],
  'set ct': [
    { kind: 'set ct', key: 'mark', from: 0 },
    { kind: 'set ct', key: 'zone', direction: 'original', from: 0 },
  ],
  fib: [
    { kind: 'fib', result: 'type', by: ['daddr'], to: 0 },
    { kind: 'fib', result: 'oif', by: ['saddr', 'mark', 'iif'], present: true, to: 0 },
  ],
  numgen: [
    { kind: 'numgen', mode: 'random', modulus: 5, to: 3 },
    { kind: 'numgen', mode: 'inc', modulus: 2, offset: 7, to: 3 },
  ],
  jhash: [
    { kind: 'jhash', from: 1, bytes: 4, modulus: 8, to: 0 },
    { kind: 'jhash', from: 1, bytes: 16, modulus: 8, seed: 0, offset: 1, to: 0 },
  ],
  symhash: [{ kind: 'symhash', modulus: 8, offset: 2, to: 0 }],
  socket: [{ kind: 'socket', key: 'wildcard', to: 0 }],
  immediate: [{ kind: 'immediate', data: mask, to: 0 }],
  cmp: [{ kind: 'cmp', from: 0, op: '>=', data: Uint8Array.of(0, 80) }],
  range: [{ kind: 'range', from: 0, op: '!=', low: Uint8Array.of(1), high: Uint8Array.of(9) }],
  bitwise: [{ kind: 'bitwise', from: 0, to: 1, mask, xor: mask }],
  shift: [{ kind: 'shift', from: 0, to: 1, bytes: 4, direction: 'right', bits: 16 }],
  byteorder: [{ kind: 'byteorder', from: 0, to: 0, op: 'hton', bytes: 4, unit: 2 }],
  lookup: [
    { kind: 'lookup', set: 's', from: 0 },
    { kind: 'lookup', set: 's', from: 0, inverted: true },
    { kind: 'lookup', set: 'm', from: 0, to: 4 },
    { kind: 'lookup', set: 'v', from: 0, to: 'verdict' },
  ],
  dynset: [
    { kind: 'dynset', set: 's', op: 'add', key: 0 },
    { kind: 'dynset', set: 's', op: 'update', key: 0, data: 4, timeoutMs: 5000, inverted: true },
    { kind: 'dynset', set: 's', op: 'delete', key: 0 },
  ],
  verdict: [
    { kind: 'verdict', verdict: { kind: 'accept' } },
    { kind: 'verdict', verdict: { kind: 'drop' } },
    { kind: 'verdict', verdict: { kind: 'continue' } },
    { kind: 'verdict', verdict: { kind: 'break' } },
    { kind: 'verdict', verdict: { kind: 'return' } },
    { kind: 'verdict', verdict: { kind: 'jump', chain: 'a' } },
    { kind: 'verdict', verdict: { kind: 'goto', chain: 'chain' } },
  ],
  counter: [{ kind: 'counter', packets: 2n ** 63n, bytes: 7n }],
  limit: [
    { kind: 'limit', rate: 5, per: 'second', burst: 5, of: 'packets' },
    { kind: 'limit', rate: 2 ** 40, per: 'week', burst: 0, of: 'bytes', over: true },
  ],
  log: [
    { kind: 'log' },
    { kind: 'log', prefix: 'a ', group: 0, snaplen: 64, queueThreshold: 3 },
    { kind: 'log', level: 6, flags: 1 },
  ],
  reject: [
    { kind: 'reject', with: 'tcp reset' },
    { kind: 'reject', with: { icmpx: 'admin-prohibited' } },
    { kind: 'reject', with: { icmp: 13 } },
  ],
  nat: [
    { kind: 'nat', type: 'dnat', family: 'ip', address: 0, port: 1 },
    { kind: 'nat', type: 'dnat', family: 'ip6', port: 9 },
    {
      kind: 'nat',
      type: 'snat',
      family: 'ip6',
      address: 0,
      addressMax: 4,
      port: 8,
      portMax: 9,
      flags: { random: true, fullyRandom: true, persistent: true },
    },
  ],
  masquerade: [
    { kind: 'masquerade' },
    { kind: 'masquerade', flags: { fullyRandom: true }, port: 0, portMax: 1 },
  ],
  redirect: [{ kind: 'redirect' }, { kind: 'redirect', port: 0, flags: { persistent: true } }],
  tproxy: [
    { kind: 'tproxy', port: 1 },
    { kind: 'tproxy', family: 'ip6', address: 0, port: 4 },
  ],
  notrack: [{ kind: 'notrack' }],
  unknown: [
    { kind: 'unknown', name: 'quota', attributes: Uint8Array.of(8, 0, 1, 0, 1, 2, 3, 4) },
    { kind: 'unknown', name: 'future', attributes: new Uint8Array(0) },
  ],
};

for (const [kind, examples] of Object.entries(EXAMPLES))
  test(`expressions of kind "${kind}" come back from their encoding`, () => {
    assert.ok(examples.length > 0);
    assert.deepEqual(roundTrip(examples), examples);
  });

test('decodeExpressions() keeps the order of a long rule', () => {
  const all = Object.values(EXAMPLES).flat();
  assert.deepEqual(roundTrip(all), all);
});

test('decodeExpressions() takes a key that we have no name for as unknown', () => {
  const [expression] = roundTrip([{ kind: 'meta', key: 'mark', to: 0 }], (bytes) => {
    // The key's attribute comes first: NFTA_META_KEY = 3 becomes a key of a newer kernel.
    const at = bytes.indexOf(Buffer.from('0800020000000003', 'hex'));
    assert.ok(at >= 0);
    bytes.writeUInt32BE(4711, at + 4);
  });
  assert.equal(expression?.kind, 'unknown');
});

/** @param change damages the list before it is decoded */
function roundTrip(
  expressions: readonly Expression[],
  change: (list: Buffer) => void = () => {},
): Expression[] {
  const writer = new NetlinkWriter();
  const attribute = 1;
  const mark = writer.beginNested(attribute);
  encodeExpressions(writer, expressions);
  writer.endAttribute(mark);
  const list = readAttributes(Buffer.from(writer.bytes())).get(attribute);
  assert.ok(list !== undefined);
  change(list);
  return decodeExpressions(list);
}
