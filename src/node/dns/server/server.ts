/**
 * The DNS server: two threads that answer, started, told what they have to know and started again when they crash. The
 * main thread has no part in an answer.
 *
 * ```text
 *   pods ── UDP ──► responder: table, kept answers ──(neither)──► forwarder ──► upstream
 *   pods ── TCP ──► forwarder ──► responder ──► forwarder ──► pods
 *   API  ── caches ──► zone ──(changed names)──► responder
 * ```
 */
import { randomInt } from 'node:crypto';
import { MessageChannel, type MessagePort } from 'node:worker_threads';
import { explainError } from '#lib/errors.ts';
import { cidr, familyOf, type Ip } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { closeOrphan } from '#linux/udp-batch.ts';
import { WakeEvent } from '#linux/wake-event.ts';
import type { Name } from '#wire/dns/name.ts';
import { type AnswerRelay, isWanted } from '../../answer-watch.ts';
import { DEFAULT_CONFIG, type DnsConfig } from '../config.ts';
import type { ForwardCounts } from '../forward-stats.ts';
import type { Upstream } from '../upstream.ts';
import type { NameChange } from '../zone.ts';
import type {
  ClientTable,
  Endpoint,
  ForwarderConfig,
  ForwarderReport,
  FromForwarder,
  FromResponder,
  Inbox,
  ResponderConfig,
  ResponderSettings,
  StatsDelta,
  ToForwarder,
  ToResponder,
} from './messages.ts';
import type { LoggedQuery } from './request.ts';
import { Thread } from './thread.ts';

/** Names per message: the responder answers queries between two. */
const MAX_CHANGES_PER_MESSAGE = 1000;
/** The responder allocates little; a large nursery would only hold what came with the first names. */
const RESPONDER_YOUNG_MB = 8;
/** Questions on their way outside live for milliseconds and are few. */
const FORWARDER_YOUNG_MB = 8;
const HASH_SEEDS = 2 ** 31;

/** Prefixes that are every machine's own. */
export const LOOPBACKS = [cidr('127.0.0.0/8'), cidr('::1/128')];

/** What of a configuration concerns the responder. */
export function settingsOf(config: DnsConfig): ResponderSettings {
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
  /** Where names outside are asked; default: at the name servers of the host's resolv.conf. */
  readonly upstreams?: readonly Upstream[];
  readonly log: Logger;
  /** All names: for a new responder. */
  readonly snapshot: () => { changes: Iterable<NameChange>; serial: number; synced: boolean };
  readonly onStats?: (stats: StatsDelta) => void;
  readonly onForwarded?: (counts: ForwardCounts) => void;
  readonly onLogged?: (queries: readonly LoggedQuery[], lost: number) => void;
  /** Is told of answers from upstreams before a pod has them. */
  readonly answers?: AnswerRelay;
  /** Default: nobody is known, everybody on this machine trusted. */
  readonly clients?: ClientTable;
  /** Other threads: for tests. */
  readonly responderUrl?: URL;
  readonly forwarderUrl?: URL;
}

type SocketReport = Extract<FromResponder, { kind: 'sockets' }>;

const NO_SOCKETS: SocketReport = { kind: 'sockets', open: [], failing: [] };
const NO_REPORT: ForwarderReport = { open: [], failing: [], upstreams: [], problems: [] };

export class DnsServer implements AsyncDisposable {
  readonly #options: DnsServerOptions;
  readonly #places: readonly Endpoint[];
  /** Wakes the responder, whichever it is: of the whole life, so that nobody ever signals another's descriptor. */
  readonly #wake = new WakeEvent();
  readonly #responder: Thread<ToResponder, FromResponder>;
  readonly #forwarder: Thread<ToForwarder, FromForwarder>;
  /** Counts the messages to the responder that runs now. */
  #sent = new Int32Array(new SharedArrayBuffer(0));
  #sockets = NO_SOCKETS;
  #report = NO_REPORT;
  #socketListeners: (() => void)[] = [];
  #config: DnsConfig = DEFAULT_CONFIG;
  #epoch = 1;
  #clients: ClientTable;
  readonly #logged = new Set<string>();
  /** The responder has closed its sockets. */
  #hasStopped = false;

  constructor(options: DnsServerOptions) {
    this.#options = options;
    const { listen, port, log, clients } = options;
    this.#places = listen.map((address) => ({ address, port }));
    this.#clients = clients ?? { pods: [], trusted: LOOPBACKS };
    this.#responder = new Thread<ToResponder, FromResponder>({
      name: 'tulle-dns',
      url: options.responderUrl ?? new URL('./worker.ts', import.meta.url),
      log,
      maxYoungGenerationMb: RESPONDER_YOUNG_MB,
      config: () => this.#responderConfig(),
      onStart: () => this.#introduceResponder(),
      onMessage: (message) => this.#onResponder(message),
      stop: () => this.#send({ kind: 'stop' }),
    });
    this.#forwarder = new Thread<ToForwarder, FromForwarder>({
      name: 'tulle-dns-fwd',
      url: options.forwarderUrl ?? new URL('./forward-worker.ts', import.meta.url),
      log,
      maxYoungGenerationMb: FORWARDER_YOUNG_MB,
      config: (): ForwarderConfig => ({ listen: this.#places }),
      onStart: () => {
        this.#sendForwarderSettings();
        this.#connect();
      },
      onMessage: (message) => this.#onForwarder(message),
      onExit: () => {
        this.#report = NO_REPORT;
      },
      stop: () => this.#forwarder.send({ kind: 'stop' }),
    });
    this.#responder.start();
    this.#forwarder.start();
  }

  /** Gives changed names to the responder. @param synced all services are in */
  apply(changes: readonly NameChange[], options: { serial: number; synced: boolean }): void {
    // Without one there is nobody to tell: the next gets everything.
    if (this.#responder.isRunning) this.#sendNames(changes, options);
  }

  /** @param flush what upstreams said until now counts no more */
  configure(config: DnsConfig, { flush }: { flush: boolean }): void {
    this.#config = config;
    if (flush) this.#epoch++;
    this.#sendForwarderSettings();
    this.#sendSettings();
  }

  /** Other names are wanted by policies than before. @param flush also such as have been asked for unseen */
  wantedChanged({ flush }: { flush: boolean }): void {
    this.configure(this.#config, { flush });
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
    return this.#describe(({ open }, transport) =>
      open.map((place) => `${format(place)}/${transport}`),
    );
  }
  get failing(): { socket: string; reason: string }[] {
    return this.#describe(({ failing }, transport) =>
      failing.map(({ reason, ...place }) => ({ socket: `${format(place)}/${transport}`, reason })),
    );
  }
  /** Name servers that are asked for names that no rule is for. */
  get upstreams(): readonly Upstream[] {
    return this.#report.upstreams;
  }
  /** Name servers that do not answer, or lead back here. */
  get problems(): readonly string[] {
    return this.#report.problems;
  }
  /** How often a thread was started again. */
  get restarts(): number {
    return this.#responder.restarts + this.#forwarder.restarts;
  }

  /** Resolves when one of the threads next says which sockets it has. */
  nextSocketReport(): Promise<void> {
    return new Promise((resolve) => this.#socketListeners.push(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([
      this.#responder[Symbol.asyncDispose](),
      this.#forwarder[Symbol.asyncDispose](),
    ]);
    this.#wake[Symbol.dispose]();
    if (!this.#hasStopped) for (const { fd } of this.#sockets.open) closeOrphan(fd);
    this.#sockets = NO_SOCKETS;
  }

  #responderConfig(): ResponderConfig {
    const sent = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
    this.#sent = new Int32Array(sent);
    return {
      listen: this.#places,
      // A crashed one's stay open for the next: what arrives meanwhile waits in them.
      inherited: this.#sockets.open,
      zone: this.#options.zone,
      seed: randomInt(HASH_SEEDS),
      wakeFd: this.#wake.fd,
      sent,
    };
  }

  #introduceResponder(): void {
    this.#sendSettings();
    this.#send({ kind: 'clients', clients: this.#clients });
    for (const pod of this.#logged) this.#send({ kind: 'log', pod, on: true });
    this.#connect();
    const { changes, serial, synced } = this.#options.snapshot();
    this.#sendNames(changes, { serial, synced });
    this.#send({ kind: 'ready' });
  }

  /** Lets the two threads talk with each other. */
  #connect(): void {
    if (!this.#responder.isRunning || !this.#forwarder.isRunning) return;
    const { port1, port2 } = new MessageChannel();
    const sent = new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT);
    const inbox = (port: typeof port1): Inbox => ({ port, sent });
    this.#send({ kind: 'forwarder', inbox: inbox(port1) }, port1);
    const wakeFd = this.#wake.fd;
    this.#forwarder.send({ kind: 'responder', inbox: inbox(port2), wakeFd }, [port2]);
  }

  #onResponder(message: FromResponder): void {
    switch (message.kind) {
      case 'sockets':
        this.#sockets = message;
        for (const { address, port, reason } of message.failing)
          this.#options.log.warn({ address, port, reason }, 'DNS cannot listen on UDP, will retry');
        this.#tellListeners();
        break;
      case 'stats':
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

  #onForwarder(message: FromForwarder): void {
    const { answers, log, onForwarded } = this.#options;
    switch (message.kind) {
      case 'report':
        this.#report = message.report;
        this.#tellListeners();
        break;
      case 'counts':
        onForwarded?.(message.counts);
        break;
      case 'line':
        log[message.level](message.fields, message.text);
        break;
      case 'asked':
        if (isWanted(message.name, answers?.wanted())) answers?.asked(message.name, message.family);
        break;
      case 'answered':
        this.#onAnswered(message);
        break;
    }
  }

  /** The answer waits for this: what policies make of it must be in the kernel before a pod has it. */
  #onAnswered(message: Extract<FromForwarder, { kind: 'answered' }>): void {
    const { answers, log } = this.#options;
    const { token, name, family, addresses } = message;
    let ok = true;
    try {
      if (isWanted(name, answers?.wanted())) answers?.answered(name, family, addresses);
    } catch (error) {
      ok = false;
      log.error({ name, reason: explainError(error) }, 'policies cannot use a DNS answer');
    }
    this.#forwarder.send({ kind: 'told', token, ok });
  }

  #sendSettings(): void {
    const settings = settingsOf(this.#config);
    this.#send({ kind: 'settings', settings, epoch: this.#epoch });
  }

  #sendForwarderSettings(): void {
    const { upstreams, answers } = this.#options;
    const { zones, forward, maxConcurrent, randomizeCase } = this.#config;
    const config = { zones, forward, maxConcurrent, randomizeCase };
    // Without anybody to tell there is nothing to be told.
    const wanted = answers === undefined ? new Set<string>() : answers.wanted();
    this.#forwarder.send({ kind: 'settings', config, upstreams, wanted, epoch: this.#epoch });
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

  #send(message: ToResponder, ...transfer: MessagePort[]): void {
    if (!this.#responder.isRunning) return;
    this.#responder.send(message, transfer);
    // After the message: who sees the number finds the message.
    Atomics.add(this.#sent, 0, 1);
    this.#wake.signal();
  }

  #describe<T>(
    describe: (
      report: Pick<SocketReport | ForwarderReport, 'open' | 'failing'>,
      transport: 'udp' | 'tcp',
    ) => T[],
  ): T[] {
    return [...describe(this.#sockets, 'udp'), ...describe(this.#report, 'tcp')];
  }

  #tellListeners(): void {
    for (const resolve of this.#socketListeners.splice(0)) resolve();
  }
}

function format({ address, port }: Endpoint): string {
  return familyOf(address) === 4 ? `${address}:${port}` : `[${address}]:${port}`;
}
