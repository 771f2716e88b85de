import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NLM_F_ACK, NLM_F_REQUEST } from '#wire/netlink/constants.ts';
import { readMessages } from '#wire/netlink/reader.ts';
import * as N from './constants.ts';
import { accept } from './expressions.ts';
import { decodeElements } from './object-decoder.ts';
import type { SetElement } from './objects.ts';
import { inTable } from './objects.ts';
import { encodeTransaction, messageOf, operationOf, setGeneration } from './transaction-encoder.ts';

const t = inTable('ip', 't');

function manyElements(count: number): Iterable<SetElement> {
  return {
    *[Symbol.iterator]() {
      for (let i = 0; i < count; i++) yield { key: Uint8Array.of(10, i >>> 16, i >>> 8, i) };
    },
  };
}

test('encodeTransaction() writes the bytes that nft writes', () => {
  const encoded = encodeTransaction(
    [t.table.add({ comment: 'tab' }), t.chain.add('n5', { comment: 'five' })],
    { firstSequence: 0, generation: 7 },
  );
  const expected = [
    // length type  flags sequence port     family version resource
    '1c000000 1000 0100 00000000 00000000  00 00 000a',
    '  0800 0100 00000007', // generation
    '30000000 000a 0104 01000000 00000000  02 00 0000', // NEWTABLE, create
    '  0600 0100 7400 0000', // name "t"
    '  0800 0200 00000000', // flags
    '  0a00 0600 000474616200 0000', // comment
    '30000000 030a 0504 02000000 00000000  02 00 0000', // NEWCHAIN, create, acknowledged
    '  0600 0100 7400 0000', // table "t"
    '  0700 0300 6e3500 00', // name "n5"
    '  0b00 0c00 00056669766500 00', // comment
    '14000000 1100 0100 03000000 00000000  00 00 000a',
  ];
  assert.equal(encoded.bytes.toString('hex'), expected.join('').replace(/\s/g, ''));
});

test('encodeTransaction() asks for one acknowledgement, of the last operation', () => {
  const { bytes, lastSequence } = encodeTransaction([
    t.table.add(),
    t.elements.add('s', manyElements(5000)),
    t.elements.add('s', []),
  ]);
  const acknowledged = readMessages(bytes).filter((m) => (m.flags & NLM_F_ACK) !== 0);
  assert.deepEqual(
    acknowledged.map((m) => m.sequence),
    [lastSequence],
  );
  assert.equal(acknowledged[0]?.type, N.NFT_MSG_NEWSETELEM);
});

test('encodeTransaction() divides elements over messages whose list fits an attribute', () => {
  const { bytes, operationMessages } = encodeTransaction([
    t.elements.add('s', manyElements(10_000)),
  ]);
  const messages = readMessages(bytes).filter((m) => m.type === N.NFT_MSG_NEWSETELEM);
  assert.equal(messages.length, operationMessages);
  assert.ok(messages.length > 1);
  assert.ok(messages.every((m) => m.payload.length < 0xffff));
  const keys = messages
    .flatMap((m) => decodeElements(m.payload).elements)
    .map((element) => Buffer.from(element.key).readUInt32BE(0) & 0xffffff);
  assert.deepEqual(
    keys,
    Array.from({ length: 10_000 }, (_, i) => i),
  );
});

test('encodeTransaction() writes no message for no elements', () => {
  const { operationMessages, bytes } = encodeTransaction([t.elements.delete('s', [])]);
  assert.equal(operationMessages, 0);
  assert.deepEqual(
    readMessages(bytes).map((m) => m.type),
    [N.NFNL_MSG_BATCH_BEGIN, N.NFNL_MSG_BATCH_END],
  );
});

test('operationOf() names the operation of each message', () => {
  const encoded = encodeTransaction(
    [
      t.table.add(),
      t.elements.add('a', manyElements(10_000)),
      t.elements.add('b', []),
      t.rule.add('c', [accept]),
    ],
    { firstSequence: 0xfffffffd },
  );
  const operations = readMessages(encoded.bytes).map((m) => [
    m.type,
    operationOf(encoded, m.sequence),
  ]);
  const elements = operations.filter(([type]) => type === N.NFT_MSG_NEWSETELEM);
  assert.deepEqual(operations[0], [N.NFNL_MSG_BATCH_BEGIN, undefined]);
  assert.deepEqual(operations[1], [N.NFT_MSG_NEWTABLE, 0]);
  assert.ok(elements.length > 1 && elements.every(([, operation]) => operation === 1));
  assert.deepEqual(operations.at(-2), [N.NFT_MSG_NEWRULE, 3]);
  assert.deepEqual(operations.at(-1), [N.NFNL_MSG_BATCH_END, undefined]);
});

test('setGeneration() changes only the generation', () => {
  const encoded = encodeTransaction([t.table.add()], { generation: 1 });
  setGeneration(encoded, 0x01020304);
  const wanted = encodeTransaction([t.table.add()], { generation: 0x01020304 });
  assert.deepEqual(encoded.bytes, wanted.bytes);
});

test('messageOf() finds a message by its sequence number', () => {
  const encoded = encodeTransaction([t.table.add(), t.chain.add('c')], { firstSequence: 5 });
  assert.equal(messageOf(encoded, 7)?.readUInt16LE(4), N.NFT_MSG_NEWCHAIN);
  assert.equal(messageOf(encoded, 6)?.readUInt16LE(6), NLM_F_REQUEST | 0x400);
  assert.equal(messageOf(encoded, 99), undefined);
});

test('encodeTransaction() refuses what cannot be encoded and names the operation', () => {
  const base = { type: 'filter', hook: 'egress', priority: 0 } as const;
  assert.throws(
    () => encodeTransaction([t.table.add(), t.chain.add('c', { base })]),
    /Cannot encode "add chain ip t c": family "ip" has no hook "egress"/,
  );
  assert.throws(
    () => encodeTransaction([t.rule.add('c', [accept], { comment: 'x'.repeat(129) })]),
    /Cannot encode "add rule to chain ip t c": comment .* more than 128 bytes/,
  );
});
