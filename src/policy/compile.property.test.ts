/** Whatever stands in a policy: it compiles, and what is not understood does not open. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ip } from '#lib/ip.ts';
import { evaluate } from './evaluate.ts';
import type { PolicyPod, World } from './model.ts';
import { compilePolicy } from './world.ts';

const RUNS = 500;
const junk = fc.jsonValue({ maxDepth: 3 });
const list = fc.oneof(junk, fc.array(junk));
const rules = fc.oneof(
  junk,
  fc.array(
    fc.record(
      { from: list, to: list, ports: list, action: junk, protocols: list },
      { requiredKeys: [] },
    ),
  ),
);

test('compilePolicy() takes any object, and evaluate() any that it gives', () => {
  fc.assert(
    fc.property(
      fc.constantFrom('NetworkPolicy', 'ClusterNetworkPolicy'),
      fc.oneof(
        junk,
        fc.record(
          {
            podSelector: junk,
            subject: junk,
            tier: junk,
            ingress: rules,
            egress: rules,
            policyTypes: list,
          },
          { requiredKeys: [] },
        ),
      ),
      (kind, spec) => {
        const object = { apiVersion: 'v', kind, metadata: { name: 'p', namespace: 'one' }, spec };
        const policy = compilePolicy(object);
        const from = podOf('a', '10.0.0.1');
        const to = podOf('b', '10.0.0.2');
        const world: World = {
          pods: new Map([from, to].map((pod) => [pod.key, pod])),
          ...{ namespaces: new Map(), nodes: new Map(), policies: [policy] },
        };
        const end = (pod: PolicyPod) => ({ pod, node: undefined, ip: pod.ips[0] });
        const flow = { from: end(from), to: end(to), protocol: 6, port: 80 };
        assert.equal(typeof evaluate(world, flow).allowed, 'boolean');
      },
    ),
    { numRuns: RUNS },
  );
});

test('a policy that cannot be read closes what it might be about', () => {
  const spec = { podSelector: {}, ingress: 5 };
  const policy = compilePolicy({
    ...{ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy' },
    ...{ metadata: { name: 'p', namespace: 'one' }, spec },
  } as never);
  assert.deepEqual([policy.ingress, policy.egress], [[], []]);
  assert.match(policy.problems[0] ?? '', /cannot be read/);
});

function podOf(name: string, address: string): PolicyPod {
  return {
    ...{ key: `one/${name}`, namespace: 'one', name, labels: {}, ips: [ip(address)] },
    ...{ node: undefined, hostNetwork: false, ports: [] },
  };
}
