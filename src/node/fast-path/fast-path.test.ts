import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { EINVAL, KernelError } from '#lib/errors.ts';
import { ip, mac } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { FakeBpf } from '#linux/bpf/fake.ts';
import { FakeNetwork } from '#linux/network/fake.ts';
import { FakeTrafficControl } from '#linux/tc/fake.ts';
import type { Attachment } from '../attachment.ts';
import { FastPath } from './fast-path.ts';

const log = silentLogger;
const POD_MAC = mac('02:00:00:00:00:01');
const CONNTRACK = 'net/netfilter/nf_conntrack';

const attachment = (hostLink: string, address: string, more: Partial<Attachment> = {}) =>
  ({
    ...{ handle: hostLink, hostLink, mac: POD_MAC, ...more },
    addresses: [{ address: ip(address) }],
  }) as unknown as Attachment;

/** A node whose pods are those of `list`. */
async function node() {
  const resources = new AsyncDisposableStack();
  const api = new FakeApi();
  const pool = (name: string, cidr: string) =>
    api.put(IP_POOL, {
      ...{ apiVersion: 'tulle.dev/v1alpha1', kind: 'IPPool', metadata: { name }, spec: { cidr } },
    });
  pool('a', '10.244.0.0/16');
  const network = new FakeNetwork({
    sysctls: {
      [`${CONNTRACK}_udp_timeout`]: '30',
      [`${CONNTRACK}_udp_timeout_stream`]: '120',
      [`${CONNTRACK}_tcp_timeout_established`]: '432000',
      [`${CONNTRACK}_tcp_be_liberal`]: '0',
      [`${CONNTRACK}_tcp_ignore_invalid_rst`]: '0',
    },
  });
  const stack = network.open();
  const bpf = new FakeBpf();
  const tc = new FakeTrafficControl();
  const list: Attachment[] = [];
  const listeners = new Set<() => void>();
  const told = (listener: () => void) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  };
  const exits: number[] = [];
  const fastPath = resources.use(
    new FastPath({
      ...{ stack, bpf, tc, log, pools: resources.use(startCache(api, IP_POOL, { log })) },
      attachments: { list: () => list, onChange: told },
      exits: { list: () => exits, onChange: told },
    }),
  );
  return {
    ...{ network, stack, bpf, tc, list, exits, pool, fastPath },
    changed: () => {
      for (const listener of listeners) listener();
    },
    link: (name: string) =>
      stack.links.create({ kind: 'bridge', name, mac: mac('ee:ee:ee:ee:ee:ee') }).index,
    entries: (map: string) => [...(bpf.maps.get(map)?.entries() ?? [])],
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

test('programs are where pods are attached and where the fabric leads, and their maps say who is where', async () => {
  await using n = await node();
  const a = n.link('tla');
  n.list.push(attachment('tla', '10.244.0.5'));
  n.exits.push(90);
  await n.fastPath.start();
  assert.deepEqual([...n.bpf.attached], [[90, ['tulle_fabric']]]);
  assert.deepEqual([...n.tc.programs], [[a, 'tulle_pod']]);
  const index = a.toString(16).padStart(2, '0');
  assert.deepEqual(n.entries('tulle_pods_v4'), [
    ['0af40005', `${index}000000020000000001eeeeeeeeeeee`],
  ]);
  assert.deepEqual(n.entries('tulle_exits'), [['5a000000', '01']]);

  const b = n.link('tlb');
  n.list.push(attachment('tlb', 'fd00::5'));
  n.exits.push(91);
  n.changed();
  await until(() => n.fastPath.links === 4);
  assert.deepEqual([n.tc.programs.has(b), n.bpf.attached.has(91)], [true, true]);
  assert.equal(n.entries('tulle_pods_v6').length, 1);

  n.list.shift();
  n.exits.shift();
  n.changed();
  await until(() => n.fastPath.links === 2);
  assert.deepEqual([...n.bpf.attached.keys()], [91]);
  assert.deepEqual(n.entries('tulle_pods_v4'), []);
  assert.deepEqual(n.entries('tulle_exits'), [['5b000000', '01']]);
});

test('other pods have none: bridges, others’ interfaces, limits', async () => {
  await using n = await node();
  n.link('tla');
  n.list.push(
    attachment('tla', '10.244.0.5', { bandwidth: {} as never }),
    attachment('tla', '10.244.0.6', { onBridge: true }),
    attachment('tla', '10.244.0.7', { bridge: {} as never }),
    attachment('tla', '10.244.0.8', { chained: {} as never }),
    attachment('gone', '10.244.0.9'),
  );
  await n.fastPath.start();
  assert.deepEqual([...n.tc.programs], []);
  assert.deepEqual(n.entries('tulle_pods_v4'), []);
});

test('a link that is made anew is followed', async () => {
  await using n = await node();
  const first = n.link('tla');
  n.list.push(attachment('tla', '10.244.0.5'));
  await n.fastPath.start();
  n.stack.links.delete(first);
  await until(() => n.fastPath.links === 0);
  const second = n.link('tla');
  n.changed();
  await until(() => n.fastPath.links === 1);
  assert.ok(n.tc.programs.has(second) && second !== first);
});

test('other pools are other programs, which are there before the old ones go', async () => {
  await using n = await node();
  n.link('tla');
  n.list.push(attachment('tla', '10.244.0.5'));
  n.exits.push(90);
  await n.fastPath.start();
  assert.equal(n.bpf.loaded.length, 2);
  n.pool('b', 'fd00::/48');
  await until(() => n.bpf.loaded.length === 4);
  await until(() => n.bpf.attached.get(90)?.length === 1);
  const [old, , now] = n.bpf.loaded;
  assert.ok(now !== undefined && old !== undefined && now.lines.length > old.lines.length);
  assert.deepEqual([n.bpf.open.has(old.fd), n.bpf.open.has(now.fd)], [false, true]);
  // What is no spec is no reason.
  n.changed();
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(n.bpf.loaded.length, 4);
});

test('a kernel that refuses is not asked again, and the node says what it goes without', async () => {
  await using n = await node();
  const a = n.link('tla');
  n.list.push(attachment('tla', '10.244.0.5'));
  n.bpf.failure = new KernelError('load eBPF program "tulle_pod"', EINVAL);
  await n.fastPath.start();
  assert.match(n.fastPath.gaps[0]?.otherwise ?? '', /the long way \(Cannot load eBPF .*EINVAL/);
  assert.deepEqual([...n.bpf.open], [], 'nothing half-done');
  n.bpf.failure = undefined;
  n.changed();
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(n.tc.programs.has(a), false);
});

test('a link that goes at this very moment is no failure', async () => {
  await using n = await node();
  n.tc.gone.add(n.link('tla'));
  n.list.push(attachment('tla', '10.244.0.5'));
  await n.fastPath.start();
  assert.deepEqual([n.fastPath.links, n.fastPath.gaps], [0, []]);
});

test('a pod of a version without it has no room for its program, and is a destination all the same', async () => {
  await using n = await node();
  const [a, b] = [n.link('tla'), n.link('tlb')];
  n.tc.withoutRoom.add(a);
  n.list.push(attachment('tla', '10.244.0.5'), attachment('tlb', '10.244.0.6'));
  await n.fastPath.start();
  assert.deepEqual([...n.tc.programs.keys()], [b]);
  assert.equal(n.entries('tulle_pods_v4').length, 2);
  assert.deepEqual([n.fastPath.links, n.fastPath.gaps], [1, []]);
});

test('its end leaves nothing open, and what stays on links has no leave any more', async () => {
  const n = await node();
  n.link('tla');
  n.list.push(attachment('tla', '10.244.0.5'));
  await n.fastPath.start();
  const [[, leave] = ['', '']] = n.entries('tulle_lease');
  const untilMs = Buffer.from(leave, 'hex').readBigUInt64LE() / 1_000_000n;
  const leftMs = untilMs - process.hrtime.bigint() / 1_000_000n;
  assert.ok(leftMs > 0n && leftMs <= 10_000n, `${leftMs} ms`);
  await n[Symbol.asyncDispose]();
  assert.deepEqual([[...n.bpf.open], [...n.bpf.attached]], [[], []]);
  assert.deepEqual(n.entries('tulle_lease'), [['00000000', '0000000000000000']]);
});
