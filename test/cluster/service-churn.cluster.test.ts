/**
 * Services on three lab machines whose endpoints change fifty times a second, through the API, while pods, a machine and
 * a client outside connect to them all the time; then the same with agents killed at random moments. A connection may only
 * fail if its endpoint goes, and none may reach an endpoint that the kernel of its machine has no more.
 * Short by default; TULLE_TEST_CHURN_SECONDS is the length of each of the two parts.
 */
import assert from 'node:assert/strict';
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { after, before, describe, type TestContext, test } from 'node:test';
import { POD } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE, type EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { type LabCluster, until } from '#lab/cluster.ts';
import { runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import { EINTR, isErrno } from '#lib/errors.ts';
import { type Ip, ip, ipFromBytes, ipToBytes, parseIp } from '#lib/ip.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { type Told, wrongConnections } from '#node/services/testing/judge.ts';
import { type Connection, LOAD_CLIENT, LOAD_SERVER, nowMs } from '#node/services/testing/load.ts';
import { enterPod } from './pod-traffic.ts';
import { startCluster } from './start-cluster.ts';

const SECONDS = Number(process.env.TULLE_TEST_CHURN_SECONDS ?? 10);
const NAME = 'test-service-churn';
const WAIT_MS = 30_000;
const CHANGE_INTERVAL_MS = 20;
/** Changes between two of the mark by which it is seen how far an agent is. */
const CHANGES_PER_MARK = 10;
const LOOK_INTERVAL_MS = 25;
/** Of a client's worker between two connections: the machines are to do something else, too. */
const PAUSE_MS = 20;
const PORTS = [8081, 8082, 8083, 8084];
const POD_OF = { m1: 'one', m2: 'two', m3: 'three' } as const;
type MachineName = keyof typeof POD_OF;
const MACHINES = Object.keys(POD_OF) as MachineName[];
/** Services whose endpoints change; the first keeps its clients by affinity. */
const CHANGING = ['a', 'b', 'c', 'd'];
/** Its one endpoint stays. */
const STABLE = 'stable';
const MARK = 'mark';
const SERVICES = [...CHANGING, STABLE, MARK];
/** The machine whose node ports the client outside uses. */
const ENTRY = 'm2';

type Process = ChildProcessByStdio<Writable, Readable, null>;

/** A change as it was told. */
interface Change {
  readonly service: string;
  readonly endpoints: readonly string[];
  readonly sentMs: number;
  /** The first mark that was told after it. */
  readonly mark: number;
}

describe('services of three machines', () => {
  let lab: Lab;
  let cluster: LabCluster;
  const processes: Process[] = [];
  const pods = new Map<string, Ip>();
  const clusterIps = new Map<string, string>();
  const slices = new Map<string, EndpointSlice>();
  const changes: Change[] = [];
  /** When the kernel of each machine was seen to have a mark: `[mark, ms]`, in order. */
  const seen = new Map(MACHINES.map((name) => [name, [] as [number, number][]]));
  let mark = 1;

  before(async () => {
    ({ lab, cluster } = await startCluster({ name: NAME, machines: MACHINES.length }));
    for (const [machine, name] of Object.entries(POD_OF))
      await runContainer(lab.machine(machine), { name, role: 'client' });
    for (const [machine, name] of Object.entries(POD_OF)) {
      const address = await podAddress(name);
      pods.set(name, address);
      const server = await start(machine, name, LOAD_SERVER, [address, PORTS.join()]);
      await once(server.stdout, 'data');
    }
    for (const name of SERVICES) await createService(name);
    for (const name of CHANGING)
      for (const port of PORTS) await tell(name, port, [...pods.values()]);
    await tell(STABLE, PORTS[0] ?? 0, [pods.get(POD_OF.m1) ?? '']);
    await tellMark();
    await caughtUp(MACHINES);
  });
  after(async () => {
    for (const child of processes) child.kill('SIGKILL');
    await Lab.remove(NAME);
  });

  test('that change fail no connection', async (t) => {
    await underLoad(t, () => sleep(100));
  });

  test('that change fail no connection when agents are killed at any moment', async (t) => {
    let kills = 0;
    let longestMs = 0;
    await underLoad(t, async () => {
      await sleep(Math.random() * 1000);
      const name = MACHINES[kills++ % MACHINES.length] ?? 'm1';
      const killedMs = nowMs();
      await cluster.killAgent(lab.machine(name));
      await cluster.startAgent(lab.machine(name));
      await caughtUp([name]);
      longestMs = Math.max(longestMs, nowMs() - killedMs);
    });
    t.diagnostic(`${kills} agents killed; up to date after at most ${longestMs.toFixed(0)} ms`);
  });

  /** Changes services for a while, with a trouble again and again, and all clients at work. */
  async function underLoad(t: TestContext, trouble: () => Promise<void>): Promise<void> {
    let isOver = false;
    const running = () => !isOver;
    const clients = [
      await startClient('m1', POD_OF.m1, clusterIps),
      await startClient('m2', POD_OF.m2, clusterIps),
      await startClient('m3', undefined, clusterIps),
      await startClient('outside', undefined, nodePorts()),
    ];
    const from = nowMs();
    const told = changes.length;
    const background = [changeServices(running), ...MACHINES.map((name) => look(name, running))];
    try {
      while (nowMs() - from < SECONDS * 1000) await trouble();
    } finally {
      isOver = true;
      await Promise.all(background);
    }
    await tellMark();
    await caughtUp(MACHINES);
    const made = await Promise.all(clients.map((stop) => stop()));
    const connections = made.flatMap((it) => it.connections);
    const seconds = ((nowMs() - from) / 1000).toFixed(0);
    t.diagnostic(
      `${changes.length - told} changes, ${connections.length} connections in ${seconds} s`,
    );
    assert.ok(changes.length - told > 5 * SECONDS, 'the API takes changes too slowly');
    for (const { machine, connections: ours } of made) {
      assert.ok(ours.length > 20, `only ${ours.length} connections by ${machine}`);
      const hosts = [clusterIps, nodePorts()].flatMap((it) => it.get(STABLE) ?? []);
      const stable = { hosts, endpoint: `${pods.get(POD_OF.m1)}|${PORTS[0]}` };
      assert.deepEqual(wrongConnections(ours, historyOf(machine), { stable }), [], `by ${machine}`);
    }
    for (const name of MACHINES) endpointsAreRight(name);
  }

  /** Runs a program in a pod, or in a machine. */
  async function start(
    machine: string,
    pod: string | undefined,
    source: string,
    args: readonly string[],
  ): Promise<Process> {
    const within = pod === undefined ? [] : await enterPod(lab.machine(machine), pod);
    const [program = '', ...argv] = lab
      .machine(machine)
      .enter([...within, process.execPath, '-e', source, ...args]);
    const child = spawn(program, argv, { stdio: ['pipe', 'pipe', 'inherit'] });
    processes.push(child);
    return child;
  }

  /** @returns ends it and gives what it made, and which machine's kernel led it */
  async function startClient(
    machine: string,
    pod: string | undefined,
    hosts: ReadonlyMap<string, string>,
  ): Promise<() => Promise<{ machine: MachineName; connections: Connection[] }>> {
    const all = [...CHANGING, STABLE].map((name) => hosts.get(name));
    const client = await start(machine, pod, LOAD_CLIENT, [
      ...[all.join(), hosts.get(STABLE) ?? '', String(PAUSE_MS)],
    ]);
    const connections: Connection[] = [];
    const lines = createInterface({ input: client.stdout });
    lines.on('line', (line) => connections.push(JSON.parse(line) as Connection));
    const closed = once(lines, 'close');
    return async () => {
      client.stdin.end();
      await closed;
      return { machine: machine === 'outside' ? ENTRY : (machine as MachineName), connections };
    };
  }

  async function podAddress(name: string): Promise<Ip> {
    let address: Ip | undefined;
    await until(`pod ${name} is known`, WAIT_MS, async () => {
      const { status } = await cluster.client.get(POD, name, 'default');
      address = parseIp(status?.podIP ?? '');
      return address !== undefined;
    });
    assert.ok(address);
    return address;
  }

  async function createService(name: string): Promise<void> {
    const { spec } = await cluster.client.create(SERVICE, {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace: 'default' },
      spec: {
        type: 'NodePort',
        ports: [{ port: 80, protocol: 'TCP', nodePort: 30_000 + SERVICES.indexOf(name) }],
        ...(name === CHANGING[0] ? { sessionAffinity: 'ClientIP' } : {}),
      },
    });
    clusterIps.set(name, spec.clusterIP ?? '');
  }

  function nodePorts(): Map<string, string> {
    const { address } = lab.machine(ENTRY);
    return new Map(SERVICES.map((name, i) => [name, `${address}|${30_000 + i}`]));
  }

  /** Tells the API what endpoints a port of a service has; a service has one slice for each port. */
  async function tell(service: string, port: number, addresses: readonly string[]): Promise<void> {
    const name = `${service}-${port}`;
    const old = slices.get(name);
    const slice: EndpointSlice = {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: old?.metadata ?? {
        ...{ name, namespace: 'default' },
        labels: { 'kubernetes.io/service-name': service },
      },
      addressType: 'IPv4',
      ports: [{ name: '', protocol: 'TCP', port }],
      endpoints: addresses.map((address) => ({
        addresses: [address],
        conditions: { ready: true },
      })),
    };
    const sentMs = nowMs();
    slices.set(name, slice);
    changes.push({ service, endpoints: endpointsOf(service), sentMs, mark });
    const { client } = cluster;
    const stored = await (old === undefined
      ? client.create(ENDPOINT_SLICE, slice)
      : client.update(ENDPOINT_SLICE, slice));
    // Not its endpoints: the next ones may be told by now.
    slices.set(name, { ...(slices.get(name) ?? slice), metadata: stored.metadata });
  }

  /** `address|port` of what a service has now. */
  function endpointsOf(service: string): string[] {
    return [...slices].flatMap(([name, { ports, endpoints }]) =>
      name.startsWith(`${service}-`)
        ? (endpoints ?? []).map(({ addresses }) => `${addresses[0]}|${ports?.[0]?.port}`)
        : [],
    );
  }

  /** The mark's endpoint is its number: an agent that has it has all changes before it, because it sees them in order. */
  async function tellMark(): Promise<void> {
    await tell(MARK, PORTS[0] ?? 0, [`198.18.${mark >> 8}.${mark & 255}`]);
    mark++;
  }

  async function changeServices(running: () => boolean): Promise<void> {
    /** By slice, which takes one change at a time. */
    const pending = new Map<string, Promise<void>>();
    for (let i = 0, nextMs = nowMs(); running(); i++) {
      const [service, port] = [pick(CHANGING), pick(PORTS)];
      await pending.get(`${service}-${port}`);
      const chosen = [...pods.values()].filter(() => Math.random() < 0.4);
      // Never none at all: then connections are refused, and rightly.
      const isLast = endpointsOf(service).every((endpoint) => endpoint.endsWith(`|${port}`));
      const addresses = chosen.length > 0 || !isLast ? chosen : [pick([...pods.values()])];
      const change = tell(service, port, addresses);
      // What fails is thrown where it is awaited.
      change.catch(() => undefined);
      pending.set(`${service}-${port}`, change);
      if (i % CHANGES_PER_MARK === CHANGES_PER_MARK - 1) {
        await Promise.all(pending.values());
        await tellMark();
      }
      nextMs += CHANGE_INTERVAL_MS;
      await sleep(nextMs - nowMs());
    }
    await Promise.all(pending.values());
  }

  /** Notes when a machine's kernel has which mark. */
  async function look(name: MachineName, running: () => boolean = () => false): Promise<void> {
    using nftables = openNftables({ netns: lab.machine(name).netns });
    do {
      const [endpoint] = endpointsOrNone(nftables, MARK);
      const [, , high, low] = endpoint?.split('|')[0]?.split('.').map(Number) ?? [];
      const found = (high ?? 0) * 256 + (low ?? 0);
      const notes = seen.get(name) ?? [];
      if (endpoint !== undefined && found !== notes.at(-1)?.[0]) notes.push([found, nowMs()]);
      await sleep(LOOK_INTERVAL_MS);
    } while (running());
  }

  /** Waits until the kernels have all that was told until now. */
  async function caughtUp(names: readonly MachineName[]): Promise<void> {
    const last = mark - 1;
    for (const name of names)
      await until(`${name} has all changes`, WAIT_MS, async () => {
        await look(name);
        return (seen.get(name)?.at(-1)?.[0] ?? 0) >= last;
      });
  }

  /** The changes of all services by all their names, with the time when a machine's kernel had them. */
  function historyOf(machine: MachineName): Told[] {
    const notes = seen.get(machine) ?? [];
    return [clusterIps, nodePorts()].flatMap((hosts) =>
      changes.map(({ service, endpoints, sentMs, mark: needed }) => ({
        ...{ host: hosts.get(service) ?? '', endpoints, sentMs },
        doneMs: notes.find(([found]) => found >= needed)?.[1] ?? Infinity,
      })),
    );
  }

  function kernelEndpoints(nftables: ReturnType<typeof openNftables>, service: string): string[] {
    const address = Buffer.from(ipToBytes(ip(clusterIps.get(service) ?? '')));
    const elements = nftables.elementsOf({ family: 'ip', table: 'tulle', set: 'endpoints' });
    return [...elements].flatMap(({ key, data }) =>
      address.equals(key.subarray(0, 4)) && data !== undefined
        ? `${ipFromBytes(data.subarray(0, 4))}|${((data[4] ?? 0) << 8) | (data[5] ?? 0)}`
        : [],
    );
  }

  /** None too where the ruleset changed during each of the kernel's answers: who looks often looks again. */
  function endpointsOrNone(nftables: ReturnType<typeof openNftables>, service: string): string[] {
    try {
      return kernelEndpoints(nftables, service);
    } catch (error) {
      if (!isErrno(error, EINTR)) throw error;
      return [];
    }
  }

  function endpointsAreRight(name: MachineName): void {
    using nftables = openNftables({ netns: lab.machine(name).netns });
    for (const service of SERVICES)
      assert.deepEqual(
        new Set(kernelEndpoints(nftables, service)),
        new Set(endpointsOf(service)),
        `${service} on ${name}`,
      );
  }
});

function pick<T>(list: readonly T[]): T {
  return list[Math.floor(Math.random() * list.length)] as T;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)));
}
