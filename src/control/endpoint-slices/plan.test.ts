import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Pod } from '#api/core/v1/pod.ts';
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import {
  HEADLESS_LABEL,
  MAX_ENDPOINTS_PER_SLICE,
  planSlices,
  type SliceInput,
  TRIGGER_TIME_ANNOTATION,
} from './plan.ts';
import { pod, service } from './samples.ts';

/** Applies a plan as a server would. */
function apply(slices: readonly EndpointSlice[], input: Partial<SliceInput>): EndpointSlice[] {
  const plan = planSlices({ ...base, ...input, slices });
  const updated = new Map(plan.update.map((slice) => [slice.metadata.name, slice]));
  const removed = new Set(plan.remove.map((slice) => slice.metadata.name));
  const created = plan.create.map((slice, i) => ({
    ...slice,
    metadata: { ...slice.metadata, name: `${slice.metadata.generateName}${slices.length + i}` },
  }));
  const kept = slices.filter((slice) => !removed.has(slice.metadata.name));
  return [...kept.map((slice) => updated.get(slice.metadata.name) ?? slice), ...created];
}

const base: SliceInput = {
  service: service(),
  pods: [],
  slices: [],
  zoneOf: () => undefined,
  triggerTime: undefined,
};

function endpoints(slices: readonly EndpointSlice[]) {
  return slices.flatMap((slice) => slice.endpoints ?? []);
}

function many(count: number, from = 0): Pod[] {
  return Array.from({ length: count }, (_, i) =>
    pod(`p${String(i + from).padStart(4, '0')}`, {
      ip: `10.0.${(i + from) >> 8}.${(i + from) & 255}`,
    }),
  );
}

describe('planSlices()', () => {
  test('makes a slice out of a service and its pods', () => {
    const pods = [pod('a', { ip: '10.0.0.1', node: 'm1' })];
    const plan = planSlices({ ...base, pods, zoneOf: () => 'z1', triggerTime: 'T' });
    assert.deepEqual(plan, {
      create: [
        {
          apiVersion: 'discovery.k8s.io/v1',
          kind: 'EndpointSlice',
          metadata: {
            name: '',
            generateName: 'web-',
            namespace: 'default',
            labels: {
              'kubernetes.io/service-name': 'web',
              'endpointslice.kubernetes.io/managed-by': 'tulle-endpoint-slices',
            },
            ownerReferences: [
              {
                apiVersion: 'v1',
                kind: 'Service',
                name: 'web',
                uid: 'uid-web',
                controller: true,
                blockOwnerDeletion: true,
              },
            ],
            annotations: { [TRIGGER_TIME_ANNOTATION]: 'T' },
          },
          addressType: 'IPv4',
          endpoints: [
            {
              addresses: ['10.0.0.1'],
              conditions: { ready: true, serving: true, terminating: false },
              targetRef: { kind: 'Pod', namespace: 'default', name: 'a', uid: 'uid-a' },
              nodeName: 'm1',
              zone: 'z1',
            },
          ],
          ports: [{ name: '', protocol: 'TCP', port: 8080 }],
        },
      ],
      update: [],
      remove: [],
    });
  });

  test('wants nothing when all is as it should be', () => {
    const pods = many(250);
    const slices = apply([], { pods });
    assert.deepEqual(
      slices.map((slice) => slice.endpoints?.length),
      [100, 100, 50],
    );
    assert.deepEqual(planSlices({ ...base, pods, slices }), { create: [], update: [], remove: [] });
  });

  for (const { name, change, want } of [
    { name: 'is not ready', change: { ready: false }, want: [false, false, false] },
    { name: 'is terminating', change: { deleting: true }, want: [false, true, true] },
    { name: 'has no Ready condition', change: { ready: undefined }, want: [false, false, false] },
  ])
    test(`a pod that ${name} stays, with its conditions`, () => {
      const slices = apply([], { pods: [pod('a', { ip: '10.0.0.1', ...change })] });
      const [ready, serving, terminating] = want;
      assert.deepEqual(endpoints(slices)[0]?.conditions, { ready, serving, terminating });
    });

  for (const change of [
    { phase: 'Succeeded' },
    { phase: 'Failed' },
    { ip: '' },
    { labels: { app: 'other' } },
    { namespace: 'elsewhere' },
    { ip: '2001:db8::1' },
  ] as const)
    test(`a pod with ${JSON.stringify(change)} is no endpoint`, () => {
      const pods = [pod('a', { ip: '10.0.0.1', ...change })];
      assert.deepEqual(endpoints(apply([], { pods })), []);
    });

  test('publishNotReadyAddresses makes everything ready that has not ended', () => {
    const pods = [
      pod('a', { ip: '10.0.0.1', ready: false }),
      pod('b', { ip: '10.0.0.2', deleting: true }),
      pod('c', { ip: '10.0.0.3', phase: 'Failed' }),
    ];
    const slices = apply([], { service: service({ publishNotReadyAddresses: true }), pods });
    assert.deepEqual(
      endpoints(slices).map((e) => [e.targetRef?.name, e.conditions?.ready, e.conditions?.serving]),
      [
        ['a', true, false],
        ['b', true, true],
      ],
    );
  });

  test('gives a hostname to pods whose subdomain is the service', () => {
    const pods = [
      pod('a', { ip: '10.0.0.1', spec: { hostname: 'a-0', subdomain: 'web' } }),
      pod('b', { ip: '10.0.0.2', spec: { hostname: 'b-0', subdomain: 'other' } }),
      pod('c', { ip: '10.0.0.3', spec: { subdomain: 'web' } }),
    ];
    const slices = apply([], { pods });
    assert.deepEqual(
      endpoints(slices).map((e) => e.hostname),
      ['a-0', undefined, undefined],
    );
  });

  test('resolves named ports per pod into a slice per set of ports', () => {
    const named = service({ ports: [{ name: 'http', port: 80, targetPort: 'web' }] });
    const withPort = (name: string, ip: string, containerPort: number) =>
      pod(name, { ip, ports: [{ name: 'web', containerPort }] });
    const pods = [
      withPort('a', '10.0.0.1', 8080),
      withPort('b', '10.0.0.2', 9090),
      withPort('c', '10.0.0.3', 8080),
      pod('d', { ip: '10.0.0.4', ports: [{ name: 'web', containerPort: 53, protocol: 'UDP' }] }),
    ];
    const slices = apply([], { service: named, pods });
    assert.deepEqual(
      slices.map((s) => [s.ports?.map((p) => p.port), s.endpoints?.map((e) => e.targetRef?.name)]),
      [
        [[8080], ['a', 'c']],
        [[9090], ['b']],
        [[], ['d']],
      ],
    );
  });

  test('makes slices for each family', () => {
    const dual = service({ ipFamilies: ['IPv4', 'IPv6'] });
    const pods = [pod('a', { ip: '10.0.0.1', ip6: '2001:db8::1' }), pod('b', { ip: '10.0.0.2' })];
    const slices = apply([], { service: dual, pods });
    assert.deepEqual(
      slices.map((s) => [s.addressType, s.endpoints?.map((e) => e.addresses)]),
      [
        ['IPv4', [['10.0.0.1'], ['10.0.0.2']]],
        ['IPv6', [['2001:db8::1']]],
      ],
    );
    const single = service({ ipFamilies: ['IPv4'] });
    assert.deepEqual(
      apply(slices, { service: single, pods }).map((s) => s.addressType),
      ['IPv4'],
    );
  });

  for (const [wish, hints, bare] of [
    ['PreferClose', { forZones: [{ name: 'z1' }] }, undefined],
    ['PreferSameZone', { forZones: [{ name: 'z1' }] }, undefined],
    [
      'PreferSameNode',
      { forZones: [{ name: 'z1' }], forNodes: [{ name: 'm1' }] },
      { forNodes: [{ name: 'm2' }] },
    ],
    [undefined, undefined, undefined],
  ] as const)
    test(`trafficDistribution ${wish} gives each ready endpoint its hints`, () => {
      const pods = [
        pod('a', { ip: '10.0.0.1', node: 'm1' }),
        pod('b', { ip: '10.0.0.2', node: 'm1', ready: false }),
        pod('c', { ip: '10.0.0.3', node: 'm2' }),
      ];
      const input = {
        service: service(wish === undefined ? {} : { trafficDistribution: wish }),
        pods,
        zoneOf: (node: string) => (node === 'm1' ? 'z1' : undefined),
      };
      const slices = apply([], input);
      const found = endpoints(slices).map((endpoint) => endpoint.hints);
      assert.deepEqual(found, [hints, undefined, bare]);
      assert.deepEqual(planSlices({ ...base, ...input, slices }).update, []);
      const without = planSlices({ ...base, ...input, service: service(), slices });
      assert.equal(without.update.length, wish === undefined ? 0 : 1);
    });

  test('marks slices of a headless service, and hands its labels on', () => {
    const headless = service({ clusterIP: 'None' });
    headless.metadata.labels = { team: 'red', [HEADLESS_LABEL]: 'forged' };
    const slices = apply([], { service: headless });
    assert.equal(slices[0]?.metadata.labels?.team, 'red');
    assert.equal(slices[0]?.metadata.labels?.[HEADLESS_LABEL], '');
    const plain = service();
    plain.metadata.labels = { team: 'blue' };
    const [slice] = apply(slices, { service: plain });
    assert.equal(slice?.metadata.labels?.team, 'blue');
    assert.equal(slice?.metadata.labels?.[HEADLESS_LABEL], undefined);
  });

  test('one pod more or less is one write of one slice', () => {
    const pods = many(250);
    const slices = apply([], { pods });
    const less = planSlices({ ...base, slices, pods: pods.toSpliced(120, 1) });
    assert.deepEqual(
      [less.create.length, less.update.map((s) => s.endpoints?.length), less.remove.length],
      [0, [99], 0],
    );
    const more = planSlices({ ...base, slices, pods: [...pods, ...many(1, 900)] });
    assert.deepEqual(
      [more.create.length, more.update.map((s) => s.endpoints?.length), more.remove.length],
      [0, [51], 0],
    );
    const exchanged = [...pods.toSpliced(120, 1), ...many(1, 900)];
    const exchange = planSlices({ ...base, slices, pods: exchanged });
    assert.deepEqual(
      [exchange.create.length, exchange.update.map((s) => s.endpoints?.length)],
      [0, [100]],
    );
  });

  test('an endpoint stays in its slice, and no slice is too long, over many rounds', () => {
    let slices: EndpointSlice[] = [];
    for (let round = 0; round < 20; round++) {
      const pods = many(350).filter((_, i) => (i * 7 + round * 13) % (3 + (round % 5)) !== 0);
      const before = new Map(
        slices.flatMap((s) => (s.endpoints ?? []).map((e) => [e.targetRef?.name, s.metadata.name])),
      );
      slices = apply(slices, { pods });
      const names = endpoints(slices).map((e) => e.targetRef?.name);
      assert.deepEqual(names.toSorted(), pods.map((p) => p.metadata.name).toSorted());
      for (const slice of slices) {
        assert.ok((slice.endpoints?.length ?? 0) <= MAX_ENDPOINTS_PER_SLICE);
        for (const { targetRef } of slice.endpoints ?? []) {
          const old = before.get(targetRef?.name);
          assert.ok(old === undefined || old === slice.metadata.name, `${targetRef?.name} moved`);
        }
      }
    }
  });

  test('keeps one empty slice for a service without endpoints', () => {
    const slices = apply([], {});
    assert.deepEqual(
      slices.map((s) => [s.endpoints, s.ports]),
      [[[], []]],
    );
    const full = apply(slices, { pods: many(150) });
    assert.equal(full.length, 2);
    const empty = apply(full, { pods: [] });
    assert.deepEqual(
      empty.map((s) => s.endpoints),
      [[]],
    );
    assert.deepEqual(planSlices({ ...base, slices: empty }), {
      create: [],
      update: [],
      remove: [],
    });
  });

  test('turns a slice that is not needed into one that is when the ports change', () => {
    const pods = many(3);
    const slices = apply([], { pods });
    const changed = service({ ports: [{ port: 80, targetPort: 9000 }] });
    const plan = planSlices({ ...base, service: changed, pods, slices });
    assert.deepEqual([plan.create.length, plan.update.length, plan.remove.length], [0, 1, 0]);
    assert.equal(plan.update[0]?.ports?.[0]?.port, 9000);
  });

  for (const [name, gone] of [
    ['is deleted', undefined],
    ['has become an ExternalName', service({ type: 'ExternalName' })],
    ['has lost its selector', service({ selector: {} })],
  ] as [string, Service | undefined][])
    test(`removes the slices of a service that ${name}`, () => {
      const slices = apply([], { pods: many(150) });
      assert.deepEqual(apply(slices, { service: gone, pods: many(150) }), []);
    });

  test('takes an endpoint that stands in two slices out of one', () => {
    const [slice] = apply([], { pods: many(2) });
    assert.ok(slice);
    const twin = { ...slice, metadata: { ...slice.metadata, name: 'twin' } };
    const slices = apply([slice, twin], { pods: many(2) });
    assert.equal(endpoints(slices).length, 2);
    assert.equal(slices.length, 1);
  });

  test('repairs what somebody else has changed', () => {
    const pods = many(2);
    const [slice] = apply([], { pods });
    assert.ok(slice);
    for (const foreign of [
      { ...slice, metadata: { ...slice.metadata, labels: { x: 'y' } } },
      { ...slice, metadata: { ...slice.metadata, ownerReferences: [] } },
      { ...slice, endpoints: [{ addresses: ['192.0.2.66'] }, ...(slice.endpoints ?? [])] },
      { ...slice, ports: [] },
      { ...slice, endpoints: null },
    ] satisfies EndpointSlice[]) {
      const [repaired] = apply([foreign], { pods });
      assert.deepEqual(repaired?.endpoints, slice.endpoints);
      assert.deepEqual(repaired?.ports, slice.ports);
      assert.deepEqual(repaired?.metadata.labels, slice.metadata.labels);
      assert.deepEqual(repaired?.metadata.ownerReferences, slice.metadata.ownerReferences);
    }
  });
});
