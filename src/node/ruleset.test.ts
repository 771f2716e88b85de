import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EEXIST, KernelError } from '#lib/errors.ts';
import { silentLogger } from '#lib/log.ts';
import { FakeNftables } from '#linux/nftables/fake.ts';
import { accept, counter, drop, jump } from '#wire/nftables/expressions.ts';
import { describeOperation } from '#wire/nftables/format.ts';
import { inSet, ip } from '#wire/nftables/match.ts';
import { inTable, type Transaction } from '#wire/nftables/objects.ts';
import { Ruleset, type RulesetPart } from './ruleset.ts';

const ADDRESSES = { set: 'addresses', key: ['ipv4_addr'] } as const;
const key = (n: number) => ({ key: Uint8Array.of(10, 0, 0, n) });
const part = (...names: string[]): RulesetPart => ({
  sets: [ADDRESSES],
  chains: names.map((name) => ({ name, rules: [{ expressions: [counter(), accept] }] })),
});

function create(nftables: FakeNftables, parts: string[] = ['a']): Ruleset {
  return new Ruleset({ nftables, log: silentLogger }, { family: 'ip', table: 'tulle', parts });
}

function seen(nftables: FakeNftables) {
  const table = nftables.dumpTable('ip', 'tulle');
  return {
    chains: table?.chains.map((chain) => chain.chain),
    elements: table?.sets[0]?.elements.map((element) => element.key[3]).sort(),
  };
}

test('Ruleset commits nothing before all awaited parts are defined', async () => {
  const nftables = new FakeNftables();
  await using ruleset = create(nftables, ['a', 'b']);
  ruleset.define('a', part('one'));
  ruleset.commit();
  assert.equal(nftables.dumpTable('ip', 'tulle'), undefined);
  ruleset.define('b', { sets: [], chains: [{ name: 'two', rules: [] }] });
  ruleset.commit();
  assert.deepEqual(seen(nftables).chains, ['one', 'two']);
});

test('Ruleset replaces what an earlier agent left', async () => {
  const nftables = new FakeNftables();
  const { table, chain } = inTable('ip', 'tulle');
  nftables.commit([table.add(), chain.add('stale')]);
  await using ruleset = create(nftables);
  ruleset.define('a', part('one'));
  ruleset.commit();
  assert.deepEqual(seen(nftables).chains, ['one']);
});

test('Ruleset changes only what is staged', async () => {
  const nftables = new FakeNftables();
  await using ruleset = create(nftables);
  ruleset.define('a', part('one'));
  ruleset.stage('addresses', { add: [key(1), key(2)] });
  ruleset.commit();
  const handle = nftables.dumpTable('ip', 'tulle')?.handle;
  ruleset.stage('addresses', { remove: [key(1)], add: [key(3)] });
  ruleset.commit();
  assert.deepEqual(seen(nftables).elements, [2, 3]);
  assert.equal(nftables.dumpTable('ip', 'tulle')?.handle, handle, 'the table was not made anew');
});

test('Ruleset removes and adds one key in either order of staging', async () => {
  const nftables = new FakeNftables();
  await using ruleset = create(nftables);
  ruleset.define('a', part('one'));
  ruleset.stage('addresses', { add: [key(1)] });
  ruleset.commit();
  ruleset.stage('addresses', { remove: [key(1)] });
  ruleset.stage('addresses', { add: [key(1)] });
  ruleset.commit();
  assert.deepEqual(seen(nftables).elements, [1]);
});

test('Ruleset.define() adds, changes and removes chains', async () => {
  const nftables = new FakeNftables();
  await using ruleset = create(nftables);
  ruleset.define('a', part('one', 'two'));
  ruleset.commit();
  ruleset.define('a', {
    sets: [ADDRESSES],
    chains: [
      { name: 'two', rules: [{ expressions: [drop] }] },
      { name: 'three', rules: [] },
    ],
  });
  ruleset.commit();
  const table = nftables.dumpTable('ip', 'tulle');
  assert.deepEqual(table?.chains.map((c) => c.chain).sort(), ['three', 'two']);
  assert.deepEqual(
    table?.chains.find((c) => c.chain === 'two')?.rules.map((r) => r.expressions),
    [[drop]],
  );
});

test('Ruleset gives a base chain that parts share the rules of all of them, in their order', async () => {
  const nftables = new FakeNftables();
  await using ruleset = create(nftables, ['a', 'b']);
  const shared = {
    name: 'both',
    base: { type: 'filter', hook: 'forward', priority: 0 },
  } as const;
  const share = (order: number, ...comments: string[]): RulesetPart => ({
    sets: [],
    chains: [
      {
        ...shared,
        rules: comments.map((comment) => ({ expressions: [accept], comment, order })),
      },
    ],
  });
  const comments = () =>
    nftables.dumpTable('ip', 'tulle')?.chains.map((it) => it.rules.map((rule) => rule.comment));
  ruleset.define('a', share(1, 'later'));
  ruleset.define('b', share(0, 'first', 'second'));
  ruleset.commit();
  assert.deepEqual(comments(), [['first', 'second', 'later']]);
  const handle = nftables.dumpTable('ip', 'tulle')?.handle;
  ruleset.define('b', share(0, 'other'));
  ruleset.commit();
  assert.deepEqual(comments(), [['other', 'later']]);
  ruleset.define('a', { sets: [], chains: [] });
  ruleset.commit();
  assert.deepEqual(comments(), [['other']]);
  ruleset.define('b', { sets: [], chains: [] });
  ruleset.commit();
  assert.deepEqual(comments(), []);
  assert.equal(nftables.dumpTable('ip', 'tulle')?.handle, handle, 'the table was not made anew');
});

test('Ruleset.stageAll() makes a set hold exactly the given elements', async () => {
  const nftables = new FakeNftables();
  await using ruleset = create(nftables);
  ruleset.define('a', part('one'));
  ruleset.stageAll('addresses', [key(1), key(2)]);
  ruleset.commit();
  ruleset.stageAll('addresses', [key(2), key(3)]);
  ruleset.commit();
  assert.deepEqual(seen(nftables).elements, [2, 3]);
});

test('Ruleset makes all anew after a transaction that the kernel refused', async () => {
  const nftables = new FakeNftables();
  await using ruleset = create(nftables);
  ruleset.define('a', part('one'));
  ruleset.commit();
  // As if the mirror were wrong: the chain that the next change flushes is not there.
  nftables.commit([inTable('ip', 'tulle').chain.delete('one')]);
  ruleset.define('a', { sets: [ADDRESSES], chains: [{ name: 'one', rules: [] }] });
  ruleset.stage('addresses', { add: [key(7)] });
  assert.throws(() => ruleset.commit());
  assert.equal(ruleset.status().inSync, false);
  ruleset.commit();
  assert.deepEqual(seen(nftables), { chains: ['one'], elements: [7] });
});

for (const [what, operation] of [
  ['the table', inTable('ip', 'tulle').table.delete()],
  ['a chain', inTable('ip', 'tulle').chain.delete('one')],
  ['elements', inTable('ip', 'tulle').set.flush('addresses')],
] as const)
  test(`Ruleset repairs ${what} when another program deletes it`, async () => {
    const nftables = new FakeNftables();
    await using ruleset = create(nftables);
    ruleset.define('a', part('one'));
    ruleset.stage('addresses', { add: [key(1)] });
    ruleset.commit();
    nftables.commitAsOther([operation]);
    while (ruleset.status().repairs === 0) await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(seen(nftables), { chains: ['one'], elements: [1] });
  });

test('Ruleset writes only rules again when another program changes only rules', async () => {
  const nftables = new FakeNftables();
  await using ruleset = create(nftables);
  ruleset.define('a', part('one'));
  ruleset.stage('addresses', { add: [key(1)] });
  ruleset.commit();
  const rules = () => nftables.dumpTable('ip', 'tulle')?.chains.map(({ rules: all }) => all.length);
  const handle = () => nftables.dumpTable('ip', 'tulle')?.handle;
  const [before, table] = [rules(), handle()];
  nftables.commitAsOther([inTable('ip', 'tulle').chain.flush('one')]);
  assert.notDeepEqual(rules(), before);
  // What is staged meanwhile comes with it.
  ruleset.stage('addresses', { add: [key(2)] });
  while (ruleset.status().repairs === 0) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(rules(), before);
  assert.deepEqual(seen(nftables), { chains: ['one'], elements: [1, 2] });
  assert.equal(handle(), table, 'the same table');
  assert.ok(ruleset.status().inSync);
});

test('Ruleset puts back what another program took out of sets, and touches no others', async () => {
  const nftables = new FakeNftables();
  const { set, elements } = inTable('ip', 'tulle');
  const sourced = [key(7), key(8)];
  const source = { count: () => sourced.length, batches: () => [sourced] };
  await using ruleset = create(nftables);
  ruleset.define('a', {
    ...part('one'),
    sets: [ADDRESSES, { ...ADDRESSES, set: 'others' }, { ...ADDRESSES, set: 'sourced', source }],
  });
  ruleset.stage('addresses', { add: [key(1), key(2)] });
  ruleset.stage('others', { add: [key(5)] });
  ruleset.commit();
  const all = () =>
    nftables
      .dumpTable('ip', 'tulle')
      ?.sets.map((it) => `${it.set} ${it.elements.map((e) => e.key[3]).sort()}`);
  /** @returns what was written until it was repaired */
  const damaged = async (transaction: Transaction, meanwhile: () => void) => {
    const [commits, repairs] = [nftables.committed.length, ruleset.status().repairs];
    nftables.commitAsOther(transaction);
    meanwhile();
    while (ruleset.status().repairs === repairs)
      await new Promise((resolve) => setImmediate(resolve));
    assert.ok(ruleset.status().inSync);
    return nftables.committed.slice(commits).map((it) => it.map(describeOperation));
  };

  const written = await damaged(
    [elements.delete('addresses', [key(1)]), set.flush('sourced')],
    () => {
      sourced.push(key(6));
      ruleset.change('sourced', { add: [key(6)] });
      ruleset.stage('others', { remove: [key(5)] });
    },
  );
  assert.deepEqual(all(), ['addresses 1,2', 'others ', 'sourced 6,7,8']);
  assert.deepEqual(written, [
    [
      'delete elements from set ip tulle others',
      'add elements to set ip tulle addresses',
      'add elements to set ip tulle sourced',
    ],
  ]);
  // One set alone comes back in pieces.
  assert.deepEqual(await damaged([set.flush('sourced')], () => {}), [
    ['add elements to set ip tulle sourced'],
  ]);
  assert.deepEqual(all(), ['addresses 1,2', 'others ', 'sourced 6,7,8']);
  // What is to go meanwhile may be what was taken out.
  await damaged([elements.delete('addresses', [key(1)])], () =>
    ruleset.stage('addresses', { add: [key(3)], remove: [key(1)] }),
  );
  assert.deepEqual(all(), ['addresses 2,3', 'others ', 'sourced 6,7,8']);
  await damaged([elements.add('addresses', [key(9)]), set.flush('sourced')], () => {});
  assert.deepEqual(all(), ['addresses 2,3', 'others ', 'sourced 6,7,8']);
});

for (const [shape, data, kept] of [
  ['the same shape', ['ipv4_addr'], 1],
  ['another shape', ['inet_service'], 0],
] as const)
  test(`Ruleset carries over what packets have written into a set of ${shape}`, async () => {
    const nftables = new FakeNftables();
    const { table, set, elements } = inTable('ip', 'tulle');
    const clients = { key: ['ipv4_addr'], dynamic: true, size: 10 } as const;
    nftables.commit([
      table.add(),
      set.add('clients', { ...clients, data }),
      elements.add('clients', [
        { ...key(1), data: new Uint8Array(shape === 'the same shape' ? 4 : 2) },
      ]),
    ]);
    await using ruleset = create(nftables);
    ruleset.define('a', {
      sets: [{ set: 'clients', ...clients, data: ['ipv4_addr'] }],
      chains: [],
    });
    ruleset.commit();
    assert.equal(nftables.dumpTable('ip', 'tulle')?.sets[0]?.elements.length, kept);
  });

/** Two sets, two chains that lead to them, and what is in the sets. */
const taken = (names: { base?: string; data?: number } = {}): RulesetPart => ({
  sets: [
    ADDRESSES,
    {
      set: 'ports',
      key: ['ipv4_addr'],
      data: ['inet_service'],
      source: portsFrom(names.data ?? 1),
    },
  ],
  chains: [
    {
      name: 'leaf',
      rules: [{ expressions: [...inSet([ip.saddr], 'addresses'), counter(), drop] }],
    },
    {
      name: names.base ?? 'base',
      base: { type: 'filter', hook: 'forward', priority: 0 },
      rules: [{ expressions: [jump('leaf')], comment: 'look' }],
    },
  ],
});
const portsFrom = (first: number) => ({
  count: () => 3,
  batches: () => [[0, 1, 2].map((i) => ({ ...key(i), data: Uint8Array.of(0, first + i) }))],
});

/** An agent starts on what is there, and ends. @returns what it wrote */
async function startOn(nftables: FakeNftables, content: RulesetPart, elements: number[]) {
  const before = nftables.committed.length;
  await using ruleset = create(nftables);
  ruleset.define('a', content);
  ruleset.stage('addresses', { add: elements.map(key) });
  ruleset.commit();
  assert.ok(ruleset.status().inSync);
  return nftables.committed.slice(before).map((it) => it.map(describeOperation));
}

test('Ruleset writes nothing where an earlier agent left what is wanted', async () => {
  const nftables = new FakeNftables();
  assert.equal((await startOn(nftables, taken(), [1, 2])).length > 0, true);
  assert.deepEqual(await startOn(nftables, taken(), [1, 2]), []);
});

test('Ruleset writes only what differs from what an earlier agent left', async () => {
  const nftables = new FakeNftables();
  await startOn(nftables, taken(), [1, 2]);
  assert.deepEqual(await startOn(nftables, taken(), [2, 3]), [
    ['delete elements from set ip tulle addresses', 'add elements to set ip tulle addresses'],
  ]);
});

test('Ruleset makes a set anew that has no room for what is wanted, and the rules that lead to it', async () => {
  const nftables = new FakeNftables();
  const { table, set } = inTable('ip', 'tulle');
  nftables.commit([
    table.add(),
    set.add('ports', { key: ['ipv4_addr'], data: ['inet_service'], size: 2 }),
  ]);
  await startOn(nftables, taken(), [1]);
  assert.equal(
    nftables.dumpTable('ip', 'tulle')?.sets.find((it) => it.set === 'ports')?.elements.length,
    3,
  );
});

test('Ruleset hooks new base chains in before the old ones go', async () => {
  const nftables = new FakeNftables();
  await startOn(nftables, taken({ base: 'old' }), [1]);
  const [first, second, ...more] = await startOn(nftables, taken({ base: 'new' }), [1]);
  assert.deepEqual(more, []);
  assert.ok(
    first?.some((it) => it.startsWith('add chain ip tulle new')),
    `${first}`,
  );
  assert.deepEqual(second, ['flush chain ip tulle old', 'delete chain ip tulle old']);
});

test('Ruleset makes the table anew where the kernel refuses what differs', async () => {
  class Stubborn extends FakeNftables {
    override commit(transaction: Transaction): void {
      const isWhole = transaction.some(({ verb, kind }) => verb === 'delete' && kind === 'table');
      if (this.committed.length > 0 && !isWhole) throw new KernelError('add elements', EEXIST);
      super.commit(transaction);
    }
  }
  const nftables = new Stubborn();
  nftables.commit([inTable('ip', 'tulle').table.add()]);
  await using ruleset = create(nftables);
  ruleset.define('a', part('one'));
  assert.throws(() => ruleset.commit(), { errno: EEXIST });
  ruleset.commit();
  assert.deepEqual(seen(nftables).chains, ['one']);
});

test('Ruleset makes a table anew that another program has put to sleep', async () => {
  const nftables = new FakeNftables();
  await startOn(nftables, taken(), [1]);
  nftables.commit([inTable('ip', 'tulle').table.add({ dormant: true })]);
  await startOn(nftables, taken(), [1]);
  assert.equal(nftables.dumpTable('ip', 'tulle')?.dormant, undefined);
});

test('Ruleset.tryCommit() changes both families in one transaction, or neither', async () => {
  const nftables = new FakeNftables();
  const families = ['ip', 'ip6'] as const;
  const rulesets = families.map(
    (family) =>
      new Ruleset({ nftables, log: silentLogger }, { family, table: 'tulle', parts: ['a'] }),
  );
  const chains = () =>
    families.map((family) => nftables.dumpTable(family, 'tulle')?.chains.map((it) => it.chain));
  try {
    for (const ruleset of rulesets) ruleset.define('a', part('one'));
    assert.equal(Ruleset.tryCommit(rulesets), undefined);
    const before = nftables.generation();
    for (const ruleset of rulesets) ruleset.define('a', part('two'));
    assert.equal(Ruleset.tryCommit(rulesets), undefined);
    assert.equal(nftables.generation(), before + 1);
    assert.deepEqual(chains(), [['two'], ['two']]);

    for (const ruleset of rulesets) ruleset.define('a', part('three'));
    // As if the mirror were wrong, for the second family alone.
    nftables.commit([inTable('ip6', 'tulle').chain.delete('two')]);
    const refusal = Ruleset.tryCommit(rulesets);
    assert.deepEqual(refusal?.operation, inTable('ip6', 'tulle').chain.flush('two'));
    assert.deepEqual(chains(), [['two'], []]);
    assert.equal(Ruleset.tryCommit(rulesets), undefined);
    assert.deepEqual(chains(), [['three'], ['three']]);
    assert.equal(Ruleset.tryCommit(rulesets), undefined);
  } finally {
    for (const ruleset of rulesets) await ruleset[Symbol.asyncDispose]();
  }
});
