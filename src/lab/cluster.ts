/**
 * Tulle itself in a lab: the server on the first machine, an agent on each, started with the same commands as on
 * real hosts and joined with a token.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { NODE } from '#api/core/v1/node.ts';
import { createApiClient } from '#client/http-client.ts';
import { loadKubeconfig } from '#client/kubeconfig.ts';
import type { ApiClient } from '#client/port.ts';
import { sleep } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import { identify, isAlive, type ProcessIdentity } from '#proc/identity.ts';
import { DAEMON_NODE_FLAGS } from '#proc/node-flags.ts';
import type { Lab } from './lab.ts';
import type { Machine } from './machine.ts';

const API_PORT = 6443;
const START_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 10_000;
const POLL_MS = 20;
const TULLE = resolve(import.meta.dirname, '../bin/tulle.ts');
/** Where `tulle server` leaves what others need, below the machine's `/var/lib/tulle`. */
const KUBECONFIG = 'server/admin.kubeconfig';
const JOIN_TOKEN = 'server/join-token';

export class LabCluster {
  readonly lab: Lab;
  /** What is started next: another version's `src/bin/tulle.ts` to try an upgrade. */
  program = TULLE;
  #server: ProcessIdentity | undefined;
  #agents = new Map<string, ProcessIdentity>();
  #client: ApiClient | undefined;

  constructor(lab: Lab) {
    this.lab = lab;
  }

  /** The machine that runs `tulle server`. */
  get serverMachine(): Machine {
    const [first] = this.lab.hosts;
    if (first === undefined) throw new Error('the lab has no machine');
    return first;
  }
  /** Kubeconfig that works on this computer, outside of the lab's machines. */
  get kubeconfig(): string {
    return join(this.lab.directory, 'admin.kubeconfig');
  }
  /** API client with all rights. @throws Error before the server has been started */
  get client(): ApiClient {
    if (this.#client === undefined) throw new Error('the server has not been started');
    return this.#client;
  }

  /**
   * Starts `tulle server` and waits until it answers. It also listens on this computer's loopback: the socket is
   * made here and handed over by the socket activation protocol (sd_listen_fds(3)), because a socket stays in the
   * network namespace that it was made in.
   */
  async startServer(flags: readonly string[] = []): Promise<void> {
    const machine = this.serverMachine;
    const listener = await this.#loopbackListener();
    try {
      this.#server = await machine.start(
        'server',
        [...this.#command('server'), '--listen', `${inUrl(machine.address)}:${API_PORT}`, ...flags],
        {
          // The PID is not known before the fork, and nothing stands between us and the program: it may be left out.
          env: { ...process.env, LISTEN_FDS: '1', LISTEN_FDNAMES: 'api' },
          inherit: [listener.fd],
        },
      );
    } finally {
      listener.close();
    }
    this.lab.note('apiPort', String(listener.port));
    await until('the API server answers', START_TIMEOUT_MS, async () => {
      this.#mustLive(this.#server, machine, 'server');
      const file = join(machine.directory, 'tulle', KUBECONFIG);
      if (!existsSync(file)) return false;
      writeFileSync(
        this.kubeconfig,
        readFileSync(file, 'utf8').replace(
          /server: .*/,
          `server: https://127.0.0.1:${listener.port}`,
        ),
        { mode: 0o600 },
      );
      this.#client ??= createApiClient(loadKubeconfig({ path: this.kubeconfig }));
      return (await this.#client.raw('GET', '/readyz')).status === 200;
    });
  }

  /** The same port as before, which the processes of a server just killed may hold for a moment yet. */
  async #loopbackListener(): ReturnType<typeof loopbackListener> {
    const port = Number(this.lab.notes.apiPort ?? 0);
    let listener: Awaited<ReturnType<typeof loopbackListener>> | undefined;
    await until(`port ${port} is free`, STOP_TIMEOUT_MS, async () => {
      listener = await loopbackListener(port);
      return true;
    });
    if (listener === undefined) throw new Error(`cannot listen on port ${port}`);
    return listener;
  }

  /** Ends `tulle server`: SIGKILL, as a crash would. */
  async killServer(): Promise<void> {
    await stop(this.#server, 'SIGKILL');
    this.#server = undefined;
  }

  /** Starts the agent of a machine; it joins with the token the first time. */
  /** @param options.flags more of the command line */
  async startAgent(
    machine: Machine,
    options: { nodeIp?: string; flags?: readonly string[] } = {},
  ): Promise<void> {
    const token = join(this.serverMachine.directory, 'tulle', JOIN_TOKEN);
    const identity = await machine.start('agent', [
      ...this.#command('agent'),
      '--server',
      `https://${inUrl(this.serverMachine.address)}:${API_PORT}`,
      '--token',
      readFileSync(token, 'utf8').trim(),
      '--node-ip',
      options.nodeIp ?? machine.address,
      ...(options.flags ?? []),
    ]);
    this.#agents.set(machine.name, identity);
  }

  /** Ends an agent as a service manager does. */
  async stopAgent(machine: Machine): Promise<void> {
    await stop(this.#agents.get(machine.name), 'SIGTERM');
    this.#agents.delete(machine.name);
  }

  async killAgent(machine: Machine): Promise<void> {
    const agent = this.#agents.get(machine.name);
    const letParentGoOn = parentOf(agent);
    await stop(agent, 'SIGKILL');
    letParentGoOn();
    this.#agents.delete(machine.name);
  }

  /** Stops an agent where it stands, and lets it go on, as a machine without time for it does. */
  pauseAgent(machine: Machine, isPaused: boolean): void {
    const agent = this.#agents.get(machine.name);
    if (agent === undefined) return;
    process.kill(agent.pid, isPaused ? 'SIGSTOP' : 'SIGCONT');
    if (!isPaused) parentOf(agent)();
  }

  /** Resolves when the Node of each of these machines is Ready. */
  async nodesReady(machines: readonly Machine[] = this.lab.hosts): Promise<void> {
    await until(
      `${machines.map((m) => m.name).join(', ')} are ready`,
      START_TIMEOUT_MS,
      async () => {
        for (const machine of machines)
          this.#mustLive(this.#agents.get(machine.name), machine, 'agent');
        const { items } = await this.client.list(NODE);
        const ready = items.filter((node) =>
          node.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True'),
        );
        return machines.every((machine) =>
          ready.some((node) => node.metadata.name === machine.name),
        );
      },
    );
  }

  #command(name: string): string[] {
    const flags = [...DAEMON_NODE_FLAGS, '--disable-warning=ExperimentalWarning'];
    return [process.execPath, ...flags, this.program, name];
  }

  #mustLive(identity: ProcessIdentity | undefined, machine: Machine, name: string): void {
    if (identity !== undefined && isAlive(identity)) return;
    const log = machine.logFile(name);
    const end = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n').slice(-8) : [];
    throw new FatalError(`tulle ${name} on ${machine.name} ended:\n  ${end.join('\n  ')}`);
  }
}

/** Waiting longer would not help. */
class FatalError extends Error {}

/** Polls until the condition holds. @throws Error that names what was waited for, with the last failure */
export async function until(
  what: string,
  timeoutMs: number,
  condition: () => Promise<boolean>,
): Promise<void> {
  const end = Date.now() + timeoutMs;
  let last: unknown;
  while (Date.now() < end) {
    try {
      if (await condition()) return;
      last = undefined;
    } catch (error) {
      if (error instanceof FatalError) throw error;
      last = error;
    }
    await sleep(POLL_MS);
  }
  const why = last === undefined ? '' : `: ${explainError(last)}`;
  throw new Error(`waited ${timeoutMs / 1000} s in vain until ${what}${why}`);
}

/** An address before a port: an IPv6 one in brackets. */
function inUrl(address: string): string {
  return address.includes(':') ? `[${address}]` : address;
}

async function stop(identity: ProcessIdentity | undefined, signal: NodeJS.Signals): Promise<void> {
  if (identity === undefined || !isAlive(identity)) return;
  process.kill(identity.pid, signal);
  await until(`process ${identity.pid} has ended`, STOP_TIMEOUT_MS, async () => !isAlive(identity));
}

/**
 * The parent, nsenter, stops itself when a process is stopped, and would stay so for ever.
 * @returns lets it go on; nothing if it is gone
 */
function parentOf(identity: ProcessIdentity | undefined): () => void {
  if (identity === undefined || !isAlive(identity)) return () => {};
  const status = readFileSync(`/proc/${identity.pid}/status`, 'utf8');
  const parent = identify(Number(/^PPid:\s*(\d+)$/m.exec(status)?.[1]));
  return () => {
    if (parent !== undefined && isAlive(parent)) process.kill(parent.pid, 'SIGCONT');
  };
}

/** A listening socket on the loopback of this computer, as a file descriptor to hand over. */
async function loopbackListener(
  port: number,
): Promise<{ fd: number; port: number; close: () => void }> {
  const server = createServer();
  await new Promise<void>((done, fail) => {
    server.once('error', fail);
    server.listen(port, '127.0.0.1', done);
  });
  const address = server.address();
  // Node offers no public way to a socket's descriptor; /proc gives a second one, but only of files. The handle has it.
  const { fd } = (server as unknown as { _handle: { fd: number } })._handle;
  if (address === null || typeof address === 'string' || fd < 0)
    throw new Error('cannot listen on the loopback address');
  return { fd, port: address.port, close: () => server.close() };
}
