import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cidr } from '#lib/ip.ts';
import { masqueradeElements, masqueradePart } from './plan.ts';

const POOLS = [
  { cidr: cidr('10.244.0.0/16'), natOutgoing: true },
  { cidr: cidr('10.245.0.0/16'), natOutgoing: false },
  { cidr: cidr('fd00:10:244::/56'), natOutgoing: true },
];
const EXEMPT = ['192.168.0.0/16', '192.168.7.0/24', 'fe80::/10'].map(cidr);
const starts = (family: 'ip' | 'ip6') =>
  masqueradeElements(POOLS, EXEMPT, family).map(({ set, elements }) => [
    set,
    elements.filter((e) => !e.intervalEnd).map((e) => [...e.key.subarray(0, 2)].join('.')),
  ]);

test('masqueradeElements() puts each pool into its family, and hides only those that ask for it', () => {
  assert.deepEqual(starts('ip'), [
    ['pod-networks', ['10.244', '10.245']],
    ['masqueraded-networks', ['10.244']],
    ['exempt-networks', ['192.168']],
  ]);
  assert.deepEqual(starts('ip6'), [
    ['pod-networks', ['253.0']],
    ['masqueraded-networks', ['253.0']],
    ['exempt-networks', ['254.128']],
  ]);
});

test('masqueradePart() masquerades at srcnat, after multicast has left', () => {
  const [chain] = masqueradePart('ip').chains;
  assert.deepEqual(chain?.base, { type: 'nat', hook: 'postrouting', priority: 100 });
  assert.deepEqual(
    chain?.rules.map((rule) => rule.expressions.at(-1)?.kind),
    ['verdict', 'masquerade', 'masquerade'],
  );
});
