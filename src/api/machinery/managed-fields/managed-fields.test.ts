import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Schema } from '../../kind.ts';
import { isObject, type JsonObject } from '../json.ts';
import { any, int32, kindSchema, list, object, string, stringMap, strings } from '../schema.ts';
import { conflictError } from './conflict-error.ts';
import {
  decodeFieldsV1,
  difference,
  encodeFieldsV1,
  type FieldSet,
  intersection,
  isEmptySet,
  pathsOf,
  sameSet,
  setOf,
  union,
} from './field-set.ts';
import { compareFields, fieldsOf } from './fields-of.ts';
import {
  decodeManagers,
  encodeManagers,
  keptManagers,
  MAX_UPDATE_MANAGERS,
  type Manager,
} from './managers.ts';
import { mergeConfig } from './merge.ts';
import { applyConfiguration, trackUpdate, type WriteScope } from './ownership.ts';
import { formatPath, keyElement, parsePathElement } from './path-element.ts';
import { listProblems } from './shape.ts';

const shown = (managers: readonly Manager[]) => encodeManagers(keptManagers(managers));

const SCHEMA = kindSchema('Thing', 'For tests.', {
  spec: object('ThingSpec', {
    size: int32('A number.'),
    name: string('A text.'),
    labels: stringMap('A map.'),
    selector: { ...stringMap('A map that is one whole.'), atomic: true },
    ports: list(
      object('ThingPort', {
        port: int32('Key.'),
        protocol: { ...string('Key.'), default: 'TCP' },
        target: string('A text.'),
      }),
      'A list that is a map.',
      { mergeKey: 'port', mapKeys: ['port', 'protocol'] },
    ),
    tags: strings('A set.', { mergeSet: true }),
    args: strings('One whole.'),
    tls: object('ThingTls', { mode: string('A text.'), port: int32('A number.') }),
    extra: any('Anything.'),
  }),
  status: object('ThingStatus', { phase: string('A text.') }),
});

const META = { apiVersion: 'example.org/v1', kind: 'Thing', metadata: { name: 'a' } };

function thing(spec: JsonObject, rest: JsonObject = {}): JsonObject {
  return { ...META, spec, ...rest };
}

function scope(name: string, operation: 'Apply' | 'Update', more: JsonObject = {}): WriteScope {
  const writer = {
    name,
    operation,
    apiVersion: 'example.org/v1',
    subresource: '',
    time: 'now',
    ...more,
  };
  return { schema: SCHEMA, hasStatus: true, writer };
}

interface State {
  object: JsonObject | undefined;
  managers: readonly Manager[];
}

const NOTHING: State = { object: undefined, managers: [] };

function apply(state: State, name: string, spec: JsonObject, force = false): State {
  const result = applyConfiguration(scope(name, 'Apply'), {
    live: state.object,
    managers: state.managers,
    config: thing(spec),
    force,
  });
  if (result.kind === 'conflicts') throw conflictError(result.conflicts);
  return result;
}

function update(state: State, name: string, spec: JsonObject): State {
  const after = thing(spec);
  const change = { before: state.object, after, managers: state.managers };
  return { object: after, managers: trackUpdate(scope(name, 'Update'), change) };
}

/** `manager: .path .path` per manager. */
function owners({ managers }: State): Record<string, string[]> {
  return Object.fromEntries(
    managers.map((manager) => [manager.name, pathsOf(manager.fields).map(formatPath).sort()]),
  );
}

function specOf({ object }: State): unknown {
  return object?.spec;
}

test('a path element is read as it is written, in one canonical form', () => {
  const table: [string, string | undefined][] = [
    ['f:spec', 'f:spec'],
    ['f:a.b/c', 'f:a.b/c'],
    ['f:', 'f:'],
    ['v:"x"', 'v:"x"'],
    ['v: 1', 'v:1'],
    ['v:true', 'v:true'],
    ['k:{"protocol":"TCP","port":80}', 'k:{"port":80,"protocol":"TCP"}'],
    ['k:{ "name" : "x" }', 'k:{"name":"x"}'],
    ['i:3', 'i:3'],
    ['i:-1', undefined],
    ['k:[]', undefined],
    ['k:{', undefined],
    ['v:', undefined],
    ['x:1', undefined],
    ['', undefined],
    ['.', undefined],
  ];
  for (const [text, canonical] of table)
    if (canonical === undefined) assert.throws(() => parsePathElement(text), Error, text);
    else assert.equal(parsePathElement(text), canonical);
});

test('a key takes the default of a field that is missing', () => {
  const keyOf = (item: JsonObject) => keyElement(item, ['protocol', 'port'], { protocol: 'TCP' });
  assert.equal(keyOf({ port: 80 }), 'k:{"port":80,"protocol":"TCP"}');
  assert.equal(keyOf({ port: 80, protocol: 'UDP', x: 1 }), 'k:{"port":80,"protocol":"UDP"}');
  assert.equal(keyOf({}), 'k:{"protocol":"TCP"}');
});

test('formatPath() shows a path as upstream does', () => {
  const path = ['f:spec', 'f:ports', 'k:{"port":80,"protocol":"TCP"}', 'f:target'];
  assert.equal(formatPath(path), '.spec.ports[port=80,protocol="TCP"].target');
  assert.equal(formatPath(['f:tags', 'v:"x"']), '.tags[="x"]');
  assert.equal(formatPath(['f:list', 'i:2']), '.list[2]');
});

test('FieldsV1 is read and written', () => {
  const table: [JsonObject, string[]][] = [
    [{}, []],
    [{ 'f:a': {} }, ['.a']],
    [{ 'f:a': { 'f:b': {} } }, ['.a.b']],
    [{ 'f:a': { '.': {}, 'f:b': {} } }, ['.a', '.a.b']],
    [{ 'f:p': { 'k:{"n":1}': { '.': {}, 'f:n': {} } } }, ['.p[n=1]', '.p[n=1].n']],
    [{ 'f:s': { 'v:"x"': {}, 'v:"y"': {} } }, ['.s[="x"]', '.s[="y"]']],
    [{ 'f:__proto__': { 'f:constructor': {} } }, ['.__proto__.constructor']],
  ];
  for (const [text, paths] of table) {
    const set = decodeFieldsV1(text);
    assert.deepEqual(pathsOf(set).map(formatPath), paths);
    assert.deepEqual(encodeFieldsV1(set), text);
  }
  for (const bad of [1, null, [], { 'f:a': 1 }, { x: {} }, { 'k:1': {} }])
    assert.throws(() => decodeFieldsV1(bad), /Cannot read|JSON/, JSON.stringify(bad));
  let deep: JsonObject = {};
  for (let i = 0; i < 500; i++) deep = { 'f:a': deep };
  assert.throws(() => decodeFieldsV1(deep), /deeper/);
});

const element = fc.constantFrom('f:a', 'f:b', 'v:1', 'k:{"n":"x"}');
const setArbitrary = fc
  .array(fc.array(element, { minLength: 1, maxLength: 3 }), { maxLength: 8 })
  .map(setOf);
const textOf = (set: FieldSet) =>
  pathsOf(set)
    .map((path) => path.join(' '))
    .sort();

test('union, intersection and difference of field sets are those of their paths', () => {
  fc.assert(
    fc.property(setArbitrary, setArbitrary, (a, b) => {
      const has = (set: FieldSet) => new Set(textOf(set));
      const [inA, inB] = [has(a), has(b)];
      assert.deepEqual(textOf(union(a, b)), [...inA.union(inB)].sort());
      assert.deepEqual(textOf(intersection(a, b)), [...inA.intersection(inB)].sort());
      assert.deepEqual(textOf(difference(a, b)), [...inA.difference(inB)].sort());
      assert.equal(sameSet(a, b), textOf(a).join() === textOf(b).join());
      assert.equal(isEmptySet(difference(a, a)), true);
      assert.ok(sameSet(decodeFieldsV1(JSON.parse(JSON.stringify(encodeFieldsV1(a)))), a));
    }),
  );
});

test('fieldsOf() claims wholes, keys of maps and elements of lists', () => {
  const table: [JsonObject, string[]][] = [
    [{ size: 1 }, ['.size']],
    [{ labels: { a: 'x' } }, ['.labels.a']],
    [{ labels: {} }, ['.labels']],
    [{ selector: { a: 'x' } }, ['.selector']],
    [{ args: ['a', 'b'] }, ['.args']],
    [{ tags: ['a', 'b'] }, ['.tags[="a"]', '.tags[="b"]']],
    [
      { ports: [{ port: 80, target: 'x' }] },
      [
        '.ports[port=80,protocol="TCP"]',
        '.ports[port=80,protocol="TCP"].port',
        '.ports[port=80,protocol="TCP"].target',
      ],
    ],
    [{ tls: { mode: 'x' } }, ['.tls.mode']],
    [{ tls: {} }, ['.tls']],
    [{ extra: { a: { b: 1 }, c: [1] } }, ['.extra.a', '.extra.a.b', '.extra.c']],
    [{}, []],
  ];
  for (const [spec, paths] of table) {
    const below = pathsOf(fieldsOf(SCHEMA.fields.spec, spec)).map(formatPath).sort();
    assert.deepEqual(below, paths, JSON.stringify(spec));
  }
});

test('compareFields() names what was added, modified and removed', () => {
  type Row = [
    JsonObject,
    JsonObject,
    { added?: string[]; modified?: string[]; removed?: string[] },
  ];
  const table: Row[] = [
    [{ size: 1 }, { size: 1 }, {}],
    [{ size: 1 }, { size: 2 }, { modified: ['.size'] }],
    [{}, { size: 2 }, { added: ['.size'] }],
    [{ size: 1 }, {}, { removed: ['.size'] }],
    [
      { labels: { a: '1' } },
      { labels: { a: '2', b: '1' } },
      { modified: ['.labels.a'], added: ['.labels.b'] },
    ],
    [{}, { labels: { a: '1' } }, { added: ['.labels', '.labels.a'] }],
    [{ labels: { a: '1' } }, {}, { removed: ['.labels', '.labels.a'] }],
    [{ labels: { a: '1' } }, { labels: {} }, { added: ['.labels'], removed: ['.labels.a'] }],
    [{ labels: {} }, { labels: { a: '1' } }, { added: ['.labels.a'], removed: ['.labels'] }],
    [{ selector: { a: '1' } }, { selector: { b: '1' } }, { modified: ['.selector'] }],
    [{ args: ['a', 'b'] }, { args: ['b', 'a'] }, { modified: ['.args'] }],
    [{ tags: ['a', 'b'] }, { tags: ['b', 'a'] }, {}],
    [
      { tags: ['a', 'b'] },
      { tags: ['b', 'c'] },
      { added: ['.tags[="c"]'], removed: ['.tags[="a"]'] },
    ],
    [
      { ports: [{ port: 1 }, { port: 2 }] },
      { ports: [{ port: 2, protocol: 'TCP' }, { port: 1 }] },
      { added: ['.ports[port=2,protocol="TCP"].protocol'] },
    ],
    [
      { ports: [{ port: 1, target: 'a' }] },
      { ports: [{ port: 1, target: 'b' }] },
      { modified: ['.ports[port=1,protocol="TCP"].target'] },
    ],
    [
      { ports: [{ port: 1 }] },
      { ports: [{ port: 1, protocol: 'UDP' }] },
      {
        added: [
          '.ports[port=1,protocol="UDP"]',
          '.ports[port=1,protocol="UDP"].port',
          '.ports[port=1,protocol="UDP"].protocol',
        ],
        removed: ['.ports[port=1,protocol="TCP"]', '.ports[port=1,protocol="TCP"].port'],
      },
    ],
    [{ ports: [{ port: 1 }, { port: 1 }] }, { ports: [{ port: 1 }, { port: 1 }] }, {}],
    [{ extra: 1 }, { extra: { a: 1 } }, { modified: ['.extra'], added: ['.extra.a'] }],
    [{ extra: { a: [1] } }, { extra: { a: [2] } }, { modified: ['.extra.a'] }],
  ];
  for (const [before, after, expected] of table) {
    const result = compareFields(SCHEMA.fields.spec, before, after);
    const show = (set: FieldSet) => pathsOf(set).map(formatPath).sort();
    const shown = {
      added: show(result.added),
      modified: show(result.modified),
      removed: show(result.removed),
    };
    const wanted = { added: [], modified: [], removed: [], ...expected };
    assert.deepEqual(shown, wanted, `${JSON.stringify(before)} to ${JSON.stringify(after)}`);
  }
});

test('mergeConfig() keeps what the configuration does not mention, in its place', () => {
  const table: [JsonObject, JsonObject, JsonObject][] = [
    [{ size: 1, name: 'x' }, { size: 2 }, { size: 2, name: 'x' }],
    [{ labels: { a: '1' } }, { labels: { b: '2' } }, { labels: { a: '1', b: '2' } }],
    [{ selector: { a: '1' } }, { selector: { b: '2' } }, { selector: { b: '2' } }],
    [{ args: ['a'] }, { args: ['b'] }, { args: ['b'] }],
    [{ tags: ['a', 'b'] }, { tags: ['c', 'a'] }, { tags: ['c', 'a', 'b'] }],
    [
      { tags: ['x', 'a', 'y', 'b', 'z'] },
      { tags: ['a', 'b'] },
      { tags: ['x', 'a', 'y', 'b', 'z'] },
    ],
    [{ tags: ['a', 'b'] }, { tags: ['b', 'a'] }, { tags: ['b', 'a'] }],
    [
      {
        ports: [
          { port: 1, target: 'a' },
          { port: 2, target: 'b' },
        ],
      },
      { ports: [{ port: 2, target: 'c' }, { port: 3 }] },
      { ports: [{ port: 1, target: 'a' }, { port: 2, target: 'c' }, { port: 3 }] },
    ],
    [{ extra: { a: 1 } }, { extra: { b: [1] } }, { extra: { a: 1, b: [1] } }],
    [{ extra: 1 }, { extra: { b: 1 } }, { extra: { b: 1 } }],
  ];
  for (const [live, config, merged] of table)
    assert.deepEqual(mergeConfig(SCHEMA.fields.spec, live, config), merged, JSON.stringify(config));
});

test('who applies owns what he says, and what he says no more is removed', () => {
  let state = apply(NOTHING, 'ann', { size: 1, labels: { a: '1', b: '2' }, ports: [{ port: 80 }] });
  assert.deepEqual(Object.keys(owners(state)), ['ann']);
  state = apply(state, 'ann', { labels: { a: '1' }, ports: [] });
  assert.deepEqual(specOf(state), { labels: { a: '1' }, ports: [] });
  state = apply(state, 'ann', { size: 2 });
  assert.deepEqual(specOf(state), { size: 2 });
});

test('what is not applied any more stays if another manager has it', () => {
  let state = apply(NOTHING, 'ann', { size: 1, labels: { a: '1' } });
  state = apply(state, 'bob', { size: 1, labels: { b: '2' } });
  assert.deepEqual(owners(state), {
    ann: ['.spec.labels.a', '.spec.size'],
    bob: ['.spec.labels.b', '.spec.size'],
  });
  state = apply(state, 'ann', { name: 'x' });
  assert.deepEqual(specOf(state), { size: 1, labels: { b: '2' }, name: 'x' });
  assert.deepEqual(owners(state), { bob: ['.spec.labels.b', '.spec.size'], ann: ['.spec.name'] });
});

test('an element goes with what nobody owns in it, and stays while somebody owns a part', () => {
  let state = apply(NOTHING, 'ann', { ports: [{ port: 80 }, { port: 81 }] });
  // The server fills in what nobody asked for.
  state = {
    ...state,
    object: thing({
      ports: [
        { port: 80, protocol: 'TCP' },
        { port: 81, protocol: 'TCP' },
      ],
      tls: { port: 1 },
    }),
  };
  state = apply(state, 'bob', { ports: [{ port: 81, target: 'x' }] });
  state = apply(state, 'ann', { size: 1 });
  assert.deepEqual(specOf(state), {
    ports: [{ port: 81, protocol: 'TCP', target: 'x' }],
    tls: { port: 1 },
    size: 1,
  });
});

test('a structure that is not applied any more goes with what the server filled in', () => {
  let state = apply(NOTHING, 'ann', { size: 1, tls: { mode: 'x' } });
  state = { ...state, object: thing({ size: 1, tls: { mode: 'x', port: 443 } }) };
  assert.deepEqual(specOf(apply(state, 'ann', { size: 1 })), { size: 1 });
});

test('a field of another manager is a conflict unless it has the same value or is forced', () => {
  const state = apply(apply(NOTHING, 'ann', { size: 1, name: 'x' }), 'bob', { labels: { a: '1' } });
  assert.doesNotThrow(() => apply(state, 'bob', { size: 1 }));
  assert.throws(
    () => apply(state, 'bob', { size: 2, name: 'y' }),
    (error: Error & { status?: number; details?: unknown }) => {
      assert.equal(error.status, 409);
      assert.equal(
        error.message,
        'Apply failed with 2 conflicts: conflicts with "ann" using example.org/v1:\n- .spec.size\n- .spec.name',
      );
      assert.deepEqual(error.details, {
        causes: ['.spec.size', '.spec.name'].map((field) => ({
          reason: 'FieldManagerConflict',
          message: 'conflict with "ann" using example.org/v1',
          field,
        })),
      });
      return true;
    },
  );
  const forced = apply(state, 'bob', { size: 2 }, true);
  assert.deepEqual(owners(forced), { ann: ['.spec.name'], bob: ['.spec.size'] });
  assert.deepEqual(specOf(forced), { size: 2, name: 'x' });
});

test('a conflict with who updated names the time, and the subresource', () => {
  const manager = {
    name: 'm',
    operation: 'Update',
    apiVersion: 'v1',
    subresource: 'status',
    time: 'T',
    fields: setOf([['f:a']]),
  } as const;
  assert.equal(
    conflictError([{ manager, fields: manager.fields }]).message,
    'Apply failed with 1 conflict: conflict with "m" with subresource "status" using v1 at T: .a',
  );
});

test('who updates owns what he changed, and takes it from others', () => {
  let state = apply(NOTHING, 'ann', { size: 1, labels: { a: '1' }, tags: ['x', 'y'] });
  state = update(state, 'ed', { size: 2, labels: { a: '1', b: '2' }, tags: ['y'] });
  assert.deepEqual(owners(state), {
    ann: ['.spec.labels.a', '.spec.tags[="y"]'],
    ed: ['.spec.labels.b', '.spec.size'],
  });
  assert.throws(
    () => apply(state, 'ann', { size: 1 }),
    /conflict with "ed" using example.org\/v1 at now: .spec.size/,
  );
  state = update(state, 'ed', { labels: { a: '1' } });
  assert.deepEqual(owners(state), { ann: ['.spec.labels.a'] });
});

test('an object without managers gives all it has to somebody from before', () => {
  const state = { object: thing({ size: 1, name: 'x' }), managers: [] };
  assert.throws(() => apply(state, 'ann', { size: 2 }), /conflict with "before-first-apply"/);
  assert.deepEqual(owners(apply(state, 'ann', { size: 1 })), {
    'before-first-apply': ['.spec.name', '.spec.size'],
    ann: ['.spec.size'],
  });
});

test('writes to the status own only the status, and writes to the object none of it', () => {
  const before = thing({ size: 1 });
  const after = thing({ size: 2 }, { status: { phase: 'x' } });
  const track = (subresource: string) =>
    trackUpdate(scope('m', 'Update', { subresource }), { before, after, managers: [] }).flatMap(
      (manager) => pathsOf(manager.fields).map(formatPath),
    );
  assert.deepEqual(track('status'), ['.status.phase']);
  assert.deepEqual(track(''), ['.spec.size']);
});

test('applying again what is there changes nothing, not even the time', () => {
  const first = apply(NOTHING, 'ann', { size: 1, ports: [{ port: 80 }] });
  const again = applyConfiguration(scope('ann', 'Apply', { time: 'later' }), {
    live: first.object,
    managers: first.managers,
    config: thing({ ports: [{ port: 80 }], size: 1 }),
    force: false,
  });
  assert.ok(again.kind === 'applied');
  assert.deepEqual(again.object, first.object);
  assert.deepEqual(shown(again.managers), shown(first.managers));
});

test('listProblems() finds elements that cannot be told apart', () => {
  const table: [JsonObject, RegExp | undefined][] = [
    [{ ports: [{ port: 1 }, { port: 2 }] }, undefined],
    [{ ports: [{ port: 1 }, { port: 1, protocol: 'UDP' }] }, undefined],
    [{ ports: [{ port: 1 }, { port: 1, protocol: 'TCP' }] }, /\.ports: duplicate entries for key/],
    [{ tags: ['a', 'a'] }, /\.tags: duplicate entries for key \["a"\]/],
    [{ args: ['a', 'a'] }, undefined],
  ];
  for (const [spec, expected] of table) {
    const [problem] = listProblems(SCHEMA.fields.spec, spec);
    if (expected === undefined) assert.equal(problem, undefined);
    else assert.match(problem ?? '', expected);
  }
});

test('managers are read and written, oldest first, and many that update become one', () => {
  const entry = (i: number) => ({
    manager: `m${i}`,
    operation: 'Update',
    apiVersion: 'v1',
    time: `2026-01-01T00:00:${String(i).padStart(2, '0')}Z`,
    fieldsType: 'FieldsV1',
    fieldsV1: { [`f:f${i}`]: {} },
  });
  const entries = Array.from({ length: MAX_UPDATE_MANAGERS }, (_, i) => entry(i));
  assert.deepEqual(shown(decodeManagers(entries.toReversed())), entries);
  const more = shown(decodeManagers([...entries, entry(10), entry(11)]));
  assert.equal(more.length, MAX_UPDATE_MANAGERS);
  assert.deepEqual(more[0]?.manager, 'ancient-changes');
  assert.deepEqual(more[0]?.fieldsV1, { 'f:f0': {}, 'f:f1': {}, 'f:f2': {} });
  for (const bad of ['x', [1], [{}], [{ operation: 'Apply', fieldsV1: 1 }]])
    assert.throws(() => decodeManagers(bad), /Cannot read/);
});

/** Specs of the test's kind, small enough that they often meet. */
const few = fc.constantFrom('a', 'b', 'c');
const port = fc.record(
  { port: fc.constantFrom(80, 81), protocol: fc.constantFrom('TCP', 'UDP'), target: few },
  { requiredKeys: ['port'], noNullPrototype: true },
);
const specs: fc.Arbitrary<JsonObject> = fc.record(
  {
    size: fc.constantFrom(1, 2),
    labels: fc.dictionary(few, few, { maxKeys: 2, noNullPrototype: true }),
    selector: fc.dictionary(few, few, { maxKeys: 2, noNullPrototype: true }),
    ports: fc.uniqueArray(port, {
      maxLength: 3,
      selector: (p) => `${p.port}/${p.protocol ?? 'TCP'}`,
    }),
    tags: fc.uniqueArray(few, { maxLength: 3 }),
    args: fc.array(few, { maxLength: 2 }),
    tls: fc.record(
      { mode: few, port: fc.constantFrom(1, 2) },
      { requiredKeys: [], noNullPrototype: true },
    ),
    extra: fc.constantFrom<unknown>(1, { a: 1 }, { a: { b: 1 } }, [1]),
  },
  { requiredKeys: [], noNullPrototype: true },
);
const steps = fc.array(
  fc.record({ who: fc.constantFrom('ann', 'bob', 'ed'), spec: specs, force: fc.boolean() }),
  { minLength: 1, maxLength: 8 },
);

function contains(schema: Schema | undefined, object: unknown, config: unknown): boolean {
  // What was applied is there if applying it again changes nothing.
  return (
    JSON.stringify(sorted(mergeConfig(schema, object, config))) === JSON.stringify(sorted(object))
  );
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.keys(value)
      .sort()
      .map((key) => [key, sorted(value[key])]),
  );
}

test('whatever is applied and updated by several: who applied last is obeyed, and owners exist', () => {
  fc.assert(
    fc.property(steps, (history) => {
      let state = NOTHING;
      for (const { who, spec, force } of history) {
        if (who === 'ed') {
          state = update(state, who, spec);
          continue;
        }
        try {
          state = apply(state, who, spec, force);
        } catch (error) {
          assert.equal(force, false);
          assert.equal((error as { status?: number }).status, 409);
          state = apply(state, who, spec, true);
        }
        assert.ok(
          contains(SCHEMA, state.object, thing(spec)),
          'the configuration is in the object',
        );
        const again = apply(state, who, spec);
        assert.deepEqual(again.object, state.object, 'applying again changes nothing');
        assert.deepEqual(shown(again.managers), shown(state.managers));
      }
      const paths = pathsOf(compareFields(SCHEMA, {}, state.object).added);
      // An object that holds something is there too.
      const there = setOf(paths.flatMap((path) => path.map((_, i) => path.slice(0, i + 1))));
      for (const manager of state.managers) {
        const ghosts = difference(manager.fields, there);
        assert.deepEqual(
          pathsOf(ghosts).map(formatPath),
          [],
          `${manager.name} owns what is not there`,
        );
      }
      const encoded = shown(state.managers);
      assert.deepEqual(shown(decodeManagers(JSON.parse(JSON.stringify(encoded)))), encoded);
    }),
    { numRuns: 500 },
  );
});

test('one alone who applies a and then b has the same as one who applied b', () => {
  fc.assert(
    fc.property(specs, specs, (a, b) => {
      const both = apply(apply(NOTHING, 'ann', a), 'ann', b);
      const only = apply(NOTHING, 'ann', b);
      assert.deepEqual(sorted(withoutEmpty(specOf(both))), sorted(withoutEmpty(specOf(only))));
      assert.deepEqual(shown(both.managers), shown(only.managers));
    }),
  );
});

/** An emptied map may stay as an empty one, or not. */
function withoutEmpty(value: unknown): unknown {
  if (!isObject(value)) return value ?? {};
  const isEmpty = (part: unknown) =>
    typeof part === 'object' && part !== null && Object.keys(part).length === 0;
  return Object.fromEntries(Object.entries(value).filter(([, part]) => !isEmpty(part)));
}

test('anything may stand in managedFields and in a configuration', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), (managers, spec) => {
      let decoded: readonly Manager[] = [];
      try {
        decoded = decodeManagers(managers);
      } catch (error) {
        assert.ok(error instanceof Error);
      }
      const request = {
        live: thing({ size: 1 }),
        managers: decoded,
        config: { ...META, spec },
        force: true,
      };
      assert.equal(applyConfiguration(scope('m', 'Apply'), request).kind, 'applied');
    }),
  );
});
