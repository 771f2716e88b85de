import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DecodeError } from '#lib/errors.ts';
import { NetlinkWriter } from '#wire/netlink/writer.ts';
import { decodePacket, encodeBind, NFULNL_MSG_CONFIG, readPacketEnds } from './codec.ts';

test('encodeBind() asks for the group with copies of packets', () => {
  const writer = new NetlinkWriter();
  const start = writer.beginMessage(NFULNL_MSG_CONFIG, 0);
  encodeBind(writer, { group: 0x1234, copyBytes: 128, timeoutCentiseconds: 10 });
  writer.endMessage(start);
  assert.equal(
    Buffer.from(writer.bytes()).subarray(16).toString('hex'),
    //  nfgenmsg      CFG_CMD BIND         CFG_MODE range 128, copy packet    CFG_TIMEOUT 10
    ['00001234', '0500010001000000', '0a0002000000008002000000', '080004000000000a'].join(''),
  );
});

test('decodePacket() reads what the kernel sends, and refuses what is too short', () => {
  const attribute = (type: number, value: Buffer) => {
    const padded = Buffer.alloc((value.length + 3) & ~3);
    value.copy(padded);
    const head = Buffer.alloc(4);
    head.writeUInt16LE(value.length + 4, 0);
    head.writeUInt16LE(type, 2);
    return Buffer.concat([head, padded]);
  };
  const payload = Buffer.concat([
    Buffer.from('02001234', 'hex'),
    attribute(1, Buffer.from('08000200', 'hex')),
    attribute(4, Buffer.from('00000007', 'hex')),
    attribute(9, Buffer.from('45000014', 'hex')),
    attribute(10, Buffer.from('tulle D i - 0\0')),
  ]);
  assert.deepEqual(decodePacket(payload), {
    prefix: 'tulle D i - 0',
    hook: 2,
    inLink: 7,
    outLink: 0,
    payload: Buffer.from('45000014', 'hex'),
  });
  assert.throws(() => decodePacket(Buffer.from('0200', 'hex')), DecodeError);
});

const TABLE: readonly [string, string, object | undefined][] = [
  [
    'IPv4 TCP with options',
    '46000020000000004006000 0c0000201c00002020000000 01f900050'.replaceAll(' ', ''),
    {
      source: '192.0.2.1',
      destination: '192.0.2.2',
      protocol: 6,
      sourcePort: 0x1f90,
      destinationPort: 80,
      icmpType: undefined,
    },
  ],
  [
    'IPv6 ICMP echo behind a hop-by-hop header',
    `6000000000100040${'20010db8000000000000000000000001'}${'20010db8000000000000000000000002'}3a00050200000000${'8000'}`,
    {
      source: '2001:db8::1',
      destination: '2001:db8::2',
      protocol: 58,
      sourcePort: undefined,
      destinationPort: undefined,
      icmpType: 128,
    },
  ],
  ['neither', '70000000', undefined],
  ['cut in the header', '4500', undefined],
];
for (const [name, hex, expected] of TABLE)
  test(`readPacketEnds(): ${name}`, () =>
    assert.deepEqual(readPacketEnds(Buffer.from(hex, 'hex')), expected));

test('no bytes make the reader fail in an unknown way', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      readPacketEnds(Buffer.from(bytes));
      try {
        decodePacket(Buffer.from(bytes));
      } catch (error) {
        assert.ok(error instanceof DecodeError, String(error));
      }
    }),
  );
});
