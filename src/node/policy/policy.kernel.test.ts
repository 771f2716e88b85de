/** Policy with real packets: a node with pods, each in a network namespace of its own. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';
import { NAMESPACE } from '#api/core/v1/namespace.ts';
import { NODE } from '#api/core/v1/node.ts';
import { POD } from '#api/core/v1/pod.ts';
import { NETWORK_POLICY } from '#api/networking/v1/network-policy.ts';
import { CLUSTER_NETWORK_POLICY } from '#api/policy/v1alpha2/cluster-network-policy.ts';
import { FakeApi } from '#client/fake.ts';
import { cidr, ip } from '#lib/ip.ts';
import { NFLOG_GROUP } from '#lib/kernel-objects.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { openConntrack } from '#linux/conntrack/kernel.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { createNflog } from '#linux/nflog/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { Poller } from '#linux/poller.ts';
import { ScratchNetns } from '#linux/testing/scratch-netns.ts';
import type { LoggedPacket } from '#wire/nflog/codec.ts';
import { Cutter } from './cutter.ts';
import { GRACE_MS } from './domains.ts';
import { parseLogPrefix, shortHash } from './names.ts';
import { PodProgram } from './pod-program.testing.ts';
import { sctpInit } from './sctp.testing.ts';
import {
  clusterPolicy,
  namespaceObject,
  networkPolicy,
  nodeObject,
  PolicyUnderTest,
  podObject,
  TestAttachments,
} from './testing.ts';

const POD_NAMES = ['a', 'b', 'c'] as const;
type PodName = (typeof POD_NAMES)[number] | 'outside';
const V4: Record<string, string> = { a: '10.0.0.1', b: '10.0.0.2', c: '10.0.0.3' };
const V6: Record<string, string> = { a: 'fd00::1', b: 'fd00::2', c: 'fd00::3' };
const OUTSIDE_V4 = '192.0.2.9';
const NODE_V4 = '192.0.2.1';
/** A thousand with TULLE_POLICY_STARTS=1000. */
const FLIPS = Number(process.env.TULLE_POLICY_FLIPS ?? 200);
const STARTS = Number(process.env.TULLE_POLICY_STARTS ?? 50);

const node = new ScratchNetns();
const namespaces = new Map<PodName, ScratchNetns>();
const programs = new Map<PodName | 'node', PodProgram>();
const stack = new AsyncDisposableStack();
const api = new FakeApi();
const attachments = new TestAttachments();
let under: PolicyUnderTest;

before(async () => {
  makeNetwork();
  for (const [name, netns] of namespaces)
    programs.set(name, await PodProgram.start(netns, [80, 81, 8080]));
  programs.set('node', await PodProgram.start(node, [80]));
  const nftables = stack.use(openNftables({ netns: node.path }));
  const conntrack = stack.use(openConntrack({ netns: node.path }));
  api.put(NAMESPACE, namespaceObject('one', { team: 'x' }));
  api.put(NAMESPACE, namespaceObject('two', { team: 'y' }));
  api.put(NODE, nodeObject('m1', NODE_V4));
  for (const name of POD_NAMES) {
    const key = keyOf(name);
    const ips = [V4[name] ?? '', V6[name] ?? ''];
    const ports = [{ name: 'web', port: name === 'a' ? 80 : 8080 }];
    api.put(POD, podObject(key, { labels: { app: name }, ips, node: 'm1', ports }));
    attachments.add(key, ips);
  }
  let cutter: Cutter | undefined;
  under = stack.use(new PolicyUnderTest(api, nftables, { onProgrammed: () => cutter?.trigger() }));
  const { policy } = under;
  cutter = stack.use(
    new Cutter({
      conntrack,
      log: silentLogger,
      context: () => ({
        directory: policy.planner.directory,
        localAt: (address) => policy.localAt(address),
        policiesFor: (pod) => policy.planner.policiesFor(pod.namespace),
        ownAddresses: new Set([ip(NODE_V4)]),
        resolved: (pattern) => policy.domains.memory.everResolved(pattern),
      }),
    }),
  );
  await policy.start(attachments);
});

after(async () => {
  await stack.disposeAsync();
  for (const program of programs.values()) await program.stop();
  for (const netns of namespaces.values()) netns[Symbol.dispose]();
  node[Symbol.dispose]();
});

beforeEach(async () => {
  for (const policy of api.objects(NETWORK_POLICY))
    api.remove(NETWORK_POLICY, `${policy.metadata.namespace}/${policy.metadata.name}`);
  for (const policy of api.objects(CLUSTER_NETWORK_POLICY))
    api.remove(CLUSTER_NETWORK_POLICY, policy.metadata.name);
  await programmed();
});

describe('NetworkPolicy', () => {
  test('without policies everybody reaches everybody', async () => {
    assert.equal(await tcp('a', 'b', 80), 'ok');
    assert.equal(await tcp('outside', 'c', 80), 'ok');
    assert.equal(await tcp('a', 'outside', 80), 'ok');
    assert.equal(await probe('a', 'tcp', V6.b ?? '', 80), 'ok');
  });

  test('isolation holds for both families and spares the own node, the pod itself and replies', async () => {
    await apply(networkPolicy('one/deny', { podSelector: {}, policyTypes: ['Ingress'] }));
    assert.equal(await tcp('c', 'a', 80), 'timeout');
    assert.equal(await probe('c', 'tcp', V6.a ?? '', 80), 'timeout');
    assert.equal(await probe('c', 'udp', V4.a ?? '', 80), 'timeout');
    assert.equal(await tcp('outside', 'a', 80), 'timeout');
    assert.equal(await tcp('a', 'a', 80), 'ok');
    assert.equal(await tcp('a', 'c', 80), 'ok');
    assert.equal(await probeNode(V4.a ?? '', 80), 'ok');
    assert.equal(await probeNode(V6.a ?? '', 80), 'ok');
  });

  test('peers by label of pod and namespace, ports by number, range and name', async () => {
    await apply(
      networkPolicy('one/web', {
        podSelector: { matchLabels: { app: 'a' } },
        ingress: [
          {
            from: [{ namespaceSelector: { matchLabels: { team: 'y' } } }],
            ports: [{ port: 'web' }, { port: 8000, endPort: 8100 }, { port: 81, protocol: 'UDP' }],
          },
        ],
      }),
    );
    // c is in namespace two; b is not. Port "web" of a is 80.
    assert.equal(await tcp('c', 'a', 80), 'ok');
    assert.equal(await tcp('c', 'a', 8080), 'ok');
    assert.equal(await tcp('c', 'a', 81), 'timeout');
    assert.equal(await probe('c', 'udp', V4.a ?? '', 81), 'ok');
    assert.equal(await probe('c', 'udp', V4.a ?? '', 80), 'timeout');
    assert.equal(await tcp('b', 'a', 80), 'timeout');
    api.put(NAMESPACE, namespaceObject('two', { team: 'z' }));
    await programmed();
    assert.equal(await tcp('c', 'a', 80), 'timeout');
    api.put(NAMESPACE, namespaceObject('two', { team: 'y' }));
    await programmed();
    assert.equal(await tcp('c', 'a', 80), 'ok');
  });

  test('several ports of one protocol, and not what lies between', async () => {
    await apply(
      networkPolicy('one/ports', {
        podSelector: { matchLabels: { app: 'a' } },
        ingress: [{ ports: [{ port: 8080 }, { port: 79, endPort: 80 }, { port: 9000 }] }],
      }),
    );
    assert.equal(await tcp('c', 'a', 80), 'ok');
    assert.equal(await tcp('c', 'a', 8080), 'ok');
    assert.equal(await tcp('c', 'a', 81), 'timeout');
    assert.equal(await probe('c', 'udp', V4.a ?? '', 80), 'timeout');
    const listed = node.run('nft', 'list', 'table', 'ip', 'tulle').replaceAll(/\s+/g, ' ');
    // As an operator reads it.
    assert.match(listed, /tcp dport 79-9000 tcp dport != 81-8079 tcp dport != 8081-8999 counter/);
  });

  test('ipBlock with an exception, and another block that overlaps it', async () => {
    const block = (name: string, text: string, except: string[] = []) =>
      networkPolicy(`one/${name}`, {
        podSelector: {},
        ingress: [{ from: [{ ipBlock: { cidr: text, except } }] }],
      });
    await apply(block('outer', '192.0.2.0/24', ['192.0.2.8/29']));
    assert.equal(await tcp('outside', 'a', 80), 'timeout');
    await apply(block('inner', '192.0.2.9/32'));
    assert.equal(await tcp('outside', 'a', 80), 'ok');
  });

  test('egress is isolated on its own, to the node too', async () => {
    await apply(
      networkPolicy('one/out', {
        podSelector: { matchLabels: { app: 'a' } },
        egress: [{ to: [{ podSelector: { matchLabels: { app: 'b' } } }] }],
        policyTypes: ['Egress'],
      }),
    );
    assert.equal(await tcp('a', 'b', 80), 'ok');
    assert.equal(await tcp('a', 'c', 80), 'timeout');
    assert.equal(await tcp('a', 'outside', 80), 'timeout');
    assert.equal(await probe('a', 'tcp', NODE_V4, 80), 'timeout');
    assert.equal(await tcp('c', 'a', 80), 'ok');
  });

  test('SCTP, by number and by range, beside TCP on the same ports', async () => {
    const sctp = async (port: number) => {
      const [from, to] = [namespaces.get('c'), namespaces.get('a')];
      assert.ok(from && to);
      const [v4, v6] = [V4.a ?? '', V6.a ?? ''];
      const seen = await sctpInit({ from, to }, { host: v4, port });
      assert.equal(await sctpInit({ from, to }, { host: v6, port }), seen, `IPv6, port ${port}`);
      return seen;
    };
    assert.equal(await sctp(9003), 'ok');
    await apply(
      networkPolicy('one/sctp', {
        podSelector: { matchLabels: { app: 'a' } },
        ingress: [
          {
            ports: [
              { protocol: 'SCTP', port: 9003 },
              { protocol: 'SCTP', port: 9010, endPort: 9020 },
              { port: 9005 },
            ],
          },
        ],
      }),
    );
    for (const [port, expected] of [
      [9003, 'ok'],
      [9015, 'ok'],
      [9005, 'timeout'],
      [9021, 'timeout'],
    ] as const)
      assert.equal(await sctp(port), expected, `port ${port}`);
    assert.equal(await tcp('c', 'a', 80), 'timeout');
  });

  test('hosts outside: by block in both directions, whatever pods are allowed', async () => {
    await apply(
      networkPolicy('one/pods-only', {
        podSelector: {},
        ingress: [{ from: [{ namespaceSelector: {} }] }],
      }),
    );
    assert.equal(await tcp('outside', 'a', 80), 'timeout');
    assert.equal(await tcp('c', 'a', 80), 'ok');
    await apply(
      networkPolicy('one/outside', {
        podSelector: {},
        ingress: [{ from: [{ ipBlock: { cidr: `${OUTSIDE_V4}/32` } }] }],
      }),
    );
    assert.equal(await tcp('outside', 'a', 80), 'ok');
  });

  test('a staged policy enforces nothing', async () => {
    await apply(
      networkPolicy('one/deny', { podSelector: {} }, { 'tulle.dev/enforcement': 'staged' }),
    );
    assert.equal(await tcp('c', 'a', 80), 'ok');
  });
});

describe('ClusterNetworkPolicy', () => {
  const everyPod = { namespaces: {} };
  test('Admin goes before NetworkPolicy, Pass leaves to it, Baseline comes after', async () => {
    await apply(networkPolicy('one/allow', { podSelector: {}, ingress: [{}] }));
    const admin = (action: 'Accept' | 'Deny' | 'Pass') =>
      clusterPolicy('admin', {
        ...{ tier: 'Admin', priority: 10, subject: { namespaces: {} } },
        ingress: [{ action, from: [{ namespaces: { matchLabels: { team: 'y' } } }] }],
      });
    api.put(CLUSTER_NETWORK_POLICY, admin('Deny'));
    api.put(
      CLUSTER_NETWORK_POLICY,
      clusterPolicy('baseline', {
        ...{ tier: 'Baseline', priority: 0, subject: everyPod },
        ingress: [{ action: 'Deny', from: [everyPod] }],
      }),
    );
    await programmed();
    assert.equal(await tcp('c', 'a', 80), 'timeout');
    assert.equal(await tcp('b', 'a', 80), 'ok');
    // c has no NetworkPolicy, so Baseline decides.
    assert.equal(await tcp('a', 'c', 80), 'timeout');
    api.put(CLUSTER_NETWORK_POLICY, admin('Pass'));
    await programmed();
    assert.equal(await tcp('c', 'a', 80), 'ok');
    api.put(NETWORK_POLICY, networkPolicy('one/allow', { podSelector: {} }));
    await programmed();
    assert.equal(await tcp('c', 'a', 80), 'timeout');
    api.put(CLUSTER_NETWORK_POLICY, admin('Accept'));
    await programmed();
    assert.equal(await tcp('c', 'a', 80), 'ok');
  });

  test('egress to networks and nodes', async () => {
    api.put(
      CLUSTER_NETWORK_POLICY,
      clusterPolicy('out', {
        ...{ tier: 'Admin', priority: 1, subject: { namespaces: { matchLabels: { team: 'x' } } } },
        egress: [
          { action: 'Accept', to: [{ networks: ['192.0.2.9/32'] }] },
          { action: 'Deny', to: [{ nodes: {} }, { networks: ['192.0.2.0/24'] }] },
        ],
      }),
    );
    await programmed();
    assert.equal(await tcp('a', 'outside', 80), 'ok');
    assert.equal(await probe('a', 'tcp', NODE_V4, 80), 'timeout');
    assert.equal(await tcp('a', 'b', 80), 'ok');
  });

  test('egress to a domain name: open when the answer leaves, closed when its time is over', async () => {
    api.put(
      CLUSTER_NETWORK_POLICY,
      clusterPolicy('names', {
        ...{ tier: 'Admin', priority: 1, subject: { namespaces: { matchLabels: { team: 'x' } } } },
        egress: [
          { action: 'Accept', to: [{ domainNames: ['*.example.com'] }] },
          { action: 'Deny', to: [{ networks: ['192.0.2.0/24'] }] },
        ],
      }),
    );
    await programmed();
    assert.equal(await tcp('a', 'outside', 80), 'timeout');
    const { domains } = under.policy;
    assert.ok(domains.memory.wants('www.example.com') && !domains.memory.wants('example.com'));
    // As if it had been answered a while ago: the rest of the grace is short.
    const ttlS = 5 - GRACE_MS / 1000;
    domains.answered('www.example.com', 4, [{ address: ip(OUTSIDE_V4), ttlS }]);
    // Nothing is waited for: the DNS server sends the answer now.
    domains.answered('www.example.com', 6, [{ address: ip('2001:db8::9'), ttlS: 60 }]);
    assert.match(node.run('nft', 'list', 'table', 'ip', 'tulle'), /192\.0\.2\.9/);
    assert.match(node.run('nft', 'list', 'table', 'ip6', 'tulle'), /2001:db8::9/);
    const a = programs.get('a');
    assert.ok(a);
    assert.equal(await a.ask('open', { host: OUTSIDE_V4, port: 80, name: 'domain' }), 'ok');
    await until(async () => (await tcp('a', 'outside', 80)) === 'timeout');
    // Longer than the cutter takes to look at the connections, twice.
    await new Promise((resolve) => setTimeout(resolve, 800));
    assert.equal(await a.ask('talk', { name: 'domain' }), 'ok');
  });
});

describe('change', () => {
  test('a pod that nobody announced is closed, whatever policies there are', async () => {
    attachments.remove(keyOf('b'));
    await under.policy.settled();
    assert.equal(await tcp('a', 'b', 80), 'timeout');
    assert.equal(await tcp('b', 'outside', 80), 'timeout');
    const attachment = TestAttachments.of(keyOf('b'), [V4.b ?? '', V6.b ?? '']);
    await under.policy.prepare(attachment);
    assert.equal(await tcp('a', 'b', 80), 'ok');
    attachments.add(keyOf('b'), [V4.b ?? '', V6.b ?? '']);
    await under.policy.settled();
  });

  test('a pod whose labels are not known is closed if they matter, and open if not', async () => {
    const pod = api.objects(POD).find((it) => it.metadata.name === 'b');
    assert.ok(pod);
    api.remove(POD, keyOf('b'));
    await until(
      () => under.policy.planner.localPod(`tulle.${keyOf('b')}.eth0`)?.labels === undefined,
    );
    await programmed();
    assert.equal(await tcp('c', 'b', 80), 'ok');
    await apply(
      networkPolicy('one/some', { podSelector: { matchLabels: { app: 'a' } }, ingress: [{}] }),
    );
    assert.equal(await tcp('c', 'b', 80), 'timeout');
    api.put(POD, podObject(keyOf('b'), podSpec('b')));
    await programmed();
    assert.equal(await tcp('c', 'b', 80), 'ok');
  });

  test('starts: nothing forbidden gets through, and what is allowed is not refused', async () => {
    await apply(
      networkPolicy('one/early', {
        podSelector: {},
        policyTypes: ['Ingress', 'Egress'],
        egress: [{ to: [{ namespaceSelector: { matchLabels: { team: 'y' } } }] }],
      }),
    );
    const b = programs.get('b');
    assert.ok(b);
    const asked: Promise<[string, string]>[] = [];
    for (let i = 0; i < STARTS; i++) {
      const address = `10.9.${i >> 8}.${i & 255}`;
      const [allowed, forbidden] = [V4.c ?? '', OUTSIDE_V4];
      const key = `one/start-${i}`;
      // As a kubelet's pod: the object is there first, the watch may be late.
      api.put(POD, podObject(key, { labels: {}, ips: [], node: 'm1' }));
      const attachment = TestAttachments.of(key, [address]);
      namespaces.get('b')?.run('ip', 'address', 'add', `${address}/32`, 'dev', 'eth0');
      await under.policy.prepare(attachment);
      node.run('ip', 'route', 'add', `${address}/32`, 'dev', 'tlb');
      attachments.add(key, [address]);
      asked.push(
        Promise.all([
          b.ask('udp', { host: allowed, port: 80, from: address, waitMs: 1000 }),
          b.ask('udp', { host: forbidden, port: 80, from: address }),
        ]),
      );
    }
    const answers = await Promise.all(asked);
    for (let i = 0; i < STARTS; i++) attachments.remove(`one/start-${i}`);
    assert.deepEqual(
      answers.map(([allowed, forbidden]) => `${allowed} ${forbidden}`),
      answers.map(() => 'ok timeout'),
    );
  });

  test('while policies change, what neither the old nor the new allows never passes', async () => {
    const only = (app: string) =>
      networkPolicy('one/flip', {
        podSelector: { matchLabels: { app: 'a' } },
        ingress: [{ from: [{ namespaceSelector: {}, podSelector: { matchLabels: { app } } }] }],
      });
    await apply(only('c'));
    const b = programs.get('b');
    assert.ok(b);
    const asked: Promise<string>[] = [];
    for (let i = 0; i < FLIPS; i++) {
      // Without waiting: what is asked meets every moment of a change.
      api.put(NETWORK_POLICY, only(i % 2 === 0 ? 'nobody' : 'c'));
      api.put(POD, podObject('two/extra', { labels: { app: i % 3 === 0 ? 'c' : 'x' }, ips: [] }));
      asked.push(b.ask('udp', { host: V4.a, port: 80, waitMs: 300 }));
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    assert.deepEqual(new Set(await Promise.all(asked)), new Set(['timeout']));
    await apply(only('c'));
    assert.equal(await tcp('c', 'a', 80), 'ok');
  });

  test('a connection that is allowed no more is cut, and continues if it is allowed again', async () => {
    const c = programs.get('c');
    assert.ok(c);
    assert.equal(await c.ask('open', { host: V4.a, port: 80, name: 'long' }), 'ok');
    assert.equal(await c.ask('talk', { name: 'long' }), 'ok');
    await apply(networkPolicy('one/deny', { podSelector: {} }));
    await until(async () => (await c.ask('talk', { name: 'long', waitMs: 150 })) === 'timeout');
    api.remove(NETWORK_POLICY, 'one/deny');
    await programmed();
    await until(async () => (await c.ask('talk', { name: 'long', waitMs: 1000 })) === 'ok');
  });

  test('what a refused packet met is logged by policy and rule', async () => {
    using poller = new Poller();
    const packets: LoggedPacket[] = [];
    using _listening = createNflog({ poller, netns: node.path })({
      group: NFLOG_GROUP,
      onPacket: (packet) => packets.push(packet),
      onLost: () => {},
    });
    api.put(
      CLUSTER_NETWORK_POLICY,
      clusterPolicy('no', {
        ...{ tier: 'Admin', priority: 1, subject: { namespaces: {} } },
        ingress: [
          { action: 'Pass', from: [{ namespaces: { matchLabels: { team: 'none' } } }] },
          { action: 'Deny', from: [{ namespaces: { matchLabels: { team: 'y' } } }] },
        ],
      }),
    );
    await programmed();
    assert.equal(await tcp('c', 'a', 80), 'timeout');
    await until(() => packets.length > 0);
    assert.deepEqual(parseLogPrefix(packets[0]?.prefix ?? ''), {
      verdict: 'deny',
      direction: 'ingress',
      source: shortHash('ClusterNetworkPolicy no'),
      rule: 1,
    });
  });

  test('a foreign edit is undone', async () => {
    await apply(networkPolicy('one/deny', { podSelector: {} }));
    node.run('nft', 'flush', 'chain', 'ip', 'tulle', 'policy-to-pods');
    await until(() =>
      node.run('nft', 'list', 'chain', 'ip', 'tulle', 'policy-to-pods').includes('vmap'),
    );
    assert.equal(await tcp('c', 'a', 80), 'timeout');
  });
});

function makeNetwork(): void {
  using host = openNetworkStack({ netns: node.path });
  const lo = host.links.get('lo');
  assert.ok(lo);
  host.links.set(lo.index, { up: true });
  host.sysctl.set('net/ipv4/ip_forward', '1');
  host.sysctl.set('net/ipv6/conf/all/forwarding', '1');
  for (const name of [...POD_NAMES, 'outside'] as const) {
    const netns = new ScratchNetns();
    namespaces.set(name, netns);
    const hostLink = name === 'outside' ? 'uplink' : `tl${name}`;
    const link = host.links.create({
      ...{ kind: 'veth', name: hostLink, up: true },
      peer: { name: 'eth0', netns: netns.path, up: true },
    });
    using inside = openNetworkStack({ netns: netns.path });
    const eth0 = inside.links.get('eth0');
    const loopback = inside.links.get('lo');
    assert.ok(eth0 && loopback);
    inside.links.set(loopback.index, { up: true });
    if (name === 'outside') {
      host.addresses.add({ link: link.index, address: ip(NODE_V4), prefixLength: 24 });
      inside.addresses.add({ link: eth0.index, address: ip(OUTSIDE_V4), prefixLength: 24 });
      netns.run('ip', 'route', 'add', 'default', 'via', NODE_V4);
      continue;
    }
    const [v4 = '', v6 = ''] = [V4[name], V6[name]];
    netns.run('ip', 'address', 'add', `${v4}/32`, 'dev', 'eth0');
    netns.run('ip', '-6', 'address', 'add', `${v6}/128`, 'dev', 'eth0', 'nodad');
    netns.run('ip', 'route', 'add', '169.254.1.1', 'dev', 'eth0');
    netns.run('ip', 'route', 'add', 'default', 'via', '169.254.1.1');
    host.sysctl.set(`net/ipv4/conf/${hostLink}/proxy_arp`, '1');
    node.run('ip', 'address', 'add', '169.254.1.1/32', 'dev', hostLink);
    node.run('ip', '-6', 'address', 'add', 'fe80::1/64', 'dev', hostLink, 'nodad');
    netns.run('ip', '-6', 'route', 'add', 'default', 'via', 'fe80::1', 'dev', 'eth0');
    host.routes.replace([
      { destination: cidr(`${v4}/32`), link: link.index, protocol: 84 },
      { destination: cidr(`${v6}/128`), link: link.index, protocol: 84 },
    ]);
  }
}

function keyOf(name: (typeof POD_NAMES)[number]): string {
  return name === 'c' ? 'two/c' : `one/${name}`;
}

function podSpec(name: string) {
  const ports = [{ name: 'web', port: name === 'a' ? 80 : 8080 }];
  return { labels: { app: name }, ips: [V4[name] ?? '', V6[name] ?? ''], node: 'm1', ports };
}

async function apply(policy: ReturnType<typeof networkPolicy>): Promise<void> {
  api.put(NETWORK_POLICY, policy);
  await programmed();
}

/** Resolves when the feature has all that the API has, in the kernel. */
async function programmed(): Promise<void> {
  const marker = `marker-${Math.random()}`;
  // One more change of each kind: what came before it has arrived when it has.
  api.put(NAMESPACE, namespaceObject(marker));
  api.put(POD, podObject(`one/${marker}`, { ips: [] }));
  api.put(NETWORK_POLICY, networkPolicy(`none/${marker}`, { podSelector: {} }));
  api.put(
    CLUSTER_NETWORK_POLICY,
    clusterPolicy(marker, {
      ...{ tier: 'Baseline', priority: 1000 },
      subject: { namespaces: { matchLabels: { none: 'none' } } },
    }),
  );
  const { planner } = under.policy;
  const ids = () => new Set([...planner.policies].map(({ id }) => id));
  await until(
    () =>
      planner.directory.namespaces.has(marker) &&
      planner.directory.pods.has(`one/${marker}`) &&
      ids().has(`NetworkPolicy none/${marker}`) &&
      ids().has(`ClusterNetworkPolicy ${marker}`),
  );
  api.remove(NETWORK_POLICY, `none/${marker}`);
  api.remove(CLUSTER_NETWORK_POLICY, marker);
  await until(() => ![...ids()].some((id) => id.includes(marker)));
  await under.policy.settled();
}

function tcp(from: PodName, to: PodName, port: number): Promise<string> {
  return probe(from, 'tcp', to === 'outside' ? OUTSIDE_V4 : (V4[to] ?? ''), port);
}
async function probe(from: PodName, op: string, host: string, port: number): Promise<string> {
  return (await programs.get(from)?.ask(op, { host, port })) ?? 'no such pod';
}
async function probeNode(host: string, port: number): Promise<string> {
  return (await programs.get('node')?.ask('tcp', { host, port })) ?? 'no node';
}
