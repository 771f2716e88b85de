import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ip as address, cidr } from '#lib/ip.ts';
import { dnat, goTo, jumpTo, log, masquerade, rejectWith } from './expressions.ts';
import { formatElement, formatTransaction } from './format.ts';
import {
  inPrefix,
  ip,
  loadConcat,
  mapTo,
  meta,
  numgen,
  setMark,
  th,
  updateSet,
  verdictMap,
} from './match.ts';
import { inTable, PRIORITY } from './objects.ts';
import { addressProtocolPort, concat, hostU32, portBytes } from './values.ts';

const t = inTable('ip', 'tulle');
const key = addressProtocolPort(address('10.96.0.1'), 6, 80);

test('formatTransaction() prints a line for each operation', () => {
  const text = formatTransaction([
    t.table.add({ comment: 'Tulle' }),
    t.set.add('frontends', { key: ['ipv4_addr', 'inet_proto', 'inet_service'], data: 'verdict' }),
    t.set.add('endpoints', {
      key: ['ip daddr', 'meta l4proto', 'th dport', 'numgen random mod 2'],
      data: ['ip daddr', 'th dport'],
      size: 10,
    }),
    t.set.add('affinity', { key: ['ipv4_addr'], dynamic: true, timeoutMs: 10_800_000, size: 9 }),
    t.chain.add('nat', { base: { type: 'nat', hook: 'prerouting', priority: PRIORITY.dstnat } }),
    t.rule.add('nat', verdictMap([ip.daddr, meta.l4proto, th.dport], 'frontends')),
    t.rule.add(
      'n2',
      [
        ...mapTo([ip.daddr, meta.l4proto, th.dport, numgen('random', 2)], 'endpoints'),
        dnat('ip', { address: 0, port: 1 }),
      ],
      { comment: 'two' },
    ),
    t.rule.insert('nat', [...inPrefix(ip.saddr, cidr('10.0.0.0/9')), ...setMark(0x4000, 0x4000)]),
    t.rule.replace('nat', 7, [...updateSet([ip.saddr], 'affinity'), masquerade({ random: true })]),
    t.rule.add('nat', [log({ prefix: 'no', group: 5 }), rejectWith()], { at: 3 }),
    t.rule.delete('nat', 7),
    t.elements.add('frontends', [{ key, verdict: goTo('n2'), comment: 'default/web' }]),
    t.elements.add('endpoints', [
      {
        key: Uint8Array.from([...key, ...hostU32(1)]),
        data: concat([Uint8Array.of(10, 0, 0, 5), portBytes(8080)]),
      },
    ]),
    t.elements.delete('other', [{ key: Uint8Array.of(1, 2) }]),
    t.chain.flush('nat'),
    t.set.destroy('old'),
    t.table.delete(),
  ]);
  assert.equal(
    text,
    `add table ip tulle { comment "Tulle"; }
add map ip tulle frontends { type ipv4_addr . inet_proto . inet_service : verdict; }
add map ip tulle endpoints { typeof ip daddr . meta l4proto . th dport . numgen random mod 2 : ip daddr . th dport; size 10; }
add set ip tulle affinity { type ipv4_addr; flags dynamic; size 9; timeout 10800000ms; }
add chain ip tulle nat { type nat hook prerouting priority -100; policy accept; }
add rule ip tulle nat ip daddr . meta l4proto . th dport vmap @frontends
add rule ip tulle n2 dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints comment "two"
insert rule ip tulle nat ip saddr 10.0.0.0/9 meta mark set meta mark & 0xffffbfff ^ 0x00004000
replace rule ip tulle nat handle 7 update @affinity { ip saddr } masquerade random
add rule ip tulle nat position 3 log prefix "no" group 5 reject with icmpx port-unreachable
delete rule 7 of chain ip tulle nat
add element ip tulle frontends { 10.96.0.1 . tcp . 80 comment "default/web" : goto n2 }
add element ip tulle endpoints { 10.96.0.1 . tcp . 80 . 1 : 10.0.0.5 . 8080 }
delete element ip tulle other { 0x0102 }
flush chain ip tulle nat
destroy set ip tulle old
delete table ip tulle`,
  );
});

test('formatTransaction() says how many elements it leaves out', () => {
  const elements = Array.from({ length: 5 }, (_, i) => ({ key: Uint8Array.of(i) }));
  assert.equal(
    formatTransaction([t.elements.add('s', elements)], { maxElements: 2 }),
    'add element ip tulle s { 0x00, 0x01, … 3 more }',
  );
});

test('formatElement() prints intervals, catch-alls and verdicts', () => {
  const set = { key: ['inet_service'] } as const;
  assert.equal(formatElement({ key: portBytes(91), intervalEnd: true }, set), 'end 91');
  assert.equal(
    formatElement({ key: new Uint8Array(0), catchAll: true, verdict: jumpTo('x') }),
    '* : jump x',
  );
});

test('loadConcat() starts each field in a register of its own and refuses too many', () => {
  const { expressions, register, next } = loadConcat([ip.daddr, meta.l4proto, meta.iifname], 2);
  assert.deepEqual(
    expressions.map((e) => ('to' in e ? e.to : undefined)),
    [2, 3, 4],
  );
  assert.deepEqual([register, next], [2, 8]);
  assert.throws(() => loadConcat([meta.iifname, meta.oifname, ip.daddr], 8), RangeError);
});
