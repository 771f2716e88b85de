/** Messages of the kernel after `nft` had written the objects: what they mean, and that they survive our encoding. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { DecodeError } from '#lib/errors.ts';
import { readMessages } from '#wire/netlink/reader.ts';
import { formatExpressions } from './format-expressions.ts';
import { decodeChain, decodeElements, decodeRule, decodeSet } from './object-decoder.ts';
import type { Operation } from './objects.ts';
import { encodeTransaction } from './transaction-encoder.ts';

interface Vectors {
  readonly rules: readonly { readonly nft: string; readonly text: string; readonly hex: string }[];
  readonly sets: readonly { readonly hex: string }[];
  readonly chains: readonly { readonly hex: string }[];
  readonly elements: readonly { readonly set: string; readonly hex: string }[];
}

const folder = join(import.meta.dirname, 'vectors');
const files = readdirSync(folder).filter((name) => name.endsWith('.json'));
if (files.length === 0) throw new Error(`no vectors in ${folder}`);
const bytes = (hex: string) => Buffer.from(hex, 'hex');

for (const file of files) {
  const vectors = JSON.parse(readFileSync(join(folder, file), 'utf8')) as Vectors;
  describe(`vectors of ${file}`, () => {
    for (const { nft, text, hex } of vectors.rules)
      test(`decodeRule() reads: ${nft}`, () => {
        assert.equal(formatExpressions(decodeRule(bytes(hex)).expressions), text);
      });

    test('a rule that is decoded and encoded again decodes to the same', () => {
      assert.ok(vectors.rules.length > 0);
      for (const { hex } of vectors.rules) {
        const rule = decodeRule(bytes(hex));
        const again = { verb: 'replace', kind: 'rule', object: rule, handle: rule.handle } as const;
        assert.deepEqual(decodeRule(payloadOf(again)), rule);
      }
    });

    test('a set that is decoded and encoded again decodes to the same', () => {
      assert.ok(vectors.sets.length > 0);
      for (const { hex } of vectors.sets) {
        const { handle: _, ...set } = decodeSet(bytes(hex));
        const { handle: _h, ...again } = decodeSet(
          payloadOf({ verb: 'add', kind: 'set', object: set }),
        );
        assert.deepEqual(again, set);
      }
    });

    test('a chain that is decoded and encoded again decodes to the same', () => {
      assert.ok(vectors.chains.length > 0);
      for (const { hex } of vectors.chains) {
        const { handle: _, ...chain } = decodeChain(bytes(hex));
        const { handle: _h, ...again } = decodeChain(
          payloadOf({ verb: 'add', kind: 'chain', object: chain }),
        );
        assert.deepEqual(again, chain);
      }
    });

    test('elements that are decoded and encoded again decode to the same', () => {
      let count = 0;
      for (const { hex } of vectors.elements) {
        const { elements, ...ref } = decodeElements(bytes(hex));
        // The kernel may end a dump with an empty list.
        if (elements.length === 0) continue;
        count += elements.length;
        const again = decodeElements(payloadOf({ verb: 'add', kind: 'elements', ref, elements }));
        assert.deepEqual(again.elements, elements);
      }
      assert.ok(count > 0);
    });

    test('a message with a byte changed or cut off decodes, or fails with DecodeError', () => {
      const decoders = [
        [vectors.rules, decodeRule],
        [vectors.sets, decodeSet],
        [vectors.chains, decodeChain],
        [vectors.elements, decodeElements],
      ] as const;
      let failures = 0;
      for (const [messages, decode] of decoders)
        for (const { hex } of messages)
          for (const mutant of mutants(bytes(hex))) {
            try {
              decode(mutant);
            } catch (error) {
              assert.ok(error instanceof DecodeError, String(error));
              failures++;
            }
          }
      assert.ok(failures > 0);
    });
  });
}

/** Every byte replaced by a few telling values, and every length. */
function* mutants(message: Buffer): Generator<Buffer> {
  for (let at = 0; at < message.length; at++) {
    for (const value of [0, 1, 0x7f, 0xff]) {
      const mutant = Buffer.from(message);
      mutant[at] = value;
      yield mutant;
    }
    yield message.subarray(0, at);
  }
}

function payloadOf(operation: Operation): Buffer {
  const [, message] = readMessages(encodeTransaction([operation]).bytes);
  assert.ok(message !== undefined);
  return message.payload;
}
