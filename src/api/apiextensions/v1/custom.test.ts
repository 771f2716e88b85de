import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatFieldError } from '../../machinery/field-errors.ts';
import { isObject, type JsonObject } from '../../machinery/json.ts';
import { formatUnknownField } from '../../machinery/unknown-fields.ts';
import type { KubeObject } from '../../meta.ts';
import { compareVersions, customKinds } from './custom-kind.ts';
import {
  CUSTOM_RESOURCE_DEFINITION,
  type CustomResourceDefinition,
} from './custom-resource-definition.ts';
import { defaultFields, pruneFields } from './decode.ts';
import type { JsonSchema } from './json-schema.ts';
import { compilePattern } from './pattern.ts';
import { rulesOf, ruleWarnings } from './rules.ts';
import { routeDefinition, tierDefinition } from './samples.ts';
import { checkStructural } from './structural.ts';
import { validateValue } from './validate-value.ts';

const problems = (schema: unknown) => checkStructural(schema, 's').map(formatFieldError);
const root = (properties: JsonObject, rest: JsonObject = {}) => ({
  type: 'object',
  properties,
  ...rest,
});

test('checkStructural() accepts what describes every field', () => {
  const preserve = 'x-kubernetes-preserve-unknown-fields';
  const good: JsonObject[] = [
    root({}),
    root({ a: { type: 'string' }, b: { type: 'array', items: { type: 'integer' } } }),
    root({ a: { type: 'object', additionalProperties: { type: 'string' } } }),
    root({ a: { [preserve]: true } }),
    root({
      a: { 'x-kubernetes-int-or-string': true, anyOf: [{ type: 'integer' }, { type: 'string' }] },
    }),
    root(
      { a: { type: 'string' } },
      { oneOf: [{ required: ['a'] }, { properties: { a: { minLength: 1 } } }] },
    ),
    root({ a: { type: 'object', [preserve]: true, 'x-kubernetes-embedded-resource': true } }),
    root({ metadata: { type: 'object', properties: { name: { type: 'string', maxLength: 3 } } } }),
    root({ a: { type: 'object', properties: { b: { type: 'integer' } }, default: { b: 1 } } }),
    ...[routeDefinition(), tierDefinition()].flatMap(({ spec }) =>
      spec.versions.map(({ schema }) => schema?.openAPIV3Schema as JsonObject),
    ),
  ];
  for (const schema of good) assert.deepEqual(problems(schema), [], JSON.stringify(schema));
});

test('checkStructural() refuses what leaves a field open, or says it in the wrong place', () => {
  const bad: [unknown, RegExp][] = [
    [undefined, /s: Required value: schemas are required/],
    [{}, /s\.type: Invalid value: null: must be object at the root/],
    [root({ a: {} }), /s\.properties\[a\]\.type: Required value/],
    [root({ a: { type: 'text' } }), /Unsupported value: "text"/],
    [root({ a: { type: 'array' } }), /items: Required value/],
    [root({ a: { type: 'array', items: [{}] } }), /not an array/],
    [root({ a: 1 }), /must be a schema object/],
    [root({ a: { $ref: '#/b' } }), /\$ref: Forbidden/],
    [root({ a: { type: 'array', items: { type: 'string' }, uniqueItems: true } }), /quadratic/],
    [root({ a: { type: 'string', pattern: '(' } }), /valid regular expression/],
    [root({ a: { type: 'string', maxLength: -1 } }), /not negative/],
    [
      root({
        a: {
          type: 'object',
          properties: { b: { type: 'string' } },
          additionalProperties: { type: 'string' },
        },
      }),
      /mutual exclusive/,
    ],
    [root({ a: { type: 'object', additionalProperties: false } }), /must not be set to false/],
    [
      root({ a: { type: 'string' } }, { anyOf: [{ properties: { b: { minLength: 1 } } }] }),
      /said outside/,
    ],
    [
      root({ a: { type: 'string' } }, { not: { properties: { a: { type: 'string' } } } }),
      /type: Forbidden: must be empty to be structural/,
    ],
    [
      root({ a: { type: 'string' } }, { allOf: [{ properties: { a: { default: 'x' } } }] }),
      /default: Forbidden/,
    ],
    [
      root({ a: { type: 'array', items: { type: 'object' }, 'x-kubernetes-list-type': 'map' } }),
      /list-map-keys: Required/,
    ],
    [
      root({
        a: {
          type: 'array',
          items: { type: 'object', properties: { k: { type: 'string' } } },
          'x-kubernetes-list-type': 'map',
          'x-kubernetes-list-map-keys': ['k'],
        },
      }),
      /must have a default or be a required property/,
    ],
    [
      root({ a: { type: 'array', items: { type: 'string' }, 'x-kubernetes-list-type': 'bag' } }),
      /Unsupported value: "bag"/,
    ],
    [
      root({ a: { type: 'string', 'x-kubernetes-preserve-unknown-fields': false } }),
      /must be true or undefined/,
    ],
    [root({ a: { type: 'integer', default: 'x' } }), /default: Invalid value/],
    [
      root({ a: { type: 'object', properties: { b: { type: 'string' } }, default: { c: 1 } } }),
      /must not have unknown fields/,
    ],
    [
      root({ metadata: { type: 'object', properties: { labels: { type: 'object' } } } }),
      /anything other than name and generateName/,
    ],
  ];
  for (const [schema, expected] of bad)
    assert.match(problems(schema).join('\n'), expected, JSON.stringify(schema));
  let deep: JsonObject = { type: 'string' };
  for (let i = 0; i < 90; i++) deep = root({ a: deep });
  assert.match(problems(deep).join(), /nested deeper/);
});

test('any JSON may be sent as a schema', () => {
  const word = fc.constantFrom(
    'type',
    'properties',
    'items',
    'allOf',
    'not',
    'default',
    'enum',
    'required',
    'pattern',
    'additionalProperties',
    'x-kubernetes-list-type',
    'x-kubernetes-list-map-keys',
    'x-kubernetes-validations',
  );
  const { schema } = fc.letrec((tie) => ({
    schema: fc.dictionary(
      word,
      fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom<unknown>('object', 'array', 'string', 1, null, true),
        fc.array(tie('schema'), { maxLength: 2 }),
        tie('schema'),
      ),
      { maxKeys: 4, noNullPrototype: true },
    ),
  }));
  fc.assert(
    fc.property(schema, (value) => {
      const definition = routeDefinition();
      const [version] = definition.spec.versions;
      if (version !== undefined) version.schema = { openAPIV3Schema: value as JsonSchema };
      CUSTOM_RESOURCE_DEFINITION.validate(definition, undefined);
      rulesOf(definition);
    }),
  );
});

const ROUTE_SPEC =
  routeDefinition().spec.versions[1]?.schema?.openAPIV3Schema?.properties?.spec ?? {};

test('validateValue() finds what is wrong, in upstream words', () => {
  const table: [unknown, string[]][] = [
    [{}, []],
    [{ replicas: 3, hostnames: ['a.example', '*.b.example'], mode: 'Closed' }, []],
    [
      { replicas: '3' },
      [
        'spec.replicas: Invalid value: "3": spec.replicas in body must be of type integer: "string"',
      ],
    ],
    [
      { replicas: 1.5 },
      [
        'spec.replicas: Invalid value: 1.5: spec.replicas in body must be of type integer: "number"',
      ],
    ],
    [
      { replicas: null },
      ['spec.replicas: Invalid value: null: spec.replicas in body must be of type integer: "null"'],
    ],
    [
      { replicas: 11 },
      [
        'spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10',
      ],
    ],
    [
      { replicas: -1 },
      [
        'spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0',
      ],
    ],
    [
      { mode: 'Ajar' },
      ['spec.mode: Unsupported value: "Ajar": supported values: "Open", "Closed"'],
    ],
    [{ hostnames: ['a', 'a'] }, ['spec.hostnames[1]: Duplicate value: "a"']],
    [
      { hostnames: ['a', 'b', 'c', 'd', 'e'] },
      ['spec.hostnames: Too many: must have at most 4 items'],
    ],
    [
      { hostnames: [''] },
      [
        'spec.hostnames[0]: Invalid value: "": spec.hostnames[0] in body should be at least 1 chars long',
        '*match*',
      ],
    ],
    [
      {
        rules: [
          { name: 'a', port: 80 },
          { name: 'b', port: 'http' },
        ],
      },
      [],
    ],
    [
      { rules: [{ name: 'a', port: true }] },
      [
        'spec.rules[0].port: Invalid value: true: spec.rules[0].port in body must be of type integer,string: "boolean"',
      ],
    ],
    [{ rules: [{ weight: 1 }] }, ['spec.rules[0].name: Required value']],
    [{ rules: [{ name: 'a' }, { name: 'a' }] }, ['spec.rules[1]: Duplicate value: {"name":"a"}']],
    [{ rules: [{ name: 'a', timeout: '10x' }] }, ['*match*']],
    [{ rules: [{ name: 'a', backend: { name: 'b', note: null } }] }, []],
    [
      { rules: [{ name: 'a', backend: { name: null } }] },
      [
        'spec.rules[0].backend.name: Invalid value: null: spec.rules[0].backend.name in body must be of type string: "null"',
      ],
    ],
    [{ rules: [{ name: 'a', filter: { redirect: 'x' } }] }, []],
    [
      { rules: [{ name: 'a', filter: {} }] },
      [
        'spec.rules[0].filter: Invalid value: "object": "spec.rules[0].filter" must validate one and only one schema (oneOf). Found none valid',
      ],
    ],
    [
      { rules: [{ name: 'a', filter: { redirect: 'x', rewrite: 'y' } }] },
      [
        'spec.rules[0].filter: Invalid value: "object": "spec.rules[0].filter" must validate one and only one schema (oneOf). Found 2 valid alternatives',
      ],
    ],
    [{ options: { a: 'x', b: 'y' } }, []],
    [
      { options: { a: 'x', b: 'y', c: 'z' } },
      ['spec.options: Too many: must have at most 2 items'],
    ],
    [
      { options: { a: 'much too long' } },
      ['spec.options.a: Too long: may not be more than 8 bytes'],
    ],
    [{ template: { apiVersion: 'v1', kind: 'Pod', x: 1 } }, []],
    [
      { template: { kind: 'Pod' } },
      ['spec.template.apiVersion: Required value: must not be empty'],
    ],
    [{ raw: [1, { a: null }] }, []],
    [[], ['spec: Invalid value: "array": spec in body must be of type object: "array"']],
  ];
  for (const [value, expected] of table) {
    const found = validateValue(ROUTE_SPEC, value, 'spec').map(formatFieldError);
    assert.equal(found.length, expected.length, `${JSON.stringify(value)}: ${found.join('; ')}`);
    for (const [i, text] of expected.entries())
      if (text === '*match*') assert.match(found[i] ?? '', /should match/);
      else assert.equal(found[i], text);
  }
});

test('validateValue() knows junctors, numbers and formats', () => {
  const table: [JsonSchema, unknown, boolean][] = [
    [{ type: 'number', multipleOf: 0.1 }, 0.3, true],
    [{ type: 'number', multipleOf: 2 }, 3, false],
    [{ type: 'number', minimum: 1, exclusiveMinimum: true }, 1, false],
    [{ type: 'number', maximum: 1, exclusiveMaximum: true }, 0.9, true],
    [{ type: 'integer', format: 'int32' }, 2 ** 31, false],
    [{ type: 'string', allOf: [{ minLength: 2 }, { maxLength: 3 }] }, 'abcd', false],
    [{ type: 'string', anyOf: [{ minLength: 5 }, { maxLength: 1 }] }, 'abc', false],
    [{ type: 'string', anyOf: [{ minLength: 5 }, { maxLength: 1 }] }, 'a', true],
    [{ type: 'string', not: { enum: ['x'] } }, 'x', false],
    [{ type: 'string', maxLength: 2 }, '😀😀', true],
    [{ type: 'string', format: 'ipv4' }, '10.0.0.1', true],
    [{ type: 'string', format: 'ipv4' }, 'fd00::1', false],
    [{ type: 'string', format: 'ipv6' }, 'fd00::1', true],
    [{ type: 'string', format: 'cidr' }, '10.0.0.0/8', true],
    [{ type: 'string', format: 'cidr' }, '10.0.0.0', false],
    [{ type: 'string', format: 'date-time' }, '2026-01-01T00:00:00Z', true],
    [{ type: 'string', format: 'date-time' }, 'yesterday', false],
    [{ type: 'string', format: 'uuid' }, '6f6e1d2c-0d7c-4d1c-8d9c-7b6a5f4e3d2c', true],
    [{ type: 'string', format: 'hostname' }, 'a_b', false],
    [{ type: 'string', format: 'duration' }, '1h30m', true],
    [{ type: 'string', format: 'byte' }, 'AA=', false],
    [{ type: 'string', format: 'anything' }, 'x', true],
  ];
  for (const [schema, value, isGood] of table)
    assert.equal(
      validateValue(schema, value, 'f').length === 0,
      isGood,
      `${JSON.stringify(schema)} ${JSON.stringify(value)}`,
    );
});

test('compilePattern() reads what Go reads, and no text takes for ever', () => {
  const table: [string, string, boolean][] = [
    ['^[a-z]+$', 'abc', true],
    ['(?i)^abc$', 'ABC', true],
    ['\\A[[:alpha:]]+\\z', 'abC', true],
    ['^[\\w\\-\\.]+$', 'a-b.c', true],
    ['^\\pL+$', 'äö', true],
    ['(?P<x>a)b', 'ab', true],
  ];
  for (const [pattern, text, matches] of table) {
    const compiled = compilePattern(pattern);
    assert.ok(typeof compiled !== 'string', `${pattern}: ${compiled}`);
    assert.equal(compiled.test(text), matches, pattern);
  }
  for (const pattern of ['(', '(?=a)', '(a)\\1', 'a'.repeat(20_000)])
    assert.equal(typeof compilePattern(pattern), 'string');
  // Would take longer than the universe is old on an engine that only goes back and forth.
  const hostile = compilePattern('^(a+)+$');
  assert.ok(typeof hostile !== 'string' && !hostile.test(`${'a'.repeat(5000)}b`));
});

test('pruneFields() drops what the schema does not know', () => {
  const value = {
    replicas: 1,
    replcas: 2,
    rules: [{ name: 'a', x: 1, backend: { name: 'b', y: 1 } }],
    template: {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'x', nmae: 'y' },
      spec: { z: [1] },
    },
    options: { a: 'x' },
    raw: { a: { b: [{ c: 1 }] } },
    constructor: 1,
  };
  const pruned = pruneFields(ROUTE_SPEC, value, 'spec');
  assert.deepEqual(pruned.value, {
    replicas: 1,
    rules: [{ name: 'a', backend: { name: 'b' } }],
    template: { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'x' }, spec: { z: [1] } },
    options: { a: 'x' },
    raw: { a: { b: [{ c: 1 }] } },
  });
  assert.deepEqual(pruned.unknownFields.map(formatUnknownField), [
    'unknown field "spec.replcas" (did you mean "replicas"?)',
    'unknown field "spec.rules[0].x"',
    'unknown field "spec.rules[0].backend.y"',
    'unknown field "spec.template.metadata.nmae" (did you mean "name"?)',
    'unknown field "spec.constructor"',
  ]);
});

test('defaultFields() fills what is missing, deep, and changes nothing else', () => {
  const value = { rules: [{ name: 'a', backend: { name: 'b' } }], mode: 'Closed' };
  const copy = structuredClone(value);
  const filled = defaultFields(ROUTE_SPEC, value);
  assert.deepEqual(filled, {
    replicas: 1,
    rules: [{ name: 'a', weight: 1, backend: { group: '', name: 'b' } }],
    mode: 'Closed',
  });
  assert.deepEqual(value, copy);
  assert.equal(defaultFields(ROUTE_SPEC, filled), filled, 'a complete value stays the same one');
});

test('a definition is checked as a whole', () => {
  const validate = (
    change: (definition: CustomResourceDefinition) => void,
    old?: CustomResourceDefinition,
  ) => {
    const definition = structuredClone(routeDefinition());
    change(definition);
    const complete = CUSTOM_RESOURCE_DEFINITION.setDefaults(definition) as CustomResourceDefinition;
    return CUSTOM_RESOURCE_DEFINITION.validate(complete, old).map(formatFieldError).join('\n');
  };
  assert.equal(
    validate(() => {}),
    '',
  );
  const established = {
    ...routeDefinition(),
    status: {
      storedVersions: ['v1'],
      conditions: [{ type: 'Established', status: 'True' as const }],
    },
  };
  const table: [
    (definition: CustomResourceDefinition) => void,
    RegExp,
    CustomResourceDefinition?,
  ][] = [
    [
      ({ metadata }) => (metadata.name = 'x.net.example.org'),
      /metadata\.name: .*must be spec\.names\.plural/,
    ],
    [({ spec }) => (spec.group = 'example'), /at least one dot/],
    [({ spec }) => (spec.names.kind = 'Weave_Route'), /spec\.names\.kind/],
    [({ spec }) => (spec.names.shortNames = ['W']), /spec\.names\.shortNames\[0\]/],
    [({ spec }) => (spec.scope = 'Galaxy' as 'Cluster'), /spec\.scope: Unsupported/],
    [({ spec }) => (spec.versions = []), /spec\.versions: Required/],
    [
      ({ spec }) => spec.versions.map((version) => Object.assign(version, { storage: true })),
      /exactly one version/,
    ],
    [
      ({ spec }) => spec.versions.map((version) => Object.assign(version, { name: 'v1' })),
      /versions\[1\]\.name: Duplicate/,
    ],
    [
      ({ spec }) => (spec.conversion = { strategy: 'Webhook' }),
      /conversion\.strategy: Unsupported/,
    ],
    [({ spec }) => (spec.preserveUnknownFields = true), /cannot set to true/],
    [({ spec }) => delete spec.versions[0]?.schema, /schemas are required/],
    [
      ({ spec }) => (spec.names.plural = 'others'),
      /spec\.names\.plural: Invalid value: "others": field is immutable/,
      established,
    ],
    [({ spec }) => (spec.scope = 'Cluster'), /spec\.scope: .*immutable/, established],
    [
      ({ spec }) =>
        spec.versions.map((version) => Object.assign(version, { name: `${version.name}x` })),
      /^status\.storedVersions\[0\]: Invalid value: "v1": must appear in spec\.versions/,
      established,
    ],
  ];
  for (const [change, expected, old] of table) assert.match(validate(change, old), expected);
  const unapproved = tierDefinition();
  delete unapproved.metadata.annotations;
  assert.match(
    CUSTOM_RESOURCE_DEFINITION.validate(unapproved, undefined).map(formatFieldError).join(),
    /approval annotation/,
  );
});

test('compareVersions() puts the stable and new first', () => {
  const versions = ['v1', 'v2alpha1', 'foo', 'v10', 'v1beta2', 'v2', 'v1alpha1', 'v1beta10', 'bar'];
  assert.deepEqual(versions.toSorted(compareVersions), [
    'v10',
    'v2',
    'v1',
    'v1beta10',
    'v1beta2',
    'v2alpha1',
    'v1alpha1',
    'bar',
    'foo',
  ]);
});

test('customKinds() makes a kind of each served version', () => {
  const kinds = customKinds(routeDefinition());
  assert.deepEqual(
    kinds.map((kind) => [kind.version, kind.subresources]),
    [
      ['v1', ['status', 'scale']],
      ['v1beta1', ['status']],
    ],
  );
  const [kind] = kinds;
  assert.ok(kind);
  const object = {
    apiVersion: 'net.example.org/v1',
    kind: 'WeaveRoute',
    metadata: { name: 'a', namespace: 'b', creationTimestamp: '2026-01-01T00:00:00Z' },
    spec: { hostnames: ['x', 'y'] },
    status: { conditions: [{ type: 'Ready', status: 'True' }] },
  } as KubeObject;
  const filled = kind.setDefaults(object);
  const cells = kind.columns.map((column) =>
    column.value(filled, Date.parse('2026-01-01T00:02:00Z')),
  );
  assert.deepEqual(cells, ['a', '["x","y"]', 1, 'True', 'Open', '2m']);
  assert.equal(kind.selectableFields['spec.mode']?.(filled), 'Open');
  assert.match(
    kind
      .validate({ ...filled, metadata: { ...filled.metadata, name: 'A' } }, undefined)
      .map(formatFieldError)
      .join(),
    /metadata\.name/,
  );
  assert.equal(kinds[1]?.custom?.warning, 'net.example.org/v1beta1 WeaveRoute is deprecated');
  assert.ok(isObject(kind.custom?.openApi.properties));
});

test('ruleWarnings() names each rule that is not evaluated', () => {
  const rules = rulesOf(routeDefinition());
  assert.deepEqual(
    rules.map(({ version, field }) => [version, field]),
    [
      ['v1beta1', 'spec.rules[*]'],
      ['v1', 'spec.rules[*]'],
    ],
  );
  assert.equal(
    ruleWarnings(rules)[1],
    'this CEL rule is not evaluated: v1 spec.rules[*]: self.weight > 0 || !has(self.backend)',
  );
  const many = Array.from({ length: 100 }, (_, i) => ({
    version: 'v1',
    field: `f${i}`,
    rule: 'x'.repeat(500),
  }));
  assert.match(ruleWarnings(many).at(-1) ?? '', /^and 40 more CEL rules/);
});
