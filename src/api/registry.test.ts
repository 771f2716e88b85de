import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { apiVersionOf, type Schema } from './kind.ts';
import { createTable } from './machinery/table.ts';
import { decodeFields } from './machinery/unknown-fields.ts';
import type { KubeObject } from './meta.ts';
import { KINDS, kindByApiVersion, kindByGvk, kindByName, kindByResource } from './registry.ts';

test('every kind is found by its resource, its kind and its names, and they are its own', () => {
  const names = new Set<string>();
  for (const kind of KINDS) {
    assert.equal(kindByResource(kind.group, kind.version, kind.resource), kind);
    assert.equal(kindByGvk(kind.group, kind.version, kind.kind), kind);
    assert.equal(kindByApiVersion(apiVersionOf(kind), kind.kind), kind);
    assert.equal(kind.kind.toLowerCase(), kind.singular);
    // Another face of a kind has its names; they mean the kind that is stored.
    if (kind.storedAs !== undefined) continue;
    for (const name of new Set([kind.resource, kind.singular, ...kind.shortNames])) {
      assert.equal(kindByName(name), kind, name);
      assert.equal(names.has(name), false, name);
      names.add(name);
    }
  }
});

test('kindByName() takes what people type', () => {
  const table: [string, string | undefined][] = [
    ['svc', 'Service'],
    ['Services', 'Service'],
    ['no', 'Node'],
    ['po', 'Pod'],
    ['ns', 'Namespace'],
    ['cm', 'ConfigMap'],
    ['ep', 'Endpoints'],
    ['netpol', 'NetworkPolicy'],
    ['endpointslices.discovery.k8s.io', 'EndpointSlice'],
    ['endpointslice.discovery', 'EndpointSlice'],
    ['leases.v1', undefined],
    ['ippool', 'IPPool'],
    ['deployments', undefined],
    ['', undefined],
  ];
  for (const [name, kind] of table) assert.equal(kindByName(name)?.kind, kind, name);
});

test('kindByResource() and kindByGvk() do not find what is not there', () => {
  assert.equal(kindByResource('', 'v1', 'deployments'), undefined);
  assert.equal(kindByResource('', 'v2', 'services'), undefined);
  assert.equal(kindByGvk('apps', 'v1', 'Service'), undefined);
});

test('the schemas are complete: what is required or a merge key is a field, and everything is described', () => {
  const check = (schema: Schema, path: string): void => {
    switch (schema.type) {
      case 'object':
        for (const name of schema.required ?? []) assert.ok(schema.fields[name], `${path}.${name}`);
        for (const [name, field] of Object.entries(schema.fields)) {
          const isDescribed = field.type === 'object' || Boolean(field.description);
          assert.ok(isDescribed, `${path}.${name} has no description`);
          check(field, `${path}.${name}`);
        }
        break;
      case 'map':
        check(schema.values, `${path}[*]`);
        break;
      case 'array':
        if (schema.mergeKey !== undefined)
          assert.ok(schema.items.type === 'object' && schema.items.fields[schema.mergeKey], path);
        check(schema.items, `${path}[]`);
        break;
      default:
    }
  };
  for (const kind of KINDS) check(kind.schema, kind.kind);
});

test('the columns of every kind begin or end with what kubectl shows', () => {
  for (const kind of KINDS) {
    const names = kind.columns.map((column) => column.name);
    assert.ok(names.includes('Name'), kind.kind);
    const hasTime = ['Age', 'Last Seen', 'Created At'].some((name) => names.includes(name));
    assert.ok(hasTime, kind.kind);
    assert.equal(new Set(names).size, names.length, kind.kind);
  }
});

/** Values that fit the schema, with any field missing. */
function valuesOf(schema: Schema): fc.Arbitrary<unknown> {
  switch (schema.type) {
    case 'object': {
      const fields = Object.entries(schema.fields).map(([name, field]) => [name, valuesOf(field)]);
      return fc.record(Object.fromEntries(fields), { requiredKeys: [], noNullPrototype: true });
    }
    case 'map':
      return fc.dictionary(fc.constantFrom('a', '0', 'A b'), valuesOf(schema.values), {
        maxKeys: 2,
        noNullPrototype: true,
      });
    case 'array':
      return fc.array(valuesOf(schema.items), { maxLength: 2 });
    case 'integer':
    case 'number':
      return fc.constantFrom(0, 1, 80, 70000, -1);
    case 'boolean':
      return fc.boolean();
    case 'int-or-string':
      return fc.constantFrom<unknown>(0, 80, '', 'http');
    case 'any':
      return fc.constantFrom<unknown>(null, 1, 'x', [], {});
    case 'string': {
      if (schema.format === 'date-time') return fc.constant('2026-01-01T00:00:00Z');
      if (schema.format === 'byte') return fc.constantFrom('', 'AAAA');
      const words = ['', 'a', 'A b', '10.0.0.0/24', '10.0.0.1', 'fd00::1', ...(schema.enum ?? [])];
      return fc.constantFrom(...words);
    }
  }
}

for (const kind of KINDS)
  test(`${kind.kind}: whatever fits the schema is defaulted, checked and shown without a throw`, () => {
    const nowMs = Date.parse('2026-01-01T00:10:00Z');
    const values = valuesOf(kind.schema);
    fc.assert(
      fc.property(values, fc.option(values, { nil: undefined }), (sent, before) => {
        const decode = (value: unknown) => {
          const { object, typeErrors } = decodeFields(kind.schema, value);
          assert.deepEqual(typeErrors, []);
          const metadata = { name: 'a', ...(object.metadata as object | undefined) };
          return kind.setDefaults({ ...object, metadata } as KubeObject);
        };
        const object = decode(sent);
        const stored = before === undefined ? undefined : decode(before);
        const old =
          stored !== undefined && kind.validate(stored, undefined).length === 0
            ? stored
            : undefined;
        const next = old === undefined ? object : (kind.prepareForUpdate?.(object, old) ?? object);
        assert.deepEqual(kind.setDefaults(next), kind.setDefaults(kind.setDefaults(next)));
        if (kind.validate(next, old).length > 0) return;
        createTable(kind, [next], { nowMs });
        for (const read of Object.values(kind.selectableFields))
          assert.equal(typeof read(next), 'string');
      }),
      { numRuns: 200 },
    );
  });
