/**
 * The agent's DNS feature: answers for the cluster's names, forwards and caches the rest.
 *
 * Names come from the caches of Services and EndpointSlices. While the API is away the caches keep what they know, and so
 * do the answers; before the caches are full for the first time, cluster names get SERVFAIL, never "does not exist".
 */
import type { Registry } from 'prom-client';
import type { ConfigMap } from '#api/core/v1/config-map.ts';
import type { Namespace } from '#api/core/v1/namespace.ts';
import type { Pod } from '#api/core/v1/pod.ts';
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import type { Cache } from '#client/port.ts';
import { UserError } from '#lib/errors.ts';
import type { Cidr, Ip } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { canonicalName, type Name, parseName } from '#wire/dns/name.ts';
import type { AnswerRelay } from '../answer-watch.ts';
import { type Attachments, ipsOf } from '../attachment.ts';
import { DEFAULT_CONFIG, DNS_CONFIG_MAP, type DnsConfig, parseDnsConfig } from './config.ts';
import { ZoneFeed } from './feed.ts';
import type { DnsMemory } from './memory.ts';
import { createDnsMetrics, type DnsMetrics } from './metrics.ts';
import { QueryLog } from './query-log.ts';
import type { ClientTable } from './server/messages.ts';
import type { LoggedQuery } from './server/request.ts';
import { DnsServer, LOOPBACKS } from './server/server.ts';
import type { Upstream } from './upstream.ts';
import { type NameChange, Zone } from './zone.ts';

export type { Upstream };

const DNS_PORT = 53;
const CONFIG_KEY = `${DNS_CONFIG_MAP.namespace}/${DNS_CONFIG_MAP.name}`;
const DEFAULT_CLUSTER_DOMAIN = 'cluster.local';
export interface DnsOptions {
  readonly services: Cache<Service>;
  readonly slices: Cache<EndpointSlice>;
  /** Addresses to answer on, over UDP and TCP. They may appear on the machine later than the server starts. */
  readonly listen: readonly Ip[];
  /** Default 53. 0 takes free ports: for tests. */
  readonly port?: number;
  /** Default `cluster.local`. */
  readonly clusterDomain?: string;
  /** Default: the name servers of the host's resolv.conf, followed as it changes. */
  readonly upstreams?: readonly Upstream[];
  /** Without it a namespace exists while a service is in it. */
  readonly namespaces?: Cache<Namespace>;
  /** Opens a cache of all pods of the cluster, for names of pods that are verified. */
  readonly aliased?: Cache<Pod>;
  readonly openPods?: () => Cache<Pod> & AsyncDisposable;
  /** The configuration, `kube-system/tulle-dns`. */
  readonly configMaps?: Cache<ConfigMap>;
  /** The pods of this node. */
  readonly attachments?: Attachments;
  /** Prefixes whose addresses nobody outside can send from: of the pods, and this machine's own. */
  readonly trusted?: () => readonly Cidr[];
  /** Is told of answers from upstreams before a pod has them. */
  readonly answers?: AnswerRelay;
  /** What the agent before this one knew, see `memory.ts`. */
  readonly memory?: DnsMemory;
  readonly log: Logger;
  readonly registry: Registry;
}

export interface DnsStatus {
  /** Sockets that are open: `10.96.0.10:53/udp`. */
  readonly listening: readonly string[];
  /** Sockets that could not be opened, with the reason. They are tried again. */
  readonly failing: readonly { readonly socket: string; readonly reason: string }[];
  /** Whether all of the API's services were in at least once; before that cluster names get SERVFAIL. */
  readonly synced: boolean;
  /** Count of names that exist in the cluster domain and of reverse names. */
  readonly names: number;
  /** Count of queries answered since start, a second old at most. */
  readonly queries: number;
  readonly upstreams: readonly Upstream[];
  /** How often a thread had to be started again after a crash. */
  readonly restarts: number;
  /** What a person should know: mistakes in the configuration, upstreams that do not answer. */
  readonly problems: readonly string[];
}

export interface Dns extends AsyncDisposable {
  status(): DnsStatus;
  /** Reads `attachments` and `trusted` again; attachments tell of their changes themselves. */
  clientsChanged(): void;
  /** The pods are known from now on. */
  setAttachments(attachments: Attachments): void;
  /** Forgets what upstreams said; policies may want to know of other names than before. */
  flush(): void;
  /**
   * Follows the queries of one pod.
   * @param pod `namespace/name`
   * @returns a function that ends it
   */
  follow(pod: string, listener: (query: LoggedQuery) => void): () => void;
}

/**
 * Starts the DNS server. Returns at once; sockets open and names come as they can, see {@link Dns.status}.
 * @throws UserError if the cluster domain is no domain name, or there is nothing to listen on
 */
export function startDns(options: DnsOptions): Dns {
  const domain = parseName(options.clusterDomain ?? DEFAULT_CLUSTER_DOMAIN);
  if (domain === undefined || domain === '.')
    throw new UserError(`cluster domain: "${options.clusterDomain}" is not a domain name`, {
      hint: 'Give a name such as "cluster.local".',
    });
  if (options.listen.length === 0)
    throw new UserError('DNS has no address to listen on', {
      hint: 'Give the DNS service’s cluster address.',
    });
  return new RunningDns(options, canonicalName(domain));
}

class RunningDns implements Dns {
  readonly #options: DnsOptions;
  readonly #metrics: DnsMetrics;
  readonly #zone: Zone;
  readonly #feed: ZoneFeed;
  readonly #server: DnsServer;
  readonly #log: QueryLog;
  readonly #stops: (() => void)[] = [];
  #attachments: Attachments | undefined;
  #config: DnsConfig = DEFAULT_CONFIG;
  #configProblems: readonly string[] = [];

  constructor(options: DnsOptions, domain: Name) {
    this.#options = options;
    const { log, listen } = options;
    this.#metrics = createDnsMetrics(options.registry);
    this.#zone = new Zone(domain, listen);
    this.#feed = new ZoneFeed({
      ...options,
      zone: this.#zone,
      remembered: options.memory?.names ?? [],
      onProgrammed: (durationS) => this.#metrics.programmed(durationS),
    });
    this.#log = new QueryLog((pod, on) => this.#server.setLogged(pod, on));
    this.#server = new DnsServer({
      listen,
      port: options.port ?? DNS_PORT,
      zone: domain,
      log,
      snapshot: () => ({ changes: this.#feed.all(), ...this.#state() }),
      onStats: (stats) => this.#metrics.add(stats),
      onForwarded: (counts) => this.#metrics.addForwarded(counts),
      onLogged: (queries) => this.#log.add(queries),
      ...(options.upstreams === undefined ? {} : { upstreams: options.upstreams }),
      ...(options.answers === undefined ? {} : { answers: options.answers }),
      ...(options.trusted === undefined ? {} : { clients: this.#clients() }),
    });
    this.#feed.start((changes) => this.#publish(changes));
    this.#configure();
    const { configMaps, attachments, answers } = options;
    if (configMaps !== undefined)
      this.#stops.push(configMaps.onChange(({ key }) => key === CONFIG_KEY && this.#configure()));
    if (attachments !== undefined) this.setAttachments(attachments);
    if (answers !== undefined)
      this.#stops.push(answers.onAttach(() => this.#server.wantedChanged({ flush: false })));
  }

  status(): DnsStatus {
    return {
      listening: this.#server.listening,
      failing: this.#server.failing,
      synced: this.#feed.synced,
      names: this.#zone.size,
      queries: this.#metrics.queries,
      upstreams: this.#server.upstreams,
      restarts: this.#server.restarts,
      problems: [...this.#configProblems, ...this.#server.problems],
    };
  }

  clientsChanged(): void {
    this.#server.setClients(this.#clients());
  }

  setAttachments(attachments: Attachments): void {
    this.#attachments = attachments;
    this.#stops.push(attachments.onChange(() => this.clientsChanged()));
    this.clientsChanged();
  }

  flush(): void {
    this.#server.wantedChanged({ flush: true });
  }

  follow(pod: string, listener: (query: LoggedQuery) => void): () => void {
    return this.#log.follow(pod, listener);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const stop of this.#stops) stop();
    this.#feed[Symbol.dispose]();
    await this.#server[Symbol.asyncDispose]();
    this.#metrics[Symbol.dispose]();
  }

  #publish(changes: readonly NameChange[]): void {
    this.#server.apply(changes, this.#state());
    if (this.#feed.isCurrent) this.#options.memory?.changed(() => this.#zone.all());
  }

  #state(): { serial: number; synced: boolean } {
    return { serial: this.#feed.serial, synced: this.#feed.synced };
  }

  /** Puts the configuration to use. Queries go on being answered meanwhile, by the old one or the new. */
  #configure(): void {
    const { configMaps, log } = this.#options;
    const { config, problems } = parseDnsConfig(configMaps?.get(CONFIG_KEY)?.data ?? {});
    const isFirst = this.#config === DEFAULT_CONFIG;
    for (const problem of problems)
      if (!this.#configProblems.includes(problem))
        log.warn({ configMap: CONFIG_KEY, problem }, 'the DNS configuration has a mistake');
    this.#configProblems = problems.map((problem) => `ConfigMap ${CONFIG_KEY}: ${problem}`);
    const forwarding = ({ forward, zones }: DnsConfig) => JSON.stringify([forward, zones]);
    const flush = !isFirst && forwarding(config) !== forwarding(this.#config);
    this.#config = config;
    this.#server.configure(config, { flush });
    this.#feed.configure(config);
  }

  #clients(): ClientTable {
    const pods = (this.#attachments?.list() ?? []).flatMap((attachment) => {
      const pod = `${attachment.pod.namespace}/${attachment.pod.name}`;
      return ipsOf(attachment).map((address) => ({ address, pod }));
    });
    return { pods, trusted: [...LOOPBACKS, ...(this.#options.trusted?.() ?? LOOPBACKS)] };
  }
}
