import assert from 'node:assert/strict';
import { test } from 'node:test';
import { negotiateObject, wantsAggregatedDiscovery } from './negotiation.ts';

const KUBECTL_GET =
  'application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json';

for (const [accept, presentation, encoding] of [
  [undefined, 'object', 'json'],
  ['', 'object', 'json'],
  ['*/*', 'object', 'json'],
  ['application/json', 'object', 'json'],
  ['application/yaml', 'object', 'yaml'],
  ['application/vnd.kubernetes.protobuf,application/json', 'object', 'json'],
  [KUBECTL_GET, 'table', 'json'],
  ['application/json;as=Table;v=v9;g=meta.k8s.io, application/json', 'object', 'json'],
  ['application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1', 'metadata', 'json'],
  ['text/html, */*;q=0.1', 'object', 'json'],
] as const)
  test(`negotiateObject() answers ${accept} with ${presentation} in ${encoding}`, () => {
    assert.deepEqual(negotiateObject(accept), { presentation, encoding });
  });

for (const accept of ['image/png', 'application/vnd.kubernetes.protobuf'])
  test(`negotiateObject() refuses "${accept}"`, () => {
    assert.throws(() => negotiateObject(accept), { status: 406 });
  });

test('wantsAggregatedDiscovery() heeds the order in which a client names forms', () => {
  const aggregated = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList';
  assert.equal(wantsAggregatedDiscovery(`${aggregated},application/json`), true);
  assert.equal(wantsAggregatedDiscovery(`application/json,${aggregated}`), false);
  assert.equal(wantsAggregatedDiscovery(aggregated.replace('v2', 'v2beta1')), false);
  assert.equal(wantsAggregatedDiscovery(undefined), false);
});
