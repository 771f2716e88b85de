import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DecodeError } from '#lib/errors.ts';
import { NetlinkWriter } from '#wire/netlink/writer.ts';
import {
  decodeConntrackEntry,
  encodeConntrackHeader,
  encodeConntrackName,
  TCP_CONNTRACK,
} from './codec.ts';

/** Dumped by Linux 6.18 after `conntrack --create`. */
const UDP_V4 =
  '02000000340001801400018008000100c0000201080002000a60000a1c0002800500010011000000060002000fa00000' +
  '06000300003500003400028014000180080001000a00000508000200c00002011c000280050001001100000006000200' +
  '14e90000060003000fa000000800030000000008080008000000000708000c00b46a0c9208000b0000000001080007000000003b';
const TCP_V4 =
  '02000000340001801400018008000100c0000201080002000a60000a1c0002800500010006000000060002000fa00000' +
  '06000300005000003400028014000180080001000a00000508000200c00002011c000280050001000600000006000200' +
  '1f900000060003000fa000000800030000000008080008000000000008000c0001a88bb608000b000000000108000700' +
  '0000003b300004802c000180050001000500000005000200000000000500030000000000060004000a00000006000500' +
  '0a0000001c001880080001000000000008000200000000000800030000000000';
const ICMP_V6 =
  '0a000000540001802c0001801400030020010db80000000000000000000000011400040020010db8000000000000000000' +
  '00000224000280050001003a00000006000700000900000500080080000000050009000000000054000280' +
  '2c0001801400030020010db80000000000000000000000021400040020010db8000000000000000000000001' +
  '24000280050001003a000000060007000009000005000800810000000500090000000000080003000000000808' +
  '0008000000000008000c005104eaef08000b0000000001080007000000003c';

const bytes = (hex: string) => Buffer.from(hex, 'hex');

test('decodeConntrackEntry() reads a translated UDP flow', () => {
  assert.deepEqual(decodeConntrackEntry(bytes(UDP_V4)), {
    family: 4,
    original: {
      source: '192.0.2.1',
      destination: '10.96.0.10',
      protocol: 17,
      sourcePort: 4000,
      destinationPort: 53,
    },
    reply: {
      source: '10.0.0.5',
      destination: '192.0.2.1',
      protocol: 17,
      sourcePort: 5353,
      destinationPort: 4000,
    },
    status: 8,
    timeoutSeconds: 59,
    mark: 7,
    id: 0xb46a0c92,
    zone: 0,
  });
});

test('decodeConntrackEntry() reads the state of a TCP connection', () => {
  const { tcpState, original, timeoutSeconds } = decodeConntrackEntry(bytes(TCP_V4));
  assert.equal(tcpState, TCP_CONNTRACK.closeWait);
  assert.equal(original.destinationPort, 80);
  assert.equal(timeoutSeconds, 59);
});

test('decodeConntrackEntry() reads an ICMPv6 flow', () => {
  const { family, original, reply } = decodeConntrackEntry(bytes(ICMP_V6));
  assert.equal(family, 6);
  assert.deepEqual(original, {
    source: '2001:db8::1',
    destination: '2001:db8::2',
    protocol: 58,
    icmp: { id: 9, type: 128, code: 0 },
  });
  assert.deepEqual(reply.icmp, { id: 9, type: 129, code: 0 });
});

test('encodeConntrackName() writes the tuple as the kernel does', () => {
  for (const hex of [UDP_V4, ICMP_V6]) {
    const entry = decodeConntrackEntry(bytes(hex));
    const writer = new NetlinkWriter();
    encodeConntrackHeader(writer, entry.family);
    encodeConntrackName(writer, { original: entry.original });
    assert.equal(writer.bytes().toString('hex'), hex.slice(0, writer.length * 2));
  }
});

test('decodeConntrackEntry() fails on damaged bytes with DecodeError only', () => {
  let failures = 0;
  for (const hex of [UDP_V4, ICMP_V6]) {
    const message = bytes(hex);
    for (let at = 0; at < message.length; at++)
      for (const value of [undefined, 0, 1, 0x7f, 0xff]) {
        const mutant = Buffer.from(value === undefined ? message.subarray(0, at) : message);
        if (value !== undefined) mutant[at] = value;
        try {
          decodeConntrackEntry(mutant);
        } catch (error) {
          assert.ok(error instanceof DecodeError, String(error));
          failures++;
        }
      }
  }
  assert.ok(failures > 0);
});
