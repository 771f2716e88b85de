import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatFieldError } from '../../machinery/field-errors.ts';
import { INGRESS, type Ingress, type IngressPath } from './ingress.ts';
import { INGRESS_CLASS, type IngressClass } from './ingress-class.ts';

const apiVersion = 'networking.k8s.io/v1';
const metadata = { name: 'a', namespace: 'default' };

function ingress(spec: Ingress['spec']): Ingress {
  return { apiVersion, kind: 'Ingress', metadata, spec };
}

const BACKEND = { service: { name: 'web', port: { number: 80 } } };

function withPath(path: Partial<IngressPath>): Ingress {
  const whole: IngressPath = { path: '/', pathType: 'Prefix', backend: BACKEND, ...path };
  return ingress({ rules: [{ host: 'a.example', http: { paths: [whole] } }] });
}

const AT = 'spec.rules[0].http.paths[0]';

for (const [what, object, ...errors] of [
  ['a path', withPath({})],
  ['a default backend', ingress({ defaultBackend: BACKEND })],
  ['a wildcard', ingress({ rules: [{ host: '*.a.example' }] })],
  [
    'neither rule nor backend',
    ingress({}),
    'spec: Invalid value: []: either `defaultBackend` or `rules` must be specified',
  ],
  [
    'an address as host',
    ingress({ rules: [{ host: '192.0.2.1' }] }),
    'spec.rules[0].host: Invalid value: "192.0.2.1": must be a DNS name, not an IP address',
  ],
  [
    'a relative path',
    withPath({ path: 'x' }),
    `${AT}.path: Invalid value: "x": must be an absolute path`,
  ],
  [
    'a path that goes up',
    withPath({ path: '/a/../b' }),
    `${AT}.path: Invalid value: "/a/../b": must not contain '/../'`,
  ],
  ['a path of its controller', withPath({ pathType: 'ImplementationSpecific', path: '' })],
  [
    'an unknown type of path',
    withPath({ pathType: 'Regex' as 'Exact' }),
    `${AT}.pathType: Unsupported value: "Regex": supported values: "Exact", "ImplementationSpecific", "Prefix"`,
  ],
  [
    'a backend without a port',
    withPath({ backend: { service: { name: 'web' } } }),
    `${AT}.backend: Required value: port name or number is required`,
  ],
  [
    'a port with name and number',
    withPath({ backend: { service: { name: 'web', port: { name: 'http', number: 1 } } } }),
    `${AT}.backend: Invalid value: "": cannot set both port name & port number`,
  ],
  ['a resource', withPath({ backend: { resource: { kind: 'Bucket', name: 'b' } } })],
  [
    'a resource and a service',
    withPath({ backend: { ...BACKEND, resource: { kind: 'Bucket', name: 'b' } } }),
    `${AT}.backend: Invalid value: "": cannot set both resource and service backends`,
  ],
  [
    'no path',
    ingress({ rules: [{ http: { paths: [] } }] }),
    'spec.rules[0].http.paths: Required value',
  ],
] as const)
  test(`an ingress with ${what} has ${errors.length} mistakes`, () => {
    const found = INGRESS.validate(object, undefined).map((error) =>
      formatFieldError(error).replace(/: $/, ''),
    );
    assert.deepEqual(found, errors);
  });

test('an ingress class keeps its controller, and says where its parameters are', () => {
  const of = (spec: IngressClass['spec']): IngressClass =>
    INGRESS_CLASS.setDefaults({ apiVersion, kind: 'IngressClass', metadata: { name: 'a' }, spec });
  const fields = (object: IngressClass, old?: IngressClass) =>
    INGRESS_CLASS.validate(object, old).map(({ field }) => field);
  const good = of({ controller: 'a.example/b' });
  assert.deepEqual(fields(good), []);
  assert.deepEqual(fields(of({ controller: 'nothing' })), ['spec.controller']);
  assert.deepEqual(fields(of({ controller: 'a.example/c' }), good), ['spec.controller']);
  const parameters = { kind: 'K', name: 'n' };
  assert.equal(of({ controller: 'a.b/c', parameters }).spec.parameters?.scope, 'Cluster');
  const scoped = { ...parameters, scope: 'Namespace' as const };
  assert.deepEqual(fields(of({ controller: 'a.b/c', parameters: scoped })), [
    'spec.parameters.namespace',
  ]);
});
