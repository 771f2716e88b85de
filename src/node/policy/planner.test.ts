/** What a change costs: which chains are written again, and which elements. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { inspect } from 'node:util';
import { ip } from '#lib/ip.ts';
import { compileNetworkPolicy } from '#policy/compile.ts';
import type { PolicyPod } from '#policy/model.ts';
import { INGRESS_PODS } from './names.ts';
import { type PlanChange, PolicyPlanner } from './planner.ts';
import { networkPolicy } from './testing.ts';

const MANY = 300;

describe('rules about the same pods that ask for the same ports', () => {
  /** Matches before the jumps of the pod's chain, and in the chains where they lead. */
  function comparisons(planner: PolicyPlanner) {
    const chains = planner.take().find(({ family }) => family === 'ip')?.part?.chains ?? [];
    const count = (prefix: string) =>
      chains
        .filter(({ name, rules }) => name.startsWith(prefix) && rules.length > 0)
        .flatMap(({ rules }) => rules)
        .flatMap(({ expressions }) => expressions)
        .filter(({ kind }) => kind === 'cmp').length;
    return { before: count('pods-i'), inside: count('np-i') };
  }
  const withPorts = (ports: readonly number[]) => {
    const planner = new PolicyPlanner();
    planner.setNamespace('one', { name: 'one', labels: {} });
    for (const [i, port] of ports.entries()) setPolicy(planner, `policy-${i}`, { app: 'a' }, port);
    setPod(planner, 'first', '10.0.0.1');
    return planner;
  };

  test('have them compared once', () => {
    assert.deepEqual(comparisons(withPorts([80, 80, 80, 80])), { before: 2, inside: 0 });
  });

  test('compare for themselves where they are few', () => {
    assert.deepEqual(comparisons(withPorts([80, 80, 80, 81])), { before: 0, inside: 8 });
  });

  test('leave for a chain of others when their ports change, and come back', () => {
    const planner = withPorts([80, 80, 80, 80, 80]);
    planner.take();
    setPolicy(planner, 'policy-3', { app: 'a' }, 81);
    assert.deepEqual(comparisons(planner), { before: 2, inside: 2 });
    setPolicy(planner, 'policy-3', { app: 'a' }, 80);
    assert.deepEqual(comparisons(planner), { before: 2, inside: 0 });
  });
});

describe('chains of many policies', () => {
  test('policies about the same pods share some chains', () => {
    const { planner, chains } = nodeWith(MANY);
    const bundles = chains().filter(([name]) => name.startsWith('np-'));
    assert.ok(
      bundles.length >= MANY / 64 && bundles.length <= MANY / 8,
      `${bundles.length} chains`,
    );
    const rules = bundles.reduce((sum, [, count]) => sum + count, 0);
    assert.equal(rules, MANY);
    // One that is about other pods too has a chain of its own.
    setPolicy(planner, 'everybody', {});
    const own = chains().filter(([, count]) => count === 1).length;
    assert.ok(own > bundles.filter(([, count]) => count === 1).length);
  });

  test('one policy more or less writes one of them again', () => {
    const { planner, chains } = nodeWith(MANY);
    for (const name of ['a-first', 'policy-1500', 'z-last']) {
      const before = new Set(chains().map(([chain]) => chain));
      setPolicy(planner, name);
      const after = new Set(chains().map(([chain]) => chain));
      const made = [...after].filter((chain) => !before.has(chain) && chain.startsWith('np-'));
      // Where it divides a bundle there are two.
      assert.ok(made.length === 1 || made.length === 2, `${name}: ${made.join()}`);
      planner.setPolicy(`NetworkPolicy one/${name}`, undefined);
      assert.deepEqual(new Set(chains().map(([chain]) => chain)), before);
    }
  });

  test('another pod of the same policies costs elements, and its going too', () => {
    const { planner } = nodeWith(MANY);
    setPod(planner, 'another', '10.0.0.9');
    assert.deepEqual(changed(planner.take()), [
      'policy-egress +1',
      'policy-ingress +1',
      'policy-self +1',
    ]);
    planner.setLocal('another', undefined);
    assert.deepEqual(changed(planner.take()), [
      'policy-egress -1',
      'policy-ingress -1',
      'policy-self -1',
    ]);
  });

  test('a policy with other peers writes one chain, and no element of a pod', () => {
    const { planner, contents } = nodeWith(MANY);
    const before = contents();
    setPolicy(planner, 'policy-1007', { app: 'a' }, 80, 'x');
    const changes = planner.take();
    const after = changes.find(({ family }) => family === 'ip')?.part;
    assert.ok(after);
    const written = after.chains.filter(
      (chain) => before.get(chain.name) !== inspect(chain, { depth: 9 }),
    );
    assert.deepEqual(
      written.map(({ name }) => name.slice(0, 3)),
      ['np-'],
    );
    assert.ok(changes.every(({ elements }) => elements.length === 0));
  });
});

test('of two pods with one address the last has it, and the going of the first takes nothing from it', () => {
  const planner = new PolicyPlanner();
  planner.setNamespace('one', { name: 'one', labels: {} });
  setPolicy(planner, 'deny', { app: 'b' });
  setPod(planner, 'a', '10.0.0.1', 'a');
  planner.take();
  setPod(planner, 'b', '10.0.0.1', 'b');
  const leadsTo = (changes: PlanChange[]) =>
    changes
      .flatMap(({ elements }) => elements)
      .filter(({ set }) => set === INGRESS_PODS)
      .map(
        ({ add, remove }) => `${add.map(({ verdict }) => verdict?.kind).join()} -${remove.length}`,
      );
  assert.deepEqual(leadsTo(planner.take()), ['jump -0']);
  planner.setLocal('a', undefined);
  assert.deepEqual(leadsTo(planner.take()), []);
  planner.setLocal('b', undefined);
  assert.deepEqual(leadsTo(planner.take()), [' -1']);
});

/** A node with one pod that all of so many policies select. */
function nodeWith(policies: number) {
  const planner = new PolicyPlanner();
  planner.setNamespace('one', { name: 'one', labels: {} });
  for (let i = 0; i < policies; i++) setPolicy(planner, `policy-${1000 + i}`);
  setPod(planner, 'first', '10.0.0.1');
  let chainsNow = planner.take().find(({ family }) => family === 'ip')?.part?.chains ?? [];
  const look = () => {
    chainsNow = planner.take().find(({ family }) => family === 'ip')?.part?.chains ?? chainsNow;
    return chainsNow;
  };
  return {
    planner,
    chains: () => look().map(({ name, rules }) => [name, rules.length] as const),
    contents: () => new Map(look().map((chain) => [chain.name, inspect(chain, { depth: 9 })])),
  };
}

function setPolicy(
  planner: PolicyPlanner,
  name: string,
  labels: Record<string, string> = { app: 'a' },
  port = 80,
  from?: string,
) {
  const policy = compileNetworkPolicy(
    networkPolicy(`one/${name}`, {
      podSelector: { matchLabels: labels },
      policyTypes: ['Ingress'],
      ingress: [
        {
          ports: [{ port }],
          ...(from === undefined
            ? {}
            : { from: [{ podSelector: { matchLabels: { app: from } } }] }),
        },
      ],
    }),
  );
  planner.setPolicy(policy.id, policy);
}

function setPod(planner: PolicyPlanner, name: string, address: string, app = 'a') {
  const pod: PolicyPod = {
    ...{ key: `one/${name}`, namespace: 'one', name, labels: { app }, ips: [ip(address)] },
    ...{ node: undefined, hostNetwork: false, ports: [] },
  };
  planner.setLocal(name, pod);
}

function changed(changes: readonly PlanChange[]): string[] {
  assert.ok(changes.every(({ part }) => part === undefined));
  return changes.flatMap(({ elements }) =>
    elements.flatMap(({ set, add, remove }) => [
      ...(add.length > 0 ? [`${set} +${add.length}`] : []),
      ...(remove.length > 0 ? [`${set} -${remove.length}`] : []),
    ]),
  );
}
