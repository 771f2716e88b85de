/** Policy between pods of one Linux bridge, whose packets are never routed. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { NAMESPACE } from '#api/core/v1/namespace.ts';
import { POD } from '#api/core/v1/pod.ts';
import { NETWORK_POLICY } from '#api/networking/v1/network-policy.ts';
import { FakeApi } from '#client/fake.ts';
import { until } from '#lib/testing/until.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { ScratchNetns } from '#linux/testing/scratch-netns.ts';
import { PodProgram } from './pod-program.testing.ts';
import {
  namespaceObject,
  networkPolicy,
  PolicyUnderTest,
  podObject,
  TestAttachments,
} from './testing.ts';

const PODS = [
  { name: 'x', v4: '10.9.0.2', v6: 'fd09::2' },
  { name: 'y', v4: '10.9.0.3', v6: 'fd09::3' },
] as const;
const FILTER = 'net/bridge/bridge-nf-call-iptables';
const node = new ScratchNetns();
const hasFilter = (() => {
  using host = openNetworkStack({ netns: node.path });
  return host.sysctl.get(FILTER) !== undefined;
})();

describe('policy on a bridge', { skip: hasFilter ? false : 'needs br_netfilter' }, () => {
  const stack = new AsyncDisposableStack();
  const namespaces: ScratchNetns[] = [];
  const programs = new Map<string, PodProgram>();
  const api = new FakeApi();
  const attachments = new TestAttachments();
  let under: PolicyUnderTest;

  before(async () => {
    using host = openNetworkStack({ netns: node.path });
    // As a careful administrator leaves it: only bridges that want it are filtered.
    for (const name of [FILTER, 'net/bridge/bridge-nf-call-ip6tables']) host.sysctl.set(name, '0');
    const bridge = host.links.create({ kind: 'bridge', name: 'br0', up: true });
    host.links.setBridgeFilter(bridge.index, true);
    for (const { name, v4, v6 } of PODS) {
      const netns = new ScratchNetns();
      namespaces.push(netns);
      host.links.create({
        ...{ kind: 'veth', name: `tl${name}`, up: true, master: bridge.index },
        peer: { name: 'eth0', netns: netns.path, up: true },
      });
      netns.run('ip', 'link', 'set', 'lo', 'up');
      netns.run('ip', 'address', 'add', `${v4}/24`, 'dev', 'eth0');
      netns.run('ip', '-6', 'address', 'add', `${v6}/64`, 'dev', 'eth0', 'nodad');
      programs.set(name, await PodProgram.start(netns, [80, 81]));
      api.put(POD, podObject(`default/${name}`, { labels: { app: name }, ips: [v4, v6] }));
      attachments.add(`default/${name}`, [v4, v6]);
    }
    api.put(NAMESPACE, namespaceObject('default'));
    under = stack.use(new PolicyUnderTest(api, stack.use(openNftables({ netns: node.path }))));
    await under.policy.start(attachments);
  });
  after(async () => {
    await stack.disposeAsync();
    for (const program of programs.values()) await program.stop();
    for (const netns of namespaces) netns[Symbol.dispose]();
    node[Symbol.dispose]();
  });

  const ask = (host: string, port: number) =>
    programs.get('x')?.ask('tcp', { host, port }) ?? Promise.resolve('no program');
  const [, y] = PODS;

  test('pods of one bridge reach each other as policies say, in both families', async () => {
    for (const host of [y.v4, y.v6]) assert.equal(await ask(host, 80), 'ok');
    api.put(
      NETWORK_POLICY,
      networkPolicy('default/y', {
        podSelector: { matchLabels: { app: 'y' } },
        policyTypes: ['Ingress', 'Egress'],
        ingress: [
          { from: [{ podSelector: { matchLabels: { app: 'x' } } }], ports: [{ port: 81 }] },
        ],
      }),
    );
    const known = () => under.policy.planner.policyCount;
    await until(() => known() > 0);
    await under.policy.settled();
    // Neighbours must be found although y may send nothing of its own.
    for (const netns of namespaces) netns.run('ip', 'neigh', 'flush', 'dev', 'eth0');
    for (const host of [y.v4, y.v6]) {
      assert.equal(await ask(host, 80), 'timeout', host);
      assert.equal(await ask(host, 81), 'ok', host);
    }
  });

  test('a pod whose labels are not known is closed on a bridge too', async () => {
    api.remove(POD, 'default/y');
    const local = () => under.policy.planner.localPod('tulle.default/y.eth0');
    await until(() => local()?.labels === undefined);
    await under.policy.settled();
    for (const host of [y.v4, y.v6]) assert.equal(await ask(host, 81), 'timeout', host);
  });
});
