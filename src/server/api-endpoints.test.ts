import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ENDPOINT_SLICE, type EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { EXPIRE_MS, planApiSlices, RENEW_MS, startApiEndpoints } from './api-endpoints.ts';
import { decodeEntry } from './registry/codec.ts';
import { collectionPrefix } from './registry/keys.ts';
import { type Fixture, openFixture } from './registry/test-registries.ts';

const A = { address: ip('192.0.2.1'), port: 6443 };
const B = { address: ip('192.0.2.2'), port: 6443 };
const C = { address: ip('2001:db8::1'), port: 6444 };

test('planApiSlices() makes a slice per family and port', () => {
  assert.deepEqual(
    planApiSlices([B, C, A]).map(({ metadata, addressType, endpoints, ports }) => [
      metadata.name,
      addressType,
      endpoints?.flatMap((endpoint) => endpoint.addresses),
      ports?.[0]?.port,
    ]),
    [
      ['kubernetes-ipv4-6443', 'IPv4', ['192.0.2.1', '192.0.2.2'], 6443],
      ['kubernetes-ipv6-6444', 'IPv6', ['2001:db8::1'], 6444],
    ],
  );
});

async function addresses({ store }: Fixture): Promise<string[]> {
  const { entries } = await store.list(collectionPrefix(ENDPOINT_SLICE, 'default'));
  return entries.flatMap((entry) =>
    ((decodeEntry(entry) as EndpointSlice).endpoints ?? []).flatMap(
      (endpoint) => endpoint.addresses,
    ),
  );
}

test('startApiEndpoints() announces a server, drops one that went silent, and takes itself back', async () => {
  await using fixture = await openFixture();
  const { store, clock } = fixture;
  const start = (own: typeof A) =>
    startApiEndpoints({ store, slices: fixture.of(ENDPOINT_SLICE), own, clock, log: silentLogger });
  const one = await start(A);
  // A record that nobody renews, as a server leaves it that was killed.
  await store.transact(
    [],
    [{ type: 'put', key: '/tulle/servers/192.0.2.2 6443', value: new Uint8Array([1]) }],
  );
  const passTime = async (ms: number) => {
    for (let at = 0; at < ms; at += RENEW_MS) {
      clock.advance(RENEW_MS);
      for (let i = 0; i < 100; i++) await new Promise(setImmediate);
    }
  };
  await passTime(RENEW_MS);
  assert.deepEqual(await addresses(fixture), [A.address, B.address]);
  await passTime(EXPIRE_MS + RENEW_MS);
  assert.deepEqual(await addresses(fixture), [A.address]);
  const two = await start(B);
  assert.deepEqual(await addresses(fixture), [A.address, B.address]);
  await one[Symbol.asyncDispose]();
  assert.deepEqual(await addresses(fixture), [B.address]);
  await two[Symbol.asyncDispose]();
  assert.deepEqual(await addresses(fixture), []);
});
