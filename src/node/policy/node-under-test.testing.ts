/** For tests: one node's planner over nftables of any kind, told of whole clusters. */
import assert from 'node:assert/strict';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import type { Nftables, TableState } from '#linux/nftables/port.ts';
import { ANSWERS, type GeneratedCluster, NODE_IPS } from '#policy/generate.testing.ts';
import { type PolicyPod, PROTOCOL_NUMBERS } from '#policy/model.ts';
import type { NaivePod } from '#policy/naive.testing.ts';
import { compilePolicy } from '#policy/world.ts';
import { Ruleset } from '../ruleset.ts';
import { Directory } from './directory.ts';
import { patternsOf } from './domain-watch.ts';
import { DomainMemory } from './domains.ts';
import { PolicyPlanner } from './planner.ts';
import { POLICY_PART, stagePlan } from './programmer.ts';

export class NodeUnderTest<N extends Nftables = Nftables> implements AsyncDisposable {
  readonly planner: PolicyPlanner = new PolicyPlanner(
    new Directory((pattern) => this.#domains.resolved(pattern)),
  );
  readonly nftables: N;
  readonly ruleset: Ruleset;
  readonly #name: string;
  readonly #domains = new DomainMemory((...change) =>
    this.planner.directory.setResolved(...change),
  );

  constructor(name: string, nftables: N) {
    this.#name = name;
    this.nftables = nftables;
    this.ruleset = new Ruleset(
      { nftables, log: silentLogger },
      { family: 'ip', table: 'tulle', parts: [POLICY_PART] },
    );
  }

  /** Tells the planner of everything in the cluster, and takes away what is only in an earlier one. */
  show(
    cluster: GeneratedCluster,
    options: { reversed?: boolean; steps?: boolean; onStep?: () => void } = {},
  ): void {
    const changes = this.#changesTo(cluster);
    if (options.reversed === true) changes.reverse();
    for (const change of changes) {
      change();
      if (options.steps === true) this.commit();
      options.onStep?.();
    }
    this.commit();
  }

  commit(): void {
    stagePlan(this.planner, [this.ruleset]);
    this.ruleset.commit();
  }

  table(): TableState {
    const table = this.nftables.dumpTable('ip', 'tulle');
    assert.ok(table);
    return table;
  }

  essence(): unknown {
    return essenceOf(this.table());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.ruleset[Symbol.asyncDispose]();
  }

  #changesTo(cluster: GeneratedCluster): (() => void)[] {
    const { planner } = this;
    return [
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
        // As the feature does it: what a name means is asked again when a policy begins to mean it.
        this.#domains.setPatterns(patternsOf(planner.policies));
        for (const [name, addresses] of Object.entries(ANSWERS)) {
          const told = addresses.map((address) => ({ address: ip(address), ttlS: 60 }));
          this.#domains.answered(name, { family: 4, addresses: told }, 0);
        }
      },
    ];
  }

  /** Names are unique over namespaces here, so that a pod may move between them. */
  #exchangePod(name: string, pod: PolicyPod): void {
    for (const [key, old] of this.planner.directory.pods)
      if (old.name === name && key !== pod.key) this.planner.setPod(key, undefined);
    this.planner.setPod(pod.key, pod);
  }
}

/** What is in the kernel, without order, handles and counters. */
export function essenceOf({ chains, sets }: TableState): unknown {
  const text = (value: unknown) =>
    JSON.stringify(value, (key, inner: unknown) => {
      if (inner instanceof Uint8Array) return Buffer.from(inner).toString('hex');
      // How many packets a rule met says nothing of the rule.
      return typeof inner === 'bigint' || key === 'packets' || key === 'bytes' ? 0 : inner;
    });
  return {
    chains: chains
      .map(({ chain, base, rules }) => text([chain, base, rules.map((rule) => rule.expressions)]))
      .sort(),
    sets: sets
      .map(({ set, key, interval, elements }) =>
        text([
          ...[set, key, interval],
          elements.map((it) => text([it.key, it.keyEnd, it.intervalEnd, it.verdict])).sort(),
        ]),
      )
      .sort(),
  };
}

function policyPodOf(pod: NaivePod): PolicyPod {
  return {
    ...{ key: `${pod.namespace}/${pod.name}`, namespace: pod.namespace, name: pod.name },
    ...{ labels: pod.labels, ips: [ip(pod.ip)], node: pod.node, hostNetwork: false },
    ports: pod.ports.map((it) => ({ ...it, protocol: PROTOCOL_NUMBERS[it.protocol as 'TCP'] })),
  };
}
