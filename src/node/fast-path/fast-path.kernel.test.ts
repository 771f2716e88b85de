/** The fast path with real packets: what it takes arrives as by the long way, and nothing else is taken. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { sleep, systemClock } from '#lib/clock.ts';
import { CT_MARK_CUT } from '#lib/kernel-objects.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { openBpf } from '#linux/bpf/kernel.ts';
import { openTrafficControl } from '#linux/tc/kernel.ts';
import { Machine } from '../pod-machine.ts';
import { FastPath, type FastPathComponents, LEASE_MS } from './fast-path.ts';

const log = silentLogger;
const PORT = 7007;
const PROTOCOL_UDP = 17;
/** Of a connection that is no stream yet some go the long way, by chance: so many that not all do. */
const QUESTIONS = 8;
const STREAM = join(import.meta.dirname, 'stream.fixture.ts');
const fixture = (name: string) =>
  join(import.meta.dirname, '..', 'pod-rules', `${name}.fixture.ts`);

describe('the fast path', () => {
  const machine = new Machine();
  const resources = new AsyncDisposableStack();
  const tc = resources.use(openTrafficControl({ netns: machine.path(machine.host) }));
  const api = new FakeApi();
  for (const [name, cidr] of [
    ['v4', '192.0.2.0/24'],
    ['v6', '2001:db8::/120'],
  ] as const)
    api.put(IP_POOL, {
      apiVersion: 'tulle.dev/v1alpha1',
      kind: 'IPPool',
      metadata: { name },
      spec: { cidr },
    });
  const pools = resources.use(startCache(api, IP_POOL, { log }));
  let fastPath: FastPath;
  let client: string;
  let server: string;
  let other: string;
  let localPort = 20_000;

  const start = async (more: Partial<FastPathComponents> = {}) => {
    fastPath = new FastPath({
      ...{ stack: machine.stack, attachments: machine.attacher, pools, log },
      bpf: openBpf({ netns: machine.path(machine.host) }),
      tc,
      exits: { list: () => [], onChange: () => () => undefined },
      ...more,
    });
    await fastPath.start();
    assert.deepEqual(fastPath.gaps, []);
  };
  const addressesOf = (pod: string) =>
    (machine.addresses.given.get(`tulle.${pod}.eth0`) ?? []).map(({ address }) => address);
  async function attach(name: string, runtimeConfig: object = {}): Promise<string> {
    const pod = machine.addNamespace(name);
    await machine.attacher.add(machine.request('ADD', pod, { config: { runtimeConfig } }));
    for (const address of addressesOf(pod))
      await machine.spawn(pod, [process.execPath, fixture('echo'), address, String(PORT)]);
    return pod;
  }
  /** Asks by one connection. @returns how many packets were taken */
  function ask(from: string, to: string, count = QUESTIONS, port = ++localPort): number {
    const before = fastPath.counts().pod;
    for (let i = 0; i < count; i++)
      machine.run(from, `${process.execPath} ${fixture('ask')} udp ${to} ${PORT} ${port}`);
    return fastPath.counts().pod - before;
  }
  const entriesOf = (port: number) =>
    machine.conntrack
      .list({ protocol: PROTOCOL_UDP })
      .filter(({ original }) => 'sourcePort' in original && original.sourcePort === port);

  before(async () => {
    machine.start({ isIngressFree: () => true });
    client = await attach('client');
    server = await attach('server');
    other = await attach('other');
    await start();
    assert.equal(fastPath.links, 3);
  });
  after(async () => {
    await fastPath[Symbol.asyncDispose]();
    await resources.disposeAsync();
    await machine[Symbol.asyncDispose]();
  });

  for (const [i, hops] of [
    [0, 'ip ttl 63'],
    [1, 'ip6 hoplimit 63'],
  ] as const)
    test(`takes packets of connections that are known, ${hops}`, () => {
      const [podLink] = machine.json(server, 'ip -j link show dev eth0') as { address: string }[];
      const hostMac = machine.stack.links.list().find(({ name }) => name.startsWith('tl'))?.mac;
      const frame = `ether saddr ${hostMac} ether daddr ${podLink?.address} ${hops}`;
      for (const command of [
        'add table netdev seen',
        'add chain netdev seen in { type filter hook ingress device eth0 priority 0; }',
        `add rule netdev seen in udp dport ${PORT} counter`,
        `add rule netdev seen in ${frame} udp dport ${PORT} counter`,
      ])
        machine.run(server, `nft ${command}`);
      try {
        const taken = ask(client, addressesOf(server)[i] ?? '');
        // The first question and its answer never are.
        assert.ok(taken > 0 && taken <= 2 * QUESTIONS - 2, `${taken} taken`);
        const text = machine.run(server, 'nft list table netdev seen');
        const counts = [...text.matchAll(/counter packets (\d+)/g)].map(([, count]) => count);
        assert.deepEqual(counts, [String(QUESTIONS), String(QUESTIONS)], text);
      } finally {
        machine.run(server, 'nft delete table netdev seen');
      }
    });

  test('what it takes keeps the connection known for as long as the kernel would', () => {
    const port = ++localPort;
    ask(client, addressesOf(server)[0] ?? '', 1, port);
    const [entry] = entriesOf(port);
    assert.ok(entry !== undefined);
    // As if time had gone by.
    machine.run(
      machine.host,
      `conntrack -U -p udp --orig-src ${addressesOf(client)[0]} --orig-port-src ${port} --timeout 3`,
    );
    assert.ok((entriesOf(port)[0]?.timeoutSeconds ?? 99) <= 3);
    assert.ok(ask(client, addressesOf(server)[0] ?? '', QUESTIONS, port) > 0);
    assert.ok((entriesOf(port)[0]?.timeoutSeconds ?? 0) > 20);
  });

  test('a connection that policy has cut, or that is forgotten, goes the long way', () => {
    const to = addressesOf(server)[0] ?? '';
    const port = ++localPort;
    ask(client, to, 2, port);
    machine.conntrack.mark(entriesOf(port), { mask: CT_MARK_CUT, value: CT_MARK_CUT });
    assert.equal(ask(client, to, QUESTIONS, port), 0);
    machine.conntrack.mark(entriesOf(port), { mask: CT_MARK_CUT, value: 0 });
    assert.ok(ask(client, to, QUESTIONS, port) > 0);
    machine.conntrack.delete(entriesOf(port));
    assert.equal(ask(client, to, 1, port), 0);
  });

  test('nobody sends by the connection of another', async () => {
    const thief = await attach('thief');
    await until(() => fastPath.links === 4);
    const to = addressesOf(server)[0] ?? '';
    const from = addressesOf(client)[0] ?? '';
    const port = ++localPort;
    assert.ok(ask(client, to, QUESTIONS, port) > 0);
    const before = fastPath.counts().pod;
    machine.run(thief, `ip address add ${from}/32 dev lo`);
    machine.run(thief, `ip route replace ${to}/32 via 169.254.1.1 dev eth0 src ${from}`);
    assert.throws(() =>
      machine.run(thief, `${process.execPath} ${fixture('ask')} udp ${to} ${PORT} ${port}`),
    );
    assert.equal(fastPath.counts().pod, before);
    // Nor with its own address and another MAC.
    machine.run(client, 'ip link set eth0 address 02:00:00:00:00:99');
    assert.throws(() =>
      machine.run(client, `${process.execPath} ${fixture('ask')} udp ${to} ${PORT} ${port}`),
    );
    assert.equal(fastPath.counts().pod, before);
  });

  test('what is no plain packet of a known connection goes the long way', async () => {
    const to = addressesOf(server)[0] ?? '';
    const before = fastPath.counts().pod;
    // Nobody answers at this port of the server.
    const port = ++localPort;
    machine.run(server, 'nft add table inet deaf');
    machine.run(server, 'nft add chain inet deaf in { type filter hook input priority 0; }');
    machine.run(server, `nft add rule inet deaf in udp sport ${port} drop`);
    for (let i = 0; i < 3; i++)
      assert.throws(() =>
        machine.run(other, `${process.execPath} ${fixture('ask')} udp ${to} ${PORT} ${port}`),
      );
    assert.equal(fastPath.counts().pod, before);
    // More than a link carries: in fragments.
    const long = ++localPort;
    ask(other, to, 2, long);
    const known = fastPath.counts().pod;
    machine.run(other, `${process.execPath} ${fixture('ask')} udp ${to} ${PORT} ${long} 4000`);
    // The answer is short.
    assert.ok(fastPath.counts().pod - known <= 1);
  });

  test('a pod with a limit has none of it; a pod that goes takes its place along', async () => {
    const links = fastPath.links;
    const limit = { bandwidth: { ingressRate: 10_000_000, ingressBurst: 10_000_000 } };
    const limited = await attach('limited', limit);
    assert.equal(ask(other, addressesOf(limited)[0] ?? ''), 0);
    assert.equal(ask(limited, addressesOf(server)[0] ?? ''), 0);
    assert.equal(fastPath.links, links);
    const leaving = await attach('leaving');
    await until(() => fastPath.links === links + 1);
    assert.ok(ask(other, addressesOf(leaving)[0] ?? '') > 0);
    await machine.attacher.delete(machine.request('DEL', leaving));
    await until(() => fastPath.links === links);
  });

  test('comes to pods under traffic without a packet lost, and leaves alone those that have no room', async () => {
    const before = fastPath.links;
    const pods = [await attach('fresh'), await attach('older')] as const;
    const [, older] = pods;
    // As a version without the fast path has left it.
    await fastPath[Symbol.asyncDispose]();
    const { hostLink } =
      machine.attacher.list().find((it) => it.handle === `tulle.${older}.eth0`) ?? {};
    machine.run(machine.host, `tc qdisc del dev ${hostLink} clsact`);
    const pings = pods.map(async (pod) => {
      const argv = `netns exec ${other} ping -q -i 0.001 -c 2000 ${addressesOf(pod)[0]}`.split(' ');
      return (await promisify(execFile)('ip', argv)).stdout;
    });
    for (let i = 0; i < 5; i++) {
      await start();
      assert.equal(fastPath.links, before + 1);
      await sleep(200);
      if (i < 4) await fastPath[Symbol.asyncDispose]();
    }
    for (const text of await Promise.all(pings)) assert.match(text, / 0% packet loss/);
    assert.equal(ask(older, addressesOf(server)[0] ?? '', 1), 0);
    for (const pod of pods) await machine.attacher.delete(machine.request('DEL', pod));
    await until(() => fastPath.links === before);
  });

  describe('TCP', () => {
    /** A pod of another node, whose packets come by a link of the fabric. */
    const FAR = '192.0.2.200';
    let far: string;
    let uplink: number;
    /** Beyond all windows. */
    const MUCH = 64 * 1024 * 1024;
    /** So much that numbers of before look like numbers of later: they are counted modulo 4 GiB. */
    const VERY_MUCH = 2.5 * 1024 ** 3;

    before(async () => {
      far = machine.addNamespace('far');
      for (const [where, command] of [
        [machine.host, `ip link add ul0 type veth peer name ul0 netns ${far}`],
        [machine.host, 'ip address add 203.0.113.1/24 dev ul0'],
        [machine.host, 'ip link set ul0 up'],
        [far, 'ip address add 203.0.113.2/24 dev ul0'],
        [far, `ip address add ${FAR}/32 dev ul0`],
        [far, 'ip link set ul0 up'],
        [far, `ip route add 192.0.2.0/24 via 203.0.113.1 src ${FAR}`],
        [machine.host, `ip route add ${FAR}/32 via 203.0.113.2`],
      ] as const)
        machine.run(where, command);
      uplink = machine.stack.links.get('ul0')?.index ?? 0;
      await fastPath[Symbol.asyncDispose]();
      await startWithUplink();
      // As policy does: packets outside of a connection do not pass.
      machine.run(machine.host, 'nft add table inet strict');
      machine.run(
        machine.host,
        'nft add chain inet strict forward { type filter hook forward priority 0; }',
      );
      machine.run(machine.host, 'nft add rule inet strict forward ct state invalid counter drop');
    });

    const startWithUplink = () =>
      start({ exits: { list: () => [uplink], onChange: () => () => undefined } });

    interface Talk {
      /** Resolves with the next line that the program says. */
      readonly heard: () => Promise<string>;
      readonly say: (line: string) => void;
    }
    async function talk(pod: string, ...args: readonly string[]): Promise<Talk> {
      const argv = ['--disable-warning=ExperimentalWarning', STREAM, ...args];
      const child = spawn('ip', ['netns', 'exec', pod, process.execPath, ...argv], {
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      resources.defer(() => void child.kill('SIGKILL'));
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      return {
        heard: async () => String((await lines.next()).value),
        say: (line) => void child.stdin.write(`${line}\n`),
      };
    }
    interface Connection {
      readonly from: Talk;
      readonly to: Talk;
      /** @returns how many packets were taken meanwhile; of another node's, of those that came or of the answers */
      readonly send: (bytes: number) => Promise<number>;
    }
    async function connection(client: string): Promise<Connection> {
      const port = String(++localPort);
      const to = await talk(server, 'server', addressesOf(server)[0] ?? '', port);
      assert.equal(await to.heard(), 'ready');
      const from = await talk(client, 'client', addressesOf(server)[0] ?? '', port);
      assert.equal(await from.heard(), 'connected');
      const taken = () => {
        const { pod, node } = fastPath.counts();
        return client === far ? Math.min(pod, node) : pod;
      };
      const send = async (bytes: number) => {
        const before = taken();
        from.say(String(bytes));
        assert.equal(await from.heard(), 'sent');
        return taken() - before;
      };
      return { from, to, send };
    }
    /** What connection tracking has of the last connection. */
    const entry = () => machine.run(machine.host, `conntrack -L -p tcp --dport ${localPort}`);

    for (const [between, client] of [
      ['pods of one machine', () => other],
      ['a pod and another node', () => far],
    ] as const)
      describe(`between ${between}`, () => {
        test('is taken once it is established; its end is seen', async () => {
          const { from, to, send } = await connection(client());
          assert.ok((await send(MUCH)) > 100);
          from.say('end');
          assert.equal(await to.heard(), `end ${MUCH}`);
          await until(() => / (TIME_WAIT|LAST_ACK|CLOSE) /.test(entry()));
        });

        test('that is broken off is, and is forgotten soon', async () => {
          const { from, to, send } = await connection(client());
          assert.ok((await send(MUCH)) > 100);
          from.say('reset');
          assert.match(await to.heard(), /^reset /);
          const text = entry();
          const seconds = Number(/ (\d+) [A-Z_]{4}/.exec(text)?.[1]);
          assert.ok(text === '' || seconds <= 10, text);
        });

        test('goes on when the agent ends, and ends then', async () => {
          const { from, to, send } = await connection(client());
          assert.ok((await send(MUCH)) > 100);
          await fastPath[Symbol.asyncDispose]();
          await send(MUCH);
          from.say('end');
          assert.equal(await to.heard(), `end ${2 * MUCH}`);
          await startWithUplink();
        });

        test('that has carried gigabytes can be broken off after the agent has ended', async () => {
          const { from, to, send } = await connection(client());
          assert.ok((await send(VERY_MUCH)) > 100);
          await fastPath[Symbol.asyncDispose]();
          from.say('reset');
          assert.match(await to.heard(), /^reset /);
          await startWithUplink();
        });
      });
  });

  test('an agent that is no more takes nothing: what it has left on links has no leave', async () => {
    const to = addressesOf(server)[0] ?? '';
    const port = ++localPort;
    await fastPath[Symbol.asyncDispose]();
    // It dies right after its first word.
    await start({ clock: { ...systemClock, schedule: () => () => undefined } });
    const dead = fastPath;
    assert.ok(ask(other, to, QUESTIONS, port) > 0);
    await sleep(LEASE_MS);
    assert.equal(ask(other, to, QUESTIONS, port), 0);
    await start();
    assert.ok(ask(other, to, QUESTIONS, port) > 0);
    await dead[Symbol.asyncDispose]();
    assert.ok(ask(other, to, QUESTIONS, port) > 0);
  });

  test('without it everything goes on, and a later one takes over', async () => {
    const to = addressesOf(server)[0] ?? '';
    const port = ++localPort;
    assert.ok(ask(other, to, QUESTIONS, port) > 0);
    await fastPath[Symbol.asyncDispose]();
    machine.run(other, `${process.execPath} ${fixture('ask')} udp ${to} ${PORT} ${port}`);
    await start();
    assert.ok(ask(other, to, QUESTIONS, port) > 0);
  });
});
