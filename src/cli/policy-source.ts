/** Where `tulle policy` gets its cluster from: the API, or a directory of manifests without any cluster. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { NAMESPACE, type Namespace } from '#api/core/v1/namespace.ts';
import { NODE, type Node } from '#api/core/v1/node.ts';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { SERVICE, type Service } from '#api/core/v1/service.ts';
import type { KindDefinition, KindRef } from '#api/kind.ts';
import { type ManifestObject, parseManifest } from '#api/machinery/manifest.ts';
import { decodeFields, formatUnknownField } from '#api/machinery/unknown-fields.ts';
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
  /** As they were written, defaults not filled in. */
  readonly policies: readonly (NetworkPolicy | ClusterNetworkPolicy)[];
  /** `file:line` of a field of a policy; undefined for what came from the API. */
  readonly placeOf: (policyId: string, field: string) => string | undefined;
  /** What the API would refuse, drop or overwrite of what a file says. */
  readonly mistakes: readonly Mistake[];
}

interface Mistake {
  /** `file:line` */
  readonly place: string;
  readonly text: string;
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
  const policies = [...networkPolicies, ...clusterPolicies];
  const world = buildWorld({
    pods,
    namespaces,
    nodes,
    policies,
    dnsService: dnsOf(pods, services),
  });
  return { world, services, policies, placeOf: () => undefined, mistakes: [] };
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
/** Says which of the others belong together, and is no object of an API. */
const KUSTOMIZATION = /^kustomization\.ya?ml$/i;

/**
 * @param path a directory, with all below it, or one file
 * @throws UserError for what cannot be read, with `file:line`; a policy that the API would refuse is a mistake of the source
 */
export function fromManifests(path: string): PolicySource {
  const files = filesBelow(path);
  if (files.length === 0)
    throw new UserError(`There is no manifest in "${path}"`, {
      hint: 'Name a directory with files that end in .yaml, .yml or .json, or one such file.',
    });
  const documents = files
    .flatMap((file) => parseManifest(readText(file), { file }))
    .map((document) => ({ ...document, object: withName(document.object) }));
  const of = <T extends KubeObject>(kind: KindDefinition<T>): T[] =>
    documents
      .filter(({ object }) => isOf(object, kind))
      .map((document) => checked(document, document.object, kind));
  const pods = [
    ...of(POD),
    ...documents.flatMap((document) => {
      const pod = podOfWorkload(document.object);
      return pod === undefined ? [] : [checked(document, pod, POD)];
    }),
  ];
  const written = documents.filter(({ object }) => isPolicy(object));
  const places = new Map(written.map((document) => [policyId(document.object), document]));
  const isLast = ({ object }: ManifestObject) => places.get(policyId(object))?.object === object;
  // As they were written: what this version does not understand has a meaning for the engine.
  const policies = [NETWORK_POLICY, CLUSTER_NETWORK_POLICY].flatMap((kind) =>
    [...places.values()]
      .filter(({ object }) => isOf(object, kind))
      .map(({ object }) => namespaced(object, kind) as NetworkPolicy | ClusterNetworkPolicy),
  );
  const read = [...places.values()].map(readPolicy);
  const namespaces = of(NAMESPACE) as Namespace[];
  const nodes = of(NODE) as Node[];
  // The API knows none without.
  const services = of(SERVICE).map((service) => ({ ...service, spec: service.spec ?? {} }));
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
    policies: read.flatMap(({ policy }) => policy ?? []),
    placeOf: (id, field) => placeIn(places.get(id), field),
    mistakes: [
      ...written
        .filter((document) => !isLast(document))
        .map(({ object, file, line }) => ({
          place: `${file}:${line}`,
          text: `${policyId(object)}: another policy of this name comes later, and only that one counts [duplicate-name]`,
        })),
      ...read.flatMap(({ mistakes }) => mistakes),
    ],
  };
}

/** @throws UserError for values of the wrong type: what is not there would be read as if it were */
function checked<T extends KubeObject>(
  document: ManifestObject,
  object: KubeObject,
  kind: KindDefinition<T>,
): T {
  const { object: decoded, typeErrors } = decodeFields(kind.schema, object);
  const [error] = typeErrors;
  if (error === undefined) return namespaced(decoded as unknown as KubeObject, kind) as T;
  throw new UserError(
    `Cannot use ${placeIn(document, error.field)}: ${error.field} of ${document.object.kind} "${document.object.metadata.name}" ${error.detail}`,
    { hint: 'Correct the manifest: the API would refuse it.' },
  );
}

/**
 * A policy as the API would keep it, and what it would refuse of it, or drop, which leaves one that says something else.
 * @returns `policy`: undefined if it has values of the wrong type
 */
function readPolicy(document: ManifestObject): {
  policy: NetworkPolicy | ClusterNetworkPolicy | undefined;
  mistakes: Mistake[];
} {
  const { object } = document;
  const kind: KindDefinition = isOf(object, NETWORK_POLICY)
    ? NETWORK_POLICY
    : CLUSTER_NETWORK_POLICY;
  const { object: decoded, typeErrors, unknownFields } = decodeFields(kind.schema, object);
  const isReadable = typeErrors.length === 0;
  const policy = namespaced(decoded as unknown as KubeObject, kind);
  const errors = isReadable ? kind.validate(kind.setDefaults(policy), undefined) : typeErrors;
  const at = (field: string, text: string) => ({
    place: placeIn(document, field) ?? document.file,
    text: `${policyId(object)}: ${text}`,
  });
  const mistakes = [
    ...errors.map(({ field, detail }) => at(field, `${field}: ${detail} [refused-by-the-api]`)),
    ...unknownFields.map((unknown) =>
      at(unknown.field, `${formatUnknownField(unknown)} is dropped by the API [unknown-field]`),
    ),
  ];
  return {
    policy: isReadable ? (policy as NetworkPolicy | ClusterNetworkPolicy) : undefined,
    mistakes,
  };
}

/** What `generateName` makes names of has one by which it can be asked for, too. */
function withName(object: KubeObject): KubeObject {
  const { name, generateName } = object.metadata;
  return name !== undefined || generateName === undefined
    ? object
    : { ...object, metadata: { ...object.metadata, name: generateName.replace(/-$/, '') } };
}

function isPolicy(object: KubeObject): boolean {
  return isOf(object, NETWORK_POLICY) || isOf(object, CLUSTER_NETWORK_POLICY);
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
      .filter(
        (entry) => entry.isFile() && MANIFEST.test(entry.name) && !KUSTOMIZATION.test(entry.name),
      )
      .map((entry) => join(entry.parentPath, entry.name))
      .sort();
    if (files.length > MAX_FILES)
      throw new UserError(
        `"${path}" holds ${files.length} manifests; at most ${MAX_FILES} are read`,
      );
    return files;
  } catch (cause) {
    if (cause instanceof UserError) throw cause;
    throw new UserError(`Cannot read the manifests in "${path}"`, {
      cause,
      hint: 'Name a directory of YAML or JSON files, or one such file.',
    });
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new UserError(`Cannot read the manifest "${file}"`, { cause });
  }
}
