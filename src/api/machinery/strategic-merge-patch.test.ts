import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ApiError } from '#lib/errors.ts';
import { POD } from '../core/v1/pod.ts';
import { SERVICE } from '../core/v1/service.ts';
import type { ObjectSchema } from '../kind.ts';
import type { JsonObject } from './json.ts';
import { any, int32, list, map, object, string, stringMap, strings } from './schema.ts';
import { applyStrategicMergePatch } from './strategic-merge-patch.ts';

const ITEM = object('Item', {
  name: string(''),
  value: int32(''),
  inner: strings('', { mergeSet: true }),
});
const SCHEMA: ObjectSchema = object('Test', {
  text: string(''),
  number: int32(''),
  items: list(ITEM, '', { mergeKey: 'name' }),
  plain: strings(''),
  plainObjects: list(ITEM, ''),
  set: strings('', { mergeSet: true }),
  labels: stringMap(''),
  inner: object('Inner', { a: int32(''), b: int32('') }),
  byName: map(ITEM, ''),
  free: any(''),
});

interface Case {
  name: string;
  current: JsonObject;
  patch: JsonObject;
  result: JsonObject;
}

const CASES: Case[] = [
  {
    name: 'scalars are set, added and removed',
    current: { text: 'a', number: 1 },
    patch: { text: 'b', number: null, labels: { x: 'y' } },
    result: { text: 'b', labels: { x: 'y' } },
  },
  {
    name: 'objects are merged',
    current: { inner: { a: 1, b: 2 } },
    patch: { inner: { b: 3 } },
    result: { inner: { a: 1, b: 3 } },
  },
  {
    name: 'a label is removed with null',
    current: { labels: { a: '1', b: '2' } },
    patch: { labels: { a: null } },
    result: { labels: { b: '2' } },
  },
  {
    name: 'nulls of a new object are dropped',
    current: {},
    patch: { inner: { a: null, b: 1 } },
    result: { inner: { b: 1 } },
  },
  {
    name: 'a list with a merge key is merged by element',
    current: {
      items: [
        { name: '1', value: 1 },
        { name: '2', value: 2 },
      ],
    },
    patch: {
      items: [
        { name: '2', value: 9 },
        { name: '3', value: 3 },
      ],
    },
    result: {
      items: [
        { name: '1', value: 1 },
        { name: '2', value: 9 },
        { name: '3', value: 3 },
      ],
    },
  },
  {
    name: 'an element is removed with $patch: delete',
    current: { items: [{ name: '1' }, { name: '2' }] },
    patch: { items: [{ $patch: 'delete', name: '1' }] },
    result: { items: [{ name: '2' }] },
  },
  {
    name: '$patch: delete of an element that is not there does nothing',
    current: { items: [{ name: '1' }] },
    patch: { items: [{ $patch: 'delete', name: '9' }] },
    result: { items: [{ name: '1' }] },
  },
  {
    name: 'a list is replaced with an element $patch: replace',
    current: { items: [{ name: '1' }, { name: '2' }] },
    patch: { items: [{ name: '3' }, { $patch: 'replace' }] },
    result: { items: [{ name: '3' }] },
  },
  {
    name: 'an object is replaced with $patch: replace',
    current: { inner: { a: 1, b: 2 } },
    patch: { inner: { $patch: 'replace', b: 3 } },
    result: { inner: { b: 3 } },
  },
  {
    name: 'an object is emptied with $patch: delete',
    current: { inner: { a: 1, b: 2 }, text: 'x' },
    patch: { inner: { $patch: 'delete' } },
    result: { inner: {}, text: 'x' },
  },
  {
    name: '$patch: merge is the default said aloud',
    current: { inner: { a: 1 } },
    patch: { inner: { $patch: 'merge', b: 2 } },
    result: { inner: { a: 1, b: 2 } },
  },
  {
    name: 'a list without a merge key is replaced',
    current: { plain: ['a', 'b'], plainObjects: [{ name: '1', value: 1 }] },
    patch: { plain: ['c'], plainObjects: [{ name: '2' }] },
    result: { plain: ['c'], plainObjects: [{ name: '2' }] },
  },
  {
    name: 'a set is united',
    current: { set: ['a', 'b'] },
    patch: { set: ['b', 'c'] },
    result: { set: ['a', 'b', 'c'] },
  },
  {
    name: 'values leave a set with $deleteFromPrimitiveList',
    current: { set: ['a', 'b', 'c'] },
    patch: { '$deleteFromPrimitiveList/set': ['a', 'z'], set: ['d'] },
    result: { set: ['b', 'c', 'd'] },
  },
  {
    name: '$deleteFromPrimitiveList of a list that is not there makes none',
    current: { text: 'x' },
    patch: { '$deleteFromPrimitiveList/set': ['a'] },
    result: { text: 'x' },
  },
  {
    name: '$setElementOrder orders by merge key',
    current: {
      items: [
        { name: '1', value: 1 },
        { name: '2', value: 2 },
        { name: '3', value: 3 },
      ],
    },
    patch: {
      '$setElementOrder/items': [{ name: '3' }, { name: '1' }, { name: '2' }],
      items: [{ name: '1', value: 9 }],
    },
    result: {
      items: [
        { name: '3', value: 3 },
        { name: '1', value: 9 },
        { name: '2', value: 2 },
      ],
    },
  },
  {
    name: '$setElementOrder alone orders the stored list',
    current: { set: ['a', 'b', 'c'] },
    patch: { '$setElementOrder/set': ['c', 'a', 'b'] },
    result: { set: ['c', 'a', 'b'] },
  },
  {
    name: 'what $setElementOrder does not name keeps its place',
    current: { items: [{ name: 'server' }, { name: 'a' }, { name: 'b' }] },
    patch: {
      '$setElementOrder/items': [{ name: 'b' }, { name: 'a' }, { name: 'new' }],
      items: [{ name: 'new' }],
    },
    result: { items: [{ name: 'server' }, { name: 'b' }, { name: 'a' }, { name: 'new' }] },
  },
  {
    name: 'what stood between two named elements stays between them',
    current: { set: ['a', 'server', 'b'] },
    patch: { '$setElementOrder/set': ['a', 'b'] },
    result: { set: ['a', 'server', 'b'] },
  },
  {
    name: 'the elements of a patch come in its own order',
    current: { items: [{ name: '1' }, { name: '2' }, { name: '3' }] },
    patch: { items: [{ name: '3' }, { name: '1' }] },
    result: { items: [{ name: '2' }, { name: '3' }, { name: '1' }] },
  },
  {
    name: '$retainKeys removes what it does not name',
    current: { inner: { a: 1, b: 2 } },
    patch: { inner: { $retainKeys: ['b'], b: 3 } },
    result: { inner: { b: 3 } },
  },
  {
    name: '$retainKeys may stand beside nulls',
    current: { inner: { a: 1, b: 2 } },
    patch: { inner: { $retainKeys: ['a'], b: null } },
    result: { inner: { a: 1 } },
  },
  {
    name: 'sets inside elements are united',
    current: { items: [{ name: '1', inner: ['a'] }] },
    patch: { items: [{ name: '1', inner: ['b'] }] },
    result: { items: [{ name: '1', inner: ['a', 'b'] }] },
  },
  {
    name: 'values of a map are merged by their schema',
    current: { byName: { x: { name: 'x', inner: ['a'] } } },
    patch: { byName: { x: { inner: ['b'] }, y: { name: 'y' } } },
    result: { byName: { x: { name: 'x', inner: ['a', 'b'] }, y: { name: 'y' } } },
  },
  {
    name: 'what has no schema is merged as in a merge patch',
    current: { free: { a: [1], b: { c: 1 } } },
    patch: { free: { a: [2], b: { d: 2 } } },
    result: { free: { a: [2], b: { c: 1, d: 2 } } },
  },
  {
    name: 'a value of another type is replaced',
    current: { inner: 'text', items: 'text' },
    patch: { inner: { a: 1 }, items: [{ name: '1' }] },
    result: { inner: { a: 1 }, items: [{ name: '1' }] },
  },
  {
    name: 'the whole object is replaced with $patch: replace',
    current: { text: 'a', number: 1 },
    patch: { $patch: 'replace', text: 'b' },
    result: { text: 'b' },
  },
];

for (const { name, current, patch, result } of CASES)
  test(`applyStrategicMergePatch(): ${name}`, () => {
    const before = structuredClone({ current, patch });
    assert.deepEqual(applyStrategicMergePatch(SCHEMA, current, patch), result);
    assert.deepEqual({ current, patch }, before, 'the arguments are not changed');
  });

test('applyStrategicMergePatch() refuses what it cannot apply', () => {
  const table: [unknown, number, RegExp][] = [
    [[], 400, /must be an object/],
    [null, 400, /must be an object/],
    [{ inner: { $patch: 'explode' } }, 400, /inner\.\$patch is "explode"/],
    [{ items: [{ value: 1 }] }, 422, /items\[0\] does not contain its merge key "name"/],
    [{ items: ['a'] }, 400, /items\[0\] must be an object/],
    [{ '$setElementOrder/items': 'a' }, 400, /must be a list/],
    [{ inner: { $retainKeys: ['a'], b: 1 } }, 400, /does not list "b"/],
  ];
  for (const [patch, status, message] of table)
    assert.throws(
      () => applyStrategicMergePatch(SCHEMA, { items: [{ name: '1' }], inner: { a: 1 } }, patch),
      (error) =>
        error instanceof ApiError && error.status === status && message.test(error.message),
      JSON.stringify(patch),
    );
});

test('applyStrategicMergePatch() adds a container to a pod and keeps the others', () => {
  const pod = {
    metadata: { name: 'p', finalizers: ['x.io/a'] },
    spec: { containers: [{ name: 'app', image: 'app:1', env: [{ name: 'A', value: '1' }] }] },
  };
  const patch = {
    metadata: { finalizers: ['x.io/b'] },
    spec: {
      containers: [
        { name: 'side', image: 'side:1' },
        { name: 'app', env: [{ name: 'B', value: '2' }] },
      ],
    },
  };
  assert.deepEqual(applyStrategicMergePatch(POD.schema, pod, patch), {
    metadata: { name: 'p', finalizers: ['x.io/a', 'x.io/b'] },
    spec: {
      containers: [
        { name: 'side', image: 'side:1' },
        {
          name: 'app',
          image: 'app:1',
          env: [
            { name: 'A', value: '1' },
            { name: 'B', value: '2' },
          ],
        },
      ],
    },
  });
});

test('applyStrategicMergePatch() changes the port of a service that kubectl apply sends', () => {
  const service = {
    spec: {
      clusterIP: '10.96.0.7',
      ports: [{ port: 80, protocol: 'TCP', targetPort: 8080, nodePort: 30080 }],
    },
  };
  const patch = {
    spec: {
      '$setElementOrder/ports': [{ port: 80 }, { port: 443 }],
      ports: [
        { port: 80, targetPort: 9090 },
        { port: 443, name: 'tls' },
      ],
    },
  };
  assert.deepEqual(applyStrategicMergePatch(SERVICE.schema, service, patch), {
    spec: {
      clusterIP: '10.96.0.7',
      ports: [
        { port: 80, protocol: 'TCP', targetPort: 9090, nodePort: 30080 },
        { port: 443, name: 'tls' },
      ],
    },
  });
});

test('applyStrategicMergePatch() throws nothing but ApiError', () => {
  const key = fc.constantFrom(
    'text',
    'items',
    'set',
    'plain',
    'inner',
    'labels',
    'free',
    'name',
    'value',
    '$patch',
    '$retainKeys',
    '$setElementOrder/items',
    '$setElementOrder/set',
    '$deleteFromPrimitiveList/set',
    '__proto__',
  );
  const value = fc.letrec<{ value: unknown }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 4 },
      fc.constantFrom(null, 1, 'a', 'replace', 'delete'),
      fc.array(tie('value'), { maxLength: 3 }),
      fc.dictionary(key, tie('value'), { maxKeys: 4, noNullPrototype: true }),
    ),
  })).value;
  const objects = fc.dictionary(key, value, { noNullPrototype: true });
  fc.assert(
    fc.property(objects, fc.oneof(value, objects), (current, patch) => {
      try {
        applyStrategicMergePatch(SCHEMA, current, patch);
      } catch (error) {
        assert.ok(error instanceof ApiError, String(error));
      }
      assert.equal(Object.keys(Object.prototype).length, 0);
    }),
    { numRuns: 3000 },
  );
});
