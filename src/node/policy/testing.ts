/** For tests: API objects in short, and a policy feature on a fake API with attachments made by hand. */
import { NAMESPACE, type Namespace } from '#api/core/v1/namespace.ts';
import { NODE, type Node } from '#api/core/v1/node.ts';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import {
  NETWORK_POLICY,
  type NetworkPolicy,
  type NetworkPolicySpec,
} from '#api/networking/v1/network-policy.ts';
import {
  CLUSTER_NETWORK_POLICY,
  type ClusterNetworkPolicy,
} from '#api/policy/v1alpha2/cluster-network-policy.ts';
import { startCache } from '#client/cache.ts';
import type { FakeApi } from '#client/fake.ts';
import { cidr, familyOf, ip, mac } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import type { Attachment, Attachments } from '../attachment.ts';
import { Ruleset } from '../ruleset.ts';
import { Policy, type PolicyComponents } from './policy.ts';
import { POLICY_PART } from './programmer.ts';

export function namespaceObject(name: string, labels: Record<string, string> = {}): Namespace {
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } };
}

export function nodeObject(name: string, address: string): Node {
  return {
    ...{ apiVersion: 'v1', kind: 'Node', metadata: { name } },
    status: { addresses: [{ type: 'InternalIP', address }] },
  };
}

export interface PodSpecInShort {
  readonly labels?: Record<string, string>;
  readonly ips: readonly string[];
  readonly node?: string;
  readonly ports?: readonly { name: string; port: number; protocol?: 'TCP' | 'UDP' | 'SCTP' }[];
}

/** @param key `namespace/name` */
export function podObject(key: string, spec: PodSpecInShort): Pod {
  const [namespace = '', name = ''] = key.split('/');
  return {
    ...{ apiVersion: 'v1', kind: 'Pod' },
    metadata: { namespace, name, labels: spec.labels ?? {} },
    spec: {
      ...(spec.node === undefined ? {} : { nodeName: spec.node }),
      containers: [
        {
          name: 'main',
          ports: (spec.ports ?? []).map(({ name: portName, port, protocol = 'TCP' }) => ({
            name: portName,
            containerPort: port,
            protocol,
          })),
        },
      ],
    },
    status: { phase: 'Running', podIPs: spec.ips.map((address) => ({ ip: address })) },
  };
}

export function networkPolicy(
  key: string,
  spec: NetworkPolicySpec,
  annotations: Record<string, string> = {},
): NetworkPolicy {
  const [namespace = '', name = ''] = key.split('/');
  return {
    ...{ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy' },
    metadata: { namespace, name, annotations },
    spec,
  };
}

export function clusterPolicy(
  name: string,
  spec: ClusterNetworkPolicy['spec'],
): ClusterNetworkPolicy {
  return {
    ...{ apiVersion: 'policy.networking.k8s.io/v1alpha2', kind: 'ClusterNetworkPolicy' },
    metadata: { name },
    spec,
  };
}

/** Attachments that a test makes and takes away. */
export class TestAttachments implements Attachments {
  readonly #all = new Map<string, Attachment>();
  readonly #listeners = new Set<() => void>();

  /** A kubelet's pod on this node. */
  static of(key: string, ips: readonly string[]): Attachment {
    const [namespace = '', name = ''] = key.split('/');
    return {
      handle: `tulle.${key}.eth0`,
      network: 'tulle',
      containerId: key,
      ifName: 'eth0',
      netns: `/run/netns/${name}`,
      hostLink: 'tl0',
      mac: mac('02:00:00:00:00:01'),
      mtuBytes: 1500,
      addresses: ips.map((address) => ({
        address: ip(address),
        family: familyOf(ip(address)),
        pool: 'pods',
        block: familyOf(ip(address)) === 4 ? cidr('10.0.0.0/24') : cidr('fd00::/64'),
        sequence: 1,
      })),
      pod: { namespace, name, kubelet: true },
      createdAt: new Date(0).toISOString(),
    };
  }

  add(key: string, ips: readonly string[]): Attachment {
    const attachment = TestAttachments.of(key, ips);
    this.#all.set(attachment.handle, attachment);
    this.#notify();
    return attachment;
  }
  remove(key: string): void {
    this.#all.delete(`tulle.${key}.eth0`);
    this.#notify();
  }
  list(): readonly Attachment[] {
    return [...this.#all.values()];
  }
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
  #notify(): void {
    for (const listener of this.#listeners) listener();
  }
}

export const DNS_SERVICE_KEY = 'kube-system/kube-dns';

/** A policy feature that follows the fake API, over nftables of any kind. */
export class PolicyUnderTest implements AsyncDisposable {
  readonly policy: Policy;
  readonly rulesets: readonly Ruleset[];
  readonly #stack = new AsyncDisposableStack();

  constructor(
    api: FakeApi,
    nftables: Nftables,
    options: Pick<PolicyComponents, 'onProgrammed' | 'onState' | 'clock'> = {},
  ) {
    const log = silentLogger;
    this.rulesets = (['ip', 'ip6'] as const).map((family) =>
      this.#stack.use(
        new Ruleset({ nftables, log }, { family, table: 'tulle', parts: [POLICY_PART] }),
      ),
    );
    this.policy = this.#stack.use(
      new Policy(
        {
          rulesets: this.rulesets,
          pods: this.#stack.use(startCache(api, POD, { log })),
          namespaces: this.#stack.use(startCache(api, NAMESPACE, { log })),
          nodes: this.#stack.use(startCache(api, NODE, { log })),
          services: this.#stack.use(startCache(api, SERVICE, { log })),
          networkPolicies: this.#stack.use(startCache(api, NETWORK_POLICY, { log })),
          clusterPolicies: this.#stack.use(startCache(api, CLUSTER_NETWORK_POLICY, { log })),
          log,
          ...options,
        },
        {
          containerIdAnnotation: 'test/container',
          dnsService: DNS_SERVICE_KEY,
          dnsAddresses: [],
        },
      ),
    );
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}
