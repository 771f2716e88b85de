import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { ip } from '#lib/ip.ts';
import { name } from '#wire/dns/name.ts';
import { addressOfReverseName, reverseName } from './records.ts';
import { decodeSets, recordsOfSet } from './sets.ts';
import { DOMAIN, describeRecord, service, slice } from './testing.ts';
import { type NameChange, Zone } from './zone.ts';

const SERVER = [ip('10.96.0.10')];
const clusterIp = (key: string, address: string) =>
  service(key, { clusterIP: address, ports: [{ name: 'http', port: 80 }] });
const headless = (key: string) => service(key, { clusterIP: 'None' });

/** One line a name: what exists, and its records. */
function describeChange({ name: owner, sets }: NameChange): string {
  if (sets === undefined) return `${owner} gone`;
  const records = decodeSets(owner, sets).flatMap((set) =>
    recordsOfSet(owner, set).map(describeRecord),
  );
  return [`${owner} exists`, ...records.map((r) => r.split(' ').slice(2).join(' ')).sort()].join(
    ' | ',
  );
}
const names = (changes: readonly NameChange[]) => changes.map((change) => change.name).sort();
const all = (zone: Zone) => [...zone.all()].map(describeChange).sort();

test('Zone.setService() returns only the service’s own names', () => {
  const zone = new Zone(DOMAIN, SERVER);
  zone.setService('a/other', clusterIp('a/other', '10.96.0.9'), []);
  assert.deepEqual(names(zone.setService('a/web', clusterIp('a/web', '10.96.0.1'), [])), [
    '1.0.96.10.in-addr.arpa.',
    '_http._tcp.web.a.svc.cluster.local.',
    '_tcp.web.a.svc.cluster.local.',
    'web.a.svc.cluster.local.',
  ]);
});

test('Zone.setService() returns nothing for an update that changes no answer', () => {
  const zone = new Zone(DOMAIN, SERVER);
  const web = clusterIp('a/web', '10.96.0.1');
  zone.setService('a/web', web, []);
  const relabelled = { ...web, metadata: { ...web.metadata, labels: { x: 'y' } } };
  assert.deepEqual(
    zone.setService('a/web', relabelled, [slice('a/web', [{ addresses: ['192.0.2.1'] }])]),
    [],
  );
});

test('Zone.setService() changes one endpoint’s names and the service’s, when one endpoint changes', () => {
  const zone = new Zone(DOMAIN, SERVER);
  const endpoints = ['192.0.2.1', '192.0.2.2', '192.0.2.3'].map((address) => ({
    addresses: [address],
  }));
  zone.setService('a/db', headless('a/db'), [slice('a/db', endpoints)]);
  assert.deepEqual(
    zone
      .setService('a/db', headless('a/db'), [slice('a/db', endpoints.slice(0, 2))])
      .map(describeChange)
      .sort(),
    [
      '192-0-2-3.db.a.svc.cluster.local. gone',
      '3.2.0.192.in-addr.arpa. gone',
      'db.a.svc.cluster.local. exists | A 192.0.2.1 | A 192.0.2.2',
    ],
  );
});

test('Zone gives an endpoint in two slices its address once', () => {
  const zone = new Zone(DOMAIN, SERVER);
  const changes = zone.setService('a/db', headless('a/db'), [
    slice('a/db', [{ addresses: ['192.0.2.1'] }], { name: 'one', ports: [{ name: 'x', port: 1 }] }),
    slice('a/db', [{ addresses: ['192.0.2.1'] }], { name: 'two', ports: [{ name: 'y', port: 2 }] }),
  ]);
  const own = changes.find((change) => change.name === 'db.a.svc.cluster.local.');
  assert.ok(own);
  assert.equal(
    describeChange(own),
    'db.a.svc.cluster.local. exists | A 192.0.2.1 | SRV 0 50 1 192-0-2-1.db.a.svc.cluster.local. | SRV 0 50 2 192-0-2-1.db.a.svc.cluster.local.',
  );
});

test('Zone keeps a PTR name while one of its two services is left', () => {
  const zone = new Zone(DOMAIN, SERVER);
  const reverse = reverseName(ip('192.0.2.1'));
  const endpoint = { addresses: ['192.0.2.1'], hostname: 'h' };
  const ptr = (changes: NameChange[]) => {
    const change = changes.find((candidate) => candidate.name === reverse);
    return change === undefined ? undefined : describeChange(change);
  };
  assert.equal(
    ptr(zone.setService('a/x', headless('a/x'), [slice('a/x', [endpoint])])),
    `${reverse} exists | PTR h.x.a.svc.cluster.local.`,
  );
  assert.equal(
    ptr(zone.setService('a/y', headless('a/y'), [slice('a/y', [endpoint])])),
    `${reverse} exists | PTR h.x.a.svc.cluster.local. | PTR h.y.a.svc.cluster.local.`,
  );
  assert.equal(
    ptr(zone.setService('a/x', undefined, [])),
    `${reverse} exists | PTR h.y.a.svc.cluster.local.`,
  );
  assert.equal(ptr(zone.setService('a/y', undefined, [])), `${reverse} gone`);
});

test('Zone has nothing left of a service that is gone, nor of its namespace', () => {
  const zone = new Zone(DOMAIN, SERVER);
  const before = all(zone);
  const size = zone.size;
  zone.setService('a/web', clusterIp('a/web', '10.96.0.1'), []);
  zone.setService('a/db', headless('a/db'), [
    slice('a/db', [{ addresses: ['192.0.2.1'], hostname: 'h' }]),
  ]);
  assert.notDeepEqual(all(zone), before);
  zone.setService('a/web', undefined, []);
  const left = zone.setService('a/db', undefined, []);
  assert.ok(
    left.some((change) => change.name === 'a.svc.cluster.local.' && change.sets === undefined),
  );
  assert.deepEqual(all(zone), before);
  assert.equal(zone.size, size);
});

test('Zone gives no address to a service that has none yet, or a wrong one', () => {
  const zone = new Zone(DOMAIN, SERVER);
  for (const spec of [
    { ports: [{ port: 80 }] },
    { clusterIP: '', ports: [{ port: 80 }] },
    { clusterIP: 'bogus', ports: [{ port: 80 }] },
    { type: 'ExternalName' as const },
    { type: 'ExternalName' as const, externalName: 'a..b' },
  ])
    assert.deepEqual(
      names(zone.setService('a/web', service('a/web', spec), [])).filter((n) =>
        n.startsWith('web.'),
      ),
      [],
    );
});

/** A small world, so that states meet: services of every type, sharing endpoints. */
const step = fc.record({
  key: fc.constantFrom('a/x', 'a/y', 'b/x'),
  kind: fc.constantFrom('gone', 'cluster', 'headless', 'external'),
  addresses: fc.subarray(['192.0.2.1', '192.0.2.2', '192.0.2.3']),
  hostname: fc.constantFrom(undefined, 'h', 'x'),
});
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

function objectsOf({ key, kind, addresses, hostname }: Step): {
  service: Service | undefined;
  slices: EndpointSlice[];
} {
  const slices = [
    slice(
      key,
      addresses.map((address) => ({
        addresses: [address],
        ...(hostname === undefined ? {} : { hostname }),
      })),
    ),
  ];
  if (kind === 'gone') return { service: undefined, slices };
  if (kind === 'cluster')
    return { service: clusterIp(key, `10.96.0.${key.charCodeAt(0)}`), slices };
  if (kind === 'headless') return { service: headless(key), slices };
  return { service: service(key, { type: 'ExternalName', externalName: 'example.com' }), slices };
}

test('Zone ends the same whatever came before, and its changes add up to it', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
      const zone = new Zone(DOMAIN, SERVER);
      const followed = new Map(
        [...zone.all()].map((change) => [change.name, describeChange(change)]),
      );
      const last = new Map<string, Step>();
      for (const one of steps) {
        const { service: object, slices } = objectsOf(one);
        for (const change of zone.setService(one.key, object, slices)) {
          if (change.sets === undefined) followed.delete(change.name);
          else followed.set(change.name, describeChange(change));
        }
        last.set(one.key, one);
      }
      const fresh = new Zone(DOMAIN, SERVER);
      for (const one of [...last.values()].reverse()) {
        const { service: object, slices } = objectsOf(one);
        fresh.setService(one.key, object, slices);
      }
      assert.deepEqual(all(zone), all(fresh));
      assert.deepEqual([...followed.values()].sort(), all(zone));
      assert.equal(zone.size, followed.size);
    }),
    { numRuns: 300 },
  );
});

test('reverseName() and addressOfReverseName() are each other’s inverse', () => {
  for (const address of ['192.0.2.7', '2001:db8::7', '::', '255.255.255.255'])
    assert.equal(addressOfReverseName(reverseName(ip(address))), address);
  for (const other of [
    '2.0.192.in-addr.arpa',
    '1.2.3.4.5.in-addr.arpa',
    '1.2.3.300.in-addr.arpa',
    'x.ip6.arpa',
    'example.com',
  ])
    assert.equal(addressOfReverseName(name(other)), undefined, other);
});
