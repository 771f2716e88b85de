/** What we write is read by `nft`, and what `nft` writes is read by us. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { formatExpressions } from '#wire/nftables/format-expressions.ts';
import type { Operation } from '#wire/nftables/objects.ts';
import { ScratchNetns } from '../testing/scratch-netns.ts';
import { EXAMPLE_V4, EXAMPLE_V6, type ExampleLayout, exampleLayout } from './example-layout.ts';
import { openNftables } from './kernel.ts';
import type { TableState } from './port.ts';

for (const layout of [EXAMPLE_V4, EXAMPLE_V6])
  test(`nft lists the service layout for ${layout.family} as it was meant`, () => {
    using namespace = new ScratchNetns();
    using nft = openNftables({ netns: namespace.path });
    nft.commit(exampleLayout(layout));
    assert.equal(listing(namespace), expectedListing(layout));
  });

/** As an operator sees it. */
function expectedListing(layout: ExampleLayout): string {
  const { family, service, emptyService, endpoints } = layout;
  const type = family === 'ip' ? 'ipv4_addr' : 'ipv6_addr';
  const [first, second] = endpoints;
  const to = (address: string | undefined) => `${address} . 8080`;
  const untracked = layout.untracked;
  return `table ${family} tulle {
	comment "Tulle"
	map frontends {
		type ${type} . inet_proto . inet_service : verdict
		elements = { ${service} . tcp . 80 comment "default/web" : goto n2 }
	}

	map no-endpoints {
		type ${type} . inet_proto . inet_service : verdict
		elements = { ${emptyService} . tcp . 80 : goto reject }
	}

	map endpoints {
		typeof ${family} daddr . meta l4proto . th dport . numgen random mod 2 : ${family} daddr . th dport
		elements = { ${service} . tcp . 80 . 0 : ${to(first)},
			     ${service} . tcp . 80 . 1 : ${to(second)} }
	}

	set pods {
		type ${type}
		flags interval
		comment "pod networks"
		elements = { ${layout.podNetwork} }
	}

	chain n2 {
		comment "services with 2 endpoints"
		dnat ${family} to ${family} daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints
	}

	chain reject {
		reject with tcp reset
		reject
	}

	chain services {
		${family} daddr . meta l4proto . th dport vmap @frontends
	}

	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump services
	}

	chain nat-output {
		type nat hook output priority -100; policy accept;
		jump services
	}

	chain filter-prerouting {
		type filter hook prerouting priority dstnat - 10; policy accept;
		${family} daddr . meta l4proto . th dport vmap @no-endpoints
	}

	chain nat-postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		${family} saddr @pods ${family} daddr != @pods masquerade fully-random
	}

	chain raw {
		type filter hook prerouting priority raw; policy accept;
		${family} daddr ${untracked} notrack accept
	}
}
`;
}

/** Rules by nft, and what we print of them after decoding. */
const RULES: readonly (readonly [string, string])[] = [
  ['ip saddr 192.0.2.0/24 counter', 'ip saddr 192.0.2.0/24 counter packets 0 bytes 0'],
  ['ip saddr 192.0.2.128/25 drop', 'ip saddr 192.0.2.128/25 drop'],
  ['ip6 daddr 2001:db8::/32 accept', 'ip6 daddr 2001:db8::/32 accept'],
  ['tcp dport 80-90 accept', 'meta l4proto tcp th dport >= 80 th dport <= 90 accept'],
  ['udp sport != 53 accept', 'meta l4proto udp th sport != 53 accept'],
  ['iifname "eth*" return', 'meta iifname "eth*" return'],
  ['oifname "eth0" jump other', 'meta oifname "eth0" jump other'],
  ['ct state established,related accept', 'ct state & 0x00000006 != 0x00000000 accept'],
  ['ct status dnat accept', 'ct status & 0x00000020 != 0x00000000 accept'],
  ['ct mark set 0x7', 'ct mark set 0x00000007'],
  ['meta mark set meta mark | 0x4000', 'meta mark set meta mark & 0xffffbfff ^ 0x00004000'],
  ['tcp flags syn / syn,rst accept', 'meta l4proto tcp tcp flags & 0x06 == 0x02 accept'],
  ['ip protocol tcp ct original proto-dst 80', 'ip protocol tcp ct original proto-dst 80'],
  ['ct direction original accept', 'ct direction 0x00 accept'],
  ['fib daddr type local accept', 'fib daddr type 2 accept'],
  ['limit rate over 5/minute burst 9 packets drop', 'limit rate over 5/minute burst 9 drop'],
  ['log prefix "x " group 3 snaplen 64', 'log prefix "x " group 3 snaplen 64'],
  ['meta l4proto tcp reject with tcp reset', 'meta l4proto tcp reject with tcp reset'],
  ['reject with icmpx admin-prohibited', 'reject with icmpx admin-prohibited'],
  ['ip saddr . tcp dport @pairs accept', 'meta l4proto tcp ip saddr . th dport @pairs accept'],
  ['ip saddr != @hosts drop', 'ip saddr != @hosts drop'],
  ['update @seen { ip saddr timeout 1h }', 'update @seen { ip saddr timeout 3600000ms }'],
  ['meta mark set jhash ip saddr mod 8 seed 0x2a', 'meta mark set jhash ip saddr mod 8 seed 0x2a'],
  ['meta mark set symhash mod 4 offset 2', 'meta mark set symhash mod 4 offset 2'],
  ['meta mark set numgen inc mod 3', 'meta mark set numgen inc mod 3'],
  ['ip ttl set 64', '@network,64,16 set @network,64,16 & 0x00ff ^ 0x4000'],
  ['socket transparent 1 accept', 'socket transparent 0x01 accept'],
];

/** Rules that need a place of their own. */
const NAT_RULES: readonly (readonly [string, string])[] = [
  ['tcp dport 80 dnat ip to 192.0.2.1:8080', 'dnat ip to 192.0.2.1:8080'],
  ['masquerade random,persistent', 'masquerade random persistent'],
  ['tcp dport 80 redirect to :8080', 'redirect to :8080'],
];

const SCRIPT = `
table inet foreign {
  comment "of another program"
  set pairs { type ipv4_addr . inet_service; flags interval; elements = { 192.0.2.0/24 . 80-90 } }
  set hosts { type ipv4_addr; flags interval; elements = { 192.0.2.1-192.0.2.9, 198.51.100.0/24 } }
  set seen { typeof ip saddr; flags dynamic,timeout; timeout 3h; size 65535; gc-interval 10s; }
  map ports { type inet_service : ipv4_addr; size 10; elements = { 80 : 192.0.2.1, 81 : 192.0.2.2 } }
  map jumps { type ifname : verdict; comment "by link"; elements = { "eth0" : jump other, "eth1" : drop } }
  chain other { comment "jumped to"; }
  chain rules {
    ${RULES.map(([rule], i) => `${rule} comment "rule ${i}"`).join('\n    ')}
  }
  chain nat { type nat hook prerouting priority -95; policy drop; }
  chain rewrite {
    ${NAT_RULES.map(([rule]) => rule).join('\n    ')}
  }
}
`;

test('dumpTable() decodes what nft has written', () => {
  using namespace = new ScratchNetns();
  using nft = openNftables({ netns: namespace.path });
  apply(namespace, SCRIPT);
  const state = nft.dumpTable('inet', 'foreign');
  assert.ok(state !== undefined);
  const texts = (chain: string) =>
    state.chains
      .find((c) => c.chain === chain)
      ?.rules.map((rule) => formatExpressions(rule.expressions).replace(/^meta nfproto \S+ /, ''));
  assert.deepEqual(
    texts('rules'),
    RULES.map(([, ours]) => ours),
  );
  assert.deepEqual(
    texts('rewrite')?.map((text, i) => text.includes(NAT_RULES[i]?.[1] ?? '?')),
    NAT_RULES.map(() => true),
    JSON.stringify(texts('rewrite')),
  );
  assert.ok(
    !state.chains.some((c) => c.rules.some((r) => r.expressions.some((e) => e.kind === 'unknown'))),
  );
});

test('a table of nft that is decoded and committed elsewhere is listed the same', () => {
  using theirs = new ScratchNetns();
  using ours = new ScratchNetns();
  apply(theirs, SCRIPT);
  using source = openNftables({ netns: theirs.path });
  using target = openNftables({ netns: ours.path });
  const state = source.dumpTable('inet', 'foreign');
  assert.ok(state !== undefined);
  target.commit(recreate(state));
  assert.equal(listing(ours), listing(theirs));
  assert.deepEqual(comparable(target.dumpTable('inet', 'foreign')), comparable(state));
});

test('dumpTable() keeps expressions that we do not know, and they can be written back', () => {
  using namespace = new ScratchNetns();
  using nft = openNftables({ netns: namespace.path });
  apply(
    namespace,
    'table ip q {\n chain c {\n rt classid 7 accept\n quota over 10 mbytes drop\n }\n }\n',
  );
  const state = nft.dumpTable('ip', 'q');
  assert.ok(state !== undefined);
  const kinds = state.chains[0]?.rules.map((rule) => rule.expressions.map((e) => e.kind));
  assert.deepEqual(kinds, [
    ['unknown', 'cmp', 'verdict'],
    ['unknown', 'verdict'],
  ]);
  const before = listing(namespace);
  nft.commit([{ verb: 'delete', kind: 'table', ref: state }, ...recreate(state)]);
  assert.equal(listing(namespace), before);
});

/** Operations that make the table anew. */
function recreate(state: TableState): Operation[] {
  const { chains, sets, handle: _, ...table } = state;
  return [
    { verb: 'add', kind: 'table', object: table },
    ...sets.map(
      ({ handle: _h, elements: _e, ...object }): Operation => ({
        verb: 'add',
        kind: 'set',
        object,
      }),
    ),
    ...chains.map(
      ({ handle: _h, rules: _r, ...object }): Operation => ({
        verb: 'add',
        kind: 'chain',
        object,
      }),
    ),
    ...sets.map(
      (ref): Operation => ({
        verb: 'add',
        kind: 'elements',
        ref,
        elements: ref.elements,
      }),
    ),
    ...chains.flatMap(({ family, table: name, chain, rules }) =>
      rules.map(
        ({ handle: _h, ...rule }): Operation => ({
          verb: 'add',
          kind: 'rule',
          object: { family, table: name, chain, ...rule },
        }),
      ),
    ),
  ];
}

/** Without handles and the order of elements. */
function comparable(state: TableState | undefined): unknown {
  return JSON.parse(
    JSON.stringify(state, (key, value: unknown) => {
      if (key === 'handle') return undefined;
      if (typeof value === 'bigint') return String(value);
      if (key === 'elements' && Array.isArray(value))
        return value.map((element) => JSON.stringify(element)).sort();
      return value;
    }),
  );
}

function apply(namespace: ScratchNetns, script: string): void {
  execFileSync('ip', ['netns', 'exec', namespace.name, 'nft', '-f', '-'], { input: script });
}

function listing(namespace: ScratchNetns): string {
  return namespace.run('nft', 'list', 'ruleset');
}
