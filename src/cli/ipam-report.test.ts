import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Pod } from '#api/core/v1/pod.ts';
import type { IPAllocation, IPBlock } from '#api/tulle/v1alpha1/ip-block.ts';
import { ip } from '#lib/ip.ts';
import {
  explainAddress,
  explainLoans,
  findAddressProblems,
  formatPools,
  type IpamInput,
  whyNotRelease,
} from './ipam-report.ts';

const allocation = (more: Partial<IPAllocation> = {}): IPAllocation => ({
  handle: 'tulle.c1.eth0',
  sequence: 3,
  since: '2026-01-01T00:00:00.000Z',
  node: 'n1',
  purpose: 'Pod',
  namespace: 'default',
  pod: 'web',
  containerID: 'c1',
  ifName: 'eth0',
  ...more,
});
const block = (spec: Partial<IPBlock['spec']> = {}): IPBlock => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPBlock',
  metadata: { name: '192-0-2-0-30' },
  spec: {
    cidr: '192.0.2.0/30',
    pool: 'v4',
    node: 'n1',
    affinity: 'Confirmed',
    sequence: 3,
    allocations: { 1: allocation() },
    free: [2, 3, 0],
    releasedAt: { 0: '2026-01-01T00:01:00.000Z' },
    ...spec,
  },
});
const pod = (name: string, address: string): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'default' },
  spec: { containers: [] },
  status: { phase: 'Running', podIPs: [{ ip: address }] },
});
const input = (more: Partial<IpamInput> = {}): IpamInput => ({
  pools: [
    {
      apiVersion: 'tulle.dev/v1alpha1',
      kind: 'IPPool',
      metadata: { name: 'v4' },
      spec: { cidr: '192.0.2.0/24', reserved: ['192.0.2.3'] },
    },
  ],
  blocks: [block()],
  nodes: [{ apiVersion: 'v1', kind: 'Node', metadata: { name: 'n1' } }],
  pods: [pod('web', '192.0.2.1')],
  ...more,
});

test('formatPools() tells how full pools and blocks are', () => {
  const text = formatPools(input());
  assert.match(text, /v4 +192\.0\.2\.0\/24 +1\/256 +1 +1 +false +false/);
  assert.match(text, /192\.0\.2\.0\/30 +v4 +n1 +1\/4 +0 +<none> +1 +Confirmed/);
});

test('a lent address is explained, and no problem', () => {
  const lent = input({
    blocks: [block({ allocations: { 1: allocation({ node: 'n2' }) } })],
    nodes: ['n1', 'n2'].map((name) => ({ apiVersion: 'v1', kind: 'Node', metadata: { name } })),
  });
  assert.match(formatPools(lent), /n1 +1\/4 +0 +n2:1 +1 +Confirmed/);
  assert.match(
    explainAddress(lent, ip('192.0.2.1')),
    /of node "n1", Confirmed\nlent to node "n2": every other node has a route.*\nin use since .* on node "n2"/,
  );
  assert.deepEqual(explainLoans(lent), [
    '192.0.2.1 of block 192.0.2.0/30 of node "n1" is lent to node "n2" since 2026-01-01T00:00:00.000Z, for pod default/web',
  ]);
  assert.deepEqual(findAddressProblems(lent), []);
  const [pool] = lent.pools;
  assert.ok(pool !== undefined);
  const strict = { ...lent, pools: [{ ...pool, spec: { ...pool.spec, strictAffinity: true } }] };
  assert.match(findAddressProblems(strict).join(), /though pool "v4" is strict by now/);
});

test('explainAddress() tells who holds an address, since when and why', () => {
  const explain = (address: string) => explainAddress(input(), ip(address));
  assert.match(
    explain('192.0.2.1'),
    /since 2026-01-01T00:00:00\.000Z on node "n1"\nfor pod default\/web\ncontainer c1, interface eth0/,
  );
  assert.match(explain('192.0.2.0'), /free, released 2026-01-01T00:01/);
  assert.match(explain('192.0.2.3'), /reserved by "192\.0\.2\.3"/);
  assert.match(explain('192.0.2.77'), /no node has claimed its block/);
  assert.match(explain('203.0.113.1'), /is in no IPPool/);
});

test('findAddressProblems() finds nothing where all fits together', () => {
  assert.deepEqual(findAddressProblems(input()), []);
});

const CASES: [string, Partial<IpamInput>, RegExp][] = [
  ['a lost pool', { pools: [] }, /of pool "v4", which does not exist/],
  ['a lost node', { nodes: [] }, /belongs to node "n1", which does not exist/],
  ['a lost ordinal', { blocks: [block({ free: [2, 3] })] }, /accounts for 3 of 4/],
  [
    'overlapping blocks',
    { blocks: [block(), block({ cidr: '192.0.2.0/31', allocations: {}, free: [0, 1] })] },
    /overlap/,
  ],
  [
    'an address lent to a lost node',
    { blocks: [block({ allocations: { 1: allocation({ node: 'n2' }) } })] },
    /192\.0\.2\.1 is lent to node "n2", which does not exist/,
  ],
  [
    'two addresses of one handle',
    { blocks: [block({ allocations: { 1: allocation(), 2: allocation() }, free: [3, 0] })] },
    /two addresses of one family/,
  ],
  [
    'two pods with one address',
    { pods: [pod('a', '192.0.2.1'), pod('b', '192.0.2.1')] },
    /default\/a and default\/b both have/,
  ],
  [
    'a pod without allocation',
    { pods: [pod('a', '192.0.2.2')] },
    /192\.0\.2\.2, which is not allocated/,
  ],
];
for (const [what, more, message] of CASES)
  test(`findAddressProblems() finds ${what}`, () => {
    assert.match(findAddressProblems(input(more)).join('\n'), message);
  });

test('whyNotRelease() keeps what a pod or a node has, and nothing else', () => {
  const why = (more: Partial<IPAllocation>, address = '192.0.2.2') =>
    whyNotRelease(input(), ip(address), allocation(more))?.reason;
  assert.equal(why({}, '192.0.2.1'), 'pod default/web has it');
  assert.equal(why({}), undefined);
  assert.equal(why({ purpose: 'Warm' }), 'node "n1" keeps it for a pod to come');
  assert.equal(why({ purpose: 'Tunnel' }), 'it is the own address of node "n1" on the fabric');
  assert.equal(why({ purpose: 'Tunnel', node: 'gone' }), undefined);
});
