import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KINDS } from '../registry.ts';
import { isObject, type JsonObject } from './json.ts';
import { openApiDocuments, openApiHash, openApiIndex } from './openapi.ts';

const documents = openApiDocuments(KINDS, { version: '0.1.0' });

function at(value: unknown, ...path: string[]): unknown {
  return path.reduce<unknown>((part, key) => (isObject(part) ? part[key] : undefined), value);
}

test('openApiDocuments() makes one document of each group and version', () => {
  assert.deepEqual([...documents.keys()].sort(), [
    'api/v1',
    'apis/apiextensions.k8s.io/v1',
    'apis/coordination.k8s.io/v1',
    'apis/discovery.k8s.io/v1',
    'apis/networking.k8s.io/v1',
    'apis/tulle.dev/v1alpha1',
  ]);
});

test('openApiDocuments() tells kubectl that the server validates and takes strategic merges', () => {
  const patch = at(
    documents.get('api/v1'),
    'paths',
    '/api/v1/namespaces/{namespace}/services/{name}',
    'patch',
  );
  assert.deepEqual(at(patch, 'x-kubernetes-group-version-kind'), {
    group: '',
    version: 'v1',
    kind: 'Service',
  });
  const parameters = at(patch, 'parameters');
  assert.ok(
    Array.isArray(parameters) &&
      parameters.some((p) => at(p, 'name') === 'fieldValidation' && at(p, 'in') === 'query'),
  );
  assert.ok(at(patch, 'requestBody', 'content', 'application/strategic-merge-patch+json'));
});

test('openApiDocuments() leaves strategic merges of half described kinds to what clients know', () => {
  const path = '/api/v1/namespaces/{namespace}/pods/{name}';
  const content = at(documents.get('api/v1'), 'paths', path, 'patch', 'requestBody', 'content');
  assert.deepEqual(Object.keys(content ?? {}), [
    'application/json-patch+json',
    'application/merge-patch+json',
    'application/apply-patch+yaml',
  ]);
});

test('openApiDocuments() says merge keys, descriptions and what is required', () => {
  const schema = at(documents.get('api/v1'), 'components', 'schemas', 'io.k8s.api.core.v1.Service');
  assert.deepEqual(at(schema, 'x-kubernetes-group-version-kind'), [
    { group: '', version: 'v1', kind: 'Service' },
  ]);
  const ports = at(schema, 'properties', 'spec', 'properties', 'ports');
  assert.equal(at(ports, 'x-kubernetes-patch-merge-key'), 'port');
  assert.equal(at(ports, 'x-kubernetes-patch-strategy'), 'merge');
  assert.deepEqual(at(ports, 'items', 'required'), ['port']);
  assert.equal(at(ports, 'items', 'properties', 'port', 'format'), 'int32');
  assert.match(
    String(at(ports, 'items', 'properties', 'port', 'description')),
    /port that clients use/,
  );
});

test('openApiDocuments() has no reference that leads nowhere', () => {
  for (const [path, document] of documents) {
    const references = JSON.stringify(document).matchAll(/"#\/components\/schemas\/([^"]+)"/g);
    for (const [, name = ''] of references)
      assert.ok(Object.hasOwn(document.components.schemas, name), `${path}: ${name}`);
  }
});

test('openApiDocuments() names our own kinds after the domain', () => {
  const schemas = at(
    documents.get('apis/tulle.dev/v1alpha1'),
    'components',
    'schemas',
  ) as JsonObject;
  assert.ok(Object.hasOwn(schemas, 'dev.tulle.v1alpha1.IPPool'));
});

test('openApiIndex() lets clients keep a document until it changes', () => {
  const index = openApiIndex(documents);
  const document = documents.get('api/v1');
  assert.ok(document);
  assert.equal(
    index.paths['api/v1']?.serverRelativeURL,
    `/openapi/v3/api/v1?hash=${openApiHash(document)}`,
  );
  assert.notEqual(
    openApiHash(document),
    openApiHash({ ...document, info: { title: 'Tulle', version: '0.2.0' } }),
  );
});
