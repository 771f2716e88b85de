import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ApiError } from '#lib/errors.ts';
import { applyJsonPatch, MAX_OPERATIONS } from './json-patch.ts';

function statusOf(document: unknown, patch: unknown): number {
  try {
    applyJsonPatch(document, patch);
    return 200;
  } catch (error) {
    if (error instanceof ApiError) return error.status;
    throw error;
  }
}

/** RFC 6902 appendix A and what it leaves out: document, patch, result. */
const GOOD: [string, unknown, unknown[], unknown][] = [
  ['A.1', { foo: 'bar' }, [{ op: 'add', path: '/baz', value: 'qux' }], { baz: 'qux', foo: 'bar' }],
  [
    'A.2',
    { foo: ['bar', 'baz'] },
    [{ op: 'add', path: '/foo/1', value: 'qux' }],
    { foo: ['bar', 'qux', 'baz'] },
  ],
  ['A.3', { baz: 'qux', foo: 'bar' }, [{ op: 'remove', path: '/baz' }], { foo: 'bar' }],
  [
    'A.4',
    { foo: ['bar', 'qux', 'baz'] },
    [{ op: 'remove', path: '/foo/1' }],
    { foo: ['bar', 'baz'] },
  ],
  [
    'A.5',
    { baz: 'qux', foo: 'bar' },
    [{ op: 'replace', path: '/baz', value: 'boo' }],
    { baz: 'boo', foo: 'bar' },
  ],
  [
    'A.6',
    { foo: { bar: 'baz', waldo: 'fred' }, qux: { corge: 'grault' } },
    [{ op: 'move', from: '/foo/waldo', path: '/qux/thud' }],
    { foo: { bar: 'baz' }, qux: { corge: 'grault', thud: 'fred' } },
  ],
  [
    'A.7',
    { foo: ['all', 'grass', 'cows', 'eat'] },
    [{ op: 'move', from: '/foo/1', path: '/foo/3' }],
    { foo: ['all', 'cows', 'eat', 'grass'] },
  ],
  [
    'A.8',
    { baz: 'qux', foo: ['a', 2, 'c'] },
    [
      { op: 'test', path: '/baz', value: 'qux' },
      { op: 'test', path: '/foo/1', value: 2 },
    ],
    { baz: 'qux', foo: ['a', 2, 'c'] },
  ],
  [
    'A.10',
    { foo: 'bar' },
    [{ op: 'add', path: '/child', value: { grandchild: {} } }],
    { foo: 'bar', child: { grandchild: {} } },
  ],
  [
    'A.11',
    { foo: 'bar' },
    [{ op: 'add', path: '/baz', value: 'qux', xyz: 123 }],
    { foo: 'bar', baz: 'qux' },
  ],
  ['A.14', { '/': 9, '~1': 10 }, [{ op: 'test', path: '/~01', value: 10 }], { '/': 9, '~1': 10 }],
  [
    'A.16',
    { foo: ['bar'] },
    [{ op: 'add', path: '/foo/-', value: ['abc', 'def'] }],
    { foo: ['bar', ['abc', 'def']] },
  ],
  ['empty key', { '': 1 }, [{ op: 'replace', path: '/', value: 2 }], { '': 2 }],
  ['whole document', { a: 1 }, [{ op: 'replace', path: '', value: { b: 2 } }], { b: 2 }],
  ['copy', { a: { b: 1 } }, [{ op: 'copy', from: '/a', path: '/c' }], { a: { b: 1 }, c: { b: 1 } }],
  [
    'copies are apart',
    { a: { b: 1 } },
    [
      { op: 'copy', from: '/a', path: '/c' },
      { op: 'add', path: '/c/b', value: 2 },
    ],
    { a: { b: 1 }, c: { b: 2 } },
  ],
  ['null value', { a: 1 }, [{ op: 'add', path: '/a', value: null }], { a: null }],
  [
    'label with a slash',
    { labels: {} },
    [{ op: 'add', path: '/labels/x.io~1a', value: 'b' }],
    { labels: { 'x.io/a': 'b' } },
  ],
  ['move onto itself', { a: 1 }, [{ op: 'move', from: '/a', path: '/a' }], { a: 1 }],
  ['replace in an array', [1, 2, 3], [{ op: 'replace', path: '/1', value: 9 }], [1, 9, 3]],
];

for (const [name, document, patch, result] of GOOD)
  test(`applyJsonPatch() case ${name}`, () => {
    const before = structuredClone(document);
    assert.deepEqual(applyJsonPatch(document, patch), result);
    assert.deepEqual(document, before, 'the document is not changed');
  });

test('applyJsonPatch() refuses with 422 what does not apply, and with 400 what is no patch', () => {
  const document = { a: { b: 1 }, list: [1, 2] };
  const table: [unknown, number][] = [
    [[{ op: 'remove', path: '/nope' }], 422],
    [[{ op: 'replace', path: '/nope', value: 1 }], 422],
    [[{ op: 'add', path: '/nope/deeper', value: 1 }], 422],
    [[{ op: 'add', path: '/a/b/c', value: 1 }], 422],
    [[{ op: 'add', path: '/list/3', value: 1 }], 422],
    [[{ op: 'add', path: '/list/01', value: 1 }], 422],
    [[{ op: 'add', path: '/list/x', value: 1 }], 422],
    [[{ op: 'remove', path: '/list/2' }], 422],
    [[{ op: 'remove', path: '/list/-' }], 422],
    [[{ op: 'remove', path: '' }], 422],
    [[{ op: 'test', path: '/a/b', value: '1' }], 422],
    [[{ op: 'move', from: '/a', path: '/a/b' }], 422],
    [[{ op: 'move', from: '/nope', path: '/a' }], 422],
    [[{ op: 'remove', path: '/constructor' }], 422],
    [{ op: 'remove', path: '/a' }, 400],
    [null, 400],
    [['x'], 400],
    [[{ op: 'delete', path: '/a' }], 400],
    [[{ op: 'remove' }], 400],
    [[{ op: 'remove', path: 'a' }], 400],
    [[{ op: 'remove', path: '/a~2' }], 400],
    [[{ op: 'add', path: '/a' }], 400],
    [[{ op: 'copy', path: '/a' }], 400],
  ];
  for (const [patch, status] of table)
    assert.equal(statusOf(document, patch), status, JSON.stringify(patch));
});

test('applyJsonPatch() changes nothing if a later operation fails', () => {
  const document = { a: 1 };
  const patch = [
    { op: 'add', path: '/b', value: 1 },
    { op: 'test', path: '/a', value: 2 },
  ];
  assert.equal(statusOf(document, patch), 422);
  assert.deepEqual(document, { a: 1 });
});

test('applyJsonPatch() bounds the work of a patch', () => {
  const many = Array.from({ length: MAX_OPERATIONS + 1 }, () => ({
    op: 'test',
    path: '',
    value: 1,
  }));
  assert.equal(statusOf(1, many), 413);
  const doubling = Array.from({ length: 40 }, (_, i) => ({ op: 'copy', from: '', path: `/k${i}` }));
  assert.ok([400, 413].includes(statusOf({ a: 'x'.repeat(1000) }, doubling)));
});

test('applyJsonPatch() throws nothing but ApiError', () => {
  const pointer = fc.constantFrom(
    '',
    '/',
    '/a',
    '/a/b',
    '/a/0',
    '/a/-',
    '/~0',
    '/~',
    'a',
    '/__proto__',
    '/a/__proto__/x',
  );
  const operation = fc.record(
    {
      op: fc.constantFrom('add', 'remove', 'replace', 'move', 'copy', 'test', 'x'),
      path: pointer,
      from: pointer,
      value: fc.jsonValue(),
    },
    { requiredKeys: ['op', 'path'] },
  );
  fc.assert(
    fc.property(
      fc.jsonValue(),
      fc.oneof(fc.jsonValue(), fc.array(operation, { maxLength: 6 })),
      (document, patch) => {
        const status = statusOf(document, patch);
        assert.ok([200, 400, 413, 422].includes(status), String(status));
        assert.equal(Object.keys(Object.prototype).length, 0);
      },
    ),
    { numRuns: 2000 },
  );
});
