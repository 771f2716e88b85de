import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KeyField } from './data-types.ts';
import { decodeComment, decodeSetUserdata, encodeComment, encodeSetUserdata } from './userdata.ts';

interface Case {
  readonly name: string;
  readonly key: readonly KeyField[];
  readonly data?: 'verdict' | readonly KeyField[];
  readonly comment?: string;
  /** As nft 1.0.6 sent it for the same declaration. */
  readonly hex: string;
}

const CASES: readonly Case[] = [
  { name: 'type ipv4_addr', key: ['ipv4_addr'], hex: '000402000000' },
  {
    name: 'type ipv4_addr . inet_proto . inet_service : verdict; comment "c1"',
    key: ['ipv4_addr', 'inet_proto', 'inet_service'],
    data: 'verdict',
    comment: 'c1',
    hex: '000400000000 010400000000 0308 00040d000000 0100 060400000000 0703633100',
  },
  {
    name: 'type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service',
    key: ['ipv4_addr', 'inet_proto', 'inet_service', 'mark'],
    data: ['ipv4_addr', 'inet_service'],
    hex: '000400000000 010400000000 0308 00040d000000 0100 0408 00040d000000 0100 060400000000',
  },
  {
    name: 'typeof ip saddr . tcp dport',
    key: ['ip saddr', 'tcp dport'],
    hex: `000400000000 0334 00040d000000 012c
      0014 000407000000 010c 00040c000000 01040b000000
      0114 000407000000 010c 000408000000 010402000000`,
  },
  {
    name: 'typeof ip daddr . meta l4proto . th dport . numgen random mod 5 : ip daddr . th sport',
    key: ['ip daddr', 'meta l4proto', 'th dport', 'numgen random mod 5'],
    data: ['ip daddr', 'th sport'],
    hex: `000400000000 010400000000 0360 00040d000000 0158
      0014 000407000000 010c 00040c000000 01040c000000
      010e 000409000000 0106 000410000000
      0214 000407000000 010c 00040b000000 010402000000
      031a 000417000000 0112 000401000000 010405000000 020400000000
      0434 00040d000000 012c
      0014 000407000000 010c 00040c000000 01040c000000
      0114 000407000000 010c 00040b000000 010401000000
      060400000000`,
  },
  {
    name: 'typeof ct mark; comment "ct mark"',
    key: ['ct mark'],
    comment: 'ct mark',
    hex: '000401000000 0314 00040c000000 010c 000403000000 0104ffffffff 0708 6374206d61726b00',
  },
];

for (const { name, hex, ...set } of CASES) {
  const bytes = Buffer.from(hex.replace(/\s/g, ''), 'hex');
  test(`encodeSetUserdata() writes what nft writes for: ${name}`, () => {
    assert.equal(Buffer.from(encodeSetUserdata(set)).toString('hex'), bytes.toString('hex'));
  });
  test(`decodeSetUserdata() reads: ${name}`, () => {
    const named = (fields: readonly KeyField[] | 'verdict' | undefined) =>
      Array.isArray(fields) && fields.some((field: string) => field.includes(' '))
        ? fields
        : undefined;
    assert.deepEqual(decodeSetUserdata(bytes), {
      comment: set.comment,
      keyTypeof: named(set.key),
      dataTypeof: named(set.data),
    });
  });
}

test('encodeSetUserdata() refuses a mix of types and expressions', () => {
  assert.throws(() => encodeSetUserdata({ key: ['ipv4_addr', 'th dport'] }), TypeError);
});

test('encodeSetUserdata() refuses more than the kernel keeps', () => {
  const key: KeyField[] = ['ip daddr', 'ip saddr', 'th dport', 'th sport', 'meta l4proto'];
  const comment = 'c'.repeat(128);
  assert.throws(() => encodeSetUserdata({ key, data: key, comment }), RangeError);
});

test('encodeComment() counts bytes, not characters', () => {
  assert.equal(decodeComment(encodeComment('é'.repeat(64))), 'é'.repeat(64));
  assert.throws(() => encodeComment('é'.repeat(65)), RangeError);
  assert.equal(encodeComment(undefined), undefined);
});

test('decodeComment() takes user data of another shape for none', () => {
  for (const hex of ['', '00', '0005', '01026100', 'ffffffff'])
    assert.equal(decodeComment(Buffer.from(hex, 'hex')), undefined, hex);
});
