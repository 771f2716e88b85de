import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ApiError } from '#lib/errors.ts';
import { MAX_URL_LENGTH, parseRequest } from './request.ts';

const RESOURCES: readonly (readonly [string, string, object])[] = [
  ['GET', '/api/v1/namespaces', { verb: 'list', resource: 'namespaces', namespace: '', name: '' }],
  [
    'GET',
    '/api/v1/namespaces/a',
    { verb: 'get', resource: 'namespaces', namespace: '', name: 'a' },
  ],
  [
    'PUT',
    '/api/v1/namespaces/a/finalize',
    { verb: 'update', resource: 'namespaces', name: 'a', subresource: 'finalize' },
  ],
  [
    'PATCH',
    '/api/v1/namespaces/a/status',
    { verb: 'patch', resource: 'namespaces', name: 'a', subresource: 'status' },
  ],
  [
    'GET',
    '/api/v1/namespaces/a/services',
    { verb: 'list', resource: 'services', namespace: 'a', name: '' },
  ],
  [
    'POST',
    '/api/v1/namespaces/a/services',
    { verb: 'create', resource: 'services', namespace: 'a' },
  ],
  ['DELETE', '/api/v1/namespaces/a/services', { verb: 'deletecollection', namespace: 'a' }],
  ['DELETE', '/api/v1/namespaces/a/services/b', { verb: 'delete', namespace: 'a', name: 'b' }],
  [
    'PUT',
    '/api/v1/namespaces/a/pods/b/status',
    { verb: 'update', name: 'b', subresource: 'status' },
  ],
  ['GET', '/api/v1/services?watch=true', { verb: 'watch', resource: 'services', namespace: '' }],
  ['GET', '/api/v1/services?watch=1&x=', { verb: 'watch' }],
  ['GET', '/api/v1/services?watch=false', { verb: 'list' }],
  [
    'GET',
    '/apis/tulle.dev/v1alpha1/ippools/a',
    { verb: 'get', group: 'tulle.dev', version: 'v1alpha1', resource: 'ippools', name: 'a' },
  ],
  ['GET', '//api//v1/nodes/', { verb: 'list', resource: 'nodes' }],
  ['GET', '/api/v1/nodes/a%3Ab', { verb: 'get', name: 'a:b' }],
];

for (const [method, target, expected] of RESOURCES)
  test(`parseRequest() reads ${method} ${target}`, () => {
    const info = parseRequest(method, target);
    assert.equal(info.type, 'resource');
    assert.deepEqual({ ...info, ...expected }, info);
  });

for (const [method, target] of [
  ['GET', '/'],
  ['GET', '/healthz'],
  ['GET', '/api'],
  ['GET', '/api/v1'],
  ['GET', '/apis/tulle.dev/v1alpha1'],
  ['GET', '/apis/tulle.dev'],
  ['TRACE', '/api/v1/nodes'],
  ['PUT', '/api/v1/nodes'],
  ['GET', '/apiv1/nodes'],
] as const)
  test(`parseRequest() takes ${method} ${target} for no resource`, () => {
    assert.equal(parseRequest(method, target).type, 'plain');
  });

test('parseRequest() takes the paths of no resource with and without a slash at their end', () => {
  for (const [target, path] of [
    ['/version/', '/version'],
    ['/apis/tulle.dev/?timeout=32s', '/apis/tulle.dev'],
    ['/', '/'],
  ] as const)
    assert.equal(parseRequest('GET', target).path, path);
});

for (const target of [
  '/api/v1/namespaces/a/services/b%2Fc',
  '/api/v1/namespaces/%2e%2e/services',
  '/api/v1/nodes/%00',
  '/api/v1/nodes/%zz',
  `/api/v1/nodes?labelSelector=${'a'.repeat(MAX_URL_LENGTH)}`,
])
  test(`parseRequest() refuses ${target.slice(0, 50)}`, () => {
    assert.throws(
      () => parseRequest('GET', target),
      (error) => error instanceof ApiError && error.status === 400,
    );
  });
