import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PolicyRule } from '#api/rbac/v1/rules.ts';
import { type AccessRequest, MAX_SINGLE_RULES, ruleAllows, uncoveredRules } from './rules.ts';

function access(text: string): AccessRequest {
  const [verb = '', what = '', name = ''] = text.split(' ');
  if (what.startsWith('/')) return { type: 'plain', verb, path: what };
  const [qualified = '', subresource = ''] = what.split('/');
  const [resource = '', ...group] = qualified.split('.');
  return {
    type: 'resource',
    verb,
    group: group.join('.'),
    resource,
    subresource,
    namespace: '',
    name,
  };
}

const core = (resources: string[], verbs: string[], resourceNames?: string[]): PolicyRule => ({
  apiGroups: [''],
  resources,
  verbs,
  ...(resourceNames === undefined ? {} : { resourceNames }),
});

const ALLOWS: readonly (readonly [PolicyRule, readonly string[], readonly string[]])[] = [
  [
    core(['pods'], ['get']),
    ['get pods', 'get pods a'],
    ['list pods', 'get pods/log', 'get pods.metrics.k8s.io', 'get pod', 'get /pods'],
  ],
  [core(['pods/log'], ['get']), ['get pods/log'], ['get pods', 'get pods/exec']],
  [core(['*/scale'], ['get']), ['get pods/scale', 'get x/scale'], ['get pods', 'get scale']],
  [core(['*'], ['*']), ['get pods', 'delete pods/log', 'x secrets'], ['get roles.rbac', 'get /x']],
  [core(['cm'], ['get', 'list'], ['a']), ['get cm a'], ['get cm b', 'list cm', 'get cm']],
  [
    { apiGroups: ['*'], resources: ['*'], verbs: ['get'] },
    ['get pods', 'get roles.rbac', 'get a.b.c/d'],
    ['list pods', 'get /api'],
  ],
  [
    { nonResourceURLs: ['/api', '/api/*'], verbs: ['get'] },
    ['get /api', 'get /api/v1', 'get /api/'],
    ['get /apis', 'post /api', 'get api'],
  ],
  [{ nonResourceURLs: ['*'], verbs: ['*'] }, ['get /', 'post /x/y'], ['get pods']],
  [{ verbs: ['*'] }, [], ['get pods', 'get /x']],
];

for (const [rule, allowed, refused] of ALLOWS)
  test(`ruleAllows() ${JSON.stringify(rule)}`, () => {
    for (const text of allowed) assert.equal(ruleAllows(rule, access(text)), true, text);
    for (const text of refused) assert.equal(ruleAllows(rule, access(text)), false, text);
  });

const COVERED: readonly (readonly [string, PolicyRule[], PolicyRule[], number])[] = [
  ['nothing by nothing', [], [], 0],
  ['the same', [core(['a', 'b'], ['get', 'list'])], [core(['b'], ['list'])], 0],
  ['by two together', [core(['a'], ['get']), core(['b'], ['get'])], [core(['a', 'b'], ['get'])], 0],
  ['one verb more', [core(['a'], ['get'])], [core(['a'], ['get', 'list'])], 1],
  ['all verbs by some', [core(['a'], ['get', 'list', 'watch'])], [core(['a'], ['*'])], 1],
  ['all resources by one', [core(['a'], ['get'])], [core(['*'], ['get'])], 1],
  ['some by all', [core(['*'], ['*'])], [core(['a', 'b/status'], ['get'])], 0],
  ['a subresource by its resource', [core(['a'], ['get'])], [core(['a/b'], ['get'])], 1],
  ['any name by one name', [core(['a'], ['get'], ['x'])], [core(['a'], ['get'])], 1],
  ['one name by any', [core(['a'], ['get'])], [core(['a'], ['get'], ['x', 'y'])], 0],
  ['a name by another', [core(['a'], ['get'], ['x'])], [core(['a'], ['get'], ['x', 'y'])], 1],
  [
    'another group',
    [core(['a'], ['get'])],
    [{ apiGroups: ['apps'], resources: ['a'], verbs: ['get'] }],
    1,
  ],
  [
    'paths',
    [{ nonResourceURLs: ['/a/*'], verbs: ['get'] }],
    [{ nonResourceURLs: ['/a/b', '/a/*', '/b'], verbs: ['get'] }],
    1,
  ],
];

for (const [what, owned, wanted, missing] of COVERED)
  test(`uncoveredRules() finds ${missing} missing: ${what}`, () => {
    assert.equal(uncoveredRules(owned, wanted)?.length, missing);
  });

test('uncoveredRules() gives up on rules that multiply without end', () => {
  const many = Array.from({ length: 200 }, (_, i) => `r${i}`);
  const rule = { apiGroups: many, resources: many, verbs: many };
  assert.ok(200 ** 3 > MAX_SINGLE_RULES);
  assert.equal(uncoveredRules([core(['*'], ['*'])], [rule]), undefined);
});
