import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DecodeError } from '#lib/errors.ts';
import { ip } from '#lib/ip.ts';
import { CLASS_IN, FLAG_TC } from './constants.ts';
import {
  decodeMessage,
  encodeMessage,
  type Message,
  makeQuery,
  type ResourceRecord,
  scanRecords,
} from './message.ts';
import { name } from './name.ts';
import { MessageTooLongError } from './writer.ts';

const hex = (text: string) => Uint8Array.from(Buffer.from(text.replace(/\s+/g, ''), 'hex'));
const toHex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const record = (owner: string, type: number, data: ResourceRecord['data'], ttlS = 5) => ({
  name: name(owner),
  type,
  class: CLASS_IN,
  ttlS,
  data,
});

const full: Message = {
  ...makeQuery(0x1234, { name: name('Web.Example.'), type: 255 }),
  response: true,
  authoritative: true,
  recursionAvailable: true,
  answers: [
    record('web.example.', 1, { kind: 'A', address: ip('192.0.2.1') }),
    record('web.example.', 28, { kind: 'AAAA', address: ip('2001:db8::1') }),
    record('web.example.', 5, { kind: 'CNAME', target: name('www.example.') }),
    record('web.example.', 16, { kind: 'TXT', strings: [Buffer.from('1.1.0'), Buffer.alloc(0)] }),
    record('web.example.', 15, { kind: 'MX', preference: 10, target: name('mail.example.') }),
    record('_x._tcp.example.', 33, {
      kind: 'SRV',
      priority: 0,
      weight: 100,
      port: 80,
      target: name('web.example.'),
    }),
    record('1.2.0.192.in-addr.arpa.', 12, { kind: 'PTR', target: name('web.example.') }),
    record('x.example.', 65280, { kind: 'raw', bytes: hex('c00cff') }),
  ],
  authorities: [
    record('example.', 2, { kind: 'NS', target: name('ns.example.') }),
    record('example.', 6, {
      kind: 'SOA',
      primary: name('ns.example.'),
      mailbox: name('hostmaster.example.'),
      serial: 0xffff_fffe,
      refreshS: 7200,
      retryS: 1800,
      expireS: 86400,
      minimumS: 5,
    }),
  ],
  additionals: [record('ns.example.', 1, { kind: 'A', address: ip('192.0.2.53') }, 0xffff_ffff)],
  edns: {
    udpPayloadBytes: 4096,
    version: 0,
    dnssecOk: true,
    options: [{ code: 10, bytes: hex('0011223344556677') }],
  },
};

/** From RFC 1035's layout and checked with dig: side by side what each run of bytes is. */
const VECTORS: { what: string; bytes: string; check: (message: Message) => void }[] = [
  {
    what: 'a query with EDNS',
    bytes: `beef 0120 0001 0000 0000 0001  07 6578616d706c65 03 636f6d 00 0001 0001
            00 0029 04d0 00 00 8000 0000`,
    check(message) {
      assert.equal(message.id, 0xbeef);
      assert.ok(message.recursionDesired && message.authenticData && !message.response);
      assert.deepEqual(message.questions, [{ name: 'example.com.', type: 1, class: 1 }]);
      assert.deepEqual(message.edns, {
        udpPayloadBytes: 1232,
        version: 0,
        dnssecOk: true,
        options: [],
      });
    },
  },
  {
    what: 'an answer with a pointer',
    bytes: `0001 8580 0001 0001 0000 0000  01 61 00 0001 0001  c00c 0001 0001 00000005 0004 c0000201`,
    check(message) {
      assert.ok(message.response && message.authoritative && message.recursionAvailable);
      assert.deepEqual(message.answers, [record('a.', 1, { kind: 'A', address: ip('192.0.2.1') })]);
    },
  },
  {
    what: 'BADVERS, whose rcode is spread over header and OPT',
    bytes: `0002 8000 0000 0000 0000 0001  00 0029 04d0 01 00 0000 0000`,
    check: (message) => assert.equal(message.rcode, 16),
  },
];

for (const { what, bytes, check } of VECTORS)
  test(`decodeMessage() reads ${what}, and encodeMessage() writes the same bytes`, () => {
    const message = decodeMessage(hex(bytes));
    check(message);
    assert.equal(toHex(encodeMessage(message)), toHex(hex(bytes)));
  });

test('decodeMessage() undoes encodeMessage() for all sections and types', () => {
  const bytes = encodeMessage(full);
  const decoded = decodeMessage(bytes);
  // The case of a compressed name is that of its first occurrence.
  assert.equal(decoded.answers[0]?.name, 'Web.Example.');
  const lower = (value: unknown) =>
    JSON.parse(JSON.stringify(value, (_, v) => (typeof v === 'string' ? v.toLowerCase() : v)));
  assert.deepEqual(lower(decoded.answers.slice(0, 3)), lower(full.answers.slice(0, 3)));
  assert.equal(toHex(encodeMessage(decoded)), toHex(bytes));
});

test('encodeMessage() never compresses the target of an SRV record', () => {
  const bytes = encodeMessage({ ...full, answers: full.answers.slice(5, 6) });
  assert.ok(toHex(bytes).includes(toHex(Buffer.from('\x03web\x07example\0', 'latin1'))));
});

test('scanRecords() finds every record, its TTL and its end', () => {
  const bytes = encodeMessage(full);
  const { questionEnd, records } = scanRecords(bytes);
  assert.equal(questionEnd, 12 + 13 + 4);
  assert.deepEqual(
    records.map((span) => `${span.section} ${span.type}`),
    [
      ...full.answers.map((r) => `answer ${r.type}`),
      ...full.authorities.map((r) => `authority ${r.type}`),
      'additional 1',
      'additional 41',
    ],
  );
  assert.equal(records.at(-1)?.end, bytes.length);
  const first = records[0];
  assert.ok(first);
  assert.equal(Buffer.from(bytes).readUInt32BE(first.ttlAt), 5);
});

test('decodeMessage() refuses broken messages', () => {
  const good = hex(VECTORS[1]?.bytes ?? '');
  const patched = (at: number, value: number) => {
    const bytes = good.slice();
    bytes[at] = value;
    return bytes;
  };
  for (const [what, bytes] of [
    ['a short header', good.slice(0, 11)],
    ['a missing record', patched(7, 2)],
    ['bytes after the end', Uint8Array.from([...good, 0])],
    ['a record that ends early', good.slice(0, -1)],
    ['data of another length than the type’s', patched(good.length - 5, 3)],
    ['an OPT record among the answers', patched(22, 41)],
    [
      'two OPT records',
      hex('0000 0000 0000 0000 0000 0002  00 0029 04d0 00000000 0000 00 0029 04d0 00000000 0000'),
    ],
    [
      'an EDNS option that is cut',
      hex('0000 0000 0000 0000 0000 0001 00 0029 04d0 00000000 0003 000a00'),
    ],
    [
      'a TXT string longer than its record',
      hex('0000 0000 0000 0001 0000 0000 00 0010 0001 00000000 0002 0561'),
    ],
  ] as const)
    assert.throws(() => decodeMessage(bytes), DecodeError, what);
});

test('encodeMessage() refuses a message over 65,535 bytes', () => {
  const answers = Array.from({ length: 300 }, () =>
    record('x.', 65280, { kind: 'raw', bytes: new Uint8Array(250) }),
  );
  assert.throws(() => encodeMessage({ ...full, answers }), MessageTooLongError);
});

test('decodeMessage() and scanRecords() throw only DecodeError on damaged messages', () => {
  const seeds = [encodeMessage(full), ...VECTORS.map((v) => hex(v.bytes))];
  fc.assert(
    fc.property(
      fc.constantFrom(...seeds),
      fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 8 }),
      fc.nat(400),
      (seed, changes, cut) => {
        const bytes = seed.slice(0, cut > 380 ? seed.length : Math.max(cut, 10));
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        for (const decode of [decodeMessage, scanRecords]) {
          try {
            decode(bytes);
          } catch (error) {
            assert.ok(error instanceof DecodeError, String(error));
          }
        }
      },
    ),
    { numRuns: 3000 },
  );
});

test('a decoded message can be encoded and decoded again without change', () => {
  const seed = encodeMessage(full);
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 3 }), (changes) => {
      const bytes = seed.slice();
      for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
      let message: Message;
      try {
        message = decodeMessage(bytes);
      } catch (error) {
        assert.ok(error instanceof DecodeError);
        return;
      }
      const again = encodeMessage(message);
      assert.deepEqual(encodeMessage(decodeMessage(again)), again);
    }),
    { numRuns: 1000 },
  );
});

test('the TC flag survives', () => {
  const bytes = encodeMessage({ ...full, truncated: true });
  assert.ok((Buffer.from(bytes).readUInt16BE(2) & FLAG_TC) !== 0);
  assert.ok(decodeMessage(bytes).truncated);
});
