/**
 * The main thread's half of the DNS server: starts the worker, starts it again when it crashes, gives it the names, and
 * does what needs an event loop: TCP and forwarding.
 *
 * ```text
 *   pods ── UDP ──► worker: table, cache ──(not ours, not cached)──► forwarder ──► upstream
 *   pods ── TCP ──► main thread ──► worker ──► main thread ──► pods
 *   API  ── caches ──► zone ──(changed names)──► worker
 * ```
 */
import { randomInt } from 'node:crypto';
import {
  MessageChannel,
  type MessagePort,
  receiveMessageOnPort,
  Worker,
} from 'node:worker_threads';
import { Backoff } from '#lib/backoff.ts';
import { explainError } from '#lib/errors.ts';
import { cidr, familyOf, type Ip } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { closeOrphan } from '#linux/udp-batch.ts';
import { WakeEvent } from '#linux/wake-event.ts';
import type { Name } from '#wire/dns/name.ts';
import { DEFAULT_CONFIG, type DnsConfig } from '../config.ts';
import type { Forwarder } from '../forward.ts';
import type { NameChange } from '../zone.ts';
import type {
  ClientTable,
  FromWorker,
  StatsDelta,
  ToWorker,
  WorkerConfig,
  WorkerSettings,
} from './messages.ts';
import type { LoggedQuery } from './responder.ts';
import { TcpListener } from './tcp.ts';

/** Names per message: the worker answers queries between two. */
const MAX_CHANGES_PER_MESSAGE = 1000;
/** Queries over TCP that wait for the worker; bounded by connections too, this is for all listeners. */
const MAX_TCP_PENDING = 4096;
/** The worker allocates little; a large nursery would only hold what came with the first names. */
const MAX_YOUNG_GENERATION_MB = 8;
/** A worker that does not stop by itself is ended. */
const STOP_TIMEOUT_MS = 3000;
const HASH_SEEDS = 2 ** 31;

/** Prefixes that are every machine's own. */
export const LOOPBACKS = [cidr('127.0.0.0/8'), cidr('::1/128')];

/** What of a configuration concerns the worker. */
export function settingsOf(config: DnsConfig): Omit<WorkerSettings, 'flush'> {
  const { pods, searchPath, cacheEntries, serveStaleS, prefetch, cookies } = config;
  const limits = {
    queriesPerSecond: config.queriesPerSecond,
    namespaces: config.namespaceQueriesPerSecond,
  };
  return { podMode: pods, searchPath, cacheEntries, serveStaleS, prefetch, cookies, limits };
}

export interface DnsServerOptions {
  readonly listen: readonly Ip[];
  /** 0 takes free ones, different for UDP and TCP: for tests. */
  readonly port: number;
  readonly zone: Name;
  readonly forwarder: Pick<Forwarder, 'resolve'>;
  readonly log: Logger;
  /** All names: for a new worker. */
  readonly snapshot: () => { changes: Iterable<NameChange>; serial: number; synced: boolean };
  readonly onStats?: (stats: StatsDelta) => void;
  readonly onLogged?: (queries: readonly LoggedQuery[], lost: number) => void;
  /** Default: {@link settingsOf} of the default configuration. */
  readonly settings?: Omit<WorkerSettings, 'flush'>;
  /** Default: nobody is known, everybody on this machine trusted. */
  readonly clients?: ClientTable;
  /** Another worker: for tests. */
  readonly workerUrl?: URL;
}

type SocketReport = Extract<FromWorker, { kind: 'sockets' }>;

export class DnsServer implements AsyncDisposable {
  readonly #options: DnsServerOptions;
  readonly #tcp: readonly TcpListener[];
  readonly #tcpPending = new Map<number, (answer: Uint8Array | undefined) => void>();
  readonly #backoff = new Backoff({ minMs: 50, maxMs: 5000 });
  #current:
    | {
        worker: Worker;
        port: MessagePort;
        wake: WakeEvent;
        sent: Int32Array;
        exited: Promise<void>;
      }
    | undefined;
  #restartTimer: NodeJS.Timeout | undefined;
  #sockets: SocketReport = { kind: 'sockets', open: [], failing: [] };
  #socketListeners: (() => void)[] = [];
  #settings: Omit<WorkerSettings, 'flush'>;
  #clients: ClientTable;
  readonly #logged = new Set<string>();
  #nextToken = 1;
  #stopping = false;
  /** The worker has closed its sockets. */
  #hasStopped = false;
  /** How often the worker was started again. */
  restarts = 0;

  constructor(options: DnsServerOptions) {
    this.#options = options;
    this.#settings = options.settings ?? settingsOf(DEFAULT_CONFIG);
    this.#clients = options.clients ?? { pods: [], trusted: LOOPBACKS };
    this.#start();
    this.#tcp = options.listen.map(
      (address) =>
        new TcpListener({
          address,
          port: options.port,
          log: options.log,
          answer: (query, peer) => this.#answerTcp(query, peer),
        }),
    );
  }

  /** Gives changed names to the worker. @param synced all services are in */
  apply(changes: readonly NameChange[], options: { serial: number; synced: boolean }): void {
    // Without a worker there is nobody to tell: the next one gets everything.
    if (this.#current !== undefined) this.#sendNames(changes, options);
  }

  /** @param flush upstreams have changed: what others said counts no more */
  configure(settings: Omit<WorkerSettings, 'flush'>, { flush }: { flush: boolean }): void {
    this.#settings = settings;
    this.#send({ kind: 'settings', settings: { ...settings, flush } });
  }

  setClients(clients: ClientTable): void {
    this.#clients = clients;
    this.#send({ kind: 'clients', clients });
  }

  /** Turns the log of a pod's queries on or off. @param pod `namespace/name` */
  setLogged(pod: string, on: boolean): void {
    if (on) this.#logged.add(pod);
    else this.#logged.delete(pod);
    this.#send({ kind: 'log', pod, on });
  }

  get listening(): string[] {
    const udp = this.#sockets.open.map((socket) => `${endpoint(socket.address, socket.port)}/udp`);
    const tcp = this.#eachTcp().flatMap(({ address, listener }) =>
      listener.failure === undefined ? [`${endpoint(address, listener.port ?? 0)}/tcp`] : [],
    );
    return [...udp, ...tcp];
  }
  get failing(): { socket: string; reason: string }[] {
    const udp = this.#sockets.failing.map(({ address, port, reason }) => ({
      socket: `${endpoint(address, port)}/udp`,
      reason,
    }));
    const tcp = this.#eachTcp().flatMap(({ address, listener }) =>
      listener.failure === undefined
        ? []
        : [{ socket: `${endpoint(address, this.#options.port)}/tcp`, reason: listener.failure }],
    );
    return [...udp, ...tcp];
  }

  /** Resolves when the worker next says which sockets it has. */
  nextSocketReport(): Promise<void> {
    return new Promise((resolve) => this.#socketListeners.push(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#restartTimer);
    await Promise.all(this.#tcp.map((listener) => listener[Symbol.asyncDispose]()));
    const current = this.#current;
    if (current === undefined) return;
    this.#send({ kind: 'stop' });
    const timer = setTimeout(() => {
      this.#options.log.warn({}, 'the DNS worker does not stop and is ended');
      current.worker.terminate().catch((error: unknown) => {
        this.#options.log.error({ err: error }, 'the DNS worker cannot be ended');
      });
    }, STOP_TIMEOUT_MS);
    await current.exited;
    clearTimeout(timer);
  }

  #start(): void {
    const { listen, port, zone, log } = this.#options;
    const wake = new WakeEvent();
    const channel = new MessageChannel();
    const config: WorkerConfig = {
      listen: listen.map((address) => ({ address, port })),
      zone,
      seed: randomInt(HASH_SEEDS),
      wakeFd: wake.fd,
      sent: new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT),
    };
    const sent = new Int32Array(config.sent);
    const worker = new Worker(this.#options.workerUrl ?? new URL('./worker.ts', import.meta.url), {
      workerData: { port: channel.port2, config },
      transferList: [channel.port2],
      name: 'tulle-dns',
      resourceLimits: { maxYoungGenerationSizeMb: MAX_YOUNG_GENERATION_MB },
    });
    worker.on('error', (error) => {
      log.error({ err: error }, `the DNS worker crashed: ${explainError(error)}`);
    });
    const exited = new Promise<void>((resolve) => {
      worker.on('exit', () => {
        // What it said last: whether it closed its sockets must be known before they are closed for it.
        for (let last = receiveMessageOnPort(channel.port1); last !== undefined; ) {
          this.#receive(last.message as FromWorker);
          last = receiveMessageOnPort(channel.port1);
        }
        channel.port1.close();
        wake[Symbol.dispose]();
        this.#onExit();
        resolve();
      });
    });
    channel.port1.on('message', (message: FromWorker) => this.#receive(message));
    this.#current = { worker, port: channel.port1, wake, sent, exited };
    this.#send({ kind: 'settings', settings: { ...this.#settings, flush: false } });
    this.#send({ kind: 'clients', clients: this.#clients });
    for (const pod of this.#logged) this.#send({ kind: 'log', pod, on: true });
    const { changes, serial, synced } = this.#options.snapshot();
    this.#sendNames(changes, { serial, synced });
  }

  #onExit(): void {
    this.#current = undefined;
    if (!this.#hasStopped) for (const { fd } of this.#sockets.open) closeOrphan(fd);
    this.#hasStopped = false;
    this.#sockets = { kind: 'sockets', open: [], failing: [] };
    for (const resolve of this.#tcpPending.values()) resolve(undefined);
    this.#tcpPending.clear();
    if (this.#stopping) return;
    this.restarts++;
    this.#restartTimer = setTimeout(() => this.#start(), this.#backoff.next());
  }

  #receive(message: FromWorker): void {
    switch (message.kind) {
      case 'sockets':
        this.#onSockets(message);
        break;
      case 'forward':
        this.#forward(message);
        break;
      case 'reply':
        this.#tcpPending.get(message.token)?.(message.bytes);
        this.#tcpPending.delete(message.token);
        break;
      case 'stats':
        // A worker that lives long enough to report is no crash loop.
        this.#backoff.reset();
        this.#options.onStats?.(message.stats);
        break;
      case 'logged':
        this.#options.onLogged?.(message.queries, message.lost);
        break;
      case 'stopped':
        this.#hasStopped = true;
        break;
    }
  }

  #onSockets(message: SocketReport): void {
    this.#sockets = message;
    for (const { address, port, reason } of message.failing)
      this.#options.log.warn({ address, port, reason }, 'DNS cannot listen on UDP, will retry');
    for (const resolve of this.#socketListeners.splice(0)) resolve();
  }

  #forward({ token, question }: Extract<FromWorker, { kind: 'forward' }>): void {
    const worker = this.#current;
    const answer = (bytes: Uint8Array | undefined) => {
      // Tokens are of one worker; its successor does not know this one.
      if (this.#current === worker) this.#send({ kind: 'resolved', token, bytes });
    };
    this.#options.forwarder.resolve(question).then(answer, (error: unknown) => {
      this.#options.log.error({ err: error, name: question.name }, 'forwarding a query failed');
      answer(undefined);
    });
  }

  #answerTcp(bytes: Uint8Array, peer: Ip): Promise<Uint8Array | undefined> {
    if (this.#current === undefined || this.#tcpPending.size >= MAX_TCP_PENDING)
      return Promise.resolve(undefined);
    const token = this.#nextToken++;
    return new Promise((resolve) => {
      this.#tcpPending.set(token, resolve);
      this.#send({ kind: 'query', token, bytes, peer });
    });
  }

  #sendNames(
    changes: Iterable<NameChange>,
    { serial, synced }: { serial: number; synced: boolean },
  ): void {
    let part: NameChange[] = [];
    for (const change of changes) {
      if (part.length === MAX_CHANGES_PER_MESSAGE) {
        // "Synced" is true only with the last part.
        this.#send({ kind: 'names', changes: part, serial, synced: false });
        part = [];
      }
      part.push(change);
    }
    this.#send({ kind: 'names', changes: part, serial, synced });
  }

  #send(message: ToWorker): void {
    if (this.#current === undefined) return;
    const { port, wake, sent } = this.#current;
    port.postMessage(message);
    // After the message: who sees the number finds the message.
    Atomics.add(sent, 0, 1);
    wake.signal();
  }

  #eachTcp(): { address: Ip; listener: TcpListener }[] {
    return this.#options.listen.flatMap((address, i) => {
      const listener = this.#tcp[i];
      return listener === undefined ? [] : [{ address, listener }];
    });
  }
}

function endpoint(address: Ip, port: number): string {
  return familyOf(address) === 4 ? `${address}:${port}` : `[${address}]:${port}`;
}
