import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ApiError } from '#lib/errors.ts';
import type { JsonObject } from './json.ts';
import { applyMergePatch, createMergePatch } from './merge-patch.ts';

/** RFC 7386 appendix A: original, patch, result. */
const RFC_CASES: [unknown, unknown, unknown][] = [
  [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
  [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
  [{ a: 'b' }, { a: null }, {}],
  [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
  [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
  [{ a: 'c' }, { a: ['b'] }, { a: ['b'] }],
  [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
  [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
  [
    ['a', 'b'],
    ['c', 'd'],
    ['c', 'd'],
  ],
  [{ a: 'b' }, ['c'], ['c']],
  [{ a: 'foo' }, null, null],
  [{ a: 'foo' }, 'bar', 'bar'],
  [{ e: null }, { a: 1 }, { e: null, a: 1 }],
  [[1, 2], { a: 'b', c: null }, { a: 'b' }],
  [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
];

test('applyMergePatch() gives the results of RFC 7386 appendix A', () => {
  for (const [target, patch, result] of RFC_CASES) {
    const before = structuredClone(target);
    assert.deepEqual(applyMergePatch(target, patch), result, JSON.stringify(patch));
    assert.deepEqual(target, before, 'the target is not changed');
  }
});

test('applyMergePatch() makes a plain field of __proto__', () => {
  const result = applyMergePatch({}, JSON.parse('{"__proto__":{"polluted":true}}'));
  assert.equal(JSON.stringify(result), '{"__proto__":{"polluted":true}}');
  assert.equal('polluted' in {}, false);
});

test('applyMergePatch() refuses a patch that is nested too deep', () => {
  const patch: unknown = JSON.parse(`${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`);
  assert.throws(
    () => applyMergePatch({}, patch),
    (error) => error instanceof ApiError && error.status === 400,
  );
});

test('createMergePatch() says the difference', () => {
  const table: [JsonObject, JsonObject, JsonObject][] = [
    [{}, {}, {}],
    [{ a: 1 }, { a: 1 }, {}],
    [{ a: 1 }, {}, { a: null }],
    [{}, { a: 1 }, { a: 1 }],
    [{ a: { b: 1, c: 2 } }, { a: { b: 1 } }, { a: { c: null } }],
    [{ a: [1, 2] }, { a: [1] }, { a: [1] }],
    [{ a: { x: 1 } }, { a: [1] }, { a: [1] }],
    [{ a: 1 }, { a: {} }, { a: {} }],
  ];
  for (const [from, to, patch] of table) assert.deepEqual(createMergePatch(from, to), patch);
});

const withoutNull = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 3 },
    fc.integer(),
    fc.string(),
    fc.boolean(),
    fc.array(tie('value'), { maxLength: 3 }),
    fc.dictionary(fc.string(), tie('value'), { maxKeys: 3, noNullPrototype: true }),
  ),
})).value;
const objects = fc.dictionary(fc.string(), withoutNull, { maxKeys: 4, noNullPrototype: true });

test('applyMergePatch() of createMergePatch() makes the one out of the other', () => {
  fc.assert(
    fc.property(objects, objects, (from, to) => {
      assert.deepEqual(applyMergePatch(from, createMergePatch(from, to)), to);
    }),
  );
});

test('applyMergePatch() twice is as once', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), (target, patch) => {
      const once = applyMergePatch(target, patch);
      assert.deepEqual(applyMergePatch(once, patch), once);
    }),
  );
});
