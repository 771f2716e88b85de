import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeClock } from '#lib/clock.ts';
import { ERESTART, KernelError } from '#lib/errors.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { FakeNftables } from '#linux/nftables/fake.ts';
import type { PolicyPod } from '#policy/model.ts';
import { compilePolicy } from '#policy/world.ts';
import type { Transaction } from '#wire/nftables/objects.ts';
import { Ruleset } from '../ruleset.ts';
import { PolicyPlanner } from './planner.ts';
import { POLICY_PART, Programmer } from './programmer.ts';
import { networkPolicy } from './testing.ts';

/** Of a machine that has no memory left for anything. */
const ENOMEM = 12;

/** Refuses transactions as it is told. */
class MoodyNftables extends FakeNftables {
  refusal: KernelError | undefined;
  /** Part of the comment of a rule that it does not take. */
  disliked: string | undefined;
  /** Does not say which. */
  isVague = false;
  override commit(transaction: Transaction): void {
    if (this.refusal !== undefined) throw this.refusal;
    const { disliked } = this;
    const index = transaction.findIndex(
      (it) =>
        disliked !== undefined &&
        it.kind === 'rule' &&
        'object' in it &&
        it.object.comment?.includes(disliked) === true,
    );
    if (index >= 0) throw new KernelError('add a rule', ENOMEM, this.isVague ? {} : { index });
    super.commit(transaction);
  }
}

const pod = (name: string, last: number, app: string): PolicyPod => ({
  ...{ key: `one/${name}`, namespace: 'one', name, labels: { app }, node: undefined },
  ...{ ips: [ip(`10.0.0.${last}`), ip(`fd00::${last}`)], hostNetwork: false, ports: [] },
});
const allow = (name: string, app: string) =>
  compilePolicy(
    networkPolicy(`one/${name}`, {
      podSelector: { matchLabels: { app: 'web' } },
      ingress: [{ from: [{ podSelector: { matchLabels: { app } } }] }],
    }),
  );
const NONE: ReadonlySet<string> = new Set();

async function withNode(
  use: (node: {
    planner: PolicyPlanner;
    nftables: MoodyNftables;
    clock: FakeClock;
    program: (...changed: string[]) => void;
    refused: () => string[];
  }) => void,
): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const nftables = new MoodyNftables();
  const rulesets = (['ip', 'ip6'] as const).map((family) =>
    stack.use(
      new Ruleset(
        { nftables, log: silentLogger },
        { family, table: 'tulle', parts: [POLICY_PART] },
      ),
    ),
  );
  const planner = new PolicyPlanner();
  const clock = new FakeClock();
  const programmer = stack.use(
    new Programmer({
      ...{ planner, rulesets, log: silentLogger, clock, onRetry: () => {} },
    }),
  );
  planner.setNamespace('one', { name: 'one', labels: {} });
  for (const local of [pod('web', 1, 'web'), pod('web2', 2, 'web')]) {
    planner.setPod(local.key, local);
    planner.setLocal(local.name, local);
  }
  planner.setPolicy('NetworkPolicy one/p', allow('p', 'a'));
  programmer.program(NONE);
  use({
    ...{ planner, nftables, clock, program: (...changed) => programmer.program(new Set(changed)) },
    refused: () => [...programmer.refused.keys()],
  });
}

describe('what a change costs', () => {
  const kinds = (transaction: Transaction | undefined) =>
    [...new Set(transaction?.map(({ kind }) => kind))].sort();
  const families = (transaction: Transaction | undefined) =>
    [...new Set(transaction?.map((it) => ('object' in it ? it.object : it.ref).family))].sort();

  test('a policy: one transaction, for both families', () =>
    withNode(({ planner, nftables, program }) => {
      const before = nftables.committed.length;
      planner.setPolicy('NetworkPolicy one/p', allow('p', 'b'));
      program('NetworkPolicy one/p');
      assert.equal(nftables.committed.length, before + 1);
      assert.deepEqual(families(nftables.committed.at(-1)), ['ip', 'ip6']);
    }));

  test('a peer that comes, is labelled otherwise and goes: elements, in one transaction each', () =>
    withNode(({ planner, nftables, program }) => {
      for (const peer of [pod('x', 9, 'a'), pod('x', 9, 'b'), pod('x', 9, 'a'), undefined]) {
        const before = nftables.committed.length;
        planner.setPod('one/x', peer);
        program();
        assert.equal(nftables.committed.length, before + 1);
        assert.deepEqual(kinds(nftables.committed.at(-1)), ['elements']);
        assert.deepEqual(families(nftables.committed.at(-1)), ['ip', 'ip6']);
      }
    }));

  test('a pod of this node with the policies of another: elements', () =>
    withNode(({ planner, nftables, program }) => {
      const third = pod('web3', 3, 'web');
      for (const local of [third, undefined]) {
        planner.setPod(third.key, local);
        planner.setLocal('web3', local);
        program();
        assert.deepEqual(kinds(nftables.committed.at(-1)), ['elements']);
      }
    }));
});

describe('refusals', () => {
  test('of somebody else’s making blame no policy, and what is in force stays', () =>
    withNode(({ planner, nftables, program, refused }) => {
      const before = nftables.dumpTable('ip', 'tulle');
      planner.setPolicy('NetworkPolicy one/q', allow('q', 'b'));
      for (const errno of [ERESTART, ENOMEM]) {
        nftables.refusal = new KernelError('commit', errno);
        assert.throws(() => program('NetworkPolicy one/q'), { errno });
        assert.deepEqual(refused(), []);
        assert.deepEqual(nftables.dumpTable('ip', 'tulle'), before);
      }
      nftables.refusal = undefined;
      program('NetworkPolicy one/q');
      assert.equal(
        nftables.dumpTable('ip', 'tulle')?.chains.filter(({ chain }) => /^np-/.test(chain)).length,
        2,
      );
    }));

  test('blame the one that is refused, not another about the same pods, though nobody says which', async () => {
    const names = ['a', 'b', 'c', 'd'];
    for (const bad of names)
      await withNode(({ planner, nftables, program, refused }) => {
        nftables.isVague = true;
        nftables.disliked = `one/${bad} `;
        for (const name of names) planner.setPolicy(`NetworkPolicy one/${name}`, allow(name, 'b'));
        program(...names.map((name) => `NetworkPolicy one/${name}`));
        assert.deepEqual(refused(), [`NetworkPolicy one/${bad}`]);
      });
  });

  test('a policy that is left out stays known as such while others are in the way of trying it again', () =>
    withNode(({ planner, nftables, clock, program, refused }) => {
      const id = 'NetworkPolicy one/q';
      nftables.disliked = 'one/q ';
      planner.setPolicy(id, allow('q', 'b'));
      program(id);
      assert.deepEqual(refused(), [id]);
      clock.advance(3_600_000);
      nftables.refusal = new KernelError('commit', ERESTART);
      assert.throws(() => program(), { errno: ERESTART });
      assert.deepEqual(refused(), [id]);
      nftables.refusal = undefined;
      nftables.disliked = undefined;
      clock.advance(3_600_000);
      program();
      assert.deepEqual(refused(), []);
    }));
});
