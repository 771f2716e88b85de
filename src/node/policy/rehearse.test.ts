import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compileNetworkPolicy } from '#policy/compile.ts';
import type { CompiledPolicy } from '#policy/model.ts';
import { MAX_REHEARSED_POLICIES, rehearse } from './rehearse.ts';

/** Each about other pods, of a namespace of its own. */
function policy(i: number): CompiledPolicy {
  return compileNetworkPolicy({
    ...{ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy' },
    metadata: { namespace: `ns-${i}`, name: 'web' },
    spec: {
      podSelector: { matchLabels: { app: `app-${i}` } },
      ingress: [{ from: [{ podSelector: {} }], ports: [{ port: 80 }] }],
    },
  });
}

/** How often it stands in the bytes: once for each family. */
function count(bytes: Buffer, comment: string): number {
  return bytes.toString('latin1').split(`${comment}\0`).length - 1;
}

test('rehearse() encodes the rules of all policies, whomever they are about', () => {
  const policies = [policy(1), policy(2)];
  const before = structuredClone(policies);
  const bytes = rehearse(policies);
  for (const i of [1, 2])
    assert.equal(count(bytes, `NetworkPolicy ns-${i}/web ingress[0]`), 2, `of policy ${i}`);
  assert.deepEqual(policies, before);
});

test('rehearse() has an end where there are many policies', () => {
  const policies = Array.from({ length: MAX_REHEARSED_POLICIES + 1 }, (_, i) => policy(i));
  const bytes = rehearse(policies);
  assert.equal(count(bytes, `NetworkPolicy ns-${MAX_REHEARSED_POLICIES - 1}/web ingress[0]`), 2);
  assert.equal(count(bytes, `NetworkPolicy ns-${MAX_REHEARSED_POLICIES}/web ingress[0]`), 0);
});

test('rehearse() does nothing where there are no policies', () => {
  assert.ok(!rehearse([]).includes('np-'));
});
