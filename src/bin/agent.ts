/** Composition of `tulle agent`. */
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { type AgentOptions, agentOptions, type RawOptions } from '#cli/options.ts';
import type { ClientConfig } from '#client/config.ts';
import { createApiClient } from '#client/http-client.ts';
import { isServerAway, joinNode, renewNode } from '#client/join.ts';
import { inClusterConfig, loadKubeconfig } from '#client/kubeconfig.ts';
import { startRenewal } from '#client/renewal.ts';
import { Backoff } from '#lib/backoff.ts';
import { sleep, systemClock } from '#lib/clock.ts';
import { explainError, UserError } from '#lib/errors.ts';
import { type Ip, parseIp } from '#lib/ip.ts';
import { DNS_LINK_LOCAL_V4, DNS_LOG_SOCKET } from '#lib/kernel-objects.ts';
import { createLogger, type Logger } from '#lib/log.ts';
import { openBpf } from '#linux/bpf/kernel.ts';
import { openConntrack } from '#linux/conntrack/kernel.ts';
import { hasProcessIn, isSameNetns } from '#linux/netns.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import type { NetworkStack } from '#linux/network/port.ts';
import { createNflog } from '#linux/nflog/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { Poller } from '#linux/poller.ts';
import { watchProcessExit } from '#linux/process-watch.ts';
import { openTrafficControl } from '#linux/tc/kernel.ts';
import { startAgent } from '#node/agent.ts';
import { recordBridges } from '#node/bridge-record.ts';
import { parseUpstream } from '#node/dns/config.ts';
import {
  type HostResolverOptions,
  hostResolverPaths,
  releaseHostResolver,
} from '#node/dns/host-resolver.ts';
import { createCriRuntimes } from '#node/pods/runtimes/cri.ts';
import { createPodmanRuntime } from '#node/pods/runtimes/podman.ts';
import { createPodmanStorage } from '#node/pods/runtimes/podman-storage.ts';
import { openOrRefuse, probeKernel } from '#node/probe.ts';
import { recordSysctls } from '#node/sysctl-record.ts';
import { runOk } from '#proc/run.ts';
import { VERSION } from './version.ts';

/** A node whose certificate is refused, or whose server is away, tries again for ever: it must come up by itself. */
const MIN_RETRY_MS = 200;
const MAX_RETRY_MS = 5_000;

/** Runs until the signal is aborted. @throws UserError */
export async function runAgent(
  flags: RawOptions,
  configFile: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  const options = agentOptions(flags, configFile);
  if (process.getuid?.() !== 0)
    throw new UserError('The agent programs the kernel, which needs root', {
      hint: 'Run it with sudo or as a system service.',
    });
  const log = createLogger({ level: options.logLevel });
  await using stack = new AsyncDisposableStack();
  const poller = stack.use(new Poller());
  const network = recordBridges(
    recordSysctls(stack.use(openNetworkStack({ poller })), sysctlFile(options.dataDirectory)),
    bridgeFile(options.dataDirectory),
  );
  const nftables = stack.use(openOrRefuse(() => openNftables({ poller })));
  const kernelGaps = probeKernel(network, nftables);
  const nodeName = options.nodeName ?? hostname().toLowerCase();
  const resolver = hostResolver(options.dataDirectory);
  // An agent before this one may have been told otherwise, and killed.
  if (!options.hostResolver) await releaseHostResolver(resolver, DNS_LINK_LOCAL_V4);
  const config = await clientConfig(options, nodeName, log, signal);
  const client = stack.use(createApiClient(config));
  const { certificatePem } = config;
  // A kubeconfig's is somebody else's to renew.
  if (!isForeign(options) && certificatePem !== undefined) {
    const directory = identityDirectory(options);
    const renew = async () => {
      const next = await renewNode({ client, nodeName, directory });
      client.useCertificate(next);
      return next.certificatePem;
    };
    stack.use(startRenewal({ what: 'the node', certificatePem, renew, log, clock: systemClock }));
  }
  stack.use(
    await startAgent(
      {
        client,
        stack: network,
        openStack: openNetworkStack,
        nftables,
        conntrack: stack.use(openConntrack()),
        openNflog: createNflog({ poller }),
        tc: stack.use(openTrafficControl()),
        bpf: options.fastPath ? openBpf() : undefined,
        runtimes: [
          createPodmanRuntime(['podman'], { storage: createPodmanStorage() }),
          ...createCriRuntimes(),
        ],
        watchExit: (pid, onExit) => watchProcessExit(poller, pid, onExit),
        isInNetns: (pid, netns) => isSameNetns(`/proc/${pid}/ns/net`, netns),
        hasProcess: hasProcessIn,
        log,
      },
      {
        nodeName,
        nodeIp: options.nodeIp ?? underlayAddress(network, config.servers),
        nodePortNetworks: options.nodePortAddresses,
        zone: options.zone,
        version: VERSION,
        kernelGaps,
        clusterDomain: options.clusterDomain,
        recordsDirectory: join(options.dataDirectory, 'cni'),
        dnsMemoryFile: join(options.dataDirectory, 'dns', 'names.jsonl'),
        dnsLogSocket: DNS_LOG_SOCKET,
        policyDomainsFile: join(options.dataDirectory, 'policy', 'domains.json'),
        hostResolver: options.hostResolver ? resolver : undefined,
        openFirewalls: options.openFirewalls,
        cniBinDirectory: options.cniBinDirectory,
        cniConfDirectory: options.cniConfDirectory,
        upstreams: options.upstreams.flatMap((text) => parseUpstream(text) ?? []),
        statusAddress: options.statusAddress,
        signal,
      },
    ),
  );
  if (!signal.aborted) await once(signal, 'abort');
  log.info({}, 'the agent stops; pods, routes and rules stay as they are');
}

/** How the machine's own resolver is pointed at the node's DNS server, and back. */
export function hostResolver(dataDirectory: string): HostResolverOptions {
  return {
    paths: hostResolverPaths(dataDirectory),
    reloadResolved: async () => {
      await runOk(['systemctl', 'try-reload-or-restart', 'systemd-resolved.service']);
    },
  };
}

/** Where the agent keeps what the node's settings were before. */
export function sysctlFile(dataDirectory: string): string {
  return join(dataDirectory, 'sysctl-before.json');
}

/** Where the agent keeps the names of the bridges that it made. */
export function bridgeFile(dataDirectory: string): string {
  return join(dataDirectory, 'bridges.json');
}

/** Whether the cluster is not one that this node joined. */
function isForeign({ kubeconfig, isInCluster }: AgentOptions): boolean {
  return kubeconfig !== undefined || isInCluster;
}

function identityDirectory({ dataDirectory }: AgentOptions): string {
  return join(dataDirectory, 'pki');
}

/** Inside Kubernetes from a kubeconfig or the pod's service account; else the certificate that joining gave, or gives now. */
async function clientConfig(
  options: AgentOptions,
  nodeName: string,
  log: Logger,
  signal: AbortSignal,
): Promise<ClientConfig> {
  const { kubeconfig, token, servers } = options;
  if (kubeconfig !== undefined) return loadKubeconfig({ path: kubeconfig });
  if (options.isInCluster) return inClusterConfig();
  const directory = identityDirectory(options);
  const own = storedIdentity(directory);
  if (token === undefined && own === undefined)
    throw new UserError('This node has not joined a cluster yet', {
      hint: "Give --token: 'tulle token create' on the server's machine prints one.",
    });
  if (token !== undefined)
    await joinAnyServer({ servers, token, nodeName, directory }, log, signal);
  const identity = storedIdentity(directory);
  if (identity === undefined) throw new Error(`there is no certificate in ${directory}`);
  return { ...identity, servers };
}

async function joinAnyServer(
  options: { servers: readonly string[]; token: string; nodeName: string; directory: string },
  log: Logger,
  signal: AbortSignal,
): Promise<void> {
  const backoff = new Backoff({ minMs: MIN_RETRY_MS, maxMs: MAX_RETRY_MS });
  for (let i = 0; ; i++) {
    const server = options.servers[i % options.servers.length] ?? '';
    try {
      const { joined } = await joinNode({ ...options, server, signal });
      if (joined) log.info({ server, node: options.nodeName }, 'joined the cluster');
      return;
    } catch (error) {
      if (signal.aborted || !isServerAway(error)) throw error;
      log.warn({ server, reason: explainError(error) }, 'cannot join yet, will try again');
      await sleep(backoff.next(), signal);
    }
  }
}

/** What an earlier join left. */
function storedIdentity(directory: string): Omit<ClientConfig, 'servers'> | undefined {
  const [caPem, certificatePem, keyPem] = ['ca.crt', 'node.crt', 'node.key'].map((name) => {
    const path = join(directory, name);
    return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
  });
  if (caPem === undefined || certificatePem === undefined || keyPem === undefined) return undefined;
  return { caPem, certificatePem, keyPem };
}

/** The address that this machine has towards the server: of the route that leads there. */
function underlayAddress(network: NetworkStack, servers: readonly string[]): Ip {
  const host = new URL(servers[0] ?? 'https://192.0.2.1').hostname.replace(/^\[|\]$/g, '');
  const destination = parseIp(host);
  const hint = 'Give --node-ip with the address that the other nodes reach this one at.';
  if (destination === undefined)
    throw new UserError(`Cannot tell this node's address from the server's name "${host}"`, {
      hint,
    });
  const { source } = network.routes.lookup(destination);
  if (source === undefined || source.startsWith('127.') || source === '::1')
    throw new UserError(`The route to the server ${host} has no address that others can reach`, {
      hint,
    });
  return source;
}
