/**
 * Domain names of policies over a long time: answers of our own DNS server that change, chains of aliases, wildcards, times
 * that end, upstreams that are silent, policies that come and go. After each step the kernel holds at least what may be
 * used and nothing that may not, by a second reckoning of its own; and it equals a plan made from scratch.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { FakeClock } from '#lib/clock.ts';
import { type Family, familyOf, type Ip, ip, ipFromBytes } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import { Poller } from '#linux/poller.ts';
import { ScratchNetns } from '#linux/testing/scratch-netns.ts';
import { compilePolicy } from '#policy/world.ts';
import { TYPE_A, TYPE_AAAA, TYPE_CNAME } from '#wire/dns/constants.ts';
import { encodeMessage, makeQuery, type ResourceRecord } from '#wire/dns/message.ts';
import { name } from '#wire/dns/name.ts';
import { isWanted } from './answer-watch.ts';
import { watchAnswers } from './dns/told.ts';
import { Directory } from './policy/directory.ts';
import { Domains } from './policy/domain-watch.ts';
import { GRACE_MS } from './policy/domains.ts';
import { essenceOf } from './policy/node-under-test.testing.ts';
import { PolicyPlanner } from './policy/planner.ts';
import { POLICY_PART, Programmer, stagePlan } from './policy/programmer.ts';
import { matchOf } from './policy/rules.ts';
import { clusterPolicy } from './policy/testing.ts';
import { Ruleset } from './ruleset.ts';

/** Minutes of it: TULLE_DOMAIN_CHURN=20000. */
const STEPS = Number(process.env.TULLE_DOMAIN_CHURN ?? 400);
const SEED = Number(process.env.TULLE_POLICY_SEED ?? Date.now() % 2 ** 31);
/** The plan from scratch costs two tables: not after each step. */
const STEPS_BETWEEN_PLANS = 10;
/** What is over is looked for so seldom. */
const MAX_LATE_MS = 1_000;
/** After a question that nobody answers, an answer that is over may be given so long. */
const SILENCE_MS = 70_000;

const NAMES = [
  ...['www.example.com', 'api.example.com', 'a.b.example.com', 'example.com'],
  ...['img.cdn.example.net', 'cdn.example.net', 'other.example.org'],
];
const PATTERNS = [
  ...['www.example.com', '*.example.com', '*.b.example.com', '*.cdn.example.net'],
  ...['cdn.example.net', '*.com', 'example.com'],
];
const ADDRESSES = [1, 2, 3, 4, 5, 6].flatMap((n) => [ip(`192.0.2.${n}`), ip(`2001:db8::${n}`)]);
const TTLS_S = [0, 1, 5, 30, 300];
const POLICIES = ['p', 'q', 'r'];
const PACES_MS = [0, 400, 2_000, 9_000, 40_000];

const kernels = [new ScratchNetns(), new ScratchNetns()] as const;
after(() => {
  for (const netns of kernels) netns[Symbol.dispose]();
});

function rulesetsOn(nftables: Nftables): Ruleset[] {
  return (['ip', 'ip6'] as const).map(
    (family) =>
      new Ruleset(
        { nftables, log: silentLogger },
        { family, table: 'tulle', parts: [POLICY_PART] },
      ),
  );
}

const POD = {
  ...{ key: 'one/a', namespace: 'one', name: 'a', labels: {}, node: 'm1', hostNetwork: false },
  ...{ ips: [ip('10.0.0.1'), ip('fd00::1')], ports: [] },
};

function policyOf(id: string, patterns: readonly string[]) {
  return compilePolicy(
    clusterPolicy(id, {
      ...{ tier: 'Admin', priority: POLICIES.indexOf(id), subject: { namespaces: {} } },
      egress: [{ action: 'Accept', to: [{ domainNames: [...patterns] }] }],
    }),
  );
}

/** `*.` stands for one or more labels. */
const means = (pattern: string, asked: string) =>
  pattern.startsWith('*.')
    ? new RegExp(`^[^.].*${pattern.slice(1).replaceAll('.', '[.]')}$`).test(asked)
    : pattern === asked;

/** What may be open by the documentation, reckoned without the code that opens. */
class Reckoning {
  readonly #until = new Map<string, Map<Ip, number>>();
  readonly #silence = new Map<string, Map<Family, number>>();

  answered(asked: string, family: Family, told: ReadonlyMap<Ip, number>): void {
    this.#silence.get(asked)?.delete(family);
    const until = this.#until.get(asked) ?? new Map<Ip, number>();
    this.#until.set(asked, until);
    for (const [address, end] of told) until.set(address, Math.max(end, until.get(address) ?? 0));
  }
  asked(asked: string, family: Family, nowMs: number): void {
    if (!this.#until.has(asked)) return;
    const silence = this.#silence.get(asked) ?? new Map<Family, number>();
    this.#silence.set(asked, silence.set(family, nowMs + SILENCE_MS));
  }
  forgetUnless(isMeant: (asked: string) => boolean): void {
    for (const asked of [...this.#until.keys()])
      if (!isMeant(asked)) {
        this.#until.delete(asked);
        this.#silence.delete(asked);
      }
  }
  open(patterns: readonly string[], atMs: number): Set<Ip> {
    const open = new Set<Ip>();
    for (const [asked, until] of this.#until) {
      if (!patterns.some((pattern) => means(pattern, asked))) continue;
      for (const [address, end] of until) {
        const silence = this.#silence.get(asked)?.get(familyOf(address)) ?? 0;
        if (Math.max(end + GRACE_MS, silence) > atMs) open.add(address);
      }
    }
    return open;
  }
}

/** An answer as an upstream gives it: by some aliases, each with its own time. */
function answerOf(
  asked: string,
  { family, addresses, ttlsS }: { family: Family; addresses: readonly Ip[]; ttlsS: number[] },
): Buffer {
  const type = family === 4 ? TYPE_A : TYPE_AAAA;
  const [last = 0, ...chain] = ttlsS;
  let owner = `${asked}.`;
  const answers: ResourceRecord[] = chain.map((ttlS, i) => {
    const target = `alias-${i}.elsewhere.test.`;
    const alias = { name: name(owner), type: TYPE_CNAME, class: 1, ttlS };
    owner = target;
    return { ...alias, data: { kind: 'CNAME', target: name(target) } };
  });
  for (const address of addresses)
    answers.push({
      ...{ name: name(owner), type, class: 1, ttlS: last },
      data: { kind: family === 4 ? 'A' : 'AAAA', address },
    });
  const query = makeQuery(1, { name: name(`${asked}.`), type });
  return Buffer.from(encodeMessage({ ...query, response: true, rcode: 0, answers }));
}

test(`domain names over ${STEPS} steps, seed ${SEED}`, { timeout: 600_000 }, async () => {
  const draws = fc.sample(fc.nat({ max: 2 ** 30 }), { numRuns: 4096, seed: SEED });
  let at = 0;
  // Different numbers each time round, from few that fast-check has to make.
  const below = (limit: number) =>
    (((draws[at % draws.length] ?? 0) ^ Math.imul(Math.floor(at++ / draws.length), 0x9e3779b1)) >>>
      0) %
    limit;
  const oneOf = <T>(list: readonly T[]): T => list[below(list.length)] as T;
  const someOf = <T>(list: readonly T[]): T[] => list.filter(() => below(3) === 0);

  using poller = new Poller();
  using nftables = openNftables({ netns: kernels[0].path, poller });
  using fresh = openNftables({ netns: kernels[1].path, poller });
  await using stack = new AsyncDisposableStack();
  const clock = new FakeClock();
  const rulesets = rulesetsOn(nftables).map((ruleset) => stack.use(ruleset));
  const planner: PolicyPlanner = new PolicyPlanner(
    new Directory((pattern) => domains.memory.resolved(pattern)),
  );
  const programmer = stack.use(
    new Programmer({ planner, rulesets, clock, log: silentLogger, onRetry: () => {} }),
  );
  const none: ReadonlySet<string> = new Set();
  const domains: Domains = stack.use(
    new Domains({
      ...{ file: undefined, clock, log: silentLogger, onNewPatterns: () => {} },
      onResolved: (...change) => planner.directory.setResolved(...change),
      onChanged: () => programmer.program(none),
    }),
  );
  planner.setNamespace('one', { name: 'one', labels: {} });
  planner.setPod(POD.key, POD);
  planner.setLocal('a', POD);
  programmer.program(none);

  let upstream: Buffer | undefined;
  const forwarder = watchAnswers(
    { resolve: () => Promise.resolve(upstream) },
    {
      wants: (asked) => isWanted(asked, domains.wanted()),
      asked: (...question) => domains.asked(...question),
      answered: (...answer) => domains.answered(...answer),
    },
  );
  const reckoning = new Reckoning();
  const inForce = new Map<string, readonly string[]>();
  const isMeant = (asked: string) =>
    [...inForce.values()].flat().some((pattern) => means(pattern, asked));

  const changePolicy = () => {
    const policy = oneOf(POLICIES);
    const patterns = below(4) === 0 ? [] : [oneOf(PATTERNS), ...someOf(PATTERNS)];
    const compiled = policyOf(policy, patterns);
    if (patterns.length === 0) inForce.delete(policy);
    else inForce.set(policy, patterns);
    planner.setPolicy(compiled.id, patterns.length === 0 ? undefined : compiled);
    reckoning.forgetUnless(isMeant);
    domains.setPolicies(planner.policies);
    programmer.program(new Set([compiled.id]));
  };
  const ask = async () => {
    const asked = oneOf(NAMES);
    const family: Family = below(2) === 0 ? 4 : 6;
    const isSilent = below(6) === 0;
    const addresses = someOf(ADDRESSES).filter((it) => familyOf(it) === family);
    const ttlsS = [oneOf(TTLS_S), ...someOf(TTLS_S).slice(0, 2)];
    upstream = isSilent ? undefined : answerOf(asked, { family, addresses, ttlsS });
    const now = clock.now();
    if (isMeant(asked)) {
      reckoning.asked(asked, family, now);
      const until = now + Math.min(...ttlsS) * 1000;
      if (!isSilent) reckoning.answered(asked, family, new Map(addresses.map((it) => [it, until])));
    }
    const spelt = below(2) === 0 ? asked : asked.toUpperCase();
    await forwarder.resolve({
      ...{ name: name(`${spelt}.`), type: family === 4 ? TYPE_A : TYPE_AAAA },
      ...{ dnssecOk: false, checkingDisabled: false },
    });
  };

  let opened = 0;
  const check = (step: number) => {
    const tables = (['ip', 'ip6'] as const).map((family) => nftables.dumpTable(family, 'tulle'));
    for (const [policy, patterns] of inForce) {
      const [rule] = policyOf(policy, patterns).egress ?? [];
      assert.ok(rule);
      const [set] = matchOf(rule, 'egress', 'ip').sets;
      const held = new Set(
        tables.flatMap(
          (table) =>
            table?.sets
              .find((it) => it.set === set?.name)
              ?.elements.map(({ key }) => ipFromBytes(key)) ?? [],
        ),
      );
      const must = reckoning.open(patterns, clock.now());
      const may = reckoning.open(patterns, clock.now() - MAX_LATE_MS);
      const context = `step ${step}, ${policy}: ${patterns.join(' ')}`;
      assert.deepEqual([...must.difference(held)], [], `closed too early: ${context}`);
      assert.deepEqual([...held.difference(may)], [], `open, and must not be: ${context}`);
      opened += held.size;
    }
    return tables;
  };

  for (let step = 0; step < STEPS; step++) {
    if (below(8) === 0) changePolicy();
    else await ask();
    let tables = check(step);
    clock.advance(oneOf(PACES_MS));
    tables = check(step);
    if (step % STEPS_BETWEEN_PLANS !== 0) continue;
    const again = new PolicyPlanner(new Directory((pattern) => domains.memory.resolved(pattern)));
    again.setNamespace('one', { name: 'one', labels: {} });
    again.setPod(POD.key, POD);
    again.setLocal('a', POD);
    for (const policy of planner.policies) again.setPolicy(policy.id, policy);
    const made = rulesetsOn(fresh);
    stagePlan(again, made);
    assert.equal(Ruleset.tryCommit(made), undefined);
    for (const [i, family] of (['ip', 'ip6'] as const).entries()) {
      const [table, expected] = [tables[i], fresh.dumpTable(family, 'tulle')];
      assert.ok(table && expected);
      assert.deepEqual(essenceOf(table), essenceOf(expected), `step ${step}`);
    }
    for (const ruleset of made) await ruleset[Symbol.asyncDispose]();
    // Everything else here is done at once; the watches need a turn of the event loop.
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.ok(opened > STEPS, `only ${opened} addresses were open in all`);
});
