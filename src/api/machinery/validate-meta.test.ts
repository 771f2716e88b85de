import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject, ObjectMeta } from '../meta.ts';
import { formatFieldError } from './field-errors.ts';
import { MAX_ANNOTATIONS_BYTES, validateMeta, validateMetaUpdate } from './validate-meta.ts';

const owner = { apiVersion: 'v1', kind: 'Service', name: 'a', uid: 'u1' };

const TABLE: { meta: ObjectMeta; namespaced?: boolean; fields: string[] }[] = [
  { meta: { name: 'a', namespace: 'default' }, fields: [] },
  { meta: { name: 'a.b.c', namespace: 'default' }, fields: [] },
  { meta: { name: '', generateName: 'web-', namespace: 'default' }, fields: [] },
  { meta: { name: '', namespace: 'default' }, fields: ['metadata.name'] },
  { meta: { name: '', generateName: 'Web-', namespace: 'x' }, fields: ['metadata.generateName'] },
  { meta: { name: 'A', namespace: 'default' }, fields: ['metadata.name'] },
  { meta: { name: 'a/b', namespace: 'default' }, fields: ['metadata.name'] },
  { meta: { name: 'a' }, fields: ['metadata.namespace'] },
  { meta: { name: 'a', namespace: 'x.y' }, fields: ['metadata.namespace'] },
  { meta: { name: 'a' }, namespaced: false, fields: [] },
  { meta: { name: 'a', namespace: 'default' }, namespaced: false, fields: ['metadata.namespace'] },
  {
    meta: { name: 'a', namespace: 'x', labels: { 'a b': 'c', app: 'a b', 'x.io/y': 'z' } },
    fields: ['metadata.labels', 'metadata.labels'],
  },
  { meta: { name: 'a', namespace: 'x', annotations: { 'x.io/Y': '\n any text' } }, fields: [] },
  {
    meta: { name: 'a', namespace: 'x', annotations: { a: 'v'.repeat(MAX_ANNOTATIONS_BYTES - 1) } },
    fields: [],
  },
  {
    meta: { name: 'a', namespace: 'x', annotations: { a: 'v'.repeat(MAX_ANNOTATIONS_BYTES) } },
    fields: ['metadata.annotations'],
  },
  {
    meta: { name: 'a', namespace: 'x', finalizers: ['x.io/y', 'a b'] },
    fields: ['metadata.finalizers'],
  },
  {
    meta: { name: 'a', namespace: 'x', ownerReferences: [{ ...owner, uid: '' }] },
    fields: ['metadata.ownerReferences[0].uid'],
  },
  {
    meta: {
      name: 'a',
      namespace: 'x',
      ownerReferences: [
        { ...owner, controller: true },
        { ...owner, uid: 'u2', controller: true },
      ],
    },
    fields: ['metadata.ownerReferences'],
  },
];

test('validateMeta() names the wrong fields', () => {
  for (const { meta, namespaced = true, fields } of TABLE)
    assert.deepEqual(
      validateMeta(meta, { namespaced }).map((error) => error.field),
      fields,
      JSON.stringify(meta).slice(0, 200),
    );
});

test('validateMeta() speaks as upstream', () => {
  const errors = validateMeta({ name: 'My_App', namespace: 'x' }, { namespaced: true });
  assert.match(
    errors.map(formatFieldError).join('\n'),
    /^metadata\.name: Invalid value: "My_App": a lowercase RFC 1123 subdomain must consist of/,
  );
});

test('validateMetaUpdate() refuses other names and new finalizers on what is being deleted', () => {
  const object = (metadata: Partial<ObjectMeta>): KubeObject => ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'a', namespace: 'x', uid: 'u', ...metadata },
  });
  const fieldsOf = (now: Partial<ObjectMeta>, old: Partial<ObjectMeta> = {}) =>
    validateMetaUpdate(object(now), object(old)).map((error) => error.field);
  assert.deepEqual(fieldsOf({ labels: { a: 'b' } }), []);
  assert.deepEqual(fieldsOf({ name: 'b' }), ['metadata.name']);
  assert.deepEqual(fieldsOf({ uid: 'other' }), ['metadata.uid']);
  assert.deepEqual(fieldsOf({ finalizers: ['x.io/a'] }), []);
  const deleting = { deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: ['x.io/a', 'x.io/b'] };
  assert.deepEqual(fieldsOf({ ...deleting, finalizers: ['x.io/a'] }, deleting), []);
  assert.deepEqual(fieldsOf({ ...deleting, finalizers: ['x.io/c'] }, deleting), [
    'metadata.finalizers',
  ]);
});
