import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CLUSTER_NETWORK_POLICY, type ClusterNetworkPolicy } from './cluster-network-policy.ts';

const GOOD: ClusterNetworkPolicy['spec'] = {
  tier: 'Admin',
  priority: 1000,
  subject: { namespaces: {} },
  ingress: [{ action: 'Pass', from: [{ pods: { namespaceSelector: {}, podSelector: {} } }] }],
  egress: [
    {
      action: 'Accept',
      to: [
        { networks: ['10.0.0.1/8', '2001:db8::/32'] },
        { domainNames: ['*.Example.org.'] },
        { nodes: {} },
      ],
      protocols: [{ tcp: { destinationPort: { range: { start: 1, end: 2 } } } }],
    },
    { action: 'Deny', to: [{ namespaces: {} }], protocols: [{ destinationNamedPort: 'web' }] },
  ],
};
const fieldsOf = (change: object) =>
  CLUSTER_NETWORK_POLICY.validate(
    {
      ...{ apiVersion: 'policy.networking.k8s.io/v1alpha2', kind: 'ClusterNetworkPolicy' },
      ...{ metadata: { name: 'p' }, spec: { ...GOOD, ...change } },
    } as ClusterNetworkPolicy,
    undefined,
  ).map(({ field }) => field);
const rule = (part: object) => ({ egress: [{ action: 'Accept', to: [{ nodes: {} }], ...part }] });

test('a policy with everything in it is good', () => assert.deepEqual(fieldsOf({}), []));

const TABLE: readonly [string, object, string][] = [
  ['an unknown tier', { tier: 'Middle' }, 'spec.tier'],
  ['a priority too high', { priority: 1001 }, 'spec.priority'],
  ['no subject', { subject: {} }, 'spec.subject'],
  [
    'two subjects',
    { subject: { namespaces: {}, pods: { namespaceSelector: {}, podSelector: {} } } },
    'spec.subject',
  ],
  ['an unknown action', rule({ action: 'Allow' }), 'spec.egress[0].action'],
  ['no peer', rule({ to: [] }), 'spec.egress[0].to'],
  [
    'two kinds of peer in one',
    rule({ to: [{ nodes: {}, namespaces: {} }] }),
    'spec.egress[0].to[0]',
  ],
  [
    'a network that is an address',
    rule({ to: [{ networks: ['10.0.0.1'] }] }),
    'spec.egress[0].to[0].networks[0]',
  ],
  [
    'a network twice',
    rule({ to: [{ networks: ['10.0.0.0/8', '10.0.0.0/8'] }] }),
    'spec.egress[0].to[0].networks[1]',
  ],
  [
    'the name of a port of nodes',
    rule({ protocols: [{ destinationNamedPort: 'web' }] }),
    'spec.egress[0].protocols[0].destinationNamedPort',
  ],
  [
    'a protocol without a port',
    rule({ protocols: [{ tcp: {} }] }),
    'spec.egress[0].protocols[0].tcp.destinationPort',
  ],
  [
    'names that are denied',
    rule({ action: 'Deny', to: [{ domainNames: ['a.example'] }] }),
    'spec.egress[0].to[0].domainNames',
  ],
  [
    'a star in the middle',
    rule({ to: [{ domainNames: ['a.*.example'] }] }),
    'spec.egress[0].to[0].domainNames[0]',
  ],
  ['an empty list of protocols', rule({ protocols: [] }), 'spec.egress[0].protocols'],
  [
    'a port and a range',
    rule({ protocols: [{ tcp: { destinationPort: { number: 1, range: { start: 1, end: 2 } } } }] }),
    'spec.egress[0].protocols[0].tcp.destinationPort',
  ],
  [
    'a range that is none',
    rule({ protocols: [{ udp: { destinationPort: { range: { start: 2, end: 2 } } } }] }),
    'spec.egress[0].protocols[0].udp.destinationPort.range.end',
  ],
  [
    'too many rules',
    { ingress: Array.from({ length: 26 }, () => ({ action: 'Deny', from: [{ namespaces: {} }] })) },
    'spec.ingress',
  ],
];
test('what was stored by a version that asked for less may get conditions', () => {
  const stored = {
    ...{ apiVersion: 'policy.networking.k8s.io/v1alpha2', kind: 'ClusterNetworkPolicy' },
    ...{ metadata: { name: 'p' }, spec: { ...GOOD, ...rule({ protocols: [{ tcp: {} }] }) } },
  } as ClusterNetworkPolicy;
  const { validate } = CLUSTER_NETWORK_POLICY;
  assert.deepEqual(validate({ ...stored, status: { conditions: [] } }, stored), []);
  const changed = { ...stored, spec: { ...stored.spec, priority: 1 } };
  assert.equal(validate(changed, stored).length, 1);
});

for (const [name, change, field] of TABLE)
  test(`refused: ${name}`, () => assert.deepEqual(fieldsOf(change), [field]));
