import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { EBUSY, KernelError } from '#lib/errors.ts';
import type { NftFamily, SetElement } from '#wire/nftables/objects.ts';
import { inTable } from '#wire/nftables/objects.ts';
import { concat, portBytes } from '#wire/nftables/values.ts';
import { ScratchNetns } from '../testing/scratch-netns.ts';
import { nftablesContract } from './contract.ts';
import { openNftables } from './kernel.ts';
import type { RulesetEvent } from './port.ts';

for (const destroy of [true, false])
  nftablesContract(destroy ? 'kernel' : 'kernel without destroy', () => {
    const namespace = new ScratchNetns();
    const nft = openNftables({ netns: namespace.path, destroy });
    const other = openNftables({ netns: namespace.path });
    return {
      nft,
      commitAsOther: (transaction) => other.commit(transaction),
      [Symbol.dispose]() {
        nft[Symbol.dispose]();
        other[Symbol.dispose]();
        namespace[Symbol.dispose]();
      },
    };
  });

const t = inTable('ip', 'kernel');
const addresses = (count: number): Iterable<SetElement> => ({
  *[Symbol.iterator]() {
    for (let i = 0; i < count; i++) yield { key: Uint8Array.of(10, i >>> 16, i >>> 8, i) };
  },
});

test('commit() takes a batch of many messages, and dumpTable() gives it back', () => {
  using namespace = new ScratchNetns();
  using nft = openNftables({ netns: namespace.path });
  nft.commit([t.table.add(), t.set.add('s', { key: ['ipv4_addr'] })]);
  nft.commit([t.elements.add('s', addresses(100_000))]);
  const elements = nft.dumpTable('ip', 'kernel')?.sets[0]?.elements ?? [];
  const found = new Set(elements.map(({ key }) => Buffer.from(key).readUInt32BE(0)));
  assert.equal(found.size, 100_000);
});

test('commit() names the element that the kernel did not accept', () => {
  using namespace = new ScratchNetns();
  using nft = openNftables({ netns: namespace.path });
  const set = t.set.add('s', { key: ['ipv4_addr'] });
  nft.commit([t.table.add(), set, t.elements.add('s', addresses(20_000))]);
  const missing = { key: Uint8Array.of(192, 0, 2, 7) };
  const deletion = t.elements.delete('s', [...addresses(20_000), missing]);
  assert.throws(
    () => nft.commit([set, deletion]),
    (error) => {
      assert.ok(error instanceof KernelError);
      assert.equal(error.index, 1);
      assert.match(error.message, /delete elements from set ip kernel s \{ 192\.0\.2\.7 \}/);
      return true;
    },
  );
});

test('watch() is not troubled by lost events of own commits, and tells of lost events of others', async () => {
  using namespace = new ScratchNetns();
  using nft = openNftables({ netns: namespace.path, eventQueueBytes: 16 * 1024 });
  using other = openNftables({ netns: namespace.path });
  nft.commit([t.table.add(), t.set.add('s', { key: ['ipv4_addr'] })]);
  const events: RulesetEvent[] = [];
  let wake = () => {};
  const stop = nft.watch((event) => {
    events.push(event);
    wake();
  });
  const next = async () => {
    while (events.length === 0)
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    return events.shift();
  };
  nft.commit([t.elements.add('s', addresses(20_000))]);
  await new Promise((resolve) => setImmediate(resolve));
  nft.commit([t.chain.add('own')]);
  // Either the small commit is told, or it was lost together with the large one.
  other.commit([t.set.flush('s')]);
  for (;;) {
    const event = await next();
    if (event?.kind === 'commit' && event.own) continue;
    assert.deepEqual(event, { kind: 'lost', generation: nft.generation() });
    break;
  }
  other.commit([t.chain.add('theirs')]);
  const after = await next();
  assert.ok(after?.kind === 'commit' && !after.own && after.generation === nft.generation());
  stop();
});

/** Large: more than the watch is bothered with. */
const LARGE = 20_000;

test('watch() tells of small commits after a large one of our own, and of nothing that was not', async () => {
  using namespace = new ScratchNetns();
  using nft = openNftables({ netns: namespace.path });
  using other = openNftables({ netns: namespace.path });
  nft.commit([t.table.add(), t.set.add('s', { key: ['ipv4_addr'] })]);
  const events: RulesetEvent[] = [];
  const done = Promise.withResolvers<void>();
  const stop = nft.watch((event) => {
    events.push(event);
    if (event.kind === 'commit' && !event.own) done.resolve();
  });
  nft.commit([t.elements.add('s', addresses(LARGE))]);
  nft.commit([t.chain.add('own')]);
  const own = nft.generation();
  other.commit([t.chain.add('theirs')]);
  await done.promise;
  stop();
  assert.deepEqual(
    events.map((event) => (event.kind === 'commit' ? [event.generation, event.own] : event)),
    [
      [own, true],
      [own + 1, false],
    ],
  );
});

test('watch() tells that something may be lost when another commits during a large commit of our own', async () => {
  using namespace = new ScratchNetns();
  using nft = openNftables({ netns: namespace.path });
  nft.commit([t.table.add(), t.set.add('s', { key: ['ipv4_addr'] })]);
  let isLost = false;
  const stop = nft.watch((event) => {
    isLost ||= event.kind === 'lost';
  });
  const loop = 'while :; do nft add table ip other; nft delete table ip other; done';
  const other = spawn('ip', ['netns', 'exec', namespace.name, 'sh', '-c', loop], {
    stdio: 'ignore',
  });
  // The test runner's own time limit ends a wait in vain.
  while (!isLost) {
    nft.commit([t.elements.add('s', addresses(LARGE))]);
    nft.commit([t.set.flush('s')]);
    await new Promise((resolve) => setImmediate(resolve));
  }
  other.kill('SIGKILL');
  await once(other, 'exit');
  stop();
});

test('dumpTable() gives the time that an element has left', () => {
  using namespace = new ScratchNetns();
  using nft = openNftables({ netns: namespace.path });
  const element = { key: Uint8Array.of(192, 0, 2, 1), timeoutMs: 3_600_000, comment: 'short' };
  nft.commit([
    t.table.add(),
    t.set.add('s', { key: ['ipv4_addr'], timeout: true }),
    t.elements.add('s', [element]),
  ]);
  const [found] = nft.dumpTable('ip', 'kernel')?.sets[0]?.elements ?? [];
  assert.ok(found !== undefined);
  const { expiresMs, ...rest } = found;
  assert.deepEqual(rest, element);
  assert.ok(expiresMs !== undefined && expiresMs > 0 && expiresMs <= 3_600_000);
});

test('a catch-all matches what no other element does', () => {
  using namespace = new ScratchNetns();
  using nft = openNftables({ netns: namespace.path });
  const rest = { key: new Uint8Array(0), catchAll: true, verdict: { kind: 'drop' } } as const;
  const known = { key: Uint8Array.of(192, 0, 2, 1), verdict: { kind: 'accept' } } as const;
  nft.commit([
    t.table.add(),
    t.set.add('m', { key: ['ipv4_addr'], data: 'verdict' }),
    t.elements.add('m', [known, rest]),
  ]);
  assert.deepEqual(nft.dumpTable('ip', 'kernel')?.sets[0]?.elements, [known, rest]);
  assert.match(namespace.run('nft', 'list', 'ruleset'), /\* : drop/);
});

test('intervals of concatenations are made and read back', () => {
  using namespace = new ScratchNetns();
  using nft = openNftables({ netns: namespace.path });
  const element = {
    key: concat([Uint8Array.of(192, 0, 2, 0), portBytes(80)]),
    keyEnd: concat([Uint8Array.of(192, 0, 2, 255), portBytes(90)]),
  };
  nft.commit([
    t.table.add(),
    t.set.add('s', { key: ['ipv4_addr', 'inet_service'], interval: true }),
    t.elements.add('s', [element]),
  ]);
  assert.deepEqual(nft.dumpTable('ip', 'kernel')?.sets[0]?.elements, [element]);
  assert.match(namespace.run('nft', 'list', 'ruleset'), /192\.0\.2\.0\/24 \. 80-90/);
});

test('base chains of every family are made and read back', () => {
  using namespace = new ScratchNetns();
  using nft = openNftables({ netns: namespace.path });
  const cases = [
    ['inet', { type: 'filter', hook: 'forward', priority: 0, policy: 'drop' }],
    ['ip', { type: 'route', hook: 'output', priority: -150, policy: 'accept' }],
    ['ip6', { type: 'filter', hook: 'postrouting', priority: 300, policy: 'accept' }],
    ['arp', { type: 'filter', hook: 'input', priority: 0, policy: 'accept' }],
    ['bridge', { type: 'filter', hook: 'prerouting', priority: -300, policy: 'accept' }],
  ] as const;
  for (const [family, base] of cases) {
    const { table, chain } = inTable(family satisfies NftFamily, 'families');
    nft.commit([table.add(), chain.add('base', { base })]);
    assert.deepEqual(nft.dumpTable(family, 'families')?.chains[0]?.base, base);
  }
  assert.equal(nft.listTables().length, cases.length);
});

test('a device chain is made and read back', (context) => {
  using namespace = new ScratchNetns();
  using nft = openNftables({ netns: namespace.path });
  const { table, chain } = inTable('netdev', 'families');
  const base = {
    type: 'filter',
    hook: 'ingress',
    priority: 0,
    policy: 'accept',
    device: 'lo',
  } as const;
  nft.commit([table.add()]);
  try {
    nft.commit([chain.add('base', { base })]);
  } catch (error) {
    if (!(error instanceof KernelError) || error.errno === EBUSY) throw error;
    return context.skip(`this kernel has no ingress hook: ${error.message}`);
  }
  assert.deepEqual(nft.dumpTable('netdev', 'families')?.chains[0]?.base, base);
});

test('a dormant table is read back as such', () => {
  using namespace = new ScratchNetns();
  using nft = openNftables({ netns: namespace.path });
  nft.commit([t.table.add({ dormant: true, comment: 'asleep' })]);
  const state = nft.dumpTable('ip', 'kernel');
  assert.equal(state?.dormant, true);
  assert.equal(state?.comment, 'asleep');
  assert.match(namespace.run('nft', 'list', 'ruleset'), /flags dormant/);
});
