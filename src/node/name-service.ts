/**
 * The node's name service, put together: the addresses, the server, what it remembers, and the socket of its log.
 *
 * It is the first thing an agent starts. Where an agent ran before, it answers from what that one knew before the API
 * has been reached at all.
 */
import type { Registry } from 'prom-client';
import { CONFIG_MAP, type ConfigMap } from '#api/core/v1/config-map.ts';
import { NAMESPACE } from '#api/core/v1/namespace.ts';
import { POD } from '#api/core/v1/pod.ts';
import { SERVICE, type Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { startCache } from '#client/cache.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import { isSpecChange } from '#client/spec-change.ts';
import { systemClock } from '#lib/clock.ts';
import { isNotFound } from '#lib/errors.ts';
import { type Cidr, hostCidr, type Ip, parseCidr, parseIp, splitCidr } from '#lib/ip.ts';
import { DNS_LINK_LOCAL_V4 } from '#lib/kernel-objects.ts';
import type { Logger } from '#lib/log.ts';
import type { NetworkStack } from '#linux/network/port.ts';
import { ALIASED_LABEL } from './aliases.ts';
import { AnswerRelay } from './answer-watch.ts';
import type { Attachments } from './attachment.ts';
import { DNS_CONFIG_MAP } from './dns/config.ts';
import { type Dns, type DnsStatus, startDns, type Upstream } from './dns/dns.ts';
import { HostResolver, type HostResolverOptions } from './dns/host-resolver.ts';
import { startQueryLogServer } from './dns/log-server.ts';
import { DnsMemory, type RememberedDns, readDnsMemory } from './dns/memory.ts';
import type { PartHealth } from './health.ts';
import { LocalAddresses } from './local-addresses/local-addresses.ts';

export interface NameServiceComponents {
  readonly client: ApiClient;
  readonly stack: NetworkStack;
  readonly services: Cache<Service>;
  readonly slices: Cache<EndpointSlice>;
  readonly pools: Cache<IPPool>;
  readonly log: Logger;
  readonly registry: Registry;
}

export interface NameServiceInit {
  readonly clusterDomain: string;
  /** Empty: the host's resolv.conf. */
  readonly upstreams: readonly Upstream[];
  /** Where it is kept what DNS knows. */
  readonly memoryFile: string;
  /** The unix socket of the query log. */
  readonly logSocket: string;
  /** The machine's own resolver is to ask here too. */
  readonly hostResolver?: HostResolverOptions | undefined;
}

/** The service whose cluster IPs the pods' resolv.conf names, in every Kubernetes. */
export const DNS_SERVICE = { namespace: 'kube-system', name: 'kube-dns' } as const;

/** @throws Error if there is no such service */
export async function dnsServiceAddresses(client: ApiClient): Promise<Ip[]> {
  const { name, namespace } = DNS_SERVICE;
  const service = await client.get(SERVICE, name, namespace).catch((error: unknown) => {
    if (isNotFound(error))
      throw new Error(`the cluster has no service ${namespace}/${name} to name in resolv.conf`);
    throw error;
  });
  return (service.spec.clusterIPs ?? []).flatMap((text) => parseIp(text) ?? []);
}

/** Every pod that comes or goes changes addresses of this machine several times. */
const ADDRESSES_DELAY_MS = 20;

export class NameService implements AsyncDisposable {
  /** Tells of answers from outside before pods have them. */
  readonly answers = new AnswerRelay();
  readonly #c: NameServiceComponents;
  readonly #init: NameServiceInit;
  readonly #remembered: RememberedDns | undefined;
  readonly #stack = new AsyncDisposableStack();
  #attachments: Attachments | undefined;
  #hostResolver: HostResolver | undefined;
  #running: { dns: Dns; addresses: readonly Ip[]; stack: AsyncDisposable } | undefined;

  private constructor(
    components: NameServiceComponents,
    init: NameServiceInit,
    remembered: RememberedDns | undefined,
  ) {
    this.#c = components;
    this.#init = init;
    this.#remembered = remembered;
  }

  /** Starts answering at once if an earlier agent left what it knew. */
  static async start(
    components: NameServiceComponents,
    init: NameServiceInit,
  ): Promise<NameService> {
    const remembered = await readDnsMemory(init.memoryFile, components.log);
    const service = new NameService(components, init, remembered);
    const changed = () => service.#running?.dns.clientsChanged();
    let cancel: (() => void) | undefined;
    const stopPools = components.pools.onChange((change) => {
      if (isSpecChange(change)) changed();
    });
    const stopNetwork = components.stack.watch((event) => {
      if (event.type !== 'address' && event.type !== 'overrun') return;
      cancel ??= systemClock.schedule(ADDRESSES_DELAY_MS, () => {
        cancel = undefined;
        changed();
      });
    });
    service.#stack.defer(() => {
      stopPools();
      stopNetwork();
      cancel?.();
    });
    service.#stack.use(
      await startQueryLogServer({
        path: init.logSocket,
        log: components.log,
        follow: (pod, listener) => service.#running?.dns.follow(pod, listener),
      }),
    );
    if (remembered !== undefined && remembered.domain === init.clusterDomain) {
      await service.serve(remembered.serviceIps);
      components.log.info(
        { names: remembered.names.length },
        'DNS answers from what it knew before, until the API tells what is new',
      );
    }
    return service;
  }

  /** The addresses that DNS answers on. */
  get addresses(): readonly Ip[] {
    return this.#running?.addresses ?? [];
  }

  /** Serves on the DNS service's addresses and the link-local one. @param serviceIps of the DNS service */
  async serve(serviceIps: readonly Ip[]): Promise<void> {
    const addresses = [...serviceIps, DNS_LINK_LOCAL_V4];
    if (this.#running?.addresses.join() === addresses.join()) return;
    await this.#running?.stack[Symbol.asyncDispose]();
    this.#running = undefined;
    const { client, stack, services, slices, log, registry } = this.#c;
    await using parts = new AsyncDisposableStack();
    const local = parts.use(new LocalAddresses({ stack, log }, { addresses }));
    await local.start();
    const { upstreams, clusterDomain, memoryFile } = this.#init;
    const memory = parts.use(
      new DnsMemory({
        path: memoryFile,
        head: () => ({ domain: clusterDomain, serviceIps, trusted: this.#pools() }),
        names: this.#remembered?.names ?? [],
        log,
      }),
    );
    const dns = parts.use(
      startDns({
        services,
        slices,
        namespaces: parts.use(startCache(client, NAMESPACE, { log })),
        configMaps: parts.use(this.#configMaps()),
        aliased: parts.use(
          startCache(client, POD, { labelSelector: `${ALIASED_LABEL}=true`, log }),
        ),
        openPods: () => startCache(client, POD, { log }),
        trusted: () => this.#trusted(),
        memory,
        answers: this.answers,
        listen: addresses,
        clusterDomain,
        log,
        registry,
        ...(this.#attachments === undefined ? {} : { attachments: this.#attachments }),
        ...(upstreams.length > 0 ? { upstreams } : {}),
      }),
    );
    this.#running = { dns, addresses, stack: parts.move() };
    this.#startHostResolver();
  }

  #startHostResolver(): void {
    const { hostResolver, clusterDomain: domain } = this.#init;
    if (hostResolver === undefined || this.#hostResolver !== undefined) return;
    const server = DNS_LINK_LOCAL_V4;
    const isReady = () => {
      const status = this.status();
      return status?.synced === true && status.listening.includes(`${server}:53/udp`);
    };
    const { log } = this.#c;
    this.#hostResolver = new HostResolver({ ...hostResolver, server, domain, isReady, log });
  }

  /** The node's pods are known from now on. */
  setAttachments(attachments: Attachments): void {
    this.#attachments = attachments;
    this.#running?.dns.setAttachments(attachments);
  }

  /** Forgets what upstreams said. */
  flush(): void {
    this.#running?.dns.flush();
  }

  status(): DnsStatus | undefined {
    const status = this.#running?.dns.status();
    const problem = this.#hostResolver?.problem;
    if (status === undefined || problem === undefined) return status;
    return { ...status, problems: [...status.problems, `the machine's resolver: ${problem}`] };
  }

  health(): PartHealth {
    const status = this.status();
    if (status === undefined) return { ready: false, message: 'is starting' };
    const { listening, failing, synced, names, problems } = status;
    if (failing.length > 0)
      return {
        ready: false,
        message: failing.map(({ socket, reason }) => `${socket}: ${reason}`).join('; '),
      };
    const ready = listening.length > 0 && synced;
    const known = ready ? `${names} names` : 'the services are not known yet';
    return { ready, message: [known, ...problems].join('; ') };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // First: nobody is sent to a server that goes.
    await this.#hostResolver?.[Symbol.asyncDispose]();
    await this.#stack[Symbol.asyncDispose]();
    await this.#running?.stack[Symbol.asyncDispose]();
  }

  #configMaps(): Cache<ConfigMap> & AsyncDisposable {
    const { namespace, name } = DNS_CONFIG_MAP;
    const fieldSelector = `metadata.name=${name}`;
    return startCache(this.#c.client, CONFIG_MAP, { namespace, fieldSelector, log: this.#c.log });
  }

  #pools(): Cidr[] {
    const { pools } = this.#c;
    if (!pools.isSynced) return [...(this.#remembered?.trusted ?? [])];
    return [...pools.values()].flatMap((pool) => parseCidr(pool.spec.cidr) ?? []);
  }

  /** The pods' networks, and this machine's addresses: the kernel takes no packet from outside with one of these. */
  #trusted(): Cidr[] {
    const own = this.#c.stack.addresses.list().flatMap(({ address }) => {
      const ip = splitCidr(address)?.address;
      return ip === undefined ? [] : [hostCidr(ip)];
    });
    return [...this.#pools(), ...own, ...this.addresses.map(hostCidr)];
  }
}
