import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NAMESPACE, type Namespace } from '../core/v1/namespace.ts';
import { createTable } from './table.ts';

const namespace: Namespace = {
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name: 'default', creationTimestamp: '2026-01-01T00:00:00Z' },
  status: { phase: 'Active' },
};
const nowMs = Date.parse('2026-01-01T03:00:00Z');

test('createTable() makes a row of every object, with its metadata beside', () => {
  const table = createTable(NAMESPACE, [namespace], { nowMs, metadata: { resourceVersion: '7' } });
  assert.equal(table.apiVersion, 'meta.k8s.io/v1');
  assert.deepEqual(table.metadata, { resourceVersion: '7' });
  assert.deepEqual(
    table.columnDefinitions.map(({ name, type, format, priority }) => [
      name,
      type,
      format,
      priority,
    ]),
    [
      ['Name', 'string', 'name', 0],
      ['Status', 'string', '', 0],
      ['Age', 'string', '', 0],
    ],
  );
  assert.deepEqual(table.rows, [
    {
      cells: ['default', 'Active', '3h'],
      object: {
        kind: 'PartialObjectMetadata',
        apiVersion: 'meta.k8s.io/v1',
        metadata: namespace.metadata,
      },
    },
  ]);
});

test('createTable() follows includeObject, version and omitColumns', () => {
  const rowOf = (includeObject: 'None' | 'Object') =>
    createTable(NAMESPACE, [namespace], { nowMs, includeObject }).rows[0];
  assert.deepEqual(rowOf('None'), { cells: ['default', 'Active', '3h'] });
  assert.equal(rowOf('Object')?.object, namespace);
  const later = createTable(NAMESPACE, [namespace], {
    nowMs,
    version: 'v1beta1',
    omitColumns: true,
  });
  assert.equal(later.apiVersion, 'meta.k8s.io/v1beta1');
  assert.deepEqual(later.columnDefinitions, []);
});

test('createTable() of nothing has columns and no rows', () => {
  const table = createTable(NAMESPACE, [], { nowMs });
  assert.equal(table.columnDefinitions.length, 3);
  assert.deepEqual(table.rows, []);
});
