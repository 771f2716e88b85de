/** Where `tulle policy` gets its cluster from: the API, or a directory of manifests without any cluster. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { NAMESPACE, type Namespace } from '#api/core/v1/namespace.ts';
import { NODE, type Node } from '#api/core/v1/node.ts';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { SERVICE, type Service } from '#api/core/v1/service.ts';
import type { FieldError, KindRef } from '#api/kind.ts';
import { type ManifestObject, parseManifest } from '#api/machinery/manifest.ts';
import type { KubeObject } from '#api/meta.ts';
import { NETWORK_POLICY, type NetworkPolicy } from '#api/networking/v1/network-policy.ts';
import {
  CLUSTER_NETWORK_POLICY,
  type ClusterNetworkPolicy,
} from '#api/policy/v1alpha2/cluster-network-policy.ts';
import { isNotFound, UserError } from '#lib/errors.ts';
import type { World } from '#policy/model.ts';
import { buildWorld } from '#policy/world.ts';
import { connect } from './client.ts';

export interface PolicySource {
  readonly world: World;
  readonly services: readonly Service[];
  /** As they were written. */
  readonly policies: readonly (NetworkPolicy | ClusterNetworkPolicy)[];
  /** `file:line` of a field of a policy; undefined for what came from the API. */
  readonly placeOf: (policyId: string, field: string) => string | undefined;
  /** Mistakes because of which the API would refuse a policy. */
  readonly refused: readonly { readonly policy: string; readonly error: FieldError }[];
  /** Policies of one name, of which `apply` would leave the last: where the others are. */
  readonly repeated: readonly { readonly policy: string; readonly place: string }[];
}

export async function loadSource(flags: {
  manifests?: string;
  kubeconfig?: string;
}): Promise<PolicySource> {
  return flags.manifests === undefined ? fromApi(flags.kubeconfig) : fromManifests(flags.manifests);
}

async function fromApi(kubeconfig: string | undefined): Promise<PolicySource> {
  await using client = connect(kubeconfig);
  const list = async <T extends KubeObject>(kind: KindRef<T>): Promise<T[]> =>
    (await client.list(kind)).items;
  const [pods, namespaces, nodes, services, networkPolicies, clusterPolicies] = await Promise.all([
    list(POD),
    list(NAMESPACE),
    list(NODE),
    list(SERVICE),
    list(NETWORK_POLICY),
    list(CLUSTER_NETWORK_POLICY).catch((error: unknown) => {
      // A Kubernetes that does not have the kind has none of them.
      if (isNotFound(error)) return [];
      throw error;
    }),
  ]);
  const policies = [...networkPolicies, ...clusterPolicies].map(withKind);
  const world = buildWorld({
    pods,
    namespaces,
    nodes,
    policies,
    dnsService: dnsOf(pods, services),
  });
  return { world, services, policies, placeOf: () => undefined, refused: [], repeated: [] };
}

/** Items of a list may come without their kind. */
function withKind<T extends NetworkPolicy | ClusterNetworkPolicy>(policy: T): T {
  const isCluster = 'subject' in policy.spec;
  return { ...policy, kind: isCluster ? 'ClusterNetworkPolicy' : 'NetworkPolicy' };
}

/** Where no pods answer for DNS the nodes do. */
function dnsOf(pods: readonly Pod[], services: readonly Service[]): Service | undefined {
  const service = services.find(
    ({ metadata }) => metadata.namespace === 'kube-system' && metadata.name === 'kube-dns',
  );
  const hasPods = pods.some(
    ({ metadata }) =>
      metadata.namespace === 'kube-system' && metadata.labels?.['k8s-app'] === 'kube-dns',
  );
  return hasPods ? undefined : service;
}

/** A repository of manifests has some thousand files; more is the wrong directory. */
const MAX_FILES = 20_000;
const MANIFEST = /\.(ya?ml|json)$/;

/** @param path a directory, with all below it, or one file */
export function fromManifests(path: string): PolicySource {
  const documents = filesBelow(path).flatMap((file) =>
    parseManifest(readFileSync(file, 'utf8'), { file }),
  );
  const of = <T extends KubeObject>(kind: KindRef<T>, isMeant = (_: KubeObject) => true): T[] =>
    documents
      .filter(({ object }) => isOf(object, kind) && isMeant(object))
      .map(({ object }) => namespaced(object, kind) as T);
  const pods = [
    ...of(POD),
    ...documents.flatMap(({ object }) => {
      const pod = podOfWorkload(object);
      return pod === undefined ? [] : [pod];
    }),
  ];
  const written = documents.filter(
    ({ object }) => isOf(object, NETWORK_POLICY) || isOf(object, CLUSTER_NETWORK_POLICY),
  );
  const places = new Map(written.map((document) => [policyId(document.object), document]));
  const isLast = (object: KubeObject) => places.get(policyId(object))?.object === object;
  const policies = [...of(NETWORK_POLICY, isLast), ...of(CLUSTER_NETWORK_POLICY, isLast)];
  const namespaces = of(NAMESPACE) as Namespace[];
  const nodes = of(NODE) as Node[];
  const services = of(SERVICE) as Service[];
  const world = buildWorld({
    pods,
    namespaces,
    nodes,
    policies,
    dnsService: dnsOf(pods, services),
  });
  return {
    world,
    services,
    policies,
    placeOf: (id, field) => placeIn(places.get(id), field),
    refused: policies.flatMap((policy) =>
      validate(policy).map((error) => ({ policy: policyId(policy), error })),
    ),
    repeated: written
      .filter(({ object }) => !isLast(object))
      .map(({ object, file, line }) => ({ policy: policyId(object), place: `${file}:${line}` })),
  };
}

function validate(policy: NetworkPolicy | ClusterNetworkPolicy): readonly FieldError[] {
  return policy.kind === 'NetworkPolicy'
    ? NETWORK_POLICY.validate(NETWORK_POLICY.setDefaults(policy), undefined)
    : CLUSTER_NETWORK_POLICY.validate(policy, undefined);
}

function placeIn(document: ManifestObject | undefined, field: string): string | undefined {
  return document === undefined ? undefined : `${document.file}:${document.lineOf(field)}`;
}

function policyId({ kind, metadata }: KubeObject): string {
  return kind === 'NetworkPolicy'
    ? `NetworkPolicy ${metadata.namespace ?? 'default'}/${metadata.name}`
    : `ClusterNetworkPolicy ${metadata.name}`;
}

function isOf(object: KubeObject, kind: KindRef): boolean {
  const group = object.apiVersion.includes('/') ? object.apiVersion.split('/')[0] : '';
  return object.kind === kind.kind && group === kind.group;
}

function namespaced(object: KubeObject, kind: KindRef): KubeObject {
  if (!kind.namespaced || object.metadata.namespace !== undefined) return object;
  return { ...object, metadata: { ...object.metadata, namespace: 'default' } };
}

const WORKLOADS: ReadonlySet<string> = new Set([
  ...[
    'Deployment',
    'StatefulSet',
    'DaemonSet',
    'ReplicaSet',
    'ReplicationController',
    'Job',
    'CronJob',
  ],
]);

interface Template {
  metadata?: { labels?: Record<string, string> };
  spec?: Pod['spec'];
}

/** The pods that a workload would make, as one of its name. */
function podOfWorkload(object: KubeObject): Pod | undefined {
  if (!WORKLOADS.has(object.kind)) return undefined;
  const { spec } = object as {
    spec?: { template?: Template; jobTemplate?: { spec?: { template?: Template } } };
  };
  const template = spec?.template ?? spec?.jobTemplate?.spec?.template;
  if (template === undefined) return undefined;
  const { name, namespace = 'default' } = object.metadata;
  return {
    ...{ apiVersion: 'v1', kind: 'Pod' },
    metadata: { name, namespace, labels: template.metadata?.labels ?? {} },
    spec: template.spec ?? { containers: [] },
  };
}

function filesBelow(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return [path];
    const files = readdirSync(path, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && MANIFEST.test(entry.name))
      .map((entry) => join(entry.parentPath, entry.name))
      .sort();
    if (files.length > MAX_FILES)
      throw new UserError(
        `"${path}" holds ${files.length} manifests; at most ${MAX_FILES} are read`,
      );
    return files;
  } catch (cause) {
    if (cause instanceof UserError) throw cause;
    throw new UserError(`Cannot read the manifests in "${path}"`, { cause });
  }
}
