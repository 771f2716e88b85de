/** What every {@link Nftables} must do: run over the fake and over the kernel. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EBUSY, EEXIST, ENOENT, ERESTART, KernelError } from '#lib/errors.ts';
import { accept, counter, dnat, drop, goTo, jump } from '#wire/nftables/expressions.ts';
import { equals, inSet, ip, mapTo, meta, numgen, th, verdictMap } from '#wire/nftables/match.ts';
import type { Operation, SetElement, Transaction } from '#wire/nftables/objects.ts';
import { inTable, PRIORITY } from '#wire/nftables/objects.ts';
import { concat, hostU32, portBytes, protocolBytes } from '#wire/nftables/values.ts';
import { seriesContract } from './contract-series.ts';
import type { Nftables, RulesetEvent, TableState } from './port.ts';

export interface NftablesUnderTest extends Disposable {
  readonly nft: Nftables;
  /** Commits as another program does. */
  commitAsOther(transaction: Transaction): void;
}

/** Runs one test on a ruleset of its own. */
export type RunContract = (
  title: string,
  body: (under: NftablesUnderTest) => void | Promise<void>,
) => void;

const t = inTable('ip', 'contract');
const base = { type: 'filter', hook: 'input', priority: PRIORITY.filter } as const;
const serviceKey = ['ipv4_addr', 'inet_proto', 'inet_service'] as const;
const key = concat([Uint8Array.of(192, 0, 2, 1), protocolBytes(6), portBytes(80)]);
const address = (last: number) => Uint8Array.of(192, 0, 2, last);

/** @param create makes an empty ruleset */
export function nftablesContract(name: string, create: () => NftablesUnderTest): void {
  describe(`${name}: contract of Nftables`, () => {
    const run: RunContract = (title, body) =>
      test(title, async () => {
        using under = create();
        await body(under);
      });

    seriesContract(run);

    run('commit() makes what dumpTable() gives back', ({ nft }) => {
      nft.commit(services());
      const state = nft.dumpTable('ip', 'contract');
      assert.ok(state !== undefined);
      assert.equal(state.comment, 'of the contract');
      assert.deepEqual(
        state.chains.map(({ handle: _, rules, ...chain }) => ({ ...chain, rules: rules.length })),
        [
          { ...t.ref, chain: 'n1', comment: 'one endpoint', rules: 1 },
          {
            ...t.ref,
            chain: 'prerouting',
            base: { type: 'nat', hook: 'prerouting', priority: -100, policy: 'accept' },
            rules: 1,
          },
        ],
      );
      assert.deepEqual(rulesOf(state, 'n1'), [
        {
          expressions: [
            ...mapTo([ip.daddr, meta.l4proto, th.dport, numgen('random', 1)], 'endpoints'),
            dnat('ip', { address: 0, port: 1 }),
          ],
          comment: 'spread',
        },
      ]);
      const sets = Object.fromEntries(
        state.sets.map(({ handle: _, set, family: _f, table: _t, ...rest }) => [set, rest]),
      );
      assert.deepEqual(sets, {
        frontends: {
          key: [...serviceKey],
          data: 'verdict',
          comment: 'services',
          elements: [{ key, verdict: goTo('n1'), comment: 'default/web' }],
        },
        endpoints: {
          key: ['ip daddr', 'meta l4proto', 'th dport', 'numgen random mod 1'],
          data: ['ip daddr', 'th dport'],
          size: 1000,
          elements: [
            {
              key: concat([address(1), protocolBytes(6), portBytes(80), hostU32(0)]),
              data: concat([address(9), portBytes(8080)]),
            },
          ],
        },
      });
    });

    run('dumpTable() gives undefined for a table that is not there', ({ nft }) => {
      assert.equal(nft.dumpTable('ip', 'contract'), undefined);
    });

    run('dumpTable() leaves out elements on request', ({ nft }) => {
      nft.commit(services());
      const state = nft.dumpTable('ip', 'contract', { elements: false });
      assert.deepEqual(
        state?.sets.map((set) => set.elements),
        [[], []],
      );
    });

    run('elementsOf() gives the elements that dumpTable() gives, of any set', ({ nft }) => {
      const [a, b] = [Uint8Array.of(10, 0, 0, 1), Uint8Array.of(10, 0, 0, 2)];
      const key = ['ipv4_addr'] as const;
      const chain = { kind: 'goto', chain: 'a' } as const;
      nft.commit([
        ...[t.table.add(), t.chain.add('a'), t.set.add('plain', { key, size: 8 })],
        ...[t.elements.add('plain', [{ key: a }, { key: b }]), t.set.add('commented', { key })],
        t.elements.add('commented', [{ key: a }, { key: b, comment: 'of b' }]),
        // Of three bytes more than the attributes are aligned to.
        t.set.add('map', { key: ['ipv4_addr', 'inet_proto'], data: ['ether_addr', 'inet_proto'] }),
        t.elements.add('map', [{ key: new Uint8Array(8), data: new Uint8Array(12).fill(7) }]),
        t.set.add('ports', { key, data: ['inet_service'] }),
        t.elements.add('ports', [{ key: a, data: Uint8Array.of(0, 80) }]),
        t.set.add('verdicts', { key, data: 'verdict' }),
        t.elements.add('verdicts', [{ key: a, verdict: chain }]),
        t.set.add('intervals', { key, interval: true }),
        t.elements.add('intervals', [{ key: a }, { key: b, intervalEnd: true }]),
        t.set.add('empty', { key }),
      ]);
      const inOrder = (elements: Iterable<SetElement>) =>
        [...elements].sort((x, y) => Buffer.compare(x.key, y.key));
      for (const { set, elements } of nft.dumpTable('ip', 'contract')?.sets ?? [])
        assert.deepEqual(inOrder(nft.elementsOf({ ...t.ref, set })), inOrder(elements), set);
      assert.equal(nft.elementsOf({ ...t.ref, set: 'plain' }).length, 2);
      assert.deepEqual(nft.elementsOf({ ...t.ref, set: 'missing' }), []);
    });

    run('countsOf() gives what the rules of one chain have counted, in order', ({ nft }) => {
      assert.deepEqual(nft.listChains('ip', 'contract'), []);
      nft.commit([
        t.table.add(),
        t.chain.add('a'),
        t.chain.add('b'),
        t.rule.add('a', [counter(7n, 600n), accept], { comment: 'first' }),
        t.rule.add('a', [accept], { comment: 'counts nothing' }),
        t.rule.add('a', [counter(1n, 40n), accept]),
        t.rule.add('a', [...equals(meta.l4proto, Uint8Array.of(6)), counter(1n, 52n), accept], {
          comment: 'last, 100 €',
        }),
        t.rule.add('b', [counter(9n, 900n)], { comment: 'of another chain' }),
      ]);
      assert.deepEqual(nft.listChains('ip', 'contract'), ['a', 'b']);
      assert.deepEqual(nft.listChains('ip6', 'contract'), []);
      const a = { ...t.ref, chain: 'a' };
      assert.deepEqual(nft.countsOf(a), [
        { comment: 'first', packets: 7n, bytes: 600n },
        { comment: 'last, 100 €', packets: 1n, bytes: 52n },
      ]);
      assert.deepEqual(nft.countsOf({ ...a, chain: 'c' }), []);
      assert.deepEqual(nft.countsOf({ ...a, table: 'missing' }), []);
    });

    run('listTables() lists tables of all families or of one', ({ nft }) => {
      nft.commit([t.table.add(), inTable('ip6', 'contract').table.add()]);
      assert.deepEqual(nft.listTables('ip6'), [{ family: 'ip6', table: 'contract' }]);
      assert.equal(nft.listTables().length, 2);
    });

    run('commit() does nothing when one operation fails, and names it', ({ nft }) => {
      nft.commit([t.table.add()]);
      const before = nft.generation();
      const failing = [t.chain.add('a'), t.rule.add('missing', [accept]), t.chain.add('b')];
      assert.throws(
        () => nft.commit(failing),
        (error) => {
          assert.ok(error instanceof KernelError);
          assert.equal(error.errno, ENOENT);
          assert.equal(error.index, 1);
          assert.match(error.message, /add rule to chain ip contract missing/);
          return true;
        },
      );
      assert.deepEqual(nft.dumpTable('ip', 'contract')?.chains, []);
      assert.equal(nft.generation(), before);
    });

    run('commit() adds what exists and refuses to create it', ({ nft }) => {
      nft.commit(services());
      nft.commit(services());
      refuses(nft, EEXIST, t.chain.create('n1'));
      refuses(nft, EEXIST, t.set.create('frontends', { key: serviceKey, data: 'verdict' }));
    });

    run('commit() refuses to delete what is in use', ({ nft }) => {
      nft.commit([
        t.table.add(),
        t.chain.add('target'),
        t.chain.add('used'),
        t.chain.add('input', { base }),
        t.set.add('peers', { key: ['ipv4_addr'] }),
        t.set.add('jumps', { key: ['ipv4_addr'], data: 'verdict' }),
        t.rule.add('input', [...inSet([ip.saddr], 'peers'), jump('used')]),
        t.elements.add('jumps', [{ key: address(1), verdict: goTo('target') }]),
      ]);
      refuses(nft, EBUSY, t.chain.delete('used'));
      refuses(nft, EBUSY, t.chain.delete('target'));
      refuses(nft, EBUSY, t.set.delete('peers'));
      nft.commit([t.set.delete('jumps'), t.chain.delete('target')]);
      nft.commit([t.chain.flush('input'), t.chain.delete('used'), t.set.delete('peers')]);
    });

    run('commit() deletes a chain with its rules', ({ nft }) => {
      nft.commit([t.table.add(), t.chain.add('a'), t.rule.add('a', [accept])]);
      nft.commit([t.chain.delete('a')]);
      assert.deepEqual(nft.dumpTable('ip', 'contract')?.chains, []);
    });

    run('commit() refuses what names something that is not there', ({ nft }) => {
      refuses(nft, ENOENT, t.chain.add('a'));
      nft.commit([t.table.add(), t.chain.add('a')]);
      refuses(nft, ENOENT, t.rule.add('a', [jump('missing')]));
      refuses(nft, ENOENT, t.rule.add('a', verdictMap([ip.saddr], 'missing')));
      refuses(nft, ENOENT, t.chain.delete('missing'));
      refuses(nft, ENOENT, t.set.delete('missing'));
      refuses(nft, ENOENT, t.rule.delete('a', 4711));
      refuses(nft, ENOENT, inTable('ip', 'missing').table.delete());
      refuses(nft, ENOENT, t.elements.add('missing', [{ key: address(1) }]));
      refuses(nft, ENOENT, t.elements.delete('missing', [{ key: address(1) }]));
    });

    run('commit() keeps rules in the order of add, insert and position', ({ nft }) => {
      const named = (comment: string, at?: number) =>
        ({ comment, ...(at === undefined ? {} : { at }) }) as const;
      nft.commit([
        t.table.add(),
        t.chain.add('a'),
        t.rule.add('a', [accept], named('one')),
        t.rule.add('a', [accept], named('four')),
      ]);
      const first = handleOf(nft, 'one');
      nft.commit([
        t.rule.insert('a', [accept], named('zero')),
        t.rule.add('a', [accept], named('two', first)),
        t.rule.insert('a', [accept], named('three', handleOf(nft, 'four'))),
      ]);
      assert.deepEqual(commentsOf(nft), ['zero', 'one', 'two', 'three', 'four']);
      nft.commit([
        t.rule.replace('a', first, [drop], 'new'),
        t.rule.delete('a', handleOf(nft, 'zero')),
      ]);
      assert.deepEqual(commentsOf(nft), ['new', 'two', 'three', 'four']);
    });

    run('commit() adds an element twice only with the same data', ({ nft }) => {
      nft.commit([t.table.add(), t.set.add('m', { key: ['ipv4_addr'], data: ['inet_service'] })]);
      const element = { key: address(1), data: portBytes(80) };
      nft.commit([t.elements.add('m', [element])]);
      nft.commit([t.elements.add('m', [element])]);
      refuses(nft, EEXIST, t.elements.create('m', [element]));
      refuses(nft, EEXIST, t.elements.add('m', [{ key: address(1), data: portBytes(81) }]));
      nft.commit([
        t.elements.delete('m', [{ key: address(1) }]),
        t.elements.add('m', [{ key: address(1), data: portBytes(81) }]),
      ]);
      assert.deepEqual(elementsOf(nft, 'm'), [{ key: address(1), data: portBytes(81) }]);
      refuses(nft, ENOENT, t.elements.delete('m', [{ key: address(2) }]));
    });

    run('commit() takes an empty list of elements for nothing at all', ({ nft }) => {
      nft.commit([t.table.add(), t.set.add('s', { key: ['ipv4_addr'] })]);
      nft.commit([t.elements.add('s', [{ key: address(1) }])]);
      const before = nft.generation();
      nft.commit([t.elements.delete('s', [])]);
      nft.commit([]);
      assert.deepEqual(elementsOf(nft, 's'), [{ key: address(1) }]);
      assert.equal(nft.generation(), before);
    });

    run('commit() takes an iterable that is walked, not an array', ({ nft }) => {
      function* many(): Generator<SetElement> {
        for (let i = 0; i < 5000; i++) yield { key: Uint8Array.of(10, 0, i >>> 8, i) };
      }
      nft.commit([
        t.table.add(),
        t.set.add('s', { key: ['ipv4_addr'] }),
        t.elements.add('s', { [Symbol.iterator]: many }),
      ]);
      assert.equal(elementsOf(nft, 's')?.length, 5000);
    });

    run('flush empties a set, a chain, all chains of a table', ({ nft }) => {
      nft.commit([
        t.table.add(),
        t.set.add('s', { key: ['ipv4_addr'] }),
        t.elements.add('s', [{ key: address(1) }, { key: address(2) }]),
        ...['a', 'b'].flatMap((chain) => [t.chain.add(chain), t.rule.add(chain, [counter()])]),
      ]);
      nft.commit([t.set.flush('s'), t.chain.flush('a')]);
      assert.deepEqual(elementsOf(nft, 's'), []);
      assert.deepEqual(
        nft.dumpTable('ip', 'contract')?.chains.map((c) => c.rules.length),
        [0, 1],
      );
      nft.commit([t.table.flush()]);
      assert.deepEqual(
        nft.dumpTable('ip', 'contract')?.chains.map((c) => c.rules.length),
        [0, 0],
      );
    });

    run('destroy accepts what is not there, in a table that is', ({ nft }) => {
      nft.commit([t.table.destroy()]);
      refuses(nft, ENOENT, t.chain.destroy('a'));
      nft.commit([t.table.add(), t.set.add('s', { key: ['ipv4_addr'] })]);
      nft.commit([
        t.chain.destroy('a'),
        t.set.destroy('missing'),
        t.elements.destroy('s', [{ key: address(1) }]),
        t.chain.add('b'),
        t.rule.destroy('b', 4711),
      ]);
      nft.commit([t.elements.add('s', [{ key: address(1) }])]);
      nft.commit([
        t.elements.destroy('s', [{ key: address(1) }, { key: address(2) }]),
        t.chain.destroy('b'),
        t.chain.add('c'),
        t.chain.destroy('c'),
      ]);
      assert.deepEqual(elementsOf(nft, 's'), []);
      assert.deepEqual(nft.dumpTable('ip', 'contract')?.chains, []);
      nft.commit([t.table.destroy(), t.table.destroy()]);
      assert.deepEqual(nft.listTables(), []);
    });

    run('destroy sees what the transaction itself has done', ({ nft }) => {
      nft.commit([
        t.table.add(),
        t.set.add('s', { key: ['ipv4_addr'] }),
        t.elements.add('s', [{ key: address(1) }]),
      ]);
      nft.commit([
        t.set.flush('s'),
        t.elements.destroy('s', [{ key: address(1) }]),
        t.elements.add('s', [{ key: address(2) }]),
        t.elements.destroy('s', [{ key: address(2) }]),
        t.set.delete('s'),
        t.set.add('s', { key: ['ipv4_addr'] }),
        t.elements.destroy('s', [{ key: address(1) }]),
      ]);
      assert.deepEqual(elementsOf(nft, 's'), []);
    });

    run('commit() replaces a whole table in one step', ({ nft }) => {
      nft.commit(services());
      nft.commit([t.table.destroy(), ...services()]);
      assert.equal(nft.dumpTable('ip', 'contract')?.chains.length, 2);
    });

    run(
      'commit() with a generation refuses a ruleset that has changed',
      ({ nft, commitAsOther }) => {
        nft.commit([t.table.add()]);
        const generation = nft.generation();
        commitAsOther([t.chain.add('theirs')]);
        assert.notEqual(nft.generation(), generation);
        assert.throws(
          () => nft.commit([t.chain.add('ours')], { generation }),
          (error) => error instanceof KernelError && error.errno === ERESTART,
        );
        nft.commit([t.chain.add('ours')], { generation: nft.generation() });
        // Without one, another's commit in between does no harm.
        commitAsOther([t.chain.delete('theirs')]);
        nft.commit([t.chain.delete('ours')]);
        assert.deepEqual(nft.dumpTable('ip', 'contract')?.chains, []);
      },
    );

    run('watch() tells own commits from others', async ({ nft, commitAsOther }) => {
      nft.commit([t.table.add()]);
      const events = new Events(nft);
      nft.commit([t.chain.add('ours')]);
      // Changes nothing, so there is no event.
      nft.commit([t.table.add()]);
      commitAsOther([t.chain.add('theirs'), t.rule.add('ours', [drop])]);
      nft.commit([t.chain.delete('theirs')]);
      const [first, second, third] = await events.take(3);
      assert.ok(first?.kind === 'commit' && second?.kind === 'commit' && third?.kind === 'commit');
      assert.deepEqual([first.own, second.own, third.own], [true, false, true]);
      assert.deepEqual(
        second.changes.map(({ verb, kind, table, name: changed }) => [verb, kind, table, changed]),
        [
          ['add', 'chain', 'contract', 'theirs'],
          ['add', 'rule', 'contract', 'ours'],
        ],
      );
      assert.equal(third.generation, nft.generation());
      events.stop();
    });

    run(
      'watch() tells each set once that others put elements into or took some out of',
      async ({ nft, commitAsOther }) => {
        const sets = ['a', 'ab'];
        const numbers = [1, 2, 3, 4].map((number) => ({ key: address(number) }));
        nft.commit([
          t.table.add(),
          ...sets.map((set) => t.set.add(set, { key: ['ipv4_addr'] })),
          ...sets.map((set) => t.elements.add(set, numbers.slice(0, 3))),
        ]);
        const events = new Events(nft);
        commitAsOther([
          t.set.flush('a'),
          t.set.flush('ab'),
          t.elements.add('ab', numbers.slice(2)),
        ]);
        commitAsOther([t.elements.add('a', numbers.slice(0, 2))]);
        const told = await events.take(2);
        assert.deepEqual(
          told.map((event) =>
            event.kind === 'commit'
              ? event.changes.map((it) => `${it.verb} ${it.kind} ${it.name}`).sort()
              : event.kind,
          ),
          [['add elements ab', 'delete elements a', 'delete elements ab'], ['add elements a']],
        );
        events.stop();
      },
    );

    run('watch() tells nothing any more once it is ended', async ({ nft, commitAsOther }) => {
      const ended = new Events(nft);
      const open = new Events(nft);
      ended.stop();
      commitAsOther([t.table.add()]);
      await open.take(1);
      assert.equal(ended.count, 0);
      open.stop();
    });
  });
}

/** The service layout of the design, at its smallest. */
function services(): Operation[] {
  const slot = 'numgen random mod 1';
  return [
    t.table.add({ comment: 'of the contract' }),
    t.set.add('frontends', { key: serviceKey, data: 'verdict', comment: 'services' }),
    t.set.add('endpoints', {
      key: ['ip daddr', 'meta l4proto', 'th dport', slot],
      data: ['ip daddr', 'th dport'],
      size: 1000,
    }),
    t.chain.add('n1', { comment: 'one endpoint' }),
    t.chain.add('prerouting', {
      base: { type: 'nat', hook: 'prerouting', priority: PRIORITY.dstnat },
    }),
    t.chain.flush('n1'),
    t.chain.flush('prerouting'),
    t.rule.add(
      'n1',
      [
        ...mapTo([ip.daddr, meta.l4proto, th.dport, numgen('random', 1)], 'endpoints'),
        dnat('ip', { address: 0, port: 1 }),
      ],
      { comment: 'spread' },
    ),
    t.rule.add('prerouting', verdictMap([ip.daddr, meta.l4proto, th.dport], 'frontends')),
    t.elements.add('endpoints', [
      {
        key: concat([address(1), protocolBytes(6), portBytes(80), hostU32(0)]),
        data: concat([address(9), portBytes(8080)]),
      },
    ]),
    t.elements.add('frontends', [{ key, verdict: goTo('n1'), comment: 'default/web' }]),
  ];
}

function refuses(nft: Nftables, errno: number, operation: Operation): void {
  assert.throws(
    () => nft.commit([operation]),
    (error) => error instanceof KernelError && error.errno === errno && error.index === 0,
    `errno ${errno} expected of: ${operation.verb} ${operation.kind}`,
  );
}

function rulesOf(state: TableState, chain: string) {
  const rules = state.chains.find((c) => c.chain === chain)?.rules ?? [];
  return rules.map(({ handle: _, ...rule }) => rule);
}
function rulesOfA(nft: Nftables) {
  return nft.dumpTable('ip', 'contract')?.chains.find((c) => c.chain === 'a')?.rules ?? [];
}
const commentsOf = (nft: Nftables) => rulesOfA(nft).map((rule) => rule.comment);
function handleOf(nft: Nftables, comment: string): number {
  const rule = rulesOfA(nft).find((r) => r.comment === comment);
  assert.ok(rule !== undefined);
  return rule.handle;
}
const elementsOf = (nft: Nftables, set: string) =>
  nft.dumpTable('ip', 'contract')?.sets.find((s) => s.set === set)?.elements;

class Events {
  readonly stop: () => void;
  readonly #events: RulesetEvent[] = [];
  #wake: () => void = () => {};

  constructor(nft: Nftables) {
    this.stop = nft.watch((event) => {
      this.#events.push(event);
      this.#wake();
    });
  }
  get count(): number {
    return this.#events.length;
  }
  async take(count: number): Promise<RulesetEvent[]> {
    while (this.#events.length < count)
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    return this.#events.splice(0, count);
  }
}
