import assert from 'node:assert/strict';
import { test } from 'node:test';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { parseManifest } from '#api/machinery/manifest.ts';
import type { NetworkPolicy } from '#api/networking/v1/network-policy.ts';
import { explainVerdict } from './describe.ts';
import { drawMatrix } from './draw.ts';
import { endOfPod, parseEnds, parsePort } from './ends.ts';
import { evaluate } from './evaluate.ts';
import { lint } from './lint.ts';
import { describeRanges, diffOf, matrixOf, reachable } from './reach.ts';
import { buildWorld } from './world.ts';

const BASE = `
{apiVersion: v1, kind: Pod, metadata: {namespace: default, name: web, labels: {app: web}}, spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: default, name: client, labels: {app: client}}, spec: {containers: [{name: c}]}}
`;
const policyText = (name: string, spec: string, annotations = '{}') =>
  `\n---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: default, name: ${name}, annotations: ${annotations}}, spec: ${spec}}`;
const clusterText = (name: string, spec: string) =>
  `\n---\n{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: ${name}}, spec: ${spec}}`;

function load(text: string) {
  const objects = parseManifest(BASE + text, { file: 'test' }).map(({ object }) => object);
  const policies = objects.filter(({ kind }) => kind !== POD.kind) as NetworkPolicy[];
  const pods = objects.filter(({ kind }) => kind === POD.kind) as Pod[];
  return { world: buildWorld({ pods, namespaces: [], nodes: [], policies }), policies };
}

const LINTS: readonly [string, string, readonly string[]][] = [
  [
    'egress that lets nothing out at all has not forgotten DNS',
    policyText('p', '{podSelector: {}, policyTypes: [Egress], egress: []}'),
    [],
  ],
  [
    'a service in place of a name outside',
    clusterText(
      'c',
      '{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{domainNames: [web.default.svc.cluster.local, "*.example.com"]}]}]}',
    ),
    ['domain-in-cluster'],
  ],
  [
    'nothing wrong',
    policyText(
      'p',
      '{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}',
    ),
    [],
  ],
  [
    'selects nothing',
    policyText('p', '{podSelector: {matchLabels: {app: wbe}}}'),
    ['selects-nothing'],
  ],
  [
    'a peer that is nobody',
    policyText(
      'p',
      '{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: x}}}]}]}',
    ),
    ['peer-matches-nothing'],
  ],
  [
    'a named port that is none',
    policyText('p', '{podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: htp}]}]}'),
    ['named-port-missing'],
  ],
  [
    'egress: [] without policyTypes',
    policyText('p', '{podSelector: {}, egress: []}'),
    ['policy-types-missing'],
  ],
  [
    'DNS blocked',
    policyText(
      'p',
      '{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: web}}}]}]}',
    ),
    ['dns-blocked'],
  ],
  [
    'DNS allowed as people write it',
    policyText(
      'p',
      '{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}]}]}',
    ),
    ['peer-matches-nothing'],
  ],
  [
    'all allowed beside others',
    policyText('p', '{podSelector: {}, ingress: [{from: [{podSelector: {}}]}, {}]}'),
    ['everything-allowed'],
  ],
  [
    'an annotation that means nothing',
    policyText('p', '{podSelector: {}}', '{tulle.dev/enforcement: stage}'),
    ['unknown-annotation'],
  ],
  [
    'a shadowed rule',
    clusterText(
      'c',
      '{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}, {action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {}}]}]}',
    ),
    ['shadowed-rule'],
  ],
  [
    'a rule that one of another policy covers, asked before: its prefix holds the other, its ports too',
    clusterText(
      'c',
      '{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [10.0.0.0/8]}]}]}',
    ) +
      clusterText(
        'd',
        '{tier: Admin, priority: 2, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}, egress: [{action: Accept, to: [{networks: [10.1.0.0/16]}], protocols: [{tcp: {}}]}, {action: Accept, to: [{networks: [11.0.0.0/8]}]}]}',
      ),
    ['shadowed-rule'],
  ],
  [
    'Pass leaves its tier alone: NetworkPolicies are asked, other Admin policies are not',
    clusterText(
      'c',
      '{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {}}]}]}',
    ) +
      clusterText(
        'd',
        '{tier: Admin, priority: 2, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}',
      ) +
      policyText(
        'p',
        '{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}',
      ),
    ['shadowed-rule'],
  ],
  [
    'a policy whose pods another opens; not one that is opened for some of its pods, nor a staged one',
    policyText(
      'p',
      '{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}',
    ) +
      policyText('q', '{podSelector: {}, ingress: [{}]}') +
      policyText('r', '{podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]}') +
      policyText(
        's',
        '{podSelector: {}, policyTypes: [Egress], egress: [{}]}',
        '{tulle.dev/enforcement: staged}',
      ),
    ['opened-by-another'],
  ],
  [
    'equal priorities',
    clusterText(
      'c',
      '{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}',
    ) +
      clusterText(
        'd',
        '{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}]}',
      ),
    ['contradicting-priority'],
  ],
  [
    'something of a newer version',
    clusterText(
      'c',
      '{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{moons: {}}]}]}',
    ),
    ['not-understood', 'rule-matches-nothing'],
  ],
];
for (const [name, text, codes] of LINTS)
  test(`lint(): ${name}`, () => {
    const { world, policies } = load(text);
    assert.deepEqual(
      lint(world, policies)
        .map(({ code }) => code)
        .sort(),
      [...codes].sort(),
    );
  });

const WEB = policyText(
  'web',
  '{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: http}]}]}',
);

test('explain names the policy, the rule, why it does not match, and what would have to change', () => {
  const { world } = load(WEB);
  const [from] = parseEnds('client', world);
  const [to] = parseEnds('default/web', world);
  assert.ok(from && to);
  const flow = { from, to, ...parsePort('http', to) };
  assert.equal(flow.port, 8080);
  const text = explainVerdict(world, flow, evaluate(world, flow)).join('\n');
  assert.match(text, /default\/client -> default\/web, 8080\/TCP: DENIED/);
  assert.match(text, /NetworkPolicy default\/web .*no rule matches/);
  assert.match(text, /ingress\[0\] .*default\/client is not meant \(it has app=client\)/);
  assert.match(
    text,
    /add the rule \{from: \[\{podSelector: \{matchLabels: \{app: client\}\}\}\], ports: \[\{protocol: TCP, port: 8080\}\]\}/,
  );
});

test('what is typed for an end', () => {
  const { world } = load('');
  const names = (text: string) => parseEnds(text, world).map(({ pod }) => pod?.name);
  assert.deepEqual(names('app=web'), ['web']);
  assert.deepEqual(names('default/app in (web,client)'), ['web', 'client']);
  assert.deepEqual(names('ns:default'), ['web', 'client']);
  assert.deepEqual(parseEnds('192.0.2.1', world), [
    { pod: undefined, node: undefined, ip: '192.0.2.1' },
  ]);
  for (const wrong of ['nobody', 'node:x', 'ns:none', 'app=none'])
    assert.throws(() => parseEnds(wrong, world), /here is no|No pod/);
});

test('reach, matrix and diff agree on what a policy leaves open', () => {
  const [before, after] = [load('').world, load(WEB).world];
  const endsIn = (world: typeof before) =>
    ['client', 'web'].map((name) => {
      const pod = world.pods.get(`default/${name}`);
      assert.ok(pod);
      return endOfPod(pod, world);
    });
  const [client, web] = endsIn(after);
  assert.ok(client && web);
  assert.equal(describeRanges(reachable(after, { from: client, to: web })), 'none');
  assert.equal(describeRanges(reachable(after, { from: web, to: client })), 'all');
  const ends = endsIn(before).map((end, i) => ({ before: end, after: endsIn(after)[i] ?? end }));
  assert.deepEqual(
    diffOf(before, after, ends).map(({ from, to, opened, closed }) => [
      from.pod?.name,
      to.pod?.name,
      describeRanges(opened),
      describeRanges(closed),
    ]),
    [['client', 'web', 'none', 'all']],
  );
  const cells = matrixOf(after, [client, web]);
  assert.match(drawMatrix([client, web], cells, 'table'), /default\/client +\. +none/);
  assert.match(drawMatrix([client, web], cells, 'dot'), /"default\/web" -> "default\/client";/);
  assert.match(
    drawMatrix([client, web], cells, 'svg'),
    /^<svg [\s\S]*<title>default\/client -&#62; default\/web: none/,
  );
  assert.equal(JSON.parse(drawMatrix([client, web], cells, 'json')).length, 4);
});

test('a domain name is an end: by its pattern, and with what would allow it', () => {
  const policy = clusterText(
    'c',
    '{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{domainNames: ["*.example.com"]}]}]}',
  );
  const { world } = load(policy + policyText('p', '{podSelector: {}, policyTypes: [Egress]}'));
  const explain = (name: string) => {
    const [from] = parseEnds('web', world);
    const [to] = parseEnds(name, world);
    assert.ok(from && to);
    const flow = { from, to, protocol: 6, port: 443 };
    return explainVerdict(world, flow, evaluate(world, flow)).join('\n');
  };
  assert.match(explain('WWW.example.com.'), /ALLOWED(.|\n)*matched domain \*\.example\.com/);
  assert.match(explain('example.com'), /DENIED(.|\n)*to allow it: a ClusterNetworkPolicy/);
  assert.match(explain('192.0.2.1'), /ask for the name/);
  assert.throws(() => parseEnds('nobody', world), /There is no pod "nobody"/);
});
