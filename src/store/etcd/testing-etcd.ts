/** An etcd of one or several members for tests and benchmarks, of Debian's `etcd-server`, on this machine's loopback. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sleep } from '#lib/clock.ts';

/** A reason to skip, or `false` if there is an etcd. */
export function etcdMissing(): string | false {
  return spawnSync('etcd', ['--version']).status === 0
    ? false
    : 'there is no etcd here (Debian: etcd-server)';
}

export interface EtcdMember {
  /** Of the client port. */
  readonly url: string;
  /** With SIGKILL. */
  kill(): Promise<void>;
  /** Starts it again with the data it has. */
  restart(): Promise<void>;
  /** Stops it where it is (SIGSTOP): its connections stay, and say nothing. */
  freeze(): void;
  thaw(): void;
}

export interface TestEtcd extends AsyncDisposable {
  readonly urls: readonly string[];
  readonly members: readonly EtcdMember[];
  /** The member that leads at the moment. */
  leader(): Promise<EtcdMember>;
  /** What the members have written to their logs. */
  logs(): string;
}

export interface TestEtcdOptions {
  readonly members?: number;
  /** Where the data goes; default: the directory for temporary files. */
  readonly parent?: string;
  /** More of etcd's options, without the data directory and URLs. */
  readonly args?: readonly string[];
  /** `https`: the args name the certificates. */
  readonly scheme?: 'http' | 'https';
}

const READY_MS = 20_000;

/** Starts a cluster and waits until it answers. */
export async function startEtcd(options: TestEtcdOptions = {}): Promise<TestEtcd> {
  const { members: count = 1, args = [], scheme = 'http' } = options;
  const directory = mkdtempSync(join(options.parent ?? tmpdir(), 'tulle-etcd-'));
  const ports = await freePorts(2 * count);
  const names = Array.from({ length: count }, (_, i) => `m${i}`);
  const peerUrl = (i: number) => `http://127.0.0.1:${ports[2 * i + 1]}`;
  const cluster = names.map((name, i) => `${name}=${peerUrl(i)}`).join(',');
  const members = names.map((name, i) => {
    const url = `${scheme}://127.0.0.1:${ports[2 * i]}`;
    return new Member(url, join(directory, `${name}.log`), [
      ...['--name', name, '--data-dir', join(directory, name)],
      ...['--listen-client-urls', url, '--advertise-client-urls', url],
      ...['--listen-peer-urls', peerUrl(i), '--initial-advertise-peer-urls', peerUrl(i)],
      ...['--initial-cluster', cluster, '--initial-cluster-token', directory],
      ...['--logger', 'zap', '--log-outputs', 'stderr'],
      ...args,
    ]);
  });
  const etcd: TestEtcd = {
    urls: members.map((member) => member.url),
    members,
    async leader() {
      for (;;) {
        for (const member of members) if (await isLeader(member.url)) return member;
        await sleep(50);
      }
    },
    logs: () => members.map((member) => member.log()).join('\n'),
    async [Symbol.asyncDispose]() {
      await Promise.all(members.map((member) => member.kill()));
      rmSync(directory, { recursive: true, force: true });
    },
  };
  try {
    await Promise.all(members.map((member) => member.start()));
    if (scheme === 'http') await Promise.all(members.map((member) => ready(member)));
    return etcd;
  } catch (error) {
    await etcd[Symbol.asyncDispose]();
    throw error;
  }
}

class Member implements EtcdMember {
  readonly url: string;
  readonly #args: readonly string[];
  readonly #logPath: string;
  #process: ChildProcess | undefined;

  constructor(url: string, logPath: string, args: readonly string[]) {
    this.url = url;
    this.#args = args;
    this.#logPath = logPath;
  }

  async start(): Promise<void> {
    const log = openSync(this.#logPath, 'a');
    this.#process = spawn('etcd', this.#args, {
      stdio: ['ignore', log, log],
    });
    await once(this.#process, 'spawn');
  }

  async restart(): Promise<void> {
    await this.start();
    await ready(this);
  }

  async kill(): Promise<void> {
    const running = this.#process;
    this.#process = undefined;
    if (running === undefined || running.exitCode !== null || running.signalCode !== null) return;
    const exit = once(running, 'exit');
    running.kill('SIGKILL');
    await exit;
  }

  freeze(): void {
    this.#process?.kill('SIGSTOP');
  }

  thaw(): void {
    this.#process?.kill('SIGCONT');
  }

  log(): string {
    return readFileSync(this.#logPath, 'utf8');
  }
}

async function ready(member: Member): Promise<void> {
  const endMs = performance.now() + READY_MS;
  for (;;) {
    if (await answers(member.url)) return;
    if (performance.now() > endMs)
      throw new Error(`etcd at ${member.url} does not answer; its log:\n${member.log()}`);
    await sleep(50);
  }
}

/** Also if it answers that it wants a password. */
async function answers(url: string): Promise<boolean> {
  try {
    const { status } = await fetch(`${url}/v3/kv/range`, {
      method: 'POST',
      body: JSON.stringify({ key: 'AA==' }),
      signal: AbortSignal.timeout(3_000),
    });
    return status < 500;
  } catch {
    // Not there yet: the caller asks again.
    return false;
  }
}

async function isLeader(url: string): Promise<boolean> {
  const status = await post(url, 'maintenance/status', {});
  const { header, leader } = (status ?? {}) as {
    header?: { member_id?: string };
    leader?: string;
  };
  return header?.member_id !== undefined && header.member_id === leader;
}

/** @returns `undefined` if it did not answer */
export async function post(url: string, path: string, body: object): Promise<unknown> {
  try {
    const response = await fetch(`${url}/v3/${path}`, {
      method: 'POST',
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(3_000),
    });
    return response.ok ? await response.json() : undefined;
  } catch {
    // Not there, or not yet: the caller asks again.
    return undefined;
  }
}

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports: number[] = [];
  for (const server of servers) {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('a port has a number');
    ports.push(address.port);
  }
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
