/** The engine against the naive evaluator, over generated clusters. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Ip, ip } from '#lib/ip.ts';
import { evaluate } from './evaluate.ts';
import {
  ANSWERS,
  clusterArbitrary,
  flowsOf,
  type GeneratedCluster,
  NODE_IPS,
} from './generate.testing.ts';
import { type End, matchesDomain } from './match.ts';
import { PROTOCOL_NUMBERS, type World } from './model.ts';
import { type NaiveEnd, naivelyAllowed } from './naive.testing.ts';
import { compilePolicy } from './world.ts';

/** More with TULLE_POLICY_RUNS, for a long search. */
const RUNS = Number(process.env.TULLE_POLICY_RUNS ?? 150);

test('evaluate() agrees with the naive evaluator on every flow of generated clusters', () => {
  let allowed = 0;
  let denied = 0;
  fc.assert(
    fc.property(clusterArbitrary, (cluster) => {
      const world = worldOf(cluster);
      for (const flow of flowsOf(cluster)) {
        const protocol = PROTOCOL_NUMBERS[flow.protocol as 'TCP'];
        const from = endOf(world, flow.from);
        const to = endOf(world, flow.to);
        const verdict = evaluate(world, { from, to, protocol, port: flow.port });
        assert.equal(verdict.allowed, naivelyAllowed(cluster, flow), JSON.stringify(flow));
        if (verdict.allowed) allowed++;
        else denied++;
      }
    }),
    { numRuns: RUNS },
  );
  // A generator whose policies meet nothing would prove nothing.
  assert.ok(allowed > 1000 && denied > 1000, `${allowed} allowed, ${denied} denied`);
});

function worldOf(cluster: GeneratedCluster): World {
  return {
    pods: new Map(
      cluster.pods.map((pod) => {
        const key = `${pod.namespace}/${pod.name}`;
        const ports = pod.ports.map((it) => ({
          ...it,
          protocol: PROTOCOL_NUMBERS[it.protocol as 'TCP'],
        }));
        return [key, { ...pod, key, ips: [ip(pod.ip)], hostNetwork: false, ports }];
      }),
    ),
    namespaces: new Map(
      Object.entries(cluster.namespaces).map(([name, labels]) => [name, { name, labels }]),
    ),
    nodes: new Map(
      Object.entries(cluster.nodes).map(([name, labels]) => [
        name,
        { name, labels, ips: [ip(NODE_IPS[name] ?? '')] },
      ]),
    ),
    policies: [...cluster.policies, ...cluster.clusterPolicies].map(compilePolicy),
    resolved: (pattern) =>
      Object.entries(ANSWERS).flatMap(([name, addresses]) =>
        matchesDomain(pattern, name) ? addresses.map((address) => ip(address)) : [],
      ),
  };
}

function endOf(world: World, end: NaiveEnd): End {
  return {
    pod: end.pod && world.pods.get(`${end.pod.namespace}/${end.pod.name}`),
    node: end.node === undefined ? undefined : world.nodes.get(end.node),
    ip: end.ip as Ip,
  };
}
