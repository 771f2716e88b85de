/**
 * Agents that start again and again on the table of the last one, while first packets of connections pass.
 *
 * ```text
 *  pod 10.9.1.2 ── 10.9.1.1 node 203.0.113.1 ── outside: a counter, nobody who answers
 * ```
 * Each packet begins a connection: it is masqueraded or, to a closed address, dropped, whatever moment it comes in.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, test } from 'node:test';
import { silentLogger } from '#lib/log.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { ScratchNetns } from '#linux/testing/scratch-netns.ts';
import { counter, masquerade } from '#wire/nftables/expressions.ts';
import { equals, inSet, ip, verdictMap } from '#wire/nftables/match.ts';
import { inTable, PRIORITY } from '#wire/nftables/objects.ts';
import { Ruleset, type RulesetPart } from './ruleset.ts';

/** One in some hundred went wrong while each start made the table anew: TULLE_TAKEOVERS=5000 to look for rare ones. */
const STARTS = Number(process.env.TULLE_TAKEOVERS ?? 200);
const POD = Uint8Array.of(10, 9, 1, 2);
const CLOSED = Uint8Array.of(203, 0, 113, 2);

/** Sends to each address and port once. */
const STORM = `
const socket = require('node:dgram').createSocket('udp4');
let flow = 0;
const send = () => {
  for (let i = 0; i < 64; i++, flow++) {
    const host = flow % 2 ? 2 : 3 + (flow >> 17) % 200;
    socket.send('x', 1 + (flow >> 1) % 65535, '203.0.113.' + host);
  }
  setImmediate(send);
};
socket.bind(0, send);
`;

const [pod, node, outside] = [new ScratchNetns(), new ScratchNetns(), new ScratchNetns()];
const SEEN = inTable('ip', 'seen');
let storm: ChildProcess;

before(async () => {
  const on = (netns: ScratchNetns, commands: string) => {
    for (const command of commands.split('; ')) netns.run('ip', ...command.split(' '));
  };
  on(node, `link add pod0 type veth peer name eth0 netns ${pod.name}`);
  on(node, `link add out0 type veth peer name eth0 netns ${outside.name}`);
  on(node, 'address add 10.9.1.1/24 dev pod0; address add 203.0.113.1/24 dev out0');
  on(node, 'link set pod0 up; link set out0 up; link set lo up');
  on(pod, 'address add 10.9.1.2/24 dev eth0; link set eth0 up; route add default via 10.9.1.1');
  on(outside, 'link set eth0 up');
  const mac = outside.json<{ address: string }[]>('ip', '-j', 'link', 'show', 'eth0')[0]?.address;
  for (let host = 2; host < 203; host++)
    on(node, `neighbour add 203.0.113.${host} lladdr ${mac} dev out0`);
  node.run('sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.netfilter.nf_conntrack_udp_timeout=1');
  using nft = openNftables({ netns: outside.path });
  const strangers = [...equals(ip.saddr, POD), counter()];
  const closed = [...equals(ip.daddr, CLOSED), counter()];
  const all = [counter()];
  nft.commit([
    SEEN.table.add(),
    SEEN.chain.add('all', { base: { type: 'filter', hook: 'prerouting', priority: PRIORITY.raw } }),
    ...Object.entries({ strangers, closed, all }).map(([comment, expressions]) =>
      SEEN.rule.add('all', expressions, { comment }),
    ),
  ]);
});
after(async () => {
  storm.kill();
  await once(storm, 'exit');
  for (const netns of [pod, node, outside]) netns[Symbol.dispose]();
});

const ADDRESSES = ['ipv4_addr'] as const;
const PART: RulesetPart = {
  sets: [
    { set: 'masqueraded', key: ADDRESSES },
    { set: 'verdicts', key: ADDRESSES, data: 'verdict' },
  ],
  chains: [
    {
      name: 'postrouting',
      base: { type: 'nat', hook: 'postrouting', priority: PRIORITY.srcnat },
      rules: [
        { expressions: [...inSet([ip.saddr], 'masqueraded'), masquerade({ fullyRandom: true })] },
      ],
    },
    {
      name: 'forward',
      base: { type: 'filter', hook: 'forward', priority: PRIORITY.filter },
      rules: [{ expressions: verdictMap([ip.daddr], 'verdicts') }],
    },
  ],
};

test(`${STARTS} starts of an agent let no packet pass untranslated or unlooked at`, async (t) => {
  using nft = openNftables({ netns: node.path });
  // One watch from first to last: each start would bring a thread of its own.
  nft.watch(() => {});
  using counts = openNftables({ netns: outside.path });
  const start = async () => {
    await using ruleset = new Ruleset(
      { nftables: nft, log: silentLogger },
      { family: 'ip', table: 'tulle', parts: ['a'] },
    );
    ruleset.define('a', PART);
    ruleset.stage('masqueraded', { add: [{ key: POD }] });
    ruleset.stage('verdicts', { add: [{ key: CLOSED, verdict: { kind: 'drop' } }] });
    ruleset.commit();
  };
  await start();
  const count = (comment: string) =>
    Number(
      counts.countsOf({ ...SEEN.ref, chain: 'all' }).find((it) => it.comment === comment)?.packets,
    );
  storm = spawn('ip', ['netns', 'exec', pod.name, process.execPath, '-e', STORM], {
    stdio: 'inherit',
  });
  while (count('all') === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  for (let i = 0; i < STARTS; i++) await start();
  t.diagnostic(`${count('all')} connections begun meanwhile`);
  assert.deepEqual([count('strangers'), count('closed')], [0, 0]);
});
