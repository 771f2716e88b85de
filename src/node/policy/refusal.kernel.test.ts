/** A policy that the kernel refuses: the others are carried out, its pods are closed, and it says so. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { EVENT } from '#api/core/v1/event.ts';
import { NAMESPACE } from '#api/core/v1/namespace.ts';
import { POD } from '#api/core/v1/pod.ts';
import { NETWORK_POLICY } from '#api/networking/v1/network-policy.ts';
import { CLUSTER_NETWORK_POLICY } from '#api/policy/v1alpha2/cluster-network-policy.ts';
import { createEventRecorder } from '#client/events.ts';
import { FakeApi } from '#client/fake.ts';
import { FakeClock } from '#lib/clock.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import { ScratchNetns } from '#linux/testing/scratch-netns.ts';
import { inTable, type Operation } from '#wire/nftables/objects.ts';
import type { Attachment } from '../attachment.ts';
import { PolicyReports } from './reports.ts';
import {
  clusterPolicy,
  namespaceObject,
  networkPolicy,
  PolicyUnderTest,
  podObject,
  TestAttachments,
} from './testing.ts';

const ADDRESSES = { big: '10.0.0.1', other: '10.0.0.2', third: '10.0.0.3' } as const;
const V6 = { big: 'fd00::1', other: 'fd00::2', third: 'fd00::3' } as const;
type PodName = keyof typeof ADDRESSES;
/** Longer than any pause before a refused policy is tried again. */
const LONG_MS = 3_600_000;

const netns = new ScratchNetns();
const kernel = openNftables({ netns: netns.path });
/** The machine's limit while the test wants it: a prefix set of more than so many elements is refused by the kernel. */
let mostPrefixes: number | undefined;
/** Nothing at all can be programmed: each transaction ends with what the kernel refuses. */
let refusesAll = false;
const IMPOSSIBLE = inTable('ip', 'no-such-table').table.delete();
const limited: Nftables = {
  commit: (transaction, options) =>
    kernel.commit(
      [...transaction, ...(refusesAll ? [IMPOSSIBLE] : [])].map(
        (operation): Operation =>
          mostPrefixes !== undefined &&
          operation.kind === 'set' &&
          'object' in operation &&
          operation.object.set.startsWith('net-')
            ? { ...operation, object: { ...operation.object, size: mostPrefixes } }
            : operation,
      ),
      options,
    ),
  commitSeries: (transactions, onAnswer) => {
    for (const transaction of transactions) {
      onAnswer?.(transaction);
      limited.commit(transaction);
    }
  },
  generation: () => kernel.generation(),
  dumpTable: (...args) => kernel.dumpTable(...args),
  listTables: (family) => kernel.listTables(family),
  listChains: (...args) => kernel.listChains(...args),
  countsOf: (chain) => kernel.countsOf(chain),
  elementsOf: (set) => kernel.elementsOf(set),
  watch: (listener) => kernel.watch(listener),
  [Symbol.dispose]: () => kernel[Symbol.dispose](),
};

describe('a policy that the kernel refuses', () => {
  const stack = new AsyncDisposableStack();
  const api = new FakeApi();
  const clock = new FakeClock();
  const attachments = new TestAttachments();
  const events = stack.use(createEventRecorder(api, { component: 'test', log: silentLogger }));
  let under: PolicyUnderTest;
  let reports: PolicyReports;

  before(async () => {
    api.put(NAMESPACE, namespaceObject('default'));
    for (const name of ['big', 'other', 'third'] as const) {
      const ips = [ADDRESSES[name], V6[name]];
      api.put(POD, podObject(`default/${name}`, { labels: { app: name }, ips }));
      attachments.add(`default/${name}`, ips);
    }
    reports = stack.use(
      new PolicyReports(
        {
          ...{ client: api, events, log: silentLogger, random: () => 0, isUsed: () => true },
          objectOf: (id) => {
            const [kind, key = ''] = id.split(' ');
            const [namespace, name] = key.split('/');
            return kind === 'NetworkPolicy'
              ? api
                  .objects(NETWORK_POLICY)
                  .find((it) => it.metadata.name === name && it.metadata.namespace === namespace)
              : api.objects(CLUSTER_NETWORK_POLICY).find((it) => it.metadata.name === key);
          },
        },
        { node: 'm1' },
      ),
    );
    under = stack.use(
      new PolicyUnderTest(api, limited, {
        clock,
        onState: (id, state) => reports.set(id, state),
      }),
    );
    await under.policy.start(attachments);
  });
  after(async () => {
    await stack.disposeAsync();
    kernel[Symbol.dispose]();
    netns[Symbol.dispose]();
  });

  const blocks = Array.from({ length: 8 }, (_, i) => ({
    ipBlock: { cidr: `192.0.2.${i * 16}/32` },
  }));
  const big = networkPolicy('default/big', {
    podSelector: { matchLabels: { app: 'big' } },
    ingress: [{ from: blocks, ports: [{ port: 80 }] }],
  });
  const other = (port: number) =>
    networkPolicy('default/other', {
      podSelector: { matchLabels: { app: 'other' } },
      ingress: [{ ports: [{ port }] }],
    });
  const cluster = clusterPolicy('wide', {
    ...{ tier: 'Admin', priority: 1, subject: { pods: select('third') } },
    egress: [
      {
        ...{ action: 'Accept', name: 'many' },
        to: [{ networks: blocks.map(({ ipBlock }) => ipBlock.cidr) }],
      },
    ],
  });

  const leadsTo = (set: string, name: PodName, family: 'ip' | 'ip6' = 'ip') => {
    const table = kernel.dumpTable(family, 'tulle');
    const bytes = family === 'ip' ? 4 : 16;
    const last = Number(ADDRESSES[name].split('.').at(-1));
    const element = table?.sets
      .find((it) => it.set === set)
      ?.elements.find(({ key }) => key.length === bytes && key.at(-1) === last);
    const verdict = element?.verdict;
    return verdict !== undefined && 'chain' in verdict ? verdict.chain : verdict?.kind;
  };
  const ports = () =>
    kernel
      .dumpTable('ip', 'tulle')
      ?.chains.flatMap(({ rules }) => rules.map(({ comment }) => comment))
      .filter((comment) => comment?.startsWith('NetworkPolicy '));
  const told = async () => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    await reports.settled();
    await events.flushed();
    return api
      .objects(EVENT)
      .map(({ type, reason, involvedObject }) => `${type} ${reason} ${involvedObject.name}`)
      .sort();
  };
  const known = async (...ids: string[]) => {
    const all = () => [...under.policy.planner.policies].map(({ id }) => id).sort();
    await until(() => all().join() === [...ids].sort().join());
    await under.policy.settled();
  };

  test('only its pods are closed, in both families; the rest is carried out', async () => {
    mostPrefixes = 5;
    api.put(NETWORK_POLICY, big);
    api.put(NETWORK_POLICY, other(80));
    await known('NetworkPolicy default/big', 'NetworkPolicy default/other');
    for (const family of ['ip', 'ip6'] as const) {
      assert.equal(leadsTo('policy-ingress', 'big', family), 'policy-closed-ingress');
      assert.match(leadsTo('policy-ingress', 'other', family) ?? '', /^pods-i-/);
      assert.equal(leadsTo('policy-ingress', 'third', family), 'accept');
      // It says nothing of egress.
      assert.equal(leadsTo('policy-egress', 'big', family), 'accept');
    }
    assert.deepEqual(await told(), ['Warning NotProgrammed big']);
    assert.match(
      api.objects(EVENT)[0]?.message ?? '',
      /node m1 .* closes the pods that it selects: .*net-[0-9a-f]+/,
    );
    const { ready, problems } = under.policy.status();
    assert.equal(ready, true);
    assert.match(problems.join('\n'), /NetworkPolicy default\/big: the kernel refuses it/);
    assert.match(problems.join('\n'), /closed until the kernel takes their policies: default\/big/);
  });

  test('changes to others, and new pods, go on', async () => {
    api.put(NETWORK_POLICY, other(81));
    await known('NetworkPolicy default/big', 'NetworkPolicy default/other');
    assert.ok(ports()?.includes('NetworkPolicy default/other ingress[0]'));
    await under.policy.prepare(TestAttachments.of('default/other', ['10.0.0.99']));
    assert.equal(under.rulesets[0]?.status().inSync, true);
    assert.deepEqual(await told(), ['Warning NotProgrammed big']);
  });

  test('a ClusterNetworkPolicy has the condition, which the node takes back when the kernel takes it', async () => {
    api.put(CLUSTER_NETWORK_POLICY, cluster);
    const all = ['NetworkPolicy default/big', 'NetworkPolicy default/other'];
    await known(...all, 'ClusterNetworkPolicy wide');
    assert.equal(leadsTo('policy-egress', 'third'), 'policy-closed');
    assert.equal(leadsTo('policy-ingress', 'third'), 'accept');
    assert.deepEqual(await told(), ['Warning NotProgrammed big', 'Warning NotProgrammed wide']);
    const condition = () =>
      api
        .objects(CLUSTER_NETWORK_POLICY)[0]
        ?.status?.conditions?.find(({ type }) => type === 'Programmed');
    assert.equal(condition()?.status, 'False');
    assert.equal(condition()?.reason, 'KernelRefused');
    assert.match(condition()?.message ?? '', /^node m1: .*net-/);

    // Tried again in vain: nothing new is said.
    clock.advance(LONG_MS);
    await under.policy.settled();
    assert.equal(leadsTo('policy-egress', 'third'), 'policy-closed');
    assert.equal((await told()).length, 2);

    mostPrefixes = undefined;
    clock.advance(LONG_MS);
    await under.policy.settled();
    for (const [set, name] of [
      ['policy-ingress', 'big'],
      ['policy-egress', 'third'],
    ] as const)
      assert.match(leadsTo(set, name) ?? '', /^pods-/);
    assert.deepEqual(await told(), [
      ...['Normal Programmed big', 'Normal Programmed wide'],
      ...['Warning NotProgrammed big', 'Warning NotProgrammed wide'],
    ]);
    assert.equal(condition()?.status, 'True');
    assert.deepEqual(under.policy.status().problems, []);
  });

  test('a change of a refused policy that mends it is programmed at once', async () => {
    mostPrefixes = 5;
    api.remove(NETWORK_POLICY, 'default/big');
    await known('NetworkPolicy default/other', 'ClusterNetworkPolicy wide');
    api.put(NETWORK_POLICY, { ...big, spec: { ...big.spec, egress: [{ to: blocks.slice(1) }] } });
    await known(
      ...['big', 'other'].map((it) => `NetworkPolicy default/${it}`),
      'ClusterNetworkPolicy wide',
    );
    assert.equal(leadsTo('policy-ingress', 'big'), 'policy-closed-ingress');
    assert.equal(leadsTo('policy-egress', 'big'), 'policy-closed');
    api.put(NETWORK_POLICY, {
      ...big,
      spec: { ...big.spec, ingress: [{ from: blocks.slice(0, 2) }] },
    });
    await until(() => leadsTo('policy-egress', 'big') === 'accept');
    await under.policy.settled();
    assert.match(leadsTo('policy-ingress', 'big') ?? '', /^pods-i-/);
  });

  test('a staged policy that is refused closes nothing, and says that it is not there', async () => {
    mostPrefixes = 5;
    const annotations = { 'tulle.dev/enforcement': 'staged' };
    api.put(NETWORK_POLICY, {
      ...networkPolicy('default/trial', { podSelector: {}, ingress: [{ from: blocks }] }),
      metadata: { namespace: 'default', name: 'trial', annotations },
    });
    const all = ['big', 'other', 'trial'].map((it) => `NetworkPolicy default/${it}`);
    await known(...all, 'ClusterNetworkPolicy wide');
    assert.equal(leadsTo('policy-ingress', 'third'), 'accept');
    assert.match(leadsTo('policy-ingress', 'other') ?? '', /^pods-i-/);
    assert.ok((await told()).includes('Warning NotProgrammed trial'));
    api.remove(NETWORK_POLICY, 'default/trial');
    await known(...all.slice(0, 2), 'ClusterNetworkPolicy wide');
  });

  test('if nothing can be programmed all stays as it is; a new pod is closed, and refused where it would be open', async () => {
    const before = ports();
    refusesAll = true;
    api.put(NETWORK_POLICY, other(82));
    const routed = TestAttachments.of('default/other', ['10.0.0.77']);
    await under.policy.prepare(routed);
    // There nothing would close them: their links are not ours, or their packets are not routed.
    const third = TestAttachments.of('default/third', ['10.0.0.78']);
    const bridge = { ips: [], routes: [], dns: {} } as unknown as NonNullable<Attachment['bridge']>;
    const chained = { interfaces: [], ips: [] } as unknown as NonNullable<Attachment['chained']>;
    for (const attachment of [
      { ...third, bridge },
      { ...third, chained },
    ])
      await assert.rejects(under.policy.prepare(attachment), /no-such-table.*ENOENT/);
    await until(() => !under.policy.status().ready);
    assert.deepEqual(ports(), before);
    // In neither map: what comes from a pod's link, or goes there, is dropped.
    for (const set of ['policy-egress', 'policy-ingress'])
      assert.ok(
        !kernel
          .dumpTable('ip', 'tulle')
          ?.sets.find((it) => it.set === set)
          ?.elements.some(({ key }) => key[3] === 77 || key[3] === 78),
      );
    assert.match(under.policy.status().problems.join(), /no-such-table/);
    refusesAll = false;
    await under.policy.settled();
    assert.equal(under.policy.status().ready, true);
  });
});

function select(app: string) {
  return { namespaceSelector: {}, podSelector: { matchLabels: { app } } };
}
