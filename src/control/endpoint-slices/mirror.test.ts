import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ENDPOINTS, type EndpointSubset, type Endpoints } from '#api/core/v1/endpoints.ts';
import { POD } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE, type EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { FakeApi } from '#client/fake.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { startControllers } from '../controllers.ts';
import {
  ENDPOINTS_MANAGED_BY,
  ENDPOINTS_MANAGED_LABEL,
  MAX_ENDPOINTS_ADDRESSES,
  MIRRORED_BY,
  planEndpoints,
  planMirror,
  SKIP_MIRROR_LABEL,
} from './mirror-plan.ts';
import { pod, service } from './samples.ts';

const manual = (subsets: EndpointSubset[], metadata: Partial<Endpoints['metadata']> = {}) =>
  ({
    apiVersion: 'v1',
    kind: 'Endpoints',
    metadata: { name: 'web', namespace: 'default', uid: 'uid-ep', ...metadata },
    subsets,
  }) satisfies Endpoints;

const slice = (more: Partial<EndpointSlice>): EndpointSlice => ({
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { name: 's', namespace: 'default' },
  addressType: 'IPv4',
  ports: [{ name: '', protocol: 'TCP', port: 8080 }],
  ...more,
});

const bySelector = service();
const { selector: _, ...withoutSelector } = bySelector.spec;
const byHand = { ...bySelector, spec: withoutSelector };

describe('planEndpoints()', () => {
  test('writes what is ready, what is not, and leaves out what is ending and the other family', () => {
    const plan = planEndpoints(
      bySelector,
      [
        slice({
          endpoints: [
            { addresses: ['10.0.0.2'], nodeName: 'm1', conditions: { ready: true } },
            { addresses: ['10.0.0.1'], conditions: {} },
            { addresses: ['10.0.0.3'], conditions: { ready: false } },
            { addresses: ['10.0.0.4'], conditions: { ready: false, terminating: true } },
          ],
        }),
        slice({ addressType: 'IPv6', endpoints: [{ addresses: ['fd00::1'] }] }),
        slice({ ports: [{ name: '', protocol: 'TCP', port: 80 }], endpoints: [] }),
      ],
      undefined,
    );
    assert.deepEqual(plan.kind === 'create' && plan.endpoints.subsets, [
      {
        addresses: [{ ip: '10.0.0.1' }, { ip: '10.0.0.2', nodeName: 'm1' }],
        notReadyAddresses: [{ ip: '10.0.0.3' }],
        ports: [{ port: 8080, protocol: 'TCP' }],
      },
    ]);
  });

  test('writes nothing twice, and cuts what is too long, those that are not ready first', () => {
    const endpoints = Array.from({ length: MAX_ENDPOINTS_ADDRESSES + 1 }, (_, i) => ({
      addresses: [`10.0.${i >> 8}.${i & 255}`],
      conditions: { ready: i > 0 },
    }));
    const slices = [slice({ endpoints })];
    const plan = planEndpoints(bySelector, slices, undefined);
    assert.ok(plan.kind === 'create');
    assert.equal(plan.endpoints.subsets?.[0]?.addresses?.length, MAX_ENDPOINTS_ADDRESSES);
    assert.equal(plan.endpoints.subsets?.[0]?.notReadyAddresses, undefined);
    assert.equal(
      plan.endpoints.metadata.annotations?.['endpoints.kubernetes.io/over-capacity'],
      'truncated',
    );
    assert.equal(planEndpoints(bySelector, slices, plan.endpoints).kind, 'nothing');
    const shorter = planEndpoints(
      bySelector,
      [slice({ endpoints: endpoints.slice(5) })],
      plan.endpoints,
    );
    assert.ok(shorter.kind === 'update');
    assert.deepEqual(shorter.endpoints.metadata.annotations, {});
  });

  const ours = manual([], { labels: { [ENDPOINTS_MANAGED_LABEL]: ENDPOINTS_MANAGED_BY } });
  for (const [name, it, observed, kind] of [
    ['removes ours of a service that is gone', undefined, ours, 'remove'],
    ['leaves those of a person when there is no service', undefined, manual([]), 'nothing'],
    ['gives ours to the person who takes the selector away', byHand, ours, 'update'],
    ['leaves those of a service without selector', byHand, manual([]), 'nothing'],
    ['takes over those of a service with selector', bySelector, manual([]), 'update'],
  ] as const)
    test(name, () => assert.equal(planEndpoints(it, [], observed).kind, kind));
});

describe('planMirror()', () => {
  const subsets: EndpointSubset[] = [
    {
      addresses: [{ ip: '192.0.2.1' }, { ip: 'fd00::1', hostname: 'six' }],
      notReadyAddresses: [{ ip: '192.0.2.2' }, { ip: '192.0.2.1' }],
      ports: [{ port: 9376 }],
    },
  ];
  test('makes slices of each family, with the ready ones first', () => {
    const plan = planMirror(byHand, manual(subsets, { annotations: { note: 'x' } }), []);
    assert.deepEqual(
      plan.create.map((it) => [
        it.addressType,
        it.endpoints?.map(({ addresses, conditions }) => `${addresses} ${conditions?.ready}`),
        it.ports,
        it.metadata.annotations,
        it.metadata.labels?.['endpointslice.kubernetes.io/managed-by'],
      ]),
      [
        [
          'IPv4',
          ['192.0.2.1 true', '192.0.2.2 false'],
          [{ name: '', port: 9376, protocol: 'TCP' }],
          { note: 'x' },
          MIRRORED_BY,
        ],
        [
          'IPv6',
          ['fd00::1 true'],
          [{ name: '', port: 9376, protocol: 'TCP' }],
          { note: 'x' },
          MIRRORED_BY,
        ],
      ],
    );
    const made = plan.create.map((it, i) => ({
      ...it,
      metadata: { ...it.metadata, name: `m${i}` },
    }));
    const again = planMirror(byHand, manual(subsets, { annotations: { note: 'x' } }), made);
    assert.deepEqual(again, { create: [], update: [], remove: [] });
    const noted = planMirror(byHand, manual(subsets, { annotations: { note: 'y' } }), made);
    assert.deepEqual(
      noted.update.map((it) => it.metadata.annotations),
      [{ note: 'y' }, { note: 'y' }],
    );
  });

  for (const [name, it, endpoints] of [
    ['a service with a selector', bySelector, manual(subsets)],
    ['no service', undefined, manual(subsets)],
    ['no Endpoints', byHand, undefined],
    ['Endpoints that say so', byHand, manual(subsets, { labels: { [SKIP_MIRROR_LABEL]: 'true' } })],
    [
      'a lock of an election',
      byHand,
      manual(subsets, { annotations: { 'control-plane.alpha.kubernetes.io/leader': '{}' } }),
    ],
  ] as const)
    test(`mirrors nothing of ${name}, and takes back what was`, () => {
      const was = slice({});
      assert.deepEqual(planMirror(it, endpoints, [was]), { create: [], update: [], remove: [was] });
    });
});

describe('EndpointsController', () => {
  const slices = (api: FakeApi) =>
    api
      .objects(ENDPOINT_SLICE)
      .flatMap((it) => (it.endpoints ?? []).flatMap(({ addresses }) => addresses))
      .toSorted()
      .join();
  const listed = (api: FakeApi) =>
    api
      .objects(ENDPOINTS)
      .flatMap((it) => it.subsets ?? [])
      .flatMap((it) => it.addresses ?? [])
      .map(({ ip }) => ip)
      .join();

  test('follows pods into Endpoints, and Endpoints made by hand into slices', async () => {
    const api = new FakeApi();
    await using controllers = startControllers({ client: api, log: silentLogger });
    api.put(SERVICE, bySelector);
    api.put(POD, pod('a', { ip: '10.0.0.1' }));
    await until(() => listed(api) === '10.0.0.1');
    api.put(POD, pod('b', { ip: '10.0.0.2' }));
    await until(() => listed(api) === '10.0.0.1,10.0.0.2');
    api.remove(SERVICE, 'default/web');
    await until(() => api.objects(ENDPOINTS).length === 0 && slices(api) === '');
    api.put(SERVICE, byHand);
    api.put(ENDPOINTS, manual([{ addresses: [{ ip: '192.0.2.1' }], ports: [{ port: 80 }] }]));
    await until(() => slices(api) === '192.0.2.1');
    api.remove(ENDPOINTS, 'default/web');
    await until(() => api.objects(ENDPOINT_SLICE).length === 0);
    await controllers.settled();
  });

  test('restarts without a write when nothing has changed', async () => {
    const api = new FakeApi();
    api.put(SERVICE, bySelector);
    api.put(POD, pod('a', { ip: '10.0.0.1' }));
    api.put(SERVICE, { ...byHand, metadata: { ...byHand.metadata, name: 'hand' } });
    api.put(ENDPOINTS, manual([{ addresses: [{ ip: '192.0.2.1' }] }], { name: 'hand' }));
    {
      await using _ = startControllers({ client: api, log: silentLogger });
      await until(() => listed(api).includes('10.0.0.1') && slices(api).includes('192.0.2.1'));
    }
    const { resourceVersion } = api;
    await using again = startControllers({ client: api, log: silentLogger });
    await again.settled();
    assert.equal(api.resourceVersion, resourceVersion);
  });
});
