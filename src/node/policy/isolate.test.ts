import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { KubeObject } from '#api/meta.ts';
import { ENOENT, KernelError } from '#lib/errors.ts';
import { compilePolicy } from '#policy/world.ts';
import { inTable, type Operation } from '#wire/nftables/objects.ts';
import type { Refusal } from '../ruleset.ts';
import { policyPart, tierChain } from './chains.ts';
import { isolate, ownersOf } from './isolate.ts';
import { clusterPolicy, networkPolicy } from './testing.ts';

const { chain, rule, set, elements, table } = inTable('ip', 'tulle');

/** A kernel that does not take some policies, and tells whose fault it is of those that are `named`. */
class FussyKernel {
  readonly #bad: ReadonlySet<string>;
  readonly #named: ReadonlySet<string>;
  readonly all: readonly string[];
  /** What the last transaction that was taken left out, and what the plan leaves out. */
  inForce: ReadonlySet<string> | undefined;
  planned: ReadonlySet<string> = new Set();
  tries = 0;

  constructor(all: readonly string[], bad: Iterable<string>, named: Iterable<string>) {
    this.all = all;
    this.#bad = new Set(bad);
    this.#named = new Set(named);
  }
  readonly tryWithout = (refused: ReadonlySet<string>): Refusal | undefined => {
    this.planned = refused;
    this.tries++;
    const culprit = this.all.find((id) => this.#bad.has(id) && !refused.has(id));
    if (culprit === undefined) {
      this.inForce = refused;
      return undefined;
    }
    const operation = this.#named.has(culprit) ? chain.add(culprit) : undefined;
    return { error: new KernelError(`add ${culprit}`, ENOENT), operation };
  };
  readonly ownersOf = (operation: Operation) =>
    operation.kind === 'chain' && 'object' in operation ? [operation.object.chain] : [];
}

function run(
  all: readonly string[],
  bad: readonly string[],
  named: readonly string[],
  isTimeUp = () => false,
) {
  const kernel = new FussyKernel(all, bad, named);
  const first = kernel.tryWithout(new Set());
  assert.ok(first);
  return {
    kernel,
    result: isolate(first, new Map(), {
      ...{ tryWithout: kernel.tryWithout, ownersOf: kernel.ownersOf },
      ...{ suspects: all, isTimeUp },
    }),
  };
}

describe('isolate()', () => {
  test('leaves out exactly what the kernel refuses, told or not, and plans what it has', () => {
    const ids = Array.from({ length: 12 }, (_, i) => `p${i}`);
    fc.assert(
      fc.property(
        fc.subarray(ids, { minLength: 1, maxLength: 3 }),
        fc.subarray(ids),
        (bad, named) => {
          const { kernel, result } = run(ids, bad, named);
          assert.ok(result.kind === 'isolated');
          assert.deepEqual([...result.refused.keys()].sort(), [...bad].sort());
          assert.deepEqual([...(kernel.inForce ?? [])].sort(), [...bad].sort());
          assert.deepEqual([...kernel.planned].sort(), [...bad].sort());
        },
      ),
    );
  });

  test('when too many are refused, those that it does not reach stay out', () => {
    const ids = Array.from({ length: 64 }, (_, i) => `p${i}`);
    const bad = ids.filter((_, i) => i % 2 === 0);
    const { kernel, result } = run(ids, bad, []);
    assert.ok(result.kind === 'isolated');
    for (const id of bad) assert.ok(result.refused.has(id));
    assert.deepEqual(kernel.inForce, new Set(result.refused.keys()));
  });

  test('finds one of ten thousand that is not named by few tries', () => {
    const ids = Array.from({ length: 10_000 }, (_, i) => `p${i}`);
    for (const bad of ['p0', 'p4999', 'p5000', 'p9999']) {
      const { kernel, result } = run(ids, [bad], []);
      assert.ok(result.kind === 'isolated');
      assert.deepEqual([...result.refused.keys()], [bad]);
      assert.ok(kernel.tries <= 32, `${kernel.tries} tries for ${bad}`);
    }
  });

  test('when time is up, those that may be it stay out, and each time they are fewer', () => {
    const ids = Array.from({ length: 1_000 }, (_, i) => `p${i}`);
    let suspects: readonly string[] = ids;
    for (let times = 0; suspects.length > 1; times++) {
      assert.ok(times < 5, `${suspects.length} are left`);
      const { kernel, result } = run(suspects, ['p613'], [], () => true);
      assert.ok(result.kind === 'isolated' && result.refused.has('p613'));
      assert.ok(result.refused.size < suspects.length);
      assert.deepEqual(kernel.inForce, new Set(result.refused.keys()));
      suspects = [...result.refused.keys()];
    }
  });

  test('a fault that is no policy’s fails, and plans all of them again', () => {
    let planned: ReadonlySet<string> | undefined;
    const error = new KernelError('add table', ENOENT);
    const result = isolate({ error, operation: table.add() }, new Map([['old', 'why']]), {
      tryWithout(refused) {
        planned = refused;
        return { error, operation: table.add() };
      },
      ownersOf: () => [],
      suspects: ['a', 'b'],
      isTimeUp: () => false,
    });
    assert.deepEqual(result, { kind: 'failed', error });
    assert.deepEqual(planned, new Set(['old']));
  });
});

describe('ownersOf()', () => {
  const compile = (object: unknown) => compilePolicy(object as KubeObject);
  const from = (app: string) => [{ podSelector: { matchLabels: { app } } }];
  const ports = [{ port: 80 }, { port: 90, protocol: 'UDP' as const }];
  const one = compile(
    networkPolicy('default/one', { podSelector: {}, ingress: [{ from: from('a'), ports }] }),
  );
  const two = compile(
    networkPolicy('default/two', { podSelector: {}, ingress: [{ from: from('a') }] }),
  );
  const tiered = ['x', 'y'].map((name) =>
    compile(
      clusterPolicy(name, {
        ...{ tier: 'Admin', priority: 1, subject: { namespaces: {} } },
        ingress: [
          { action: 'Deny', from: [{ namespaces: { matchLabels: { name } } }] },
          { action: 'Accept', from: [{ namespaces: {} }] },
        ],
      }),
    ),
  );
  const policies = [one, two, ...tiered];
  const owners = (operation: Operation) => ownersOf(operation, policies);

  test('a rule names its policy, also by its log', () => {
    for (const policy of tiered)
      for (const { expressions, comment } of tierChain([policy], 'ingress', 'ip').content.rules) {
        const options = comment === undefined ? {} : { comment };
        assert.deepEqual(owners(rule.add('tier', expressions, options)), [policy.id]);
      }
  });

  test('a set belongs to all whose rules look into it', () => {
    const [addresses, several] = policyPart(one, 'ingress', 'ip').sets.map(({ name }) => name);
    assert.ok(addresses !== undefined && several !== undefined);
    assert.deepEqual(owners(set.add(addresses, { key: ['ipv4_addr'] })), [one.id, two.id]);
    assert.deepEqual(owners(elements.add(several, [])), [one.id]);
  });

  test('what is there whatever policies say is nobody’s', () => {
    for (const operation of [
      table.add(),
      chain.add('policy-from-pods'),
      chain.add('np-i-0123456789ab'),
      elements.add('policy-egress', []),
      rule.add('policy-from-pods', []),
    ])
      assert.deepEqual(owners(operation), []);
  });
});
