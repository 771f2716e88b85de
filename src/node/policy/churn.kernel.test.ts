/**
 * Long histories on the real kernel: after each change its table equals one made from scratch, whatever was killed or
 * edited in between; and no policy object, however strange, makes the kernel refuse it.
 */
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import fc from 'fast-check';
import type { KubeObject } from '#api/meta.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { ScratchNetns } from '#linux/testing/scratch-netns.ts';
import { clusterArbitrary } from '#policy/generate.testing.ts';
import type { PolicyPod } from '#policy/model.ts';
import { compilePolicy } from '#policy/world.ts';
import { Ruleset } from '../ruleset.ts';
import { NodeUnderTest } from './node-under-test.testing.ts';
import { PolicyPlanner } from './planner.ts';
import { POLICY_PART, stagePlan } from './programmer.ts';

/** Clusters that follow one another. Minutes of it: TULLE_POLICY_CHURN=1000. */
const CLUSTERS = Number(process.env.TULLE_POLICY_CHURN ?? 25);
/** A long search: TULLE_POLICY_FUZZ=100000. */
const FUZZED = Number(process.env.TULLE_POLICY_FUZZ ?? 400);
const SEED = Number(process.env.TULLE_POLICY_SEED ?? Date.now() % 2 ** 31);

const kernels = [new ScratchNetns(), new ScratchNetns()] as const;
const [used, fresh] = kernels;
after(() => {
  for (const netns of kernels) netns[Symbol.dispose]();
});

describe(`churn, seed ${SEED}`, () => {
  const clusters = fc.sample(clusterArbitrary, { numRuns: CLUSTERS, seed: SEED });
  const random = fc.sample(fc.nat({ max: 2 ** 30 }), { numRuns: CLUSTERS * 64, seed: SEED });
  let at = 0;
  const chance = (of: number) => (random[at++ % random.length] ?? 0) % of === 0;

  /** The table that an agent makes that has seen nothing but the end. */
  async function fromScratch(cluster: (typeof clusters)[number]): Promise<unknown> {
    using nftables = openNftables({ netns: fresh.path });
    await using node = new NodeUnderTest('m1', nftables);
    node.show(cluster);
    return node.essence();
  }

  test('the kernel equals the plan from scratch after each change, kill and foreign edit', async () => {
    let nftables = openNftables({ netns: used.path });
    let node = new NodeUnderTest('m1', nftables);
    let [kills, edits] = [0, 0];
    const die = async () => {
      await node[Symbol.asyncDispose]();
      nftables[Symbol.dispose]();
      nftables = openNftables({ netns: used.path });
      node = new NodeUnderTest('m1', nftables);
      kills++;
    };
    try {
      for (const [i, cluster] of clusters.entries()) {
        if (i > 0 && chance(4)) {
          // In the middle of an update: some of it is in the kernel, some was only planned.
          const killed = new Error('killed');
          const dies = { onStep: () => chance(5) && fail(killed) };
          assert.throws(() => {
            node.show(cluster, { steps: chance(2), ...dies });
            throw killed;
          }, killed);
          await die();
        }
        node.show(cluster, { steps: chance(2), reversed: chance(2) });
        if (chance(3)) {
          const { repairs } = node.ruleset.status();
          // Nothing is repaired where nothing was changed: a map that is flushed may have been empty.
          const isDue = edit(edits++);
          // The test runner's time limit ends a wait in vain.
          while (
            isDue &&
            (node.ruleset.status().repairs === repairs || !node.ruleset.status().inSync)
          )
            await new Promise((resolve) => setTimeout(resolve, 2));
        }
        assert.deepEqual(node.essence(), await fromScratch(cluster), `cluster ${i}`);
      }
    } finally {
      await node[Symbol.asyncDispose]();
      nftables[Symbol.dispose]();
    }
    assert.ok(kills > 0 && edits > 0, `${kills} kills, ${edits} edits`);
  });
});

/** What a hand or another program does to our table. */
const EDITS: readonly (readonly string[])[] = [
  ['flush', 'chain', 'ip', 'tulle', 'policy-to-pods'],
  ['flush', 'map', 'ip', 'tulle', 'policy-ingress'],
  ['add', 'rule', 'ip', 'tulle', 'policy-from-pods', 'accept'],
  ['insert', 'rule', 'ip', 'tulle', 'policy-from-pods', 'accept'],
  ['delete', 'chain', 'ip', 'tulle', 'policy-from-pods'],
  ['add', 'element', 'ip', 'tulle', 'policy-ingress', '{ 10.0.0.200 : accept }'],
  ['delete', 'table', 'ip', 'tulle'],
  ['flush', 'ruleset'],
];

/** @returns whether it changed anything */
function edit(i: number): boolean {
  const before = used.run('nft', 'list', 'ruleset');
  used.run('nft', ...(EDITS[i % EDITS.length] ?? []));
  return used.run('nft', 'list', 'ruleset') !== before;
}

describe('strange policies', () => {
  const odd = fc.oneof(
    fc.constantFrom<unknown>(0, -1, 65_535, 65_536, 1.5, '80', 'web', '', null, true, [], {}),
    fc.integer(),
    fc.string({ maxLength: 300, unit: 'grapheme' }),
  );
  const port = fc.record(
    { port: odd, endPort: odd, protocol: fc.constantFrom('TCP', 'UDP', 'SCTP', 'tcp', 'ICMP', 5) },
    { requiredKeys: [] },
  );
  const cidr = fc.oneof(
    fc.constantFrom('10.0.0.0/8', '10.0.0.5/24', '0.0.0.0/0', '::/0', 'fd00::/8', 'fd00::1/200'),
    fc.ipV4().map((address) => `${address}/32`),
    fc.tuple(fc.ipV4(), fc.nat({ max: 40 })).map(([address, length]) => `${address}/${length}`),
    fc.tuple(fc.ipV6(), fc.nat({ max: 140 })).map(([address, length]) => `${address}/${length}`),
    odd,
  );
  const label = fc.dictionary(fc.string({ maxLength: 80 }), fc.string({ maxLength: 80 }), {
    maxKeys: 2,
  });
  const selector = fc.oneof(
    fc.constant({}),
    label.map((matchLabels) => ({ matchLabels })),
    odd.map((matchExpressions) => ({ matchExpressions })),
  );
  const peer = fc.oneof(
    fc.record({ podSelector: selector, namespaceSelector: selector }, { requiredKeys: [] }),
    fc.record({ cidr, except: fc.array(cidr) }, { requiredKeys: ['cidr'] }).map((ipBlock) => ({
      ipBlock,
    })),
    fc.array(cidr, { maxLength: 30 }).map((networks) => ({ networks })),
    fc.array(fc.oneof(odd, fc.domain()), { maxLength: 3 }).map((domainNames) => ({ domainNames })),
    selector.map((nodes) => ({ nodes })),
  );
  const protocol = fc.oneof(
    fc.record({ tcp: fc.record({ destinationPort: fc.record({ number: odd }) }) }),
    fc.record({
      udp: fc.record({
        destinationPort: fc.record({ range: fc.record({ start: odd, end: odd }) }),
      }),
    }),
    odd.map((destinationNamedPort) => ({ destinationNamedPort })),
  );
  const rule = fc.record(
    {
      ...{ from: fc.array(peer, { maxLength: 4 }), to: fc.array(peer, { maxLength: 4 }) },
      ...{
        ports: fc.array(port, { maxLength: 4 }),
        protocols: fc.array(protocol, { maxLength: 4 }),
      },
      ...{ action: fc.constantFrom('Accept', 'Deny', 'Pass', 'Log'), name: odd },
    },
    { requiredKeys: [] },
  );
  const object = fc.record({
    apiVersion: fc.constant('v'),
    kind: fc.constantFrom('NetworkPolicy', 'ClusterNetworkPolicy'),
    metadata: fc.record({
      name: fc.oneof(
        fc.constant('p'),
        fc.string({ minLength: 1, maxLength: 253, unit: 'grapheme' }),
      ),
      namespace: fc.constant('one'),
      annotations: fc.constantFrom(
        {},
        { 'tulle.dev/enforcement': 'staged' },
        { 'tulle.dev/log': 'accepts' },
      ),
    }),
    spec: fc.record(
      {
        ...{ podSelector: selector, subject: fc.record({ namespaces: selector }) },
        ...{ tier: fc.constantFrom('Admin', 'Baseline', 'Other'), priority: odd },
        ...{ ingress: fc.array(rule, { maxLength: 3 }), egress: fc.array(rule, { maxLength: 3 }) },
        policyTypes: fc.subarray(['Ingress', 'Egress', 'Other']),
      },
      { requiredKeys: [] },
    ),
  });

  test('the kernel takes what any policy becomes, in both families', () => {
    using nftables = openNftables({ netns: fresh.path });
    const node = new PolicyPlanner();
    const rulesets = (['ip', 'ip6'] as const).map(
      (family) =>
        new Ruleset(
          { nftables, log: silentLogger },
          { family, table: 'tulle-fuzz', parts: [POLICY_PART] },
        ),
    );
    const pod: PolicyPod = {
      ...{ key: 'one/a', namespace: 'one', name: 'a', labels: {}, node: 'm1', hostNetwork: false },
      ...{ ips: [ip('10.0.0.1'), ip('fd00::1')], ports: [{ name: 'web', protocol: 6, port: 80 }] },
    };
    node.setNamespace('one', { name: 'one', labels: {} });
    node.setPod(pod.key, pod);
    node.setLocal('a', pod);
    fc.assert(
      fc.property(object, (policy) => {
        const compiled = compilePolicy(policy as unknown as KubeObject);
        node.setPolicy('p', { ...compiled, id: compiled.id });
        stagePlan(node, rulesets);
        assert.equal(Ruleset.tryCommit(rulesets)?.error, undefined);
      }),
      { numRuns: FUZZED, seed: SEED },
    );
  });
});

function fail(error: Error): never {
  throw error;
}
