/**
 * The agent of a node: puts the features together, in the order in which they need each other.
 *
 * Stopping it leaves everything in the kernel as it is: traffic goes on, and the next agent takes over.
 */
import { collectDefaultMetrics, Registry } from 'prom-client';
import { NAMESPACE } from '#api/core/v1/namespace.ts';
import { NODE } from '#api/core/v1/node.ts';
import { POD } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE } from '#api/discovery/v1/endpoint-slice.ts';
import type { KindRef } from '#api/kind.ts';
import type { KubeObject } from '#api/meta.ts';
import { IP_BLOCK } from '#api/tulle/v1alpha1/ip-block.ts';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { type CacheOptions, startCache } from '#client/cache.ts';
import type { ApiClient } from '#client/port.ts';
import { Backoff } from '#lib/backoff.ts';
import { sleep, systemClock } from '#lib/clock.ts';
import { explainError, UserError } from '#lib/errors.ts';
import { type Cidr, familyOf, type Ip } from '#lib/ip.ts';
import { NFT_TABLE } from '#lib/kernel-objects.ts';
import type { Logger } from '#lib/log.ts';
import { Lull } from '#lib/lull.ts';
import type { Bpf } from '#linux/bpf/port.ts';
import type { Conntrack } from '#linux/conntrack/port.ts';
import type { NetworkStack, OpenNetworkStack } from '#linux/network/port.ts';
import type { OpenNflog } from '#linux/nflog/port.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import type { TrafficControl } from '#linux/tc/port.ts';
import { allocateTunnelAddresses, refuseOverlap, startAddressGc } from './addressing.ts';
import { type Cni, startCni } from './cni/cni.ts';
import { Coexistence, readLegacyTables } from './coexistence/coexistence.ts';
import { installHostFiles } from './coexistence/host-files.ts';
import type { Upstream } from './dns/dns.ts';
import type { HostResolverOptions } from './dns/host-resolver.ts';
import { DNS_PART, defineDnsRules } from './dns/rules.ts';
import { Fabric } from './fabric/fabric.ts';
import { FABRIC_PART } from './fabric/filter.ts';
import { FastPath } from './fast-path/fast-path.ts';
import { createFastPathMetrics } from './fast-path/metrics.ts';
import { count, Health, type PartHealth } from './health.ts';
import { Allocator } from './ipam/allocator.ts';
import { MASQUERADE_PART } from './masquerade/masquerade.ts';
import { DNS_SERVICE, dnsServiceAddresses, NameService } from './name-service.ts';
import { POD_RULES_PART, PodRules } from './pod-rules/pod-rules.ts';
import { CONTAINER_ID_ANNOTATION } from './pods/plan.ts';
import { Pods, type PodsComponents } from './pods/pods.ts';
import { POLICY_PART } from './policy/programmer.ts';
import { createPolicyFeature, type PolicyFeature } from './policy/start.ts';
import { type KernelGap, kernelHealth } from './probe.ts';
import { Probes } from './probes/probes.ts';
import { readNodeFacts } from './registration/facts.ts';
import { Registration } from './registration/registration.ts';
import { Ruleset } from './ruleset.ts';
import { createSandboxCheck, type SandboxCheckComponents } from './sandbox-check.ts';
import { startServiceProxy } from './service-proxy.ts';
import { SERVICES_PART } from './services/services.ts';
import { startStatusServer } from './status-server.ts';
import { sliceTrimmer, trimService } from './trim.ts';

export interface AgentComponents {
  readonly client: ApiClient;
  /** The node's own network. */
  readonly stack: NetworkStack;
  readonly openStack: OpenNetworkStack;
  readonly nftables: Nftables;
  readonly conntrack: Conntrack;
  readonly openNflog: OpenNflog;
  readonly tc: TrafficControl;
  /** Absent: no fast path. */
  readonly bpf: Bpf | undefined;
  readonly runtimes: PodsComponents['runtimes'];
  readonly watchExit: PodsComponents['watchExit'];
  readonly isInNetns: PodsComponents['isInNetns'];
  readonly hasProcess: SandboxCheckComponents['hasProcess'];
  readonly log: Logger;
}

export interface AgentInit {
  readonly nodeName: string;
  /** Address on the underlay. */
  readonly nodeIp: Ip;
  /** Prefixes of the addresses on which node ports are open; none: the node's own address of each family. */
  readonly nodePortNetworks: readonly Cidr[];
  readonly zone: string | undefined;
  readonly version: string;
  /** What this kernel cannot do; see `probe.ts`. */
  readonly kernelGaps: readonly KernelGap[];
  readonly clusterDomain: string;
  readonly recordsDirectory: string;
  /** Where it is kept what DNS knows, for the next agent. */
  readonly dnsMemoryFile: string;
  readonly dnsLogSocket: string;
  /** Where it is kept which addresses pods were told for the domain names of policies. */
  readonly policyDomainsFile: string;
  /** The machine's own resolver is to ask the node's DNS server. */
  readonly hostResolver?: HostResolverOptions | undefined;
  /** Others' firewalls get rules that let the pods' traffic pass. */
  readonly openFirewalls: boolean;
  readonly cniBinDirectory: string;
  readonly cniConfDirectory: string;
  /** Empty: the host's resolv.conf. */
  readonly upstreams: readonly Upstream[];
  readonly statusAddress: { readonly host: string; readonly port: number };
  readonly signal: AbortSignal;
}

const MIN_RETRY_MS = 200;
const MAX_RETRY_MS = 5_000;

/** Resolves when the node is ready for pods. @throws UserError for what a person must put right */
export async function startAgent(
  components: AgentComponents,
  init: AgentInit,
): Promise<AsyncDisposable> {
  const { client, stack, log } = components;
  await using started = new AsyncDisposableStack();
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const health = new Health();
  let fastPath: FastPath | undefined;
  health.add('KernelReady', () => kernelHealth([...init.kernelGaps, ...(fastPath?.gaps ?? [])]));
  const routes = new Map<string, PolicyFeature['routes'][string]>();
  started.use(
    await startStatusServer({ listen: init.statusAddress, registry, health: health.now, routes }),
  );

  const cacheOf = <T extends KubeObject>(
    kind: KindRef<T>,
    options: Partial<CacheOptions<T>> = {},
  ) => started.use(startCache(client, kind, { log, ...options }));
  const registration = started.use(
    new Registration(
      { client, log },
      {
        facts: await readNodeFacts({
          name: init.nodeName,
          addresses: [init.nodeIp],
          zone: init.zone,
          version: init.version,
        }),
        health: health.now,
      },
    ),
  );
  const pools = cacheOf(IP_POOL);
  const namespaces = cacheOf(NAMESPACE);
  const services = cacheOf(SERVICE, { trim: trimService });
  const slices = cacheOf(ENDPOINT_SLICE, { trim: sliceTrimmer() });
  // Before anything that needs the API: names are answered from memory while it is away.
  const names = started.use(
    await NameService.start(
      { client, stack, services, slices, pools, log, registry },
      { ...init, memoryFile: init.dnsMemoryFile, logSocket: init.dnsLogSocket },
    ),
  );
  health.add('DNSReady', () => names.health());
  await retry('register the node', init, log, () => registration.register());
  const nodes = cacheOf(NODE);
  const blocks = cacheOf(IP_BLOCK);
  const pods = cacheOf(POD, { fieldSelector: `spec.nodeName=${init.nodeName}` });

  const dnsServiceIps = await retry('find the DNS service', init, log, () =>
    dnsServiceAddresses(client),
  );
  await Promise.all([pools.synced(), nodes.synced(), namespaces.synced()]);
  refuseOverlap(stack, [...pools.values()]);

  const lull = new Lull(systemClock);
  const allocator = started.use(
    new Allocator({
      client,
      node: init.nodeName,
      pools: () => [...pools.values()],
      nodeLabels: () => nodes.get(init.nodeName)?.metadata.labels ?? {},
      namespaceLabels: (name) => namespaces.get(name)?.metadata.labels,
      warm: {},
      lull,
      log,
    }),
  );
  const tunnelAddresses = await retry('get the tunnel addresses', init, log, () =>
    allocateTunnelAddresses(allocator, [...pools.values()]),
  );
  const rulesets = (['ip', 'ip6'] as const).map((family) =>
    started.use(
      new Ruleset(
        { nftables: components.nftables, log },
        {
          family,
          table: NFT_TABLE,
          parts: [
            FABRIC_PART,
            SERVICES_PART,
            MASQUERADE_PART,
            POLICY_PART,
            DNS_PART,
            POD_RULES_PART,
          ],
        },
      ),
    ),
  );
  const fabric = started.use(
    new Fabric(
      { stack, rulesets, client, nodes, blocks, pools, log },
      { nodeName: init.nodeName, underlay: init.nodeIp, tunnelAddresses },
    ),
  );
  await fabric.start();
  const coexistence = started.use(
    new Coexistence({
      ...components,
      ...{ pools, legacyTables: readLegacyTables, isOpening: init.openFirewalls },
    }),
  );
  await coexistence.start();
  tellHostPrograms(log);
  health.add('FabricReady', () => {
    const { ready, peers, podMtuBytes, problems } = fabric.status();
    const all = [...problems, ...coexistence.status().problems];
    return { ready, message: all.join('; ') || `${count(peers, 'peer')}, mtu ${podMtuBytes}` };
  });

  await names.serve(dnsServiceIps);
  defineDnsRules(rulesets, names.addresses);

  await startServiceProxy(
    started,
    { ...components, rulesets, pools, nodes, services, slices },
    { ...init, dnsServiceIps },
    health,
  );

  const policy = started.use(
    await createPolicyFeature(
      {
        ...{ ...components, rulesets, nodes, services, slices, registry },
        onNewDomains: () => names.flush(),
        ownAddresses: () => new Set(stack.addresses.list().map((it) => it.address)),
      },
      {
        containerIdAnnotation: CONTAINER_ID_ANNOTATION,
        dnsService: `${DNS_SERVICE.namespace}/${DNS_SERVICE.name}`,
        dnsAddresses: names.addresses,
        domainsFile: init.policyDomainsFile,
        nodeName: init.nodeName,
      },
    ),
  );
  for (const [path, route] of Object.entries(policy.routes)) routes.set(path, route);
  const podRules = started.use(new PodRules({ ...components, rulesets }));
  const cni = started.use(
    await startCni({
      host: stack,
      openStack: components.openStack,
      addresses: allocator,
      families: [4, 6],
      mtuBytes: () => fabric.podMtuBytes,
      dns: { nameservers: dnsServiceIps, clusterDomain: init.clusterDomain },
      hostSource: (family) => tunnelAddresses.find((address) => familyOf(address) === family),
      rules: podRules,
      tc: components.tc,
      recordsDir: init.recordsDirectory,
      prepare: (attachment) => policy.prepare(attachment),
      isBesideKubelet: () => registration.isBesideKubelet,
      containerExists: createSandboxCheck(components),
      install: { binDir: init.cniBinDirectory, confDir: init.cniConfDirectory },
      lull,
      log,
    }),
  );
  started.defer(fabric.onPodMtu(() => cni.followMtu()));
  // Only now is it known what is attached: with less the rules would close pods that are running.
  await policy.start(cni);
  names.answers.attach(policy.answers);
  health.add('PolicyReady', () => {
    const { ready, policies, problems } = policy.status();
    return { ready, message: problems.join('; ') || `${count(policies, 'policy', 'policies')}` };
  });
  names.setAttachments(cni);
  const probes = started.use(new Probes({ runtimes: components.runtimes, log }));
  const podSync = started.use(
    new Pods(
      {
        ...{ ...components, pods, attachments: cni, probes },
        isBesideKubelet: () => registration.isBesideKubelet,
      },
      { node: { name: init.nodeName, hostIps: [init.nodeIp] } },
    ),
  );
  podSync.start();
  health.add('CNIReady', () => cniHealth(cni, allocator, podSync));
  started.use(startAddressGc({ node: init.nodeName, allocator, cni, tunnelAddresses, log }));
  // Last: nothing but speed hangs on it.
  if (components.bpf !== undefined) {
    const exits = {
      list: () => fabric.exits,
      onChange: (listener: () => void) => fabric.onExits(listener),
    };
    fastPath = started.use(
      new FastPath({ ...components, bpf: components.bpf, attachments: cni, pools, exits }),
    );
    createFastPathMetrics(registry, fastPath);
    await fastPath.start();
  }
  registration.healthChanged();
  log.info({ node: init.nodeName, address: init.nodeIp }, 'the node is ready for pods');
  return started.move();
}

/** A machine whose /etc cannot be written goes on: what those programs change is repaired. */
function tellHostPrograms(log: Logger): void {
  try {
    const files = installHostFiles();
    if (files.length > 0) log.info({ files }, 'told other programs to leave our links');
  } catch (error) {
    log.warn({ reason: explainError(error) }, 'cannot tell other programs to leave our links');
  }
}

function cniHealth(cni: Cni, allocator: Allocator, pods: Pods): PartHealth {
  const problem = allocator.notReady() ?? pods.problem;
  return {
    ready: problem === undefined,
    message: problem ?? `${count(cni.list().length, 'pod')} attached`,
  };
}

/** Until it works: the API may be away. Mistakes that a person must correct end it. */
async function retry<T>(
  what: string,
  { signal }: Pick<AgentInit, 'signal'>,
  log: Logger,
  action: () => Promise<T>,
): Promise<T> {
  const backoff = new Backoff({ minMs: MIN_RETRY_MS, maxMs: MAX_RETRY_MS });
  for (;;) {
    signal.throwIfAborted();
    try {
      return await action();
    } catch (error) {
      if (error instanceof UserError) throw error;
      log.warn({ reason: explainError(error) }, `cannot ${what} yet, will try again`);
      await sleep(backoff.next(), signal);
    }
  }
}
