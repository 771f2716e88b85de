/** The plan, followed packet by packet, against the naive evaluator; and a plan with a history against a fresh one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Ip, ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { FakeNftables } from '#linux/nftables/fake.ts';
import type { TableState } from '#linux/nftables/port.ts';
import {
  clusterArbitrary,
  flowsOf,
  type GeneratedCluster,
  NODE_IPS,
} from '#policy/generate.testing.ts';
import { type PolicyPod, PROTOCOL_NUMBERS } from '#policy/model.ts';
import { type NaiveFlow, type NaivePod, naivelyAllowed } from '#policy/naive.testing.ts';
import { compilePolicy } from '#policy/world.ts';
import { CT_STATE } from '#wire/nftables/expressions.ts';
import { Ruleset } from '../ruleset.ts';
import { PolicyPlanner } from './planner.ts';
import { POLICY_PART } from './policy.ts';
import { accepts, type TracedPacket } from './tracer.testing.ts';

/** More with TULLE_POLICY_RUNS, for a long search. */
const RUNS = Number(process.env.TULLE_POLICY_RUNS ?? 40);

/** One node's planner over a fake kernel. */
class NodeUnderTest {
  readonly planner = new PolicyPlanner();
  readonly nftables = new FakeNftables();
  readonly #name: string;
  readonly #ruleset: Ruleset;

  constructor(name: string) {
    this.#name = name;
    this.#ruleset = new Ruleset(
      { nftables: this.nftables, log: silentLogger },
      { family: 'ip', table: 'tulle', parts: [POLICY_PART] },
    );
  }

  /** Tells the planner of everything in the cluster, and takes away what is only in `old`. */
  show(cluster: GeneratedCluster, options: { reversed?: boolean; steps?: boolean } = {}): void {
    const { planner } = this;
    const changes: (() => void)[] = [
      ...Object.entries(cluster.namespaces).map(
        ([name, labels]) =>
          () =>
            planner.setNamespace(name, { name, labels }),
      ),
      ...Object.entries(cluster.nodes).map(
        ([name, labels]) =>
          () =>
            planner.setNode(name, { name, labels, ips: [ip(NODE_IPS[name] ?? '')] }),
      ),
      ...cluster.pods.flatMap((pod) => {
        const known = policyPodOf(pod);
        const local = pod.node === this.#name ? known : undefined;
        return [() => this.#exchangePod(pod.name, known), () => planner.setLocal(pod.name, local)];
      }),
      () => {
        const wanted = new Map(
          [...cluster.policies, ...cluster.clusterPolicies].map((object) => {
            const compiled = compilePolicy(object);
            return [compiled.id, compiled] as const;
          }),
        );
        for (const { id } of [...planner.policies])
          if (!wanted.has(id)) planner.setPolicy(id, undefined);
        for (const [id, policy] of wanted) planner.setPolicy(id, policy);
      },
    ];
    if (options.reversed === true) changes.reverse();
    for (const change of changes) {
      change();
      if (options.steps === true) this.commit();
    }
    this.commit();
  }

  /** Names are unique over namespaces here, so that a pod may move between them. */
  #exchangePod(name: string, pod: PolicyPod): void {
    for (const [key, old] of this.planner.directory.pods)
      if (old.name === name && key !== pod.key) this.planner.setPod(key, undefined);
    this.planner.setPod(pod.key, pod);
  }

  commit(): void {
    for (const { family, part, elements } of this.planner.take()) {
      if (family !== 'ip') continue;
      if (part !== undefined) this.#ruleset.define(POLICY_PART, part);
      for (const { set, add, remove } of elements) this.#ruleset.stage(set, { add, remove });
    }
    this.#ruleset.commit();
  }

  table(): TableState {
    const table = this.nftables.dumpTable('ip', 'tulle');
    assert.ok(table);
    return table;
  }

  /** What is in the kernel, without order and handles. */
  essence(): unknown {
    const { chains, sets } = this.table();
    const bytes = (_: string, value: unknown) =>
      value instanceof Uint8Array
        ? Buffer.from(value).toString('hex')
        : typeof value === 'bigint'
          ? String(value)
          : value;
    const text = (value: unknown) => JSON.stringify(value, bytes);
    return {
      chains: chains
        .map(({ chain, base, rules }) => text([chain, base, rules.map((rule) => rule.expressions)]))
        .sort(),
      sets: sets
        .map(({ set, key, interval, elements }) =>
          text([
            set,
            key,
            interval,
            elements.map((it) => text([it.key, it.keyEnd, it.intervalEnd, it.verdict])).sort(),
          ]),
        )
        .sort(),
    };
  }
}

test('a packet through the plan has the verdict of the naive evaluator', () => {
  let [allowed, denied] = [0, 0];
  fc.assert(
    fc.property(clusterArbitrary, (cluster) => {
      const nodes = new Map(Object.keys(NODE_IPS).map((name) => [name, new NodeUnderTest(name)]));
      for (const node of nodes.values()) node.show(cluster);
      const tables = new Map([...nodes].map(([name, node]) => [name, node.table()]));
      for (const flow of flowsOf(cluster)) {
        if (flow.from.pod === undefined && flow.to.pod === undefined) continue;
        const expected = naivelyAllowed(cluster, flow);
        assert.equal(trace(tables, flow), expected, JSON.stringify(flow));
        if (expected) allowed++;
        else denied++;
      }
    }),
    { numRuns: RUNS },
  );
  assert.ok(allowed > 1000 && denied > 1000, `${allowed} allowed, ${denied} denied`);
});

test('the kernel does not depend on the history: from one cluster to another, in any order', () => {
  fc.assert(
    fc.property(
      clusterArbitrary,
      clusterArbitrary,
      fc.boolean(),
      fc.boolean(),
      (first, second, reversed, steps) => {
        const veteran = new NodeUnderTest('m1');
        veteran.show(first, { reversed, steps });
        veteran.show(second, { steps });
        veteran.show(second);
        veteran.show(first, { reversed });
        veteran.show(second, { reversed, steps });
        const fresh = new NodeUnderTest('m1');
        fresh.show(second);
        assert.deepEqual(veteran.essence(), fresh.essence());
      },
    ),
    { numRuns: RUNS },
  );
});

/** Through the hooks that the packet passes, on the nodes that it passes. */
function trace(
  tables: ReadonlyMap<string, TableState>,
  { from, to, protocol, port }: NaiveFlow,
): boolean {
  const packet: TracedPacket = {
    source: from.ip as Ip,
    destination: to.ip as Ip,
    protocol: PROTOCOL_NUMBERS[protocol as 'TCP'],
    destinationPort: port,
    inLink: 'eth0',
    outLink: 'eth0',
    state: CT_STATE.new,
    mark: 0,
  };
  const sourceNode = from.pod?.node;
  const targetNode = to.pod?.node;
  if (from.pod !== undefined && from.ip === to.ip) return true;
  if (sourceNode !== undefined) {
    const table = tables.get(sourceNode);
    assert.ok(table);
    const chain = to.node === sourceNode ? 'policy-to-node' : 'policy-from-pods';
    const outLink = targetNode === sourceNode ? 'tlpod' : 'eth0';
    if (!accepts(table, chain, { ...packet, inLink: 'tlpod', outLink })) return false;
  }
  // What a node itself sends leaves by the output hook, where policy has nothing.
  if (targetNode === undefined || from.node === targetNode) return true;
  const table = tables.get(targetNode);
  assert.ok(table);
  return accepts(table, 'policy-to-pods', { ...packet, outLink: 'tlpod' });
}

function policyPodOf(pod: NaivePod): PolicyPod {
  return {
    key: `${pod.namespace}/${pod.name}`,
    namespace: pod.namespace,
    name: pod.name,
    labels: pod.labels,
    ips: [ip(pod.ip)],
    node: pod.node,
    hostNetwork: false,
    ports: pod.ports.map((it) => ({ ...it, protocol: PROTOCOL_NUMBERS[it.protocol as 'TCP'] })),
  };
}
