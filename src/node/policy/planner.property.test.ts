/** The plan, followed packet by packet, against the naive evaluator; and a plan with a history against a fresh one. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Ip } from '#lib/ip.ts';
import { FakeNftables } from '#linux/nftables/fake.ts';
import type { TableState } from '#linux/nftables/port.ts';
import { clusterArbitrary, flowsOf, NODE_IPS } from '#policy/generate.testing.ts';
import { PROTOCOL_NUMBERS } from '#policy/model.ts';
import { type NaiveFlow, naivelyAllowed } from '#policy/naive.testing.ts';
import { CT_STATE } from '#wire/nftables/expressions.ts';
import { NodeUnderTest } from './node-under-test.testing.ts';
import { accepts, type TracedPacket } from './tracer.testing.ts';

/** More with TULLE_POLICY_RUNS, for a long search. */
const RUNS = Number(process.env.TULLE_POLICY_RUNS ?? 40);

test('a packet through the plan has the verdict of the naive evaluator', () => {
  let [allowed, denied, shared] = [0, 0, 0];
  fc.assert(
    fc.property(clusterArbitrary, (cluster) => {
      const nodes = new Map(Object.keys(NODE_IPS).map((name) => [name, onFake(name)]));
      for (const node of nodes.values()) node.show(cluster);
      const tables = new Map([...nodes].map(([name, node]) => [name, node.table()]));
      shared += [...tables.values()].filter(sharesPorts).length;
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
  assert.ok(shared > 0, 'no rules that share the question for their ports');
});

test('the kernel does not depend on the history: from one cluster to another, in any order', () => {
  fc.assert(
    fc.property(
      clusterArbitrary,
      clusterArbitrary,
      fc.boolean(),
      fc.boolean(),
      (first, second, reversed, steps) => {
        const veteran = onFake('m1');
        veteran.show(first, { reversed, steps });
        veteran.show(second, { steps });
        veteran.show(second);
        veteran.show(first, { reversed });
        veteran.show(second, { reversed, steps });
        const fresh = onFake('m1');
        fresh.show(second);
        assert.deepEqual(veteran.essence(), fresh.essence());
      },
    ),
    { numRuns: RUNS },
  );
});

/** A jump that asks something before. */
function sharesPorts({ chains }: TableState): boolean {
  return chains.some(
    ({ chain, rules }) =>
      chain.startsWith('pods-') &&
      rules.some(({ expressions }) => {
        const verdict = expressions.at(-1);
        return (
          expressions.length > 1 && verdict?.kind === 'verdict' && verdict.verdict.kind === 'jump'
        );
      }),
  );
}

const onFake = (name: string) => new NodeUnderTest(name, new FakeNftables());

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
