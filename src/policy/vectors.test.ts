/**
 * Flows one by one, each with its verdict and what decided it, written down by hand from the specifications and from
 * `docs/policy.md`: what the truth tables of pods among themselves do not have. Nodes, host-network pods, the own node, the
 * pod itself, the world outside, IPv6, protocols without ports, borders of ranges, domain names, unknown labels, staged
 * policies, all three tiers.
 *
 * ```text
 *  FROM -> TO PORT = yes|no EGRESS INGRESS      EGRESS, INGRESS: - not asked   open no policy   isolated   closed
 *                                               POLICY[RULE]+ accepted by      POLICY[RULE]- denied by
 *  … = self | own node                          nothing is asked
 * ```
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NAMESPACE, type Namespace } from '#api/core/v1/namespace.ts';
import { NODE, type Node } from '#api/core/v1/node.ts';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { parseManifest } from '#api/machinery/manifest.ts';
import type { KubeObject } from '#api/meta.ts';
import type { NetworkPolicy } from '#api/networking/v1/network-policy.ts';
import { ip } from '#lib/ip.ts';
import { parseEnds, parsePort } from './ends.ts';
import { type DirectionResult, evaluate, type Flow } from './evaluate.ts';
import type { World } from './model.ts';
import { buildWorld } from './world.ts';

const CLUSTER = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: ops, labels: {team: b}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {zone: a}}, status: {addresses: [{type: InternalIP, address: 192.0.2.11}, {type: InternalIP, address: "2001:db8::11"}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2, labels: {zone: b}}, status: {addresses: [{type: InternalIP, address: 192.0.2.12}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web, labels: {app: web}}, spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}, status: {podIPs: [{ip: 10.1.0.1}, {ip: "fd00:1::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: db, labels: {app: db, tier: back}}, spec: {nodeName: n2, containers: [{name: c, ports: [{name: pg, containerPort: 5432}, {name: mon, containerPort: 9000, protocol: UDP}, {name: mon, containerPort: 9001}]}]}, status: {podIPs: [{ip: 10.2.0.1}, {ip: "fd00:2::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ops, name: tool, labels: {app: tool}}, spec: {nodeName: n1, containers: [{name: c}]}, status: {podIPs: [{ip: 10.1.0.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ops, name: agent, labels: {app: agent}}, spec: {nodeName: n2, hostNetwork: true, containers: [{name: c}]}, status: {podIPs: [{ip: 192.0.2.12}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: ops, name: gone, labels: {app: web}}, spec: {nodeName: n1, containers: [{name: c}]}, status: {phase: Succeeded, podIPs: [{ip: 10.1.0.9}]}}
`;

const np = (name: string, spec: string, annotations = '{}', namespace = 'shop') =>
  `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: ${namespace}, name: ${name}, annotations: ${annotations}}, spec: ${spec}}`;
const cnp = (name: string, spec: string) =>
  `{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: ${name}}, spec: ${spec}}`;

interface Scenario {
  readonly name: string;
  readonly policies: readonly string[];
  readonly vectors: string;
}

const SCENARIOS: readonly Scenario[] = [
  {
    name: 'no policy at all',
    policies: [],
    vectors: `
      shop/web -> shop/db 5432        = yes open open
      shop/web -> 203.0.113.9 443     = yes open -
      203.0.113.9 -> shop/db 1/udp    = yes - open
      node:n1 -> shop/web 80          = own node
      node:n2 -> shop/web 80          = yes - open
      ops/agent -> shop/db 80         = own node
      ops/agent -> shop/web 80        = yes - open
      shop/web -> ops/agent 80        = yes open -
      shop/web -> node:n1 22          = yes open -
      shop/web -> shop/web 80         = self
      shop/web -> shop/db icmp        = yes open open
      203.0.113.9 -> node:n1 22       = yes - -`,
  },
  {
    name: 'ingress denied: the own node and the pod itself reach it, other nodes and host-network pods do not',
    policies: [np('deny', '{podSelector: {}}')],
    vectors: `
      shop/db -> shop/web 80          = no open isolated
      shop/web -> shop/db 5432        = no open isolated
      ops/tool -> shop/web 80         = no open isolated
      node:n1 -> shop/web 80          = own node
      node:n2 -> shop/web 80          = no - isolated
      node:n2 -> shop/db 80           = own node
      192.0.2.11 -> shop/web 80       = own node
      2001:db8::11 -> fd00:1::1 80    = own node
      ops/agent -> shop/db 5432       = own node
      ops/agent -> shop/web 80        = no - isolated
      203.0.113.9 -> shop/web 80      = no - isolated
      2001:db8:f::9 -> fd00:1::1 80   = no - isolated
      shop/web -> shop/web 80         = self
      fd00:1::1 -> 10.1.0.1 80        = self
      shop/web -> ops/tool 80         = yes open open
      shop/web -> ops/agent 80        = yes open -
      shop/db -> shop/web icmp        = no open isolated
      shop/db -> shop/web protocol/47 = no open isolated`,
  },
  {
    name: 'egress denied: to the own node too; who is asked by others answers',
    policies: [np('deny', '{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}')],
    vectors: `
      shop/web -> shop/db 5432        = no isolated open
      shop/web -> node:n1 10250       = no isolated -
      shop/web -> node:n2 10250       = no isolated -
      shop/web -> ops/agent 80        = no isolated -
      shop/web -> 203.0.113.9 443     = no isolated -
      shop/web -> 2001:db8:f::9 443   = no isolated -
      shop/web -> shop/web 80         = self
      shop/web -> 203.0.113.9 icmp    = no isolated -
      shop/db -> shop/web 80          = yes open open
      node:n2 -> shop/web 80          = yes - open
      203.0.113.9 -> shop/web 80      = yes - open`,
  },
  {
    name: 'selectors of pods and namespaces never mean nodes, host-network pods or ended pods; prefixes do',
    policies: [
      np(
        'db',
        '{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {}}]}, {from: [{ipBlock: {cidr: 192.0.2.11/32}}]}]}',
      ),
    ],
    vectors: `
      shop/web -> shop/db 1           = yes open db[0]+
      ops/tool -> shop/db 1           = yes open db[0]+
      node:n1 -> shop/db 1            = yes - db[1]+
      ops/agent -> shop/db 1          = own node
      203.0.113.9 -> shop/db 1        = no - isolated
      10.1.0.9 -> shop/db 1           = no - isolated
      192.0.2.12 -> shop/db 1         = own node`,
  },
  {
    name: 'ipBlock: both families, the whole world, exceptions, borders of a prefix, addresses of pods',
    policies: [
      np(
        'in',
        '{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/25, except: [203.0.113.64/26]}}]}, {from: [{ipBlock: {cidr: "2001:db8:f::/48", except: ["2001:db8:f:1::/64"]}}]}, {from: [{ipBlock: {cidr: 10.2.0.0/16}}]}]}',
      ),
      np(
        'out',
        '{podSelector: {matchLabels: {app: db}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 192.0.2.0/24]}}]}]}',
      ),
    ],
    vectors: `
      203.0.113.0 -> shop/web 80      = yes - in[0]+
      203.0.113.63 -> shop/web 80     = yes - in[0]+
      203.0.113.64 -> shop/web 80     = no - isolated
      203.0.113.127 -> shop/web 80    = no - isolated
      203.0.113.128 -> shop/web 80    = no - isolated
      2001:db8:f::1 -> fd00:1::1 80   = yes - in[1]+
      2001:db8:f:1::1 -> fd00:1::1 80 = no - isolated
      2001:db8:10::1 -> fd00:1::1 80  = no - isolated
      10.2.0.1 -> shop/web 80         = no isolated in[2]+
      10.2.9.9 -> shop/web 80         = yes - in[2]+
      203.0.113.1 -> shop/web icmp    = yes - in[0]+
      shop/db -> 203.0.113.9 443      = yes out[0]+ -
      shop/db -> 203.0.113.9 53/udp   = yes out[0]+ -
      shop/db -> 2001:db8:f::9 443    = no isolated -
      shop/db -> 10.9.9.9 443         = no isolated -
      shop/db -> node:n1 443          = no isolated -
      shop/db -> ops/tool 443         = no isolated open`,
  },
  {
    name: 'ports: number, range with its borders, protocol alone, names at the destination; protocols without ports',
    policies: [
      np(
        'db',
        '{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 5432}]}, {ports: [{port: 100, endPort: 200, protocol: UDP}]}, {ports: [{protocol: SCTP}]}, {ports: [{port: mon, protocol: UDP}]}, {ports: [{port: 65535}]}, {ports: [{port: 1, endPort: 1}]}]}',
      ),
    ],
    vectors: `
      shop/web -> shop/db 5432        = yes open db[0]+
      shop/web -> shop/db 5432/udp    = no open isolated
      shop/web -> shop/db 5431        = no open isolated
      shop/web -> shop/db 5433        = no open isolated
      shop/web -> shop/db 99/udp      = no open isolated
      shop/web -> shop/db 100/udp     = yes open db[1]+
      shop/web -> shop/db 200/udp     = yes open db[1]+
      shop/web -> shop/db 201/udp     = no open isolated
      shop/web -> shop/db 150         = no open isolated
      shop/web -> shop/db 1/sctp      = yes open db[2]+
      shop/web -> shop/db 65535/sctp  = yes open db[2]+
      shop/web -> shop/db 9000/udp    = yes open db[3]+
      shop/web -> shop/db 9000        = no open isolated
      shop/web -> shop/db 9001        = no open isolated
      shop/web -> shop/db mon/udp     = yes open db[3]+
      shop/web -> shop/db pg          = yes open db[0]+
      shop/web -> shop/db 65535       = yes open db[4]+
      shop/web -> shop/db 65534       = no open isolated
      shop/web -> shop/db 1           = yes open db[5]+
      shop/web -> shop/db 2           = no open isolated
      shop/web -> shop/db icmp        = no open isolated
      203.0.113.9 -> shop/db 5432     = yes - db[0]+`,
  },
  {
    name: 'a named port on egress means what each destination calls so, and nothing outside',
    policies: [
      np(
        'out',
        '{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: pg}, {port: mon}]}]}',
      ),
    ],
    vectors: `
      shop/web -> shop/db 5432        = yes out[0]+ open
      shop/web -> shop/db 9001        = yes out[0]+ open
      shop/web -> shop/db 9000/udp    = no isolated open
      shop/web -> ops/tool 5432       = no isolated open
      shop/web -> 203.0.113.9 5432    = no isolated -
      shop/web -> node:n2 5432        = no isolated -`,
  },
  {
    name: 'ICMP passes rules without ports and no other',
    policies: [
      np(
        'db',
        '{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}, {from: [{namespaceSelector: {matchLabels: {team: b}}}], ports: [{protocol: TCP}, {protocol: UDP}, {protocol: SCTP}]}]}',
      ),
    ],
    vectors: `
      shop/web -> shop/db icmp        = yes open db[0]+
      shop/web -> shop/db icmpv6      = yes open db[0]+
      shop/web -> shop/db protocol/50 = yes open db[0]+
      ops/tool -> shop/db icmp        = no open isolated
      ops/tool -> shop/db protocol/50 = no open isolated
      ops/tool -> shop/db 9           = yes open db[1]+
      ops/tool -> shop/db 9/sctp      = yes open db[1]+`,
  },
  {
    name: 'both ends must agree, each by its own policies',
    policies: [
      np(
        'in',
        '{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]}',
      ),
      np(
        'out',
        '{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 5432}, {port: 80}]}]}',
      ),
      np('ops', '{podSelector: {}, policyTypes: [Egress]}', '{}', 'ops'),
    ],
    vectors: `
      shop/web -> shop/db 5432        = yes out[0]+ in[0]+
      shop/web -> shop/db 80          = no out[0]+ isolated
      shop/web -> shop/db 22          = no isolated isolated
      shop/web -> ops/tool 5432       = no isolated open
      ops/tool -> shop/db 5432        = no isolated isolated
      ops/tool -> shop/web 80         = no isolated open
      ops/agent -> shop/web 80        = yes - open`,
  },
  {
    name: 'tiers: Admin goes before, NetworkPolicies are final, Baseline is for the rest',
    policies: [
      cnp(
        'admin',
        '{tier: Admin, priority: 10, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{pods: {namespaceSelector: {matchLabels: {team: b}}, podSelector: {}}}], protocols: [{tcp: {destinationPort: {number: 9100}}}]}, {action: Deny, from: [{namespaces: {matchLabels: {team: b}}}], protocols: [{tcp: {}}]}, {action: Pass, from: [{namespaces: {}}]}]}',
      ),
      cnp(
        'base',
        '{tier: Baseline, priority: 0, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}], egress: [{action: Deny, to: [{networks: [203.0.113.0/24, "2001:db8:f::/48"]}]}]}',
      ),
      np(
        'db',
        '{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}',
      ),
    ],
    vectors: `
      ops/tool -> shop/db 9100        = yes open admin[0]+
      ops/tool -> shop/web 9100       = yes open admin[0]+
      ops/tool -> shop/db 5432        = no open admin[1]-
      ops/tool -> shop/db 5432/udp    = no open isolated
      ops/tool -> shop/web 53/udp     = no open base[0]-
      ops/tool -> shop/web icmp       = no open base[0]-
      shop/web -> shop/db 5432        = yes open db[0]+
      shop/db -> shop/web 80          = no open base[0]-
      node:n1 -> shop/db 80           = no - isolated
      node:n2 -> shop/db 80           = own node
      203.0.113.9 -> shop/web 80      = yes - open
      203.0.113.9 -> shop/db 80       = no - isolated
      shop/web -> 203.0.113.9 443     = no base[0]- -
      shop/web -> 2001:db8:f::9 443   = no base[0]- -
      shop/web -> 198.51.100.1 443    = yes open -
      ops/agent -> shop/web 80        = yes - open
      ops/agent -> 203.0.113.9 80     = yes - -`,
  },
  {
    name: 'egress of ClusterNetworkPolicies: nodes by label, networks that are also pods, ports by name',
    policies: [
      cnp(
        'out',
        '{tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: web}}}}, egress: [{action: Accept, to: [{nodes: {matchLabels: {zone: a}}}], protocols: [{tcp: {destinationPort: {number: 6443}}}]}, {action: Accept, to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {tier: back}}}}], protocols: [{destinationNamedPort: mon}]}, {action: Accept, to: [{networks: [10.1.0.2/32]}], protocols: [{udp: {destinationPort: {range: {start: 10, end: 20}}}}]}, {action: Deny, to: [{networks: [0.0.0.0/0, "::/0"]}]}]}',
      ),
    ],
    vectors: `
      shop/web -> node:n1 6443        = yes out[0]+ -
      shop/web -> 192.0.2.11 6443     = yes out[0]+ -
      shop/web -> 2001:db8::11 6443   = yes out[0]+ -
      shop/web -> node:n1 22          = no out[3]- -
      shop/web -> node:n2 6443        = no out[3]- -
      shop/web -> ops/agent 6443      = no out[3]- -
      shop/web -> shop/db 9000/udp    = yes out[1]+ open
      shop/web -> shop/db 9001        = yes out[1]+ open
      shop/web -> shop/db 9000        = no out[3]- open
      shop/web -> shop/db 5432        = no out[3]- open
      shop/web -> ops/tool 10/udp     = yes out[2]+ open
      shop/web -> ops/tool 20/udp     = yes out[2]+ open
      shop/web -> ops/tool 21/udp     = no out[3]- open
      shop/web -> ops/tool 9/udp      = no out[3]- open
      shop/web -> 203.0.113.9 443     = no out[3]- -
      shop/web -> 203.0.113.9 icmp    = no out[3]- -
      shop/db -> 203.0.113.9 443      = yes open -`,
  },
  {
    name: 'domain names: by name, by what DNS said, one label or more behind a wildcard',
    policies: [
      cnp(
        'names',
        '{tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{domainNames: ["*.example.com", www.example.org]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}, {action: Deny, to: [{networks: [0.0.0.0/0]}]}]}',
      ),
    ],
    vectors: `
      shop/web -> a.example.com 443   = yes names[0]+ -
      shop/web -> a.b.example.com 443 = yes names[0]+ -
      shop/web -> A.EXAMPLE.COM. 443  = yes names[0]+ -
      shop/web -> www.example.org 443 = yes names[0]+ -
      shop/web -> example.com 443     = yes open -
      shop/web -> 198.51.100.7 443    = yes names[0]+ -
      shop/web -> 198.51.100.7 80     = no names[1]- -
      shop/web -> 198.51.100.8 443    = no names[1]- -
      198.51.100.7 -> shop/web 443    = yes - open`,
  },
  {
    name: 'what a newer API says closes: an Accept accepts nothing, a Deny and a Pass deny all',
    policies: [
      cnp(
        'a',
        '{tier: Admin, priority: 1, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}, ingress: [{action: Accept, from: [{moons: {}}, {namespaces: {}}]}, {action: Accept, from: [{namespaces: {matchLabels: {team: a}}}]}]}',
      ),
      cnp(
        'b',
        '{tier: Admin, priority: 2, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}}, ingress: [{action: Pass, from: [{namespaces: {}}], protocols: [{quic: {}}]}]}',
      ),
      cnp(
        'c',
        '{tier: Admin, priority: 3, subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: tool}}}}, ingress: [{action: Reject, from: [{namespaces: {}}]}]}',
      ),
    ],
    vectors: `
      shop/db -> shop/web 80          = yes open a[1]+
      ops/tool -> shop/web 80         = yes open open
      shop/web -> shop/db 80          = no open b[0]-
      203.0.113.9 -> shop/db 80       = no - b[0]-
      node:n2 -> shop/db 80           = own node
      shop/web -> ops/tool 80         = no open c[0]-
      203.0.113.9 -> ops/tool icmp    = no - c[0]-`,
  },
  {
    name: 'a staged policy decides nothing, beside one that does',
    policies: [
      np(
        'staged',
        '{podSelector: {}, policyTypes: [Ingress, Egress]}',
        '{tulle.dev/enforcement: staged}',
      ),
      np('db', '{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 80}]}]}'),
    ],
    vectors: `
      shop/db -> shop/web 80          = yes open open
      shop/web -> shop/db 80          = yes open db[0]+
      shop/web -> shop/db 81          = no open isolated
      shop/web -> 203.0.113.9 81      = yes open -`,
  },
  {
    name: 'policyTypes say which directions are restricted, whatever rules there are',
    policies: [
      np(
        'only-in',
        '{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress], egress: [{to: [{podSelector: {}}]}], ingress: [{from: [{podSelector: {}}]}]}',
      ),
      np(
        'only-out',
        '{podSelector: {matchLabels: {app: db}}, policyTypes: [Egress], ingress: [{from: []}]}',
      ),
      np('defaults', '{podSelector: {}, egress: [{}]}', '{}', 'ops'),
    ],
    vectors: `
      shop/web -> 203.0.113.9 80      = yes open -
      shop/db -> shop/web 80          = no isolated only-in[0]+
      ops/tool -> shop/web 80         = no defaults[0]+ isolated
      shop/web -> shop/db 80          = yes open open
      shop/db -> 203.0.113.9 80       = no isolated -
      shop/web -> ops/tool 80         = no open isolated
      ops/tool -> 203.0.113.9 80      = yes defaults[0]+ -
      203.0.113.9 -> shop/db 80       = yes - open`,
  },
];

/** What DNS said: the only addresses that names have here. */
const RESOLVED: Readonly<Record<string, readonly string[]>> = { '*.example.com': ['198.51.100.7'] };

function worldOf(policies: readonly string[]): World {
  const text = [CLUSTER, ...policies].join('\n---\n');
  const objects = parseManifest(text, { file: 'vectors' }).map(({ object }) => object);
  const of = <T extends KubeObject>({ kind }: { kind: string }) =>
    objects.filter((object): object is T => object.kind === kind);
  const world = buildWorld({
    ...{ pods: of<Pod>(POD), namespaces: of<Namespace>(NAMESPACE), nodes: of<Node>(NODE) },
    policies: objects.filter((it): it is NetworkPolicy => it.kind.endsWith('NetworkPolicy')),
  });
  return { ...world, resolved: (pattern) => (RESOLVED[pattern] ?? []).map(ip) };
}

function verdictOf(world: World, flow: Flow): string {
  const { allowed, exempt, egress, ingress } = evaluate(world, flow);
  if (exempt === 'self' || exempt === 'own node') return exempt;
  return `${allowed ? 'yes' : 'no'} ${directionOf(egress)} ${directionOf(ingress)}`;
}

function directionOf(result: DirectionResult | undefined): string {
  if (result === undefined) return '-';
  if (result.reason !== 'rule') return result.reason === 'default' ? 'open' : result.reason;
  const { policy, rule } = result.steps.at(-1) ?? {};
  return `${policy?.name}[${rule?.index}]${result.allowed ? '+' : '-'}`;
}

let vectors = 0;
for (const { name, policies, vectors: text } of SCENARIOS)
  describe(name, () => {
    const world = worldOf(policies);
    for (const line of text.trim().split('\n')) {
      const [, from = '', to = '', port = '', expected] =
        /^\s*(\S+) -> (\S+) (\S+)\s+= (.*)$/.exec(line) ?? [];
      assert.ok(expected, `cannot read "${line}"`);
      vectors++;
      test(line.trim(), () => {
        const [[source], [target]] = [parseEnds(from, world), parseEnds(to, world)];
        assert.ok(source && target);
        const flow = { from: source, to: target, ...parsePort(port, target) };
        assert.equal(verdictOf(world, flow), expected.trim());
      });
    }
  });

test('there are as many vectors as were written', () => assert.ok(vectors > 150, `${vectors}`));

test('a pod whose labels are not known is closed where they matter, in that direction, and by no staged policy', () => {
  const base = worldOf([np('db', '{podSelector: {matchLabels: {app: db}}}')]);
  const web = base.pods.get('shop/web');
  const [outside] = parseEnds('203.0.113.9', base);
  assert.ok(web && outside);
  const pod = { ...web, labels: undefined };
  const end = { pod, node: undefined, ip: pod.ips[0] };
  const verdicts = (world: World) => [
    verdictOf(world, { from: outside, to: end, protocol: 6, port: 80 }),
    verdictOf(world, { from: end, to: outside, protocol: 6, port: 80 }),
  ];
  assert.deepEqual(verdicts(base), ['no - closed', 'yes open -']);
  const staged = base.policies.map((policy) => ({ ...policy, staged: true }));
  assert.deepEqual(verdicts({ ...base, policies: staged }), ['yes - open', 'yes open -']);
});
