import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Endpoint } from '#api/discovery/v1/endpoint-slice.ts';
import { selectEndpoints } from './select.ts';

const NODE = { nodeName: 'm1', zone: 'z1' };
/** Short forms: r ready, s serving and terminating, n not ready; then the node, then hints. */
function endpoint(text: string): Endpoint {
  const [name = '', state = '', nodeName = '', hint = ''] = text.split(' ');
  const conditions = {
    r: {},
    R: { ready: true, serving: true, terminating: false },
    s: { ready: false, serving: true, terminating: true },
    n: { ready: false },
    t: { ready: false, serving: false, terminating: true },
  }[state];
  return {
    addresses: [name],
    nodeName,
    ...(conditions === undefined ? {} : { conditions }),
    ...(hint.startsWith('zone=') ? { hints: { forZones: [{ name: hint.slice(5) }] } } : {}),
    ...(hint.startsWith('node=') ? { hints: { forNodes: [{ name: hint.slice(5) }] } } : {}),
  };
}

const CASES: readonly [string, string[], { cluster: string; local: string; any: boolean }][] = [
  ['no endpoints at all', [], { cluster: '', local: '', any: false }],
  ['ready ones', ['a r m1', 'b R m2'], { cluster: 'a b', local: 'a', any: true }],
  ['not ready ones do not count', ['a n m1', 'b n m2'], { cluster: '', local: '', any: false }],
  ['ready beats terminating', ['a r m2', 'b s m1'], { cluster: 'a', local: 'b', any: true }],
  ['falls back to terminating', ['a s m1', 'b s m2'], { cluster: 'a b', local: 'a', any: true }],
  ['terminating and no longer serving is gone', ['a t m1'], { cluster: '', local: '', any: false }],
  ['local falls back by itself', ['a r m2', 'b s m1'], { cluster: 'a', local: 'b', any: true }],
  ['zone hints', ['a r m1 zone=z1', 'b r m2 zone=z2'], { cluster: 'a', local: 'a', any: true }],
  [
    'zone hints missing on one: ignored',
    ['a r m1 zone=z1', 'b r m2'],
    { cluster: 'a b', local: 'a', any: true },
  ],
  [
    'zone hints without ours: ignored',
    ['a r m2 zone=z2', 'b r m3 zone=z3'],
    { cluster: 'a b', local: '', any: true },
  ],
  [
    'node hints beat zones',
    ['a r m1 node=m1', 'b r m2 node=m2'],
    { cluster: 'a', local: 'a', any: true },
  ],
  ['node hints without ours: ignored', ['a r m2 node=m2'], { cluster: 'a', local: '', any: true }],
  [
    'hints of endpoints that are not ready do not matter',
    ['a r m1 zone=z1', 'b n m2'],
    { cluster: 'a', local: 'a', any: true },
  ],
  [
    'topology is ignored for terminating ones',
    ['a s m2 zone=z2'],
    { cluster: 'a', local: '', any: true },
  ],
];

for (const [name, endpoints, expected] of CASES)
  test(`selectEndpoints(): ${name}`, () => {
    const selected = selectEndpoints(endpoints.map(endpoint), NODE);
    const names = (list: readonly Endpoint[]) => list.map((e) => e.addresses[0]).join(' ');
    assert.deepEqual(
      { cluster: names(selected.cluster), local: names(selected.local), any: selected.anyEndpoint },
      expected,
    );
  });

test('selectEndpoints() ignores zone hints on a node without a zone', () => {
  const endpoints = [endpoint('a r m1 zone=z1'), endpoint('b r m2 zone=z2')];
  assert.equal(selectEndpoints(endpoints, { nodeName: 'm1', zone: undefined }).cluster.length, 2);
});
