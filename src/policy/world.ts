/** Objects of the API → what the engine knows of a cluster. */
import type { Namespace } from '#api/core/v1/namespace.ts';
import type { Node } from '#api/core/v1/node.ts';
import type { Pod } from '#api/core/v1/pod.ts';
import type { Service } from '#api/core/v1/service.ts';
import { type KubeObject, objectKey } from '#api/meta.ts';
import type { NetworkPolicy } from '#api/networking/v1/network-policy.ts';
import type { ClusterNetworkPolicy } from '#api/policy/v1alpha2/cluster-network-policy.ts';
import { explainError } from '#lib/errors.ts';
import { type Ip, parseIp } from '#lib/ip.ts';
import { compileClusterPolicy, compileNetworkPolicy } from './compile.ts';
import {
  type CompiledPolicy,
  type CompiledRule,
  type NamedPort,
  type PolicyNamespace,
  type PolicyNode,
  type PolicyPod,
  PROTOCOL_NUMBERS,
  type World,
} from './model.ts';

/** What upstream's DNS pods carry, if the DNS service does not say. */
const DNS_LABELS = { 'k8s-app': 'kube-dns' };

/** @returns undefined for a pod that has ended: its address may be another's already */
export function policyPod(pod: Pod): PolicyPod | undefined {
  const { phase, podIP, podIPs } = pod.status ?? {};
  if (phase === 'Succeeded' || phase === 'Failed') return undefined;
  const ips = [...(podIPs ?? []).map(({ ip }) => ip), ...(podIP === undefined ? [] : [podIP])];
  const { name, namespace = 'default', labels = {} } = pod.metadata;
  return {
    key: objectKey(pod),
    namespace,
    name,
    labels,
    ips: [...new Set(ips.flatMap((text) => parseIp(text) ?? []))],
    node: pod.spec?.nodeName,
    hostNetwork: pod.spec?.hostNetwork === true,
    ports: namedPorts(pod),
  };
}

function namedPorts(pod: Pod): NamedPort[] {
  return (pod.spec?.containers ?? []).flatMap((container) =>
    (container.ports ?? []).flatMap(({ name, containerPort, protocol = 'TCP' }) =>
      name === undefined
        ? []
        : [{ name, protocol: PROTOCOL_NUMBERS[protocol], port: containerPort }],
    ),
  );
}

export function policyNamespace({ metadata }: Namespace): PolicyNamespace {
  // Selectors by name must work also where nobody wrote the label.
  const labels = { 'kubernetes.io/metadata.name': metadata.name, ...metadata.labels };
  return { name: metadata.name, labels };
}

export function policyNode(node: Node): PolicyNode {
  const ips = (node.status?.addresses ?? []).flatMap(({ address }) => parseIp(address) ?? []);
  return { name: node.metadata.name, labels: node.metadata.labels ?? {}, ips };
}

/**
 * The node's own DNS server in the shape of the DNS pods that policies are written for, so that "allow DNS to
 * k8s-app=kube-dns in kube-system" means what it says although no such pod runs.
 * @param extraIps where the server answers beside the service's addresses
 */
export function dnsPod(service: Service, extraIps: readonly Ip[] = []): PolicyPod {
  const { namespace = 'kube-system', name } = service.metadata;
  const ips = (service.spec.clusterIPs ?? []).flatMap((text) => parseIp(text) ?? []);
  const selector = service.spec.selector ?? {};
  return {
    key: `${namespace}/${name} (the node's DNS server)`,
    namespace,
    name: `${name} (the node's DNS server)`,
    labels: Object.keys(selector).length > 0 ? selector : DNS_LABELS,
    ips: [...new Set([...ips, ...extraIps])],
    node: undefined,
    hostNetwork: false,
    ports: [
      { name: 'dns', protocol: PROTOCOL_NUMBERS.UDP, port: 53 },
      { name: 'dns-tcp', protocol: PROTOCOL_NUMBERS.TCP, port: 53 },
    ],
  };
}

/** Never throws: a policy that cannot be read at all closes all pods that it might be about. */
export function compilePolicy(object: KubeObject): CompiledPolicy {
  const isCluster = object.kind === 'ClusterNetworkPolicy';
  try {
    return isCluster
      ? compileClusterPolicy(object as ClusterNetworkPolicy)
      : compileNetworkPolicy(object as NetworkPolicy);
  } catch (error) {
    const { namespace = 'default', name } = object.metadata;
    const denyAll: CompiledRule[] = isCluster
      ? [{ index: 0, name: undefined, action: 'Deny', peers: undefined, ports: undefined }]
      : [];
    return {
      id: isCluster ? `ClusterNetworkPolicy ${name}` : `NetworkPolicy ${namespace}/${name}`,
      kind: isCluster ? 'ClusterNetworkPolicy' : 'NetworkPolicy',
      namespace: isCluster ? undefined : namespace,
      name,
      tier: isCluster ? 'Admin' : 'NetworkPolicy',
      priority: 0,
      subject: { namespace: isCluster ? undefined : namespace, namespaces: [], pods: [] },
      ingress: denyAll,
      egress: denyAll,
      staged: false,
      logsAccepts: false,
      problems: [
        `cannot be read, so it closes every pod it might be about: ${explainError(error)}`,
      ],
    };
  }
}

export interface WorldObjects {
  readonly pods: Iterable<Pod>;
  readonly namespaces: Iterable<Namespace>;
  readonly nodes: Iterable<Node>;
  readonly policies: Iterable<NetworkPolicy | ClusterNetworkPolicy>;
  /** The DNS service, if the nodes answer for it. */
  readonly dnsService?: Service | undefined;
}

/** A namespace that objects are in and that nobody made is there too, with its name for a label. */
export function buildWorld(objects: WorldObjects): World {
  const pods = new Map<string, PolicyPod>();
  for (const object of objects.pods) {
    const pod = policyPod(object);
    if (pod !== undefined) pods.set(pod.key, pod);
  }
  if (objects.dnsService !== undefined) {
    const pod = dnsPod(objects.dnsService);
    pods.set(pod.key, pod);
  }
  const namespaces = new Map<string, PolicyNamespace>();
  for (const object of objects.namespaces)
    namespaces.set(object.metadata.name, policyNamespace(object));
  for (const { namespace } of pods.values())
    if (!namespaces.has(namespace))
      namespaces.set(namespace, {
        name: namespace,
        labels: { 'kubernetes.io/metadata.name': namespace },
      });
  const nodes = new Map<string, PolicyNode>();
  for (const node of objects.nodes) nodes.set(node.metadata.name, policyNode(node));
  return { pods, namespaces, nodes, policies: [...objects.policies].map(compilePolicy) };
}
