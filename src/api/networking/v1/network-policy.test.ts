import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatFieldError } from '../../machinery/field-errors.ts';
import { NETWORK_POLICY, type NetworkPolicy, type NetworkPolicySpec } from './network-policy.ts';

function policy(spec: unknown): NetworkPolicy {
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: 'p', namespace: 'default' },
    spec: spec as NetworkPolicySpec,
  };
}
const filled = (spec: unknown) => NETWORK_POLICY.setDefaults(policy(spec)).spec;
const complaints = (spec: unknown) =>
  NETWORK_POLICY.validate(NETWORK_POLICY.setDefaults(policy(spec)), undefined)
    .map(formatFieldError)
    .join('\n');

test('NETWORK_POLICY.setDefaults() restricts egress only if there are egress rules', () => {
  assert.deepEqual(filled({}), { podSelector: {}, policyTypes: ['Ingress'] });
  assert.deepEqual(filled({ egress: [] }).policyTypes, ['Ingress']);
  assert.deepEqual(filled({ egress: [{}] }).policyTypes, ['Ingress', 'Egress']);
  assert.deepEqual(filled({ policyTypes: ['Egress'] }).policyTypes, ['Egress']);
  assert.deepEqual(filled({ ingress: [{ ports: [{ port: 80 }] }] }).ingress, [
    { ports: [{ port: 80, protocol: 'TCP' }] },
  ]);
});

test('NETWORK_POLICY.validate() takes good policies and names what is wrong with others', () => {
  const from = (...peers: object[]) => ({ ingress: [{ from: peers }] });
  const ports = (...list: object[]) => ({ egress: [{ ports: list }] });
  const block = (cidr: string, ...except: string[]) => from({ ipBlock: { cidr, except } });
  const table: [unknown, RegExp | ''][] = [
    [{}, ''],
    [{ ingress: [{}], egress: [{}] }, ''],
    [
      from(
        { podSelector: {} },
        { namespaceSelector: { matchLabels: { a: 'b' } }, podSelector: {} },
      ),
      '',
    ],
    [block('10.0.0.0/8', '10.1.0.0/16', '10.2.0.7/32'), ''],
    [block('2001:db8::/32', '2001:db8:1::/48'), ''],
    [block('10.0.0.1/8'), ''],
    [
      ports(
        { port: 80 },
        { port: 'http', protocol: 'UDP' },
        { port: 8000, endPort: 9000 },
        { protocol: 'SCTP' },
      ),
      '',
    ],
    [from({}), /^spec\.ingress\[0\]\.from\[0\]: Required value: must specify a peer$/],
    [
      from({ ipBlock: { cidr: '10.0.0.0/8' }, podSelector: {} }),
      /^spec\.ingress\[0\]\.from\[0\]: Forbidden: may not specify both ipBlock and another peer$/,
    ],
    [block('10.0.0.0'), /ipBlock\.cidr: Invalid value: "10\.0\.0\.0": must be a valid CIDR/],
    [
      block('10.0.0.0/8', '11.0.0.0/16'),
      /ipBlock\.except\[0\]: Invalid value: "11\.0\.0\.0\/16": must be a strict subset/,
    ],
    [block('10.0.0.0/8', '10.0.0.0/8'), /must be a strict subset/],
    [block('10.0.0.0/8', 'fd00::/64'), /must be a strict subset/],
    [ports({ port: 0 }), /^spec\.egress\[0\]\.ports\[0\]\.port: Invalid value: 0/],
    [ports({ port: 'HTTP' }), /ports\[0\]\.port: Invalid value: "HTTP"/],
    [ports({ port: 80, protocol: 'ICMP' }), /protocol: Unsupported value: "ICMP"/],
    [
      ports({ endPort: 80 }),
      /endPort: Invalid value: 80: may not be specified when `port` is not specified/,
    ],
    [ports({ port: 'http', endPort: 80 }), /endPort: .*non-numeric/],
    [ports({ port: 80, endPort: 79 }), /endPort: .*greater than or equal to `port`/],
    [ports({ port: 80, endPort: 70000 }), /endPort: .*between 1 and 65535/],
    [{ policyTypes: ['Both'] }, /^spec\.policyTypes\[0\]: Unsupported value: "Both"/],
    [{ policyTypes: ['Ingress', 'Egress', 'Ingress'] }, /may not specify more than two/],
    [
      { podSelector: { matchExpressions: [{ key: 'a', operator: 'In' }] } },
      /^spec\.podSelector\.matchExpressions\[0\]\.values: Required value/,
    ],
  ];
  for (const [spec, message] of table) {
    if (message === '') assert.equal(complaints(spec), '', JSON.stringify(spec));
    else assert.match(complaints(spec), message);
  }
});

test('NETWORK_POLICY.columns show the pods', () => {
  const column = NETWORK_POLICY.columns[1];
  assert.equal(column?.name, 'Pod-Selector');
  assert.equal(column?.value(policy({ podSelector: {} }), 0), '<none>');
  assert.equal(
    column?.value(
      policy({
        podSelector: {
          matchLabels: { a: 'b' },
          matchExpressions: [{ key: 'c', operator: 'Exists' }],
        },
      }),
      0,
    ),
    'a=b,c',
  );
});
