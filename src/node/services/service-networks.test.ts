import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SERVICE_CIDR } from '#api/networking/v1/service-cidr.ts';
import { FakeApi } from '#client/fake.ts';
import { ApiError } from '#lib/errors.ts';
import { silentLogger } from '#lib/log.ts';
import { ServiceNetworks } from './service-networks.ts';

function put(api: FakeApi, name: string, ...cidrs: string[]): void {
  api.put(SERVICE_CIDR, {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'ServiceCIDR',
    metadata: { name },
    spec: { cidrs },
  });
}

/** The feature over an API, and a promise of its next news. */
function open(api: FakeApi) {
  let told = Promise.withResolvers<void>();
  const networks = new ServiceNetworks(
    { client: api, log: silentLogger },
    { onChange: () => told.resolve() },
  );
  return {
    networks,
    next: () => {
      told = Promise.withResolvers();
      return told.promise;
    },
  };
}

test('ServiceNetworks lists the ranges of all ServiceCIDRs and follows them', async () => {
  const api = new FakeApi();
  put(api, 'kubernetes', '10.96.0.0/16', 'fd00:96::/112');
  const { networks, next } = open(api);
  await using _ = networks;
  await networks.start();
  assert.deepEqual(networks.list(), ['10.96.0.0/16', 'fd00:96::/112']);
  assert.deepEqual(networks.notes(), []);
  const news = next();
  put(api, 'more', '10.97.0.0/24');
  await news;
  assert.deepEqual(networks.list(), ['10.96.0.0/16', 'fd00:96::/112', '10.97.0.0/24']);
});

test('ServiceNetworks leaves out ranges inside others, which an interval set does not take', async () => {
  const api = new FakeApi();
  put(api, 'small', '10.96.4.0/24');
  put(api, 'same', '10.96.0.0/16');
  put(api, 'kubernetes', '10.96.0.0/16');
  const { networks } = open(api);
  await using _ = networks;
  await networks.start();
  assert.deepEqual(networks.list(), ['10.96.0.0/16']);
});

for (const [status, note] of [
  [404, /the API has no networking\.k8s\.io\/v1 ServiceCIDR/],
  [403, /may not list servicecidrs/],
] as const)
  test(`ServiceNetworks starts without the kind (${status}), asks for it once, and says so`, async () => {
    const api = new FakeApi();
    api.failNext({ verb: 'list', resource: 'servicecidrs' }, new ApiError(status, 'No', 'no'));
    const { networks } = open(api);
    await using _ = networks;
    await networks.start();
    assert.deepEqual(networks.list(), []);
    assert.match(networks.notes().join(), note);
    assert.equal(api.requests.length, 1);
  });

test('ServiceNetworks says that an API with the kind has no ranges', async () => {
  const { networks } = open(new FakeApi());
  await using _ = networks;
  await networks.start();
  assert.match(networks.notes().join(), /has no ServiceCIDR object/);
});
