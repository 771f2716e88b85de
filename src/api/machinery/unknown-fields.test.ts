import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CONFIG_MAP } from '../core/v1/config-map.ts';
import { SECRET } from '../core/v1/secret.ts';
import { SERVICE } from '../core/v1/service.ts';
import { ENDPOINT_SLICE } from '../discovery/v1/endpoint-slice.ts';
import { KINDS } from '../registry.ts';
import { formatFieldError } from './field-errors.ts';
import { decodeFields, formatUnknownField, suggestName } from './unknown-fields.ts';

const service = (spec: unknown, metadata: unknown = { name: 'a' }) => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata,
  spec,
});

test('decodeFields() lists unknown fields with their path and what was probably meant', () => {
  const { unknownFields, typeErrors, object } = decodeFields(
    SERVICE.schema,
    service(
      { ports: [{ port: 80 }, { porrt: 81, port: 82 }], selektor: { a: 'b' }, color: 'red' },
      { name: 'a', label: { a: 'b' } },
    ),
  );
  assert.deepEqual(unknownFields.map(formatUnknownField), [
    'unknown field "metadata.label" (did you mean "labels"?)',
    'unknown field "spec.ports[1].porrt" (did you mean "port"?)',
    'unknown field "spec.selektor" (did you mean "selector"?)',
    'unknown field "spec.color"',
  ]);
  assert.deepEqual(typeErrors, []);
  assert.deepEqual(object, service({ ports: [{ port: 80 }, { port: 82 }] }), 'they are dropped');
});

test('decodeFields() says which value has the wrong type', () => {
  const table: [unknown, string[]][] = [
    [
      service({ ports: [{ port: 'eighty' }] }),
      ['spec.ports[0].port: Invalid value: "eighty": must be an integer'],
    ],
    [
      service({ ports: [{ port: 80.5 }] }),
      ['spec.ports[0].port: Invalid value: 80.5: must be an integer'],
    ],
    [service({ ports: { port: 80 } }), ['spec.ports: Invalid value: "{…}": must be an array']],
    [service({ ports: ['http'] }), ['spec.ports[0]: Invalid value: "http": must be an object']],
    [
      service({ ports: [{ port: 80, targetPort: true }] }),
      ['spec.ports[0].targetPort: Invalid value: true: must be an integer or a string'],
    ],
    [service({ selector: { app: 1 } }), ['spec.selector[app]: Invalid value: 1: must be a string']],
    [service({ selector: 'app' }), ['spec.selector: Invalid value: "app": must be an object']],
    [service({ type: 5 }), ['spec.type: Invalid value: 5: must be a string']],
    [
      service({ publishNotReadyAddresses: 'yes' }),
      ['spec.publishNotReadyAddresses: Invalid value: "yes": must be true or false'],
    ],
    [
      service({ healthCheckNodePort: 3e9 }),
      [
        'spec.healthCheckNodePort: Invalid value: 3000000000: must be between -2147483647 and 2147483647, inclusive',
      ],
    ],
    [service('x'), ['spec: Invalid value: "x": must be an object']],
    [
      service({}, { name: 'a', creationTimestamp: 'yesterday' }),
      [
        'metadata.creationTimestamp: Invalid value: "yesterday": must be a time (e.g. "2006-01-02T15:04:05Z")',
      ],
    ],
    ['text', ['(the whole object): Invalid value: "text": must be an object']],
    [null, ['(the whole object): Invalid value: null: must be an object']],
  ];
  for (const [value, messages] of table)
    assert.deepEqual(
      decodeFields(SERVICE.schema, value).typeErrors.map(formatFieldError),
      messages,
    );
});

test('decodeFields() takes null for a missing field', () => {
  const decoded = decodeFields(ENDPOINT_SLICE.schema, {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'a', creationTimestamp: null },
    addressType: 'IPv4',
    endpoints: null,
    ports: null,
  });
  assert.deepEqual(decoded.typeErrors, []);
  assert.deepEqual(decoded.object, {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'a' },
    addressType: 'IPv4',
  });
});

test('decodeFields() never shows bytes that may be a secret', () => {
  const { typeErrors } = decodeFields(SECRET.schema, { data: { password: 'not base64!' } });
  assert.deepEqual(typeErrors.map(formatFieldError), [
    'data[password]: Invalid value: "<hidden>": must be base64',
  ]);
});

test('decodeFields() keeps keys of maps as they are, even those of prototypes', () => {
  const data = JSON.parse('{"__proto__":"a","constructor":"b"}');
  const { object, typeErrors } = decodeFields(CONFIG_MAP.schema, { data });
  assert.deepEqual(typeErrors, []);
  assert.equal(JSON.stringify(object), '{"data":{"__proto__":"a","constructor":"b"}}');
});

test('decodeFields() bounds the depth of what it does not know', () => {
  const deep: unknown = JSON.parse(`${'['.repeat(5000)}${']'.repeat(5000)}`);
  const { typeErrors } = decodeFields(SERVICE.schema, { metadata: { managedFields: [deep] } });
  assert.match(typeErrors.map(formatFieldError).join(), /must not be nested deeper than 100/);
});

test('suggestName() finds slips only', () => {
  const names = ['port', 'nodePort', 'targetPort', 'protocol', 'name'];
  assert.equal(suggestName('nodeport', names), 'nodePort');
  assert.equal(suggestName('prot', names), 'port');
  assert.equal(suggestName('protocoll', names), 'protocol');
  assert.equal(suggestName('color', names), undefined);
  assert.equal(suggestName('x', names), undefined);
});

test("decodeFields() of anything gives values of the schema's types or errors, and never throws", () => {
  const key = fc.constantFrom(
    'apiVersion',
    'kind',
    'metadata',
    'spec',
    'status',
    'ports',
    'port',
    'name',
    'labels',
    'x',
    '__proto__',
  );
  const value = fc.letrec<{ value: unknown }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 5 },
      fc.constantFrom(null, 1, 1.5, 'a', true),
      fc.array(tie('value'), { maxLength: 3 }),
      fc.dictionary(key, tie('value'), { maxKeys: 4, noNullPrototype: true }),
    ),
  })).value;
  fc.assert(
    fc.property(fc.constantFrom(...KINDS), value, (kind, body) => {
      const decoded = decodeFields(kind.schema, body);
      if (decoded.typeErrors.length > 0) return;
      const again = decodeFields(kind.schema, decoded.object);
      assert.deepEqual(again, { object: decoded.object, unknownFields: [], typeErrors: [] });
    }),
    { numRuns: 2000 },
  );
});
