import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatFieldError } from '../../machinery/field-errors.ts';
import { LEASE, type Lease } from './lease.ts';

const lease = (spec: Lease['spec']): Lease => ({
  apiVersion: 'coordination.k8s.io/v1',
  kind: 'Lease',
  metadata: { name: 'm1', namespace: 'kube-node-lease' },
  spec,
});

test('LEASE.validate() wants times that go forward', () => {
  const complaints = (spec: Lease['spec']) =>
    LEASE.validate(lease(spec), undefined).map(formatFieldError);
  assert.deepEqual(complaints({}), []);
  assert.deepEqual(
    complaints({ holderIdentity: 'm1', leaseDurationSeconds: 40, leaseTransitions: 0 }),
    [],
  );
  assert.deepEqual(complaints({ leaseDurationSeconds: 0, leaseTransitions: -1 }), [
    'spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0',
    'spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0',
  ]);
});
