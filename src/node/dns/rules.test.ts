import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { FakeNftables } from '#linux/nftables/fake.ts';
import { Ruleset } from '../ruleset.ts';
import { DNS_PART, defineDnsRules, dnsPart } from './rules.ts';

test('dnsPart() leaves DNS of its family untracked, both directions, UDP and TCP, before conntrack', () => {
  const addresses = [ip('10.96.0.10'), ip('169.254.20.10'), ip('2001:db8::a')];
  const v4 = dnsPart('ip', addresses);
  assert.deepEqual(
    v4.chains.map(({ name, base, rules }) => [name, base?.hook, base?.priority, rules.length]),
    [
      ['to-dns', undefined, undefined, 4],
      ['from-dns', undefined, undefined, 4],
      ['raw-prerouting', 'prerouting', -300, 2],
      ['raw-output', 'output', -300, 2],
    ],
  );
  for (const { base, rules } of v4.chains)
    for (const { expressions } of rules)
      assert.equal(expressions.at(-1)?.kind, base === undefined ? 'notrack' : 'verdict');
  assert.equal(dnsPart('ip6', addresses).chains[0]?.rules.length, 2);
  assert.deepEqual(dnsPart('ip6', [ip('10.96.0.10')]), { sets: [], chains: [] });
});

test('defineDnsRules() is taken by the ruleset', async () => {
  const nftables = new FakeNftables();
  const init = { family: 'ip', table: 'tulle', parts: [DNS_PART] } as const;
  await using ruleset = new Ruleset({ nftables, log: silentLogger }, init);
  defineDnsRules([ruleset], [ip('10.96.0.10')]);
  ruleset.commit();
  assert.deepEqual(
    nftables.dumpTable('ip', 'tulle')?.chains.map((chain) => chain.chain),
    ['to-dns', 'from-dns', 'raw-prerouting', 'raw-output'],
  );
});
