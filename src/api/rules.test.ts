/**
 * Rules of kinds, object by object: what a change of a good object is told, as upstream's validation tells it (type and
 * field). Pods: `core/v1/pod-validation.test.ts`; services: `core/v1/service.test.ts`.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KindDefinition } from './kind.ts';
import { applyMergePatch } from './machinery/merge-patch.ts';
import { decodeFields } from './machinery/unknown-fields.ts';
import type { KubeObject } from './meta.ts';
import { KINDS, kindByApiVersion } from './registry.ts';

type Patch = Record<string, unknown>;
/** A change of the sample; the mistakes it makes, as `Type field`; and, for an update, a change of the stored sample. */
type Row = readonly [Patch, readonly string[], Patch?];

const META = { name: 'a', namespace: 'default' };

function kindOf(sample: KubeObject): KindDefinition {
  const kind = kindByApiVersion(sample.apiVersion, sample.kind);
  assert.ok(kind, `${sample.apiVersion} ${sample.kind}`);
  return kind;
}

function check(sample: { apiVersion: string; kind: string } & Patch, rows: readonly Row[]): void {
  const whole = { metadata: META, ...sample } as unknown as KubeObject;
  const kind = kindOf(whole);
  if (!kind.namespaced) whole.metadata = { name: whole.metadata.name };
  const changed = (patch: Patch) => {
    const { object, typeErrors, unknownFields } = decodeFields(
      kind.schema,
      applyMergePatch(whole, patch),
    );
    assert.deepEqual([typeErrors, unknownFields], [[], []], JSON.stringify(patch));
    return kind.setDefaults(object as unknown as KubeObject);
  };
  const table: readonly Row[] = [[{}, []], [{}, [], {}], ...rows];
  for (const [patch, mistakes, old] of table)
    test(`${sample.kind}: ${JSON.stringify(patch)} has [${mistakes}]`, () => {
      const errors = kind.validate(changed(patch), old === undefined ? undefined : changed(old));
      assert.deepEqual(
        errors.map(({ type, field }) => `${type} ${field}`),
        mistakes,
      );
    });
}

const owner = (fields: Patch) => ({
  metadata: {
    ownerReferences: [{ apiVersion: 'v1', kind: 'Pod', name: 'p', uid: 'u', ...fields }],
  },
});

check({ apiVersion: 'v1', kind: 'ConfigMap', data: { a: '1' } }, [
  [{ metadata: { finalizers: ['word'] } }, ['Invalid metadata.finalizers']],
  [{ metadata: { finalizers: ['orphan', 'example.com/x'] } }, []],
  [{ metadata: { finalizers: ['orphan', 'foregroundDeletion'] } }, ['Invalid metadata.finalizers']],
  [owner({}), []],
  [owner({ apiVersion: 'a/b/c' }), ['Invalid metadata.ownerReferences[0].apiVersion']],
  [owner({ kind: 'Event' }), ['Invalid metadata.ownerReferences[0]']],
  [owner({ uid: '' }), ['Invalid metadata.ownerReferences[0].uid']],
  [{ data: { 'a b': '' } }, ['Invalid data[a b]']],
  [{ binaryData: { a: 'AA==' } }, ['Duplicate binaryData[a]']],
  [{ data: { big: 'x'.repeat(1024 * 1024) } }, ['TooLong data']],
  [{ immutable: true }, [], {}],
  [{ immutable: true, data: { a: '2' } }, ['Forbidden data'], { immutable: true }],
  [{}, ['Invalid immutable'], { immutable: true }],
]);

const secret = (type: string, data: Patch) => ({ type: `kubernetes.io/${type}`, data });
const JSON_OBJECT = Buffer.from('{}').toString('base64');
check({ apiVersion: 'v1', kind: 'Secret', data: { a: 'AA==' } }, [
  [{ data: { 'a b': '' } }, ['Invalid data[a b]']],
  [{ type: 'other' }, ['Invalid type'], {}],
  [secret('tls', {}), ['Required data[tls.crt]', 'Required data[tls.key]']],
  [secret('tls', { 'tls.crt': '', 'tls.key': '' }), []],
  [secret('basic-auth', {}), ['Required data[username]', 'Required data[password]']],
  [secret('basic-auth', { password: '' }), []],
  [secret('ssh-auth', { 'ssh-privatekey': '' }), ['Required data[ssh-privatekey]']],
  [secret('dockercfg', {}), ['Required data[.dockercfg]']],
  [secret('dockercfg', { '.dockercfg': 'AA==' }), ['Invalid data[.dockercfg]']],
  [secret('dockerconfigjson', { '.dockerconfigjson': JSON_OBJECT }), []],
  [
    secret('service-account-token', {}),
    ['Required metadata.annotations[kubernetes.io/service-account.name]'],
  ],
  [
    {
      ...secret('service-account-token', {}),
      metadata: { annotations: { 'kubernetes.io/service-account.name': 'robot' } },
    },
    [],
  ],
]);

check({ apiVersion: 'v1', kind: 'ServiceAccount' }, [
  [{ metadata: { name: 'A_b' } }, ['Invalid metadata.name']],
]);

const GOING = { metadata: { deletionTimestamp: '2026-01-01T00:00:00Z' } };
check({ apiVersion: 'v1', kind: 'Namespace' }, [
  [{ metadata: { name: 'a.b' } }, ['Invalid metadata.name']],
  [{ spec: { finalizers: ['kubernetes', 'word'] } }, ['Invalid spec.finalizers[1]']],
  [{ status: { phase: 'Terminating' } }, ['Invalid status.phase'], {}],
  [{ ...GOING, status: { phase: 'Terminating' } }, [], {}],
  [{ ...GOING }, ['Invalid status.phase'], { ...GOING, status: { phase: 'Terminating' } }],
]);

const taints = (...list: Patch[]) => ({
  spec: { taints: list.map((taint) => ({ key: 'a', effect: 'NoSchedule', ...taint })) },
});
check({ apiVersion: 'v1', kind: 'Node' }, [
  [{ metadata: { name: 'M 1' } }, ['Invalid metadata.name']],
  [taints({}, { effect: 'NoExecute', value: 'v' }), []],
  [taints({ key: '' }), ['Invalid spec.taints[0].key']],
  [taints({ value: 'a b' }), ['Invalid spec.taints[0].value']],
  [taints({ effect: '' }), ['Required spec.taints[0].effect']],
  [taints({ effect: 'NoRun' }), ['NotSupported spec.taints[0].effect']],
  [taints({}, { value: 'v' }), ['Duplicate spec.taints[1]']],
  [{ spec: { podCIDR: '10.0.0.0/24' } }, []],
  [{ spec: { podCIDRs: ['10.0.0.0/24', 'fd00::/64'] } }, []],
  [{ spec: { podCIDRs: ['10.0.0.0'] } }, ['Invalid spec.podCIDRs[0]']],
  [{ spec: { podCIDRs: ['10.0.0.0/24', '10.1.0.0/24'] } }, ['Invalid spec.podCIDRs']],
  [
    { spec: { podCIDRs: ['10.0.0.0/24', '10.0.0.0/24'] } },
    ['Duplicate spec.podCIDRs[1]', 'Invalid spec.podCIDRs'],
  ],
  [{ spec: { podCIDRs: ['10.0.0.0/24'] } }, [], {}],
  [
    { spec: { podCIDRs: ['10.1.0.0/24'] } },
    ['Forbidden spec.podCIDRs'],
    { spec: { podCIDRs: ['10.0.0.0/24'] } },
  ],
  [{}, ['Forbidden spec.podCIDRs'], { spec: { podCIDR: '10.0.0.0/24' } }],
  [{ spec: { providerID: 'x' } }, [], {}],
  [{ spec: { providerID: 'y' } }, ['Forbidden spec.providerID'], { spec: { providerID: 'x' } }],
  [
    { status: { capacity: { cpu: 'lots' } } },
    ['Invalid status.capacity.cpu', 'Invalid status.allocatable.cpu'],
    {},
  ],
  [{ status: { allocatable: { memory: '-1Gi' } } }, ['Invalid status.allocatable.memory'], {}],
]);

const about = (fields: Patch) => ({ metadata: { name: 'system:a.1' }, involvedObject: fields });
check({ apiVersion: 'v1', kind: 'Event', involvedObject: { namespace: 'default' } }, [
  [about({ kind: 'Role' }), []],
  [about({ namespace: 'other' }), ['Invalid involvedObject.namespace']],
]);

const SEEN = {
  eventTime: '2026-01-01T00:00:00Z',
  type: 'Normal',
  reportingController: 'example.com/c',
  reportingInstance: 'i',
  action: 'a',
  reason: 'r',
};
check(
  { apiVersion: 'events.k8s.io/v1', kind: 'Event', regarding: { namespace: 'default' }, ...SEEN },
  [
    [{ metadata: { name: 'system:a' } }, ['Invalid metadata.name']],
    [{ metadata: { name: 'system:a' } }, [], { metadata: { name: 'system:a' } }],
    [{ eventTime: null }, ['Required eventTime']],
    [{ type: 'Odd' }, ['Invalid type']],
    [{ action: '', reason: 'x'.repeat(129) }, ['Required action', 'Invalid reason']],
    [{ deprecatedCount: 1 }, ['Invalid deprecatedCount']],
    [{ series: { count: 1 } }, ['Invalid series.count', 'Required series.lastObservedTime']],
    [{ note: 'other' }, ['Invalid note'], {}],
  ],
);

const subset = (fields: Patch) => ({ subsets: [{ addresses: [{ ip: '10.0.0.1' }], ...fields }] });
check({ apiVersion: 'v1', kind: 'Endpoints', ...subset({ ports: [{ port: 80 }] }) }, [
  [{ subsets: [{}] }, ['Required subsets[0]']],
  [subset({ addresses: [{ ip: '127.0.0.1' }] }), ['Invalid subsets[0].addresses[0].ip']],
  [subset({ addresses: [{ ip: 'x' }] }), ['Invalid subsets[0].addresses[0].ip']],
  [
    subset({ notReadyAddresses: [{ ip: '10.0.0.2', hostname: 'a.b', nodeName: 'A' }] }),
    [
      'Invalid subsets[0].notReadyAddresses[0].hostname',
      'Invalid subsets[0].notReadyAddresses[0].nodeName',
    ],
  ],
  [
    subset({ ports: [{ port: 0 }, { name: 'A', port: 1, protocol: 'ICMP', appProtocol: 'a b' }] }),
    [
      'Required subsets[0].ports[0].name',
      'Invalid subsets[0].ports[0].port',
      'Invalid subsets[0].ports[1].name',
      'NotSupported subsets[0].ports[1].protocol',
      'Invalid subsets[0].ports[1].appProtocol',
    ],
  ],
]);

const endpoint = (fields: Patch) => ({ endpoints: [{ addresses: ['10.0.0.1'], ...fields }] });
const names = (count: number) => Array.from({ length: count }, (_, i) => ({ name: `z${i}` }));
check({ apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice', addressType: 'IPv4' }, [
  [endpoint({ hints: { forZones: names(8), forNodes: names(8) } }), []],
  [endpoint({ hints: { forZones: names(9) } }), ['TooMany endpoints[0].hints.forZones']],
  [
    endpoint({ hints: { forZones: [{ name: 'a b' }] } }),
    ['Invalid endpoints[0].hints.forZones[0].name'],
  ],
  [
    endpoint({ hints: { forNodes: [{ name: 'm1' }, { name: 'm1' }, { name: 'M' }] } }),
    [
      'Duplicate endpoints[0].hints.forNodes[1].name',
      'Invalid endpoints[0].hints.forNodes[2].name',
    ],
  ],
  [endpoint({ deprecatedTopology: { 'a b': '' } }), ['Invalid endpoints[0].deprecatedTopology']],
  [
    endpoint({ deprecatedTopology: Object.fromEntries(names(17).map(({ name }) => [name, ''])) }),
    ['TooMany endpoints[0].deprecatedTopology'],
  ],
  [{ addressType: 'FQDN', ...endpoint({ addresses: ['db.example.com.'] }) }, []],
  [
    { addressType: 'FQDN', ...endpoint({ addresses: ['db'] }) },
    ['Invalid endpoints[0].addresses[0]'],
  ],
]);

const BACKEND = { service: { name: 'web', port: { number: 80 } } };
const rule = (fields: Patch) => ({ spec: { rules: [fields] } });
const point = (fields: Patch) => ({ status: { loadBalancer: { ingress: [fields] } } });
check(
  {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'Ingress',
    spec: { ingressClassName: 'fast', defaultBackend: BACKEND },
  },
  [
    [rule({ host: '*.example.com' }), []],
    [rule({ host: '*example.com' }), ['Invalid spec.rules[0].host']],
    [rule({ host: 'a.*.example.com' }), ['Invalid spec.rules[0].host']],
    [rule({ host: '192.0.2.1' }), ['Invalid spec.rules[0].host']],
    [{ spec: { tls: [{ hosts: ['*'] }] } }, ['Invalid spec.tls[0].hosts[0]']],
    [{ spec: { defaultBackend: { service: null } } }, ['Invalid spec.defaultBackend']],
    [
      {
        spec: {
          defaultBackend: { service: null, resource: { apiGroup: 'a b', kind: '', name: 'x/y' } },
        },
      },
      [
        'Invalid spec.defaultBackend.resource.apiGroup',
        'Required spec.defaultBackend.resource.kind',
        'Invalid spec.defaultBackend.resource.name',
      ],
    ],
    [
      { metadata: { annotations: { 'kubernetes.io/ingress.class': 'slow' } } },
      ['Invalid annotations.kubernetes.io/ingress.class'],
    ],
    [{ metadata: { annotations: { 'kubernetes.io/ingress.class': 'fast' } } }, []],
    [point({ ip: '192.0.2.1' }), [], {}],
    [point({ ip: 'x' }), ['Invalid status.loadBalancer.ingress[0].ip'], {}],
    [point({ hostname: '192.0.2.1' }), ['Invalid status.loadBalancer.ingress[0].hostname'], {}],
    [point({ hostname: 'A_b' }), ['Invalid status.loadBalancer.ingress[0].hostname'], {}],
  ],
);

const parameters = (fields: Patch) => ({
  spec: { parameters: { kind: 'Options', name: 'o', ...fields } },
});
check(
  {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'IngressClass',
    spec: { controller: 'example.com/fast' },
  },
  [
    [{ spec: { controller: '' } }, ['Required spec.controller']],
    [{ spec: { controller: 'fast' } }, ['Invalid spec.controller']],
    [{ spec: { controller: 'a.b/c' } }, ['Invalid spec.controller'], {}],
    [parameters({}), []],
    [
      parameters({ kind: '', name: 'a%b' }),
      ['Required spec.parameters.kind', 'Invalid spec.parameters.name'],
    ],
    [parameters({ apiGroup: 'A' }), ['Invalid spec.parameters.apiGroup']],
    [parameters({ scope: 'World' }), ['NotSupported spec.parameters.scope']],
    [parameters({ scope: 'Namespace' }), ['Required spec.parameters.namespace']],
    [parameters({ scope: 'Namespace', namespace: 'A' }), ['Invalid spec.parameters.namespace']],
    [parameters({ namespace: 'a' }), ['Forbidden spec.parameters.namespace']],
  ],
);

check({ apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', spec: { holderIdentity: 'm1' } }, [
  [{ spec: { leaseDurationSeconds: 0 } }, ['Invalid spec.leaseDurationSeconds']],
  [{ spec: { leaseTransitions: -1 } }, ['Invalid spec.leaseTransitions']],
  [{ spec: { preferredHolder: 'm2' } }, ['Forbidden spec.preferredHolder']],
  [{ spec: { strategy: 'Newest' } }, ['NotSupported spec.strategy']],
  [{ spec: { strategy: 'example.com/a b' } }, ['Invalid spec.strategy']],
  [{ spec: { strategy: 'OldestEmulationVersion', preferredHolder: 'm2' } }, []],
  [{ metadata: { finalizers: ['word'] } }, []],
]);

const BALANCER = { spec: { type: 'LoadBalancer' } };
check(
  {
    apiVersion: 'v1',
    kind: 'Service',
    spec: { clusterIP: '10.96.0.1', clusterIPs: ['10.96.0.1'], ports: [{ port: 80 }] },
  },
  [
    [point({ ip: '192.0.2.1' }), ['Forbidden status.loadBalancer.ingress'], {}],
    [{ ...BALANCER, ...point({ ip: '192.0.2.1' }) }, [], BALANCER],
    [
      { ...BALANCER, ...point({ ip: 'x' }) },
      ['Invalid status.loadBalancer.ingress[0].ip'],
      BALANCER,
    ],
    [
      { ...BALANCER, ...point({ hostname: '192.0.2.1', ipMode: 'VIP' }) },
      [
        'Invalid status.loadBalancer.ingress[0].hostname',
        'Forbidden status.loadBalancer.ingress[0].ipMode',
      ],
      BALANCER,
    ],
    [
      { ...BALANCER, ...point({ ip: '192.0.2.1', ipMode: 'Some' }) },
      ['NotSupported status.loadBalancer.ingress[0].ipMode'],
      BALANCER,
    ],
    // A service that is no balancer any more still shows what it was until its controller looks.
    [point({ ip: '192.0.2.1', ipMode: 'VIP' }), [], { ...BALANCER, ...point({ ip: '192.0.2.1' }) }],
    [
      {
        metadata: {
          annotations: {
            'service.beta.kubernetes.io/load-balancer-source-ranges': '10.0.0.0/8, x',
          },
        },
        ...BALANCER,
      },
      ['Invalid metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]'],
    ],
    [
      {
        metadata: {
          annotations: { 'service.beta.kubernetes.io/load-balancer-source-ranges': '10.0.0.0/8' },
        },
      },
      ['Forbidden metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]'],
    ],
    [
      { spec: { clusterIPs: ['10.96.0.1', 'fd00::2'], ipFamilies: ['IPv4', 'IPv6'] } },
      ['Invalid spec.clusterIPs[1]'],
      { spec: { clusterIPs: ['10.96.0.1', 'fd00::1'], ipFamilies: ['IPv4', 'IPv6'] } },
    ],
    [
      { spec: { ipFamilies: ['IPv4'] } },
      [],
      { spec: { clusterIPs: ['10.96.0.1', 'fd00::1'], ipFamilies: ['IPv4', 'IPv6'] } },
    ],
  ],
);

test('every built-in kind refuses a name that cannot stand in a URL, and a label that is none', () => {
  for (const kind of KINDS) {
    const object = kind.setDefaults({
      apiVersion: kind.group === '' ? kind.version : `${kind.group}/${kind.version}`,
      kind: kind.kind,
      metadata: {
        name: 'a/b',
        ...(kind.namespaced ? { namespace: 'default' } : {}),
        labels: { 'a b': '' },
      },
      spec: {},
      involvedObject: {},
      regarding: {},
      roleRef: {},
    } as unknown as KubeObject);
    const fields = kind.validate(object, undefined).map(({ field }) => field);
    assert.ok(fields.includes('metadata.name'), `${kind.kind}: ${fields}`);
    assert.ok(fields.includes('metadata.labels'), `${kind.kind}: ${fields}`);
  }
});
