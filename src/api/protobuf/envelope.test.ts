import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { DecodeError } from '#lib/errors.ts';
import { decodeMessage } from '#wire/protobuf/message.ts';
import { decodeFields } from '../machinery/unknown-fields.ts';
import { KINDS } from '../registry.ts';
import { REVIEW_KINDS } from '../review-kinds.ts';
import { decodeProtobufObject } from './envelope.ts';
import { NETWORK_POLICY_MESSAGE } from './groups.ts';
import { MICRO_TIME, TIME } from './table.ts';

interface Vector {
  /** What was typed. */
  readonly command: string;
  /** What kubectl 1.32 sent. */
  readonly base64: string;
  readonly object: Record<string, unknown>;
}

const VECTORS: readonly Vector[] = JSON.parse(
  readFileSync(new URL('./vectors.json', import.meta.url), 'utf8'),
);

test('there are vectors', () => assert.ok(VECTORS.length >= 10));

for (const { command, base64, object } of VECTORS)
  test(`decodeProtobufObject() reads what "${command}" sends`, () => {
    assert.deepEqual(decodeProtobufObject(Buffer.from(base64, 'base64')), {
      kind: 'object',
      object,
      unknownFields: [],
    });
  });

test('what is decoded has only fields that the kind has', () => {
  for (const { object } of VECTORS) {
    const kind = [...KINDS, ...REVIEW_KINDS].find((known) => known.kind === object.kind);
    if (kind === undefined) continue; // TokenRequest is a subresource.
    const { unknownFields, typeErrors } = decodeFields(kind.schema, object as never);
    assert.deepEqual([unknownFields, typeErrors], [[], []], kind.kind);
  }
});

test('decodeProtobufObject() refuses what has another prefix or encoding', () => {
  assert.throws(() => decodeProtobufObject(Buffer.from('k8s')), DecodeError);
  assert.throws(() => decodeProtobufObject(Buffer.from('{"kind":"Pod"}')), DecodeError);
  const gzip = Buffer.concat([
    Buffer.from('k8s\0'),
    Buffer.from('1a0467', 'hex'),
    Buffer.from('zip'),
  ]);
  assert.throws(() => decodeProtobufObject(gzip), /contentEncoding/);
});

test('decodeProtobufObject() says which kind it has no table for', () => {
  const typeMeta = Buffer.concat([
    Buffer.from('0a07617070732f7631', 'hex'), // apps/v1
    Buffer.from('120a4465706c6f796d656e74', 'hex'), // Deployment
  ]);
  const body = Buffer.concat([Buffer.from('k8s\0'), Buffer.of(0x0a, typeMeta.length), typeMeta]);
  assert.deepEqual(decodeProtobufObject(body), {
    kind: 'unknown-kind',
    apiVersion: 'apps/v1',
    name: 'Deployment',
  });
});

test('times are RFC 3339, and the zero time is none', () => {
  const bytes = (seconds: number, nanos = 0) => {
    const varint = (value: number): number[] =>
      value < 128 ? [value] : [(value % 128) | 0x80, ...varint(Math.floor(value / 128))];
    return Buffer.from([0x08, ...varint(seconds), 0x10, ...varint(nanos)]);
  };
  const convert = (table: typeof TIME, data: Buffer) =>
    table.convert?.(decodeMessage(data, table).value);
  assert.equal(convert(TIME, bytes(1_700_000_000)), '2023-11-14T22:13:20Z');
  assert.equal(convert(MICRO_TIME, bytes(1_700_000_000, 5_000)), '2023-11-14T22:13:20.000005Z');
  assert.equal(convert(TIME, Buffer.alloc(0)), undefined);
});

test('an empty selector of a policy is a selector, not a missing one', () => {
  // spec { podSelector {} ingress { from { namespaceSelector {} } } }
  const empty = Buffer.from('12080a00120412021200', 'hex');
  assert.deepEqual(decodeMessage(empty, NETWORK_POLICY_MESSAGE).value.spec, {
    podSelector: {},
    ingress: [{ from: [{ namespaceSelector: {} }] }],
  });
});

test('decodeProtobufObject() gives an answer or a DecodeError for what kubectl sends with some bytes changed', () => {
  const bodies = VECTORS.map(({ base64 }) => Buffer.from(base64, 'base64'));
  fc.assert(
    fc.property(
      fc.constantFrom(...bodies),
      fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 4 }),
      fc.nat(),
      (body, changes, cut) => {
        const changed = Buffer.from(body);
        for (const [at, byte] of changes) changed[at % changed.length] = byte;
        try {
          decodeProtobufObject(changed.subarray(0, changed.length - (cut % 3)));
        } catch (error) {
          assert.ok(error instanceof DecodeError, String(error));
        }
      },
    ),
    { numRuns: 3000 },
  );
});
