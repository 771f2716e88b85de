/**
 * Endpoints come and go fifty times a second while clients connect: in peace, with the agent killed at random moments,
 * and with somebody else damaging our table. Short by default; TULLE_TEST_CHURN_SECONDS is the length of each of the
 * parts (300 is minutes, as an operator's worst rolling update), TULLE_TEST_KILLS how often at least the agent is killed,
 * TULLE_TEST_SERVICES how many more services there are. At full size, in some three minutes:
 *
 *   TULLE_TEST_SERVICES=44000 TULLE_TEST_KILLS=20 node --test src/node/services/churn.kernel.test.ts
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { after, afterEach, before, describe, test } from 'node:test';
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { FakeNftables } from '#linux/nftables/fake.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { type News, startBalancer } from './testing/balancer-process.ts';
import { ADDRESS } from './testing/flows.ts';
import { HEARING_MS, type Told, type Window, wrongConnections } from './testing/judge.ts';
import { sameState, serviceState } from './testing/kernel-state.ts';
import { type Connection, LOAD_CLIENT, LOAD_SERVER, nowMs } from './testing/load.ts';
import { type PipedProcess, World } from './testing/world.ts';

const SECONDS = Number(process.env.TULLE_TEST_CHURN_SECONDS ?? 4);
const KILLS = Number(process.env.TULLE_TEST_KILLS ?? 2);
const MORE_SERVICES = Number(process.env.TULLE_TEST_SERVICES ?? 0);
const CHANGE_INTERVAL_MS = 20;
const PORTS = [8081, 8082, 8083, 8084];
const SERVERS = ['podA', 'podB', 'remote'] as const;
const CLIENTS = ['podA', 'podB', 'node', 'client'] as const;
const ADDRESSES = SERVERS.map((place) => ADDRESS[4][place]);
/** Services whose endpoints change; the first keeps its clients by affinity. */
const CHANGING = [1, 2, 3, 4];
/** Its one endpoint stays. */
const STABLE = 9;
const STABLE_ENDPOINT = `${ADDRESS[4].podA}|${PORTS[0]}`;
/** Services that come and go, with nobody's connections. */
const FLEETING = [20, 21, 22];
const BALANCER = new URL('testing/balancer-process.ts', import.meta.url).pathname;

/** Foreign programs, as `nft` in the node's namespace says them. */
const DAMAGES = [
  'flush map ip tulle endpoints',
  'flush map ip tulle frontends',
  'flush set ip tulle cluster-ips',
  'flush chain ip tulle nat-prerouting',
  'flush chain ip tulle nat-postrouting',
  `delete element ip tulle frontends { ${clusterIp(STABLE)} . tcp . 80 }`,
  'add rule ip tulle nat-prerouting drop',
];
/**
 * With the last chain of type nat, or the last rule that asks for connections, of a namespace the kernel stops to
 * translate what is connected, too: packets of that moment are answered with resets.
 */
const CUTS = ['delete table ip tulle', 'flush ruleset', 'flush table ip tulle'];

describe('services under load', () => {
  let world: World;
  let balancer: Balancer;
  before(async () => {
    world = new World();
    for (const place of SERVERS) {
      const server = world.start(place, LOAD_SERVER, [ADDRESS[4][place], PORTS.join()]);
      await once(server.stdout, 'data');
    }
    balancer = new Balancer(world.node.path);
    for (const number of [...CHANGING, STABLE]) balancer.put({ service: serviceOf(number) });
    for (const number of CHANGING)
      for (const port of PORTS) balancer.put({ slice: sliceOf(number, port, ADDRESSES) });
    balancer.put({ slice: sliceOf(STABLE, PORTS[0] ?? 0, [ADDRESS[4].podA]) });
    await balancer.start();
  });
  after(async () => {
    await balancer.kill();
    await world[Symbol.asyncDispose]();
  });
  afterEach(async () => {
    await equalsFromScratch(balancer, world);
  });

  test('endpoints that change fail no connection, and one that is gone gets none', async () => {
    const connections = await underLoad(world, balancer);
    assert.deepEqual(wrong(connections, balancer), []);
  });

  test('an agent killed at any moment fails no connection', async (t) => {
    let kills = 0;
    const killWithin = async (ms: number) => {
      await sleep(Math.random() * ms);
      await balancer.kill();
      kills++;
    };
    const trouble = async () => {
      // At work with changes, and on its way to there.
      await killWithin(600);
      await Promise.all([balancer.start(), killWithin(balancer.startMs)]);
      await balancer.start();
    };
    const connections = await underLoad(world, balancer, trouble, KILLS / 2);
    t.diagnostic(`${connections.length} connections; killed ${kills} times`);
    assert.deepEqual(wrong(connections, balancer), []);
  });

  for (const [what, damages] of [
    ['damage', DAMAGES],
    ['delete', CUTS],
  ] as const)
    test(`a table that others ${what} fails no connection but those of the very moment`, async (t) => {
      const windows: Window[] = [];
      const repairMs: number[] = [];
      const connections = await underLoad(
        world,
        balancer,
        async () => {
          await sleep(300 + Math.random() * 300);
          const startMs = nowMs();
          const repaired = balancer.repaired();
          world.node.run('nft', damages[windows.length % damages.length] ?? '');
          const damagedMs = nowMs();
          await repaired;
          repairMs.push(nowMs() - damagedMs);
          windows.push({ startMs, endMs: nowMs() + HEARING_MS });
        },
        damages.length,
      );
      const ms = repairMs.map((it) => it.toFixed(0)).join(', ');
      t.diagnostic(`${connections.length} connections; repaired after ${ms} ms`);
      assert.deepEqual(wrong(connections, balancer, windows, damages === CUTS), []);
    });
});

/** Changes services for a while, with a trouble again and again, and all clients at work. */
async function underLoad(
  world: World,
  balancer: Balancer,
  trouble: () => Promise<void> = () => sleep(100),
  leastTroubles = 1,
): Promise<Connection[]> {
  const clients = CLIENTS.map((place) => startClient(world, place));
  const endMs = nowMs() + SECONDS * 1000;
  let isOver = false;
  const changing = (async () => {
    for (let i = 0; !isOver; i++) {
      change(balancer, i);
      await sleep(CHANGE_INTERVAL_MS);
    }
  })();
  // A busy machine gets the time it needs for each of them.
  for (let i = 0; i < leastTroubles || nowMs() < endMs; i++) await trouble();
  isOver = true;
  await changing;
  const connections = await Promise.all(clients.map((stop) => stop()));
  return connections.flat();
}

/** @returns ends it and gives what it made */
function startClient(world: World, place: (typeof CLIENTS)[number]): () => Promise<Connection[]> {
  const hosts = [...CHANGING, STABLE].map(clusterIp).join();
  const client: PipedProcess = world.start(place, LOAD_CLIENT, [hosts, clusterIp(STABLE)]);
  const made: Connection[] = [];
  const lines = createInterface({ input: client.stdout });
  lines.on('line', (line) => made.push(JSON.parse(line) as Connection));
  const closed = once(lines, 'close');
  return async () => {
    client.stdin.end();
    await closed;
    return made;
  };
}

/** One change: mostly another choice of endpoints, sometimes a service that comes or goes. */
function change(balancer: Balancer, i: number): void {
  if (i % 10 === 9) {
    const number = pick(FLEETING);
    if (Math.random() < 0.5) balancer.remove('service', `default/s${number}`);
    else {
      balancer.put({ service: serviceOf(number) });
      balancer.put({ slice: sliceOf(number, pick(PORTS), ADDRESSES.slice(i % 2)) });
    }
    return;
  }
  const [number, port] = [pick(CHANGING), pick(PORTS)];
  const chosen = ADDRESSES.filter(() => Math.random() < 0.4);
  // Never none at all: then connections are refused, and rightly.
  const isLast = balancer.endpointsOf(number).every((endpoint) => endpoint.endsWith(`|${port}`));
  const addresses = chosen.length > 0 || !isLast ? chosen : [pick(ADDRESSES)];
  balancer.put({ slice: sliceOf(number, port, addresses) });
}

/** Connections that went wrong, see {@link wrongConnections}. */
function wrong(
  connections: readonly Connection[],
  balancer: Balancer,
  windows: readonly Window[] = [],
  mayCut = false,
): string[] {
  assert.ok(connections.length > 20 * CLIENTS.length, `only ${connections.length} connections`);
  const stable = { hosts: [clusterIp(STABLE)], endpoint: STABLE_ENDPOINT };
  return wrongConnections(connections, balancer.history, { stable, windows, mayCut });
}

/** {@link Told}, to which it is added when it is done. */
interface Telling extends Told {
  readonly id: number;
  doneMs: number;
}

/** The process under test, and what it was told. */
class Balancer {
  readonly #netns: string;
  readonly #objects = new Map<string, object>();
  #child: ChildProcess | undefined;
  #id = 0;
  /** How long the last start took. */
  startMs = 0;
  #onRepaired: () => void = () => {};
  readonly history: Telling[] = [];

  constructor(netns: string) {
    this.#netns = netns;
  }

  /** What there is, as news. */
  *news(): Generator<News> {
    for (const object of this.#objects.values()) yield { id: this.#id, ...object } as News;
    yield { id: this.#id, start: true };
  }

  put(object: { service: Service } | { slice: EndpointSlice }): void {
    const [kind = ''] = Object.keys(object);
    const { metadata } = 'service' in object ? object.service : object.slice;
    this.#objects.set(`${kind} default/${metadata.name}`, object);
    this.#tell({ id: ++this.#id, ...object });
    if ('service' in object) return;
    const number = Number(/^s(\d+)-/.exec(metadata.name)?.[1]);
    this.history.push({
      ...{ id: this.#id, host: clusterIp(number), sentMs: nowMs(), doneMs: Infinity },
      endpoints: this.endpointsOf(number),
    });
  }

  /** `address|port` of what a service has now. */
  endpointsOf(number: number): string[] {
    return [...this.#objects].flatMap(([key, object]) => {
      if (!key.startsWith(`slice default/s${number}-`)) return [];
      const { slice } = object as { slice: EndpointSlice };
      const port = slice.ports?.[0]?.port;
      return slice.endpoints?.map(({ addresses }) => `${addresses[0]}|${port}`) ?? [];
    });
  }

  remove(kind: 'service' | 'slice', key: string): void {
    this.#objects.delete(`${kind} ${key}`);
    this.#tell({ id: ++this.#id, remove: kind, key });
  }

  /** Resolves when all that there is is in the kernel, or it is killed before. */
  async start(): Promise<void> {
    const beginMs = nowMs();
    const argv = [
      '--disable-warning=ExperimentalWarning',
      BALANCER,
      this.#netns,
      String(MORE_SERVICES),
    ];
    const child = spawn(process.execPath, argv, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child = child;
    child.stdin.on('error', () => {
      // It was killed; the next one is told everything.
    });
    const lines = createInterface({ input: child.stdout });
    lines.on('line', (line) => {
      const { done, repaired } = JSON.parse(line) as { done?: number; repaired?: true };
      if (done !== undefined) this.#onDone(done);
      if (repaired !== undefined) this.#onRepaired();
    });
    for (const news of this.news()) this.#tell(news);
    await Promise.race([
      once(lines, 'line'),
      once(child, 'exit').then(([code, signal]) => {
        if (this.#child === child)
          throw new Error(`the balancer ended by itself: ${code ?? signal}`);
      }),
    ]);
    if (this.#child === child) this.startMs = nowMs() - beginMs;
  }

  /** Resolves at the next repair. */
  repaired(): Promise<void> {
    return new Promise((resolve) => {
      this.#onRepaired = resolve;
    });
  }

  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined) return;
    assert.equal(child.exitCode ?? child.signalCode, null, 'the balancer ended by itself');
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  }

  #tell(news: News): void {
    this.#child?.stdin?.write(`${JSON.stringify(news)}\n`);
  }

  #onDone(id: number): void {
    const doneMs = nowMs();
    for (let i = this.history.length - 1; i >= 0; i--) {
      const told = this.history[i];
      if (told === undefined || told.doneMs !== Infinity) break;
      if (told.id <= id) told.doneMs = doneMs;
    }
  }
}

/** Waits until the kernel has what a plan made from scratch has; the test runner's time limit ends a wait in vain. */
async function equalsFromScratch(balancer: Balancer, world: World): Promise<void> {
  await using stack = new AsyncDisposableStack();
  const fake = new FakeNftables();
  const tell = await startBalancer(stack, fake, { more: MORE_SERVICES });
  for (const news of balancer.news()) await tell(news);
  const nftables = stack.use(openNftables({ netns: world.node.path }));
  const wanted = JSON.stringify(serviceState(fake));
  const endMs = nowMs() + 10_000;
  while (nowMs() < endMs && JSON.stringify(serviceState(nftables)) !== wanted) await sleep(50);
  sameState(nftables, fake);
}

function clusterIp(number: number): string {
  return `10.96.0.${number}`;
}

function serviceOf(number: number): Service {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: `s${number}`, namespace: 'default' },
    spec: {
      ...{ clusterIP: clusterIp(number), clusterIPs: [clusterIp(number)] },
      ports: [{ port: 80, protocol: 'TCP' }],
      ...(number === CHANGING[0] ? { sessionAffinity: 'ClientIP' } : {}),
    },
  };
}

/** A service has one slice for each number that its port has. */
function sliceOf(number: number, port: number, addresses: readonly string[]): EndpointSlice {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: `s${number}-${port}`,
      namespace: 'default',
      labels: { 'kubernetes.io/service-name': `s${number}` },
    },
    addressType: 'IPv4',
    ports: [{ name: '', protocol: 'TCP', port }],
    endpoints: addresses.map((address) => ({
      addresses: [address],
      conditions: { ready: true },
      nodeName: address === ADDRESS[4].remote ? 'm2' : 'm1',
    })),
  };
}

function pick<T>(list: readonly T[]): T {
  return list[Math.floor(Math.random() * list.length)] as T;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
