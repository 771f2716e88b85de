import assert from 'node:assert/strict';
import { test } from 'node:test';
import { apiVersionOf, type Schema } from './kind.ts';
import { KINDS, kindByApiVersion, kindByGvk, kindByName, kindByResource } from './registry.ts';

test('every kind is found by its resource, its kind and its names, and they are its own', () => {
  const names = new Set<string>();
  for (const kind of KINDS) {
    assert.equal(kindByResource(kind.group, kind.version, kind.resource), kind);
    assert.equal(kindByGvk(kind.group, kind.version, kind.kind), kind);
    assert.equal(kindByApiVersion(apiVersionOf(kind), kind.kind), kind);
    for (const name of new Set([kind.resource, kind.singular, ...kind.shortNames])) {
      assert.equal(kindByName(name), kind, name);
      assert.equal(names.has(name), false, name);
      names.add(name);
    }
    assert.equal(kind.kind.toLowerCase(), kind.singular);
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
    assert.ok(names.includes('Age') || names.includes('Last Seen'), kind.kind);
    assert.equal(new Set(names).size, names.length, kind.kind);
  }
});
