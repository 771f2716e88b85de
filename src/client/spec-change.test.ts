import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isSpecChange } from './spec-change.ts';

test('isSpecChange() passes over what is no specification', () => {
  const pool = (uid: string, cidr: string, used: number) => ({
    apiVersion: 'v1',
    kind: 'Pool',
    metadata: { name: 'p', uid },
    spec: { cidr },
    status: { used },
  });
  const old = pool('1', '10.0.0.0/8', 1);
  assert.equal(isSpecChange({ old, current: pool('1', '10.0.0.0/8', 2) }), false);
  assert.equal(isSpecChange({ old, current: pool('1', '10.0.0.0/9', 1) }), true);
  assert.equal(isSpecChange({ old, current: pool('2', '10.0.0.0/8', 1) }), true);
  assert.equal(isSpecChange({ old, current: undefined }), true);
  assert.equal(isSpecChange({ old: undefined, current: old }), true);
});
