import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatFieldError } from '../../machinery/field-errors.ts';
import { createTable } from '../../machinery/table.ts';
import { decodeFields } from '../../machinery/unknown-fields.ts';
import { SERVICE, type Service, type ServiceSpec, type ServiceStatus } from './service.ts';

const META = { name: 'web', namespace: 'default', creationTimestamp: '2026-01-01T00:00:00Z' };

function service(spec: unknown, name = 'web'): Service {
  const object = { apiVersion: 'v1', kind: 'Service', metadata: { ...META, name }, spec };
  return object as Service;
}

/** What the server does on create. */
function complaints(spec: unknown, name?: string): string[] {
  const object = SERVICE.setDefaults(service(spec, name));
  return SERVICE.validate(object, undefined).map(formatFieldError);
}

/** What the server does on update. */
function updateComplaints(spec: unknown, old: unknown): string[] {
  const stored = SERVICE.setDefaults(service(old));
  const object = SERVICE.setDefaults(service(spec));
  const ready = SERVICE.prepareForUpdate?.(object, stored) ?? object;
  return SERVICE.validate(ready, stored).map(formatFieldError);
}

test("SERVICE.setDefaults() fills what the walking skeleton's manifest leaves out", () => {
  const manifest = service({
    selector: { app: 'a' },
    ports: [{ protocol: 'TCP', port: 80, targetPort: 8080 }],
  });
  const before = structuredClone(manifest);
  assert.deepEqual(SERVICE.setDefaults(manifest).spec, {
    selector: { app: 'a' },
    ports: [{ protocol: 'TCP', port: 80, targetPort: 8080 }],
    type: 'ClusterIP',
    sessionAffinity: 'None',
    internalTrafficPolicy: 'Cluster',
  });
  assert.deepEqual(manifest, before, 'the argument is not changed');
});

test('SERVICE.setDefaults() fills in by type', () => {
  const filled = (spec: ServiceSpec) => SERVICE.setDefaults(service(spec)).spec;
  assert.deepEqual(filled({ ports: [{ port: 53, protocol: 'UDP' }, { port: 80 }] }).ports, [
    { port: 53, protocol: 'UDP', targetPort: 53 },
    { port: 80, protocol: 'TCP', targetPort: 80 },
  ]);
  assert.deepEqual(filled({ sessionAffinity: 'ClientIP' }).sessionAffinityConfig, {
    clientIP: { timeoutSeconds: 10800 },
  });
  assert.equal(
    filled({
      sessionAffinity: 'ClientIP',
      sessionAffinityConfig: { clientIP: { timeoutSeconds: 5 } },
    }).sessionAffinityConfig?.clientIP?.timeoutSeconds,
    5,
  );
  assert.equal(filled({ type: 'NodePort' }).externalTrafficPolicy, 'Cluster');
  assert.equal(
    filled({ type: 'NodePort', externalTrafficPolicy: 'Local' }).externalTrafficPolicy,
    'Local',
  );
  assert.equal(filled({ externalIPs: ['192.0.2.1'] }).externalTrafficPolicy, 'Cluster');
  assert.equal(filled({ type: 'ClusterIP' }).externalTrafficPolicy, undefined);
  assert.equal(filled({ type: 'LoadBalancer' }).allocateLoadBalancerNodePorts, true);
  assert.equal(filled({ type: 'ExternalName' }).internalTrafficPolicy, undefined);
});

test('SERVICE.setDefaults() twice is as once', () => {
  for (const type of ['ClusterIP', 'NodePort', 'LoadBalancer', 'ExternalName'] as const) {
    const once = SERVICE.setDefaults(
      service({ type, sessionAffinity: 'ClientIP', ports: [{ port: 1 }] }),
    );
    assert.deepEqual(SERVICE.setDefaults(once), once);
  }
});

const PORT = { port: 80 };
const PORTS = [PORT];

const GOOD: unknown[] = [
  { ports: PORTS },
  {
    ports: [
      { port: 53, protocol: 'UDP', name: 'dns' },
      { port: 53, protocol: 'TCP', name: 'dns-tcp' },
    ],
  },
  { ports: [{ port: 80, targetPort: 'http' }] },
  { ports: [{ port: 80, protocol: 'SCTP', appProtocol: 'kubernetes.io/h2c' }] },
  { ports: PORTS, clusterIP: '10.96.0.7', clusterIPs: ['10.96.0.7'] },
  {
    ports: PORTS,
    clusterIP: '10.96.0.7',
    clusterIPs: ['10.96.0.7', 'fd00::7'],
    ipFamilies: ['IPv4', 'IPv6'],
    ipFamilyPolicy: 'RequireDualStack',
  },
  { clusterIP: 'None' },
  { clusterIP: 'None', clusterIPs: ['None'], selector: { app: 'x' } },
  { type: 'ExternalName', externalName: 'example.com' },
  { type: 'ExternalName', externalName: 'example.com.' },
  { type: 'NodePort', ports: [{ port: 80, nodePort: 30080 }] },
  {
    type: 'LoadBalancer',
    ports: PORTS,
    loadBalancerSourceRanges: ['192.0.2.0/24', '2001:db8::/32'],
    loadBalancerClass: 'tulle.dev/bgp',
  },
  {
    type: 'LoadBalancer',
    ports: PORTS,
    externalTrafficPolicy: 'Local',
    healthCheckNodePort: 31000,
  },
  {
    ports: PORTS,
    sessionAffinity: 'ClientIP',
    sessionAffinityConfig: { clientIP: { timeoutSeconds: 86400 } },
  },
  { ports: PORTS, externalIPs: ['192.0.2.1', '2001:db8::1'] },
  { ports: PORTS, internalTrafficPolicy: 'Local', trafficDistribution: 'PreferSameZone' },
];

test('SERVICE.validate() takes good services', () => {
  for (const spec of GOOD) assert.deepEqual(complaints(spec), [], JSON.stringify(spec));
});

const BAD: [unknown, string[]][] = [
  [
    { ports: [{ port: 70000 }] },
    [
      'spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive',
      'spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive',
    ],
  ],
  [
    { ports: [{ port: 0, targetPort: 1 }] },
    ['spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive'],
  ],
  [
    { ports: [{ port: 80, targetPort: 65536 }] },
    ['spec.ports[0].targetPort: Invalid value: 65536: must be between 1 and 65535, inclusive'],
  ],
  [
    { ports: [{ port: 80, targetPort: 'a--b' }] },
    ['spec.ports[0].targetPort: Invalid value: "a--b": must not contain consecutive hyphens'],
  ],
  [
    { ports: [{ port: 80, targetPort: '8080' }] },
    ['spec.ports[0].targetPort: Invalid value: "8080": must contain at least one letter (a-z)'],
  ],
  [
    { ports: [{ port: 80, protocol: 'tcp' }] },
    ['spec.ports[0].protocol: Unsupported value: "tcp": supported values: "TCP", "UDP", "SCTP"'],
  ],
  [{}, ['spec.ports: Required value']],
  [{ ports: [] }, ['spec.ports: Required value']],
  [
    { ports: [{ port: 80 }, { port: 81 }] },
    ['spec.ports[0].name: Required value', 'spec.ports[1].name: Required value'],
  ],
  [
    {
      ports: [
        { port: 80, name: 'a' },
        { port: 81, name: 'a' },
      ],
    },
    ['spec.ports[1].name: Duplicate value: "a"'],
  ],
  [
    {
      ports: [
        { port: 80, name: 'a' },
        { port: 80, name: 'b' },
      ],
    },
    ['spec.ports[1]: Duplicate value: {"protocol":"TCP","port":80}'],
  ],
  [
    { ports: [{ port: 80, nodePort: 30000 }] },
    ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
  ],
  [
    { type: 'NodePort', ports: [{ port: 80, nodePort: 99999 }] },
    ['spec.ports[0].nodePort: Invalid value: 99999: must be between 1 and 65535, inclusive'],
  ],
  [
    {
      type: 'NodePort',
      ports: [
        { port: 80, name: 'a', nodePort: 30000 },
        { port: 81, name: 'b', nodePort: 30000 },
      ],
    },
    ['spec.ports[1].nodePort: Duplicate value: 30000'],
  ],
  [
    { type: 'Loadbalancer', ports: PORTS },
    [
      'spec.type: Unsupported value: "Loadbalancer": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"',
    ],
  ],
  [
    { type: 'NodePort', clusterIP: 'None', ports: PORTS },
    ['spec.clusterIPs[0]: Invalid value: "None": may not be set to \'None\' for NodePort services'],
  ],
  [{ type: 'ExternalName' }, ['spec.externalName: Required value']],
  [
    { type: 'ExternalName', externalName: 'a.b', clusterIP: '10.96.0.1' },
    ['spec.clusterIPs: Forbidden: may not be set for ExternalName services'],
  ],
  [
    { ports: PORTS, sessionAffinity: 'ClientIp' },
    ['spec.sessionAffinity: Unsupported value: "ClientIp": supported values: "ClientIP", "None"'],
  ],
  [
    {
      ports: PORTS,
      sessionAffinity: 'ClientIP',
      sessionAffinityConfig: { clientIP: { timeoutSeconds: 86401 } },
    },
    [
      'spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than or equal to 86400',
    ],
  ],
  [
    {
      ports: PORTS,
      sessionAffinity: 'ClientIP',
      sessionAffinityConfig: { clientIP: { timeoutSeconds: 0 } },
    },
    [
      'spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than or equal to 86400',
    ],
  ],
  [
    { ports: PORTS, sessionAffinityConfig: { clientIP: { timeoutSeconds: 5 } } },
    ["spec.sessionAffinityConfig: Forbidden: must not be set when session affinity is 'None'"],
  ],
  [
    { ports: PORTS, clusterIP: '10.96.0.300' },
    [
      'spec.clusterIP: Invalid value: "10.96.0.300": must be empty, \'None\', or a valid IP address',
    ],
  ],
  [
    { ports: PORTS, clusterIP: '10.96.0.1', clusterIPs: ['10.96.0.2'] },
    ['spec.clusterIPs: Invalid value: ["10.96.0.2"]: first value must match `clusterIP`'],
  ],
  [
    { ports: PORTS, clusterIP: '10.96.0.1', clusterIPs: ['10.96.0.1', '10.96.0.2'] },
    [
      'spec.clusterIPs: Invalid value: ["10.96.0.1","10.96.0.2"]: may specify no more than one IP for each IP family',
    ],
  ],
  [
    { ports: PORTS, clusterIP: '10.96.0.1', clusterIPs: ['10.96.0.1'], ipFamilies: ['IPv6'] },
    [
      'spec.clusterIPs[0]: Invalid value: "10.96.0.1": expected an IPv6 value as indicated by `ipFamilies[0]`',
    ],
  ],
  [
    { ports: PORTS, ipFamilies: ['IPv5'] },
    ['spec.ipFamilies[0]: Unsupported value: "IPv5": supported values: "IPv4", "IPv6"'],
  ],
  [{ ports: PORTS, ipFamilies: ['IPv4', 'IPv4'] }, ['spec.ipFamilies[1]: Duplicate value: "IPv4"']],
  [
    { ports: PORTS, externalIPs: ['127.0.0.1'] },
    [
      'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8)',
    ],
  ],
  [
    { ports: PORTS, loadBalancerSourceRanges: ['192.0.2.0/24'] },
    ["spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"],
  ],
  [
    { type: 'LoadBalancer', ports: PORTS, loadBalancerSourceRanges: ['192.0.2.0'] },
    [
      'spec.loadBalancerSourceRanges[0]: Invalid value: "192.0.2.0": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)',
    ],
  ],
  [
    { ports: PORTS, externalTrafficPolicy: 'Local' },
    [
      'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services',
    ],
  ],
  [
    { ports: PORTS, internalTrafficPolicy: 'local' },
    [
      'spec.internalTrafficPolicy: Unsupported value: "local": supported values: "Cluster", "Local"',
    ],
  ],
  [
    { ports: PORTS, allocateLoadBalancerNodePorts: false },
    [
      "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
    ],
  ],
  [
    { type: 'LoadBalancer', ports: PORTS, healthCheckNodePort: 31000 },
    [
      "spec.healthCheckNodePort: Invalid value: 31000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
    ],
  ],
];

for (const [spec, messages] of BAD)
  test(`SERVICE.validate() refuses ${JSON.stringify(spec).slice(0, 120)}`, () => {
    assert.deepEqual(complaints(spec), messages);
  });

test('SERVICE.validate() wants a DNS-1035 label for a name, and labels for a selector', () => {
  assert.match(
    complaints({ ports: PORTS }, '1web').join(),
    /^metadata\.name: Invalid value: "1web": a DNS-1035 label/,
  );
  assert.match(
    complaints({ ports: PORTS, selector: { 'a b': 'c' } }).join(),
    /^spec\.selector: Invalid value: "a b"/,
  );
});

test('SERVICE.validate() keeps the address of a service', () => {
  const old = {
    ports: PORTS,
    clusterIP: '10.96.0.7',
    clusterIPs: ['10.96.0.7'],
    ipFamilies: ['IPv4'],
    ipFamilyPolicy: 'SingleStack',
  };
  assert.deepEqual(updateComplaints({ ...old, ports: [{ port: 81 }] }, old), []);
  assert.match(
    updateComplaints({ ports: PORTS }, old).join(),
    /may not change once set/,
    'nor go away',
  );
  assert.deepEqual(updateComplaints(old, old), []);
  assert.deepEqual(
    updateComplaints({ ...old, clusterIP: '10.96.0.8', clusterIPs: ['10.96.0.8'] }, old),
    ['spec.clusterIPs[0]: Invalid value: ["10.96.0.8"]: may not change once set'],
  );
  assert.deepEqual(updateComplaints({ ...old, clusterIP: 'None', clusterIPs: ['None'] }, old), [
    'spec.clusterIPs[0]: Invalid value: ["None"]: may not change once set',
  ]);
  assert.deepEqual(updateComplaints({ type: 'ExternalName', externalName: 'a.b' }, old), []);
  assert.deepEqual(
    updateComplaints(
      { ports: PORTS, clusterIP: '10.96.0.9', clusterIPs: ['10.96.0.9'] },
      { type: 'ExternalName', externalName: 'a.b' },
    ),
    [],
  );
});

test('SERVICE.prepareForUpdate() drops what belonged to the old type', () => {
  const old = SERVICE.setDefaults(
    service({
      type: 'NodePort',
      ports: [{ port: 80, nodePort: 30080 }],
      clusterIP: '10.96.0.7',
      clusterIPs: ['10.96.0.7'],
      ipFamilies: ['IPv4'],
    }),
  );
  const prepared = (spec: ServiceSpec) =>
    SERVICE.prepareForUpdate?.(SERVICE.setDefaults(service(spec)), old).spec;
  const toClusterIp = prepared({ ...old.spec, type: 'ClusterIP' });
  assert.deepEqual(toClusterIp?.ports, [{ port: 80, protocol: 'TCP', targetPort: 80 }]);
  assert.equal(toClusterIp?.externalTrafficPolicy, undefined);
  assert.equal(prepared({ type: 'NodePort', ports: [{ port: 80 }] })?.ports?.[0]?.nodePort, 30080);
  const changed = prepared({ ...old.spec, type: 'ClusterIP', externalTrafficPolicy: 'Local' });
  assert.equal(changed?.externalTrafficPolicy, 'Local', 'a change is for validation to refuse');
});

test('SERVICE.columns show what kubectl shows', () => {
  const nowMs = Date.parse('2026-01-01T00:01:30Z');
  const cells = (spec: unknown, status?: ServiceStatus) => {
    const object = service(spec);
    const rows = createTable(SERVICE, [status === undefined ? object : { ...object, status }], {
      nowMs,
    }).rows;
    return rows[0]?.cells.slice(1);
  };
  assert.deepEqual(
    SERVICE.columns.map((column) => column.name.toUpperCase()),
    ['NAME', 'TYPE', 'CLUSTER-IP', 'EXTERNAL-IP', 'PORT(S)', 'AGE', 'SELECTOR'],
  );
  assert.deepEqual(
    cells({
      type: 'ClusterIP',
      clusterIP: '10.96.0.7',
      clusterIPs: ['10.96.0.7'],
      ports: [
        { port: 80, protocol: 'TCP' },
        { port: 53, protocol: 'UDP' },
      ],
      selector: { b: '2', a: '1' },
    }),
    ['ClusterIP', '10.96.0.7', '<none>', '80/TCP,53/UDP', '90s', 'a=1,b=2'],
  );
  assert.deepEqual(
    cells({
      type: 'NodePort',
      clusterIP: '10.96.0.7',
      ports: [{ port: 80, nodePort: 30080, protocol: 'TCP' }],
      externalIPs: ['192.0.2.1'],
    }),
    ['NodePort', '10.96.0.7', '192.0.2.1', '80:30080/TCP', '90s', '<none>'],
  );
  assert.deepEqual(cells({ type: 'ExternalName', externalName: 'example.com' }), [
    'ExternalName',
    '<none>',
    'example.com',
    '<none>',
    '90s',
    '<none>',
  ]);
  const balancer = {
    type: 'LoadBalancer',
    clusterIP: '10.96.0.7',
    ports: [{ port: 80, protocol: 'TCP' }],
  };
  assert.equal(cells(balancer)?.[2], '<pending>');
  assert.equal(
    cells(balancer, {
      loadBalancer: { ingress: [{ ip: '192.0.2.9' }, { hostname: 'lb.example.com' }] },
    })?.[2],
    '192.0.2.9,lb.example.com',
  );
});

test('SERVICE.schema knows every field of the spec', () => {
  for (const spec of GOOD) {
    const { unknownFields, typeErrors } = decodeFields(SERVICE.schema, service(spec));
    assert.deepEqual([unknownFields, typeErrors], [[], []], JSON.stringify(spec));
  }
});
