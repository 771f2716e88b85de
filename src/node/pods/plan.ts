/** From containers to Pod objects, and to the writes that bring the API there. Pure. */
import type { Pod, PodPhase, PodStatus } from '#api/core/v1/pod.ts';
import { isTerminating } from '#api/core/v1/pod-deletion.ts';
import { checkLabelValue, checkQualifiedName } from '#api/machinery/names.ts';
import { type Condition, objectKey } from '#api/meta.ts';
import type { Ip } from '#lib/ip.ts';
import { aliasMarks } from '../aliases.ts';
import { type Attachment, ipsOf } from '../attachment.ts';
import { EXEC_SETTING, READINESS_PREFIX, type Readiness } from '../readiness.ts';
import type { ContainerInfo } from './runtimes/runtime.ts';

/** On every Pod that an agent made; nothing without it is ever changed or deleted. */
export const MANAGED_LABEL = 'tulle.dev/managed';
/** Tells one life of a name from the next. */
export const CONTAINER_ID_ANNOTATION = 'tulle.dev/container-id';

const MAX_NAME_LENGTH = 253;
const MAX_CONTAINER_NAME_LENGTH = 63;
/** Room for a dash and the distinguishing digits. */
const SUFFIX_DIGITS = 5;
/** A Pod's container has to name an image; a container made of a bare root filesystem has none. */
const NO_IMAGE = 'none';

/** What is known of one container. */
export interface Container {
  readonly attachment: Attachment;
  /** `podman`; undefined if no runtime knows the container, as with a bare namespace. */
  readonly runtime: string | undefined;
  readonly info: ContainerInfo | undefined;
  /** Its process was seen to end, maybe before the runtime can tell how. */
  readonly ended: { readonly at: string; readonly exitCode: number | undefined } | undefined;
}

export interface NodeIdentity {
  readonly name: string;
  /** Addresses of the machine, the one of its main family first. */
  readonly hostIps: readonly Ip[];
}

export type PodWrite =
  /** The status follows in a second write, because creating an object ignores it. */
  | { readonly type: 'create'; readonly pod: Pod }
  | { readonly type: 'metadata'; readonly pod: Pod; readonly patch: MetadataPatch }
  | { readonly type: 'status'; readonly pod: Pod }
  | { readonly type: 'delete'; readonly key: string; readonly pod: Pod };

export interface MetadataPatch {
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** True for a Pod that an agent on this node made. */
export function isOwnPod(pod: Pod, node: string): boolean {
  return pod.metadata.labels?.[MANAGED_LABEL] === 'true' && pod.spec.nodeName === node;
}

/**
 * Names the Pods. A Pod that exists keeps its name; otherwise it is the container's name as a valid object name, and
 * if that is taken, by another container here or by something that is not ours, with digits of the container id.
 * @param own Pods of this node in the API
 * @param isTaken whether an object that is not of this node has the name
 * @returns the key `namespace/name` for each container id
 */
export function assignNames(
  containers: readonly Container[],
  own: readonly Pod[],
  isTaken: (key: string) => boolean,
): Map<string, string> {
  const assigned = new Map<string, string>();
  const used = new Set<string>();
  const alive = new Set(containers.map((it) => it.attachment.containerId));
  for (const pod of own) {
    const id = pod.metadata.annotations?.[CONTAINER_ID_ANNOTATION] ?? '';
    if (!alive.has(id) || assigned.has(id)) continue;
    assigned.set(id, objectKey(pod));
    used.add(objectKey(pod));
  }
  const inOrder = [...containers].sort((a, b) =>
    a.attachment.createdAt < b.attachment.createdAt ? -1 : 1,
  );
  for (const { attachment } of inOrder) {
    if (assigned.has(attachment.containerId)) continue;
    const { namespace, name } = attachment.pod;
    const plain = toObjectName(name);
    const free = (it: string) => !used.has(`${namespace}/${it}`) && !isTaken(`${namespace}/${it}`);
    const chosen = free(plain) ? plain : withSuffix(plain, attachment.containerId);
    assigned.set(attachment.containerId, `${namespace}/${chosen}`);
    used.add(`${namespace}/${chosen}`);
  }
  return assigned;
}

/**
 * Leaves out the sandboxes of a pod that has been started again meanwhile: they are still there to be taken down, and the
 * newest is the pod.
 */
export function withoutFormerSandboxes(attachments: readonly Attachment[]): readonly Attachment[] {
  const newest = new Map<string, Attachment>();
  for (const it of attachments) {
    const other = newest.get(podOf(it));
    if (other === undefined || other.createdAt < it.createdAt) newest.set(podOf(it), it);
  }
  return attachments.filter(
    (it) => !it.pod.sandbox || newest.get(podOf(it))?.containerId === it.containerId,
  );
}

function podOf({ pod }: Attachment): string {
  return `${pod.namespace}/${pod.name}/${pod.uid ?? ''}/${pod.sandbox ?? false}`;
}

/** The nearest valid object name (RFC 1123 subdomain): `My_App` becomes `my-app`. */
export function toObjectName(text: string): string {
  const name = text
    .toLowerCase()
    .replace(/[^a-z0-9.-]+/g, '-')
    .replace(/[.-]*\.[.-]*/g, '.')
    .slice(0, MAX_NAME_LENGTH)
    .replace(/^[.-]+|[.-]+$/g, '');
  return name === '' ? 'container' : name;
}

function withSuffix(name: string, containerId: string): string {
  const suffix = toObjectName(containerId).replace(/[.-]/g, '').slice(0, SUFFIX_DIGITS);
  return `${name.slice(0, MAX_NAME_LENGTH - SUFFIX_DIGITS - 1)}-${suffix}`;
}

/**
 * What the container asks its readiness to be probed by: its labels and annotations, and the annotations of its Pod in
 * the API, where a command to run is not taken from.
 */
export function readinessSettings(
  info: ContainerInfo | undefined,
  observed: Pod | undefined,
): Record<string, string> {
  const { [EXEC_SETTING]: _, ...fromApi } = settingsIn(observed?.metadata.annotations);
  return { ...fromApi, ...settingsIn(info?.labels), ...settingsIn(info?.annotations) };
}

function settingsIn(entries: Readonly<Record<string, string>> = {}): Record<string, string> {
  return Object.fromEntries(
    Object.entries(entries).flatMap(([key, value]) =>
      key.startsWith(READINESS_PREFIX) ? [[key.slice(READINESS_PREFIX.length), value]] : [],
    ),
  );
}

/** What a Pod says of its readiness. */
export function readinessOfPod(pod: Pod): { ready: boolean; since: string | undefined } {
  const condition = pod.status?.conditions?.find(({ type }) => type === 'Ready');
  return { ready: condition?.status === 'True', since: condition?.lastTransitionTime };
}

/**
 * The Pod of a container.
 * @param more.onSkip told of labels that no Kubernetes object may have
 * @param more.readiness what a probe says; undefined: no probe, it is ready while it runs
 */
export function planPod(
  container: Container,
  key: string,
  node: NodeIdentity,
  more: {
    onSkip?: (label: string, reason: string) => void;
    readiness?: Readiness | undefined;
  } = {},
): Pod {
  const { attachment, info } = container;
  const { onSkip = () => {}, readiness } = more;
  // A probe's label holds what no label may (`:8080/healthz`): it becomes an annotation.
  const entries = Object.entries(info?.labels ?? {});
  const isSetting = ([label]: readonly [string, string]) => label.startsWith(READINESS_PREFIX);
  const labels = Object.fromEntries(entries.filter((entry) => !isSetting(entry)));
  const settings = Object.fromEntries(entries.filter(isSetting));
  const [namespace = '', name = ''] = key.split('/');
  const aliases = aliasMarks(attachment);
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      namespace,
      labels: { ...validLabels(labels, onSkip), ...aliases.labels, [MANAGED_LABEL]: 'true' },
      annotations: {
        ...validAnnotations({ ...settings, ...info?.annotations }, onSkip),
        ...aliases.annotations,
        [CONTAINER_ID_ANNOTATION]: attachment.containerId,
      },
    },
    spec: {
      nodeName: node.name,
      restartPolicy: 'Never',
      containers: [{ name: containerName(attachment), image: imageOf(info) }],
    },
    status: planStatus(container, node, readiness),
  };
}

function planStatus(
  container: Container,
  node: NodeIdentity,
  readiness: Readiness | undefined,
): PodStatus {
  const { attachment, info, runtime } = container;
  const phase = phaseOf(container);
  const isRunning = phase === 'Running' && container.ended === undefined;
  const isReady = isRunning && readiness?.ready !== false;
  const ips = ipsOf(attachment).map((address) => ({ ip: address }));
  const [podIp] = ips;
  const [hostIp] = node.hostIps;
  const lived = container.ended?.at ?? info?.finishedAt ?? info?.startedAt ?? attachment.createdAt;
  const at = seconds((isRunning ? readiness?.since : undefined) ?? lived);
  const ready = readyCondition({ isRunning, isReady, phase, at, readiness });
  const since = { status: 'True', lastTransitionTime: seconds(attachment.createdAt) } as const;
  return {
    phase,
    conditions: [
      { type: 'PodScheduled', ...since },
      { type: 'Initialized', ...since },
      { type: 'ContainersReady', ...ready },
      { type: 'Ready', ...ready },
    ],
    ...(hostIp === undefined
      ? {}
      : { hostIP: hostIp, hostIPs: node.hostIps.map((address) => ({ ip: address })) }),
    ...(podIp === undefined ? {} : { podIP: podIp.ip, podIPs: ips }),
    startTime: seconds(attachment.createdAt),
    containerStatuses: [
      {
        name: containerName(attachment),
        image: imageOf(info),
        imageID: info?.imageId ?? '',
        containerID: `${runtime ?? 'cni'}://${attachment.containerId}`,
        ready: isReady,
        started: isRunning,
        restartCount: 0,
        state: containerState(container, phase),
      },
    ],
  };
}

/**
 * Only the exit status tells success from failure. Until the runtime knows it, the Pod is still `Running` and not
 * ready, which is what takes it out of the services; a phase that was final and changed would confuse every reader.
 */
function phaseOf({ info, ended, runtime }: Container): PodPhase {
  const exitCode = ended?.exitCode ?? info?.exitCode;
  if (exitCode !== undefined) return exitCode === 0 ? 'Succeeded' : 'Failed';
  if (info?.state === 'ended') return 'Failed';
  // A namespace without a runtime has no process that could be waited for: it is there, so it runs.
  if (info === undefined) return runtime === undefined ? 'Running' : 'Pending';
  return info.state === 'running' || ended !== undefined ? 'Running' : 'Pending';
}

function readyCondition(it: {
  isRunning: boolean;
  isReady: boolean;
  phase: PodPhase;
  at: string;
  readiness: Readiness | undefined;
}): Omit<Condition, 'type'> {
  const { isRunning, isReady, phase, at, readiness } = it;
  if (isReady) return { status: 'True', lastTransitionTime: at };
  if (!isRunning || readiness === undefined)
    return { status: 'False', reason: notReadyReason(phase), lastTransitionTime: at };
  const { message } = readiness;
  return { status: 'False', reason: 'ReadinessProbeFails', message, lastTransitionTime: at };
}

function notReadyReason(phase: PodPhase): string {
  if (phase === 'Succeeded') return 'PodCompleted';
  if (phase === 'Failed') return 'PodFailed';
  return phase === 'Pending' ? 'ContainersNotReady' : 'ContainerEnded';
}

function containerState({ attachment, info, ended }: Container, phase: PodPhase) {
  const startedAt = seconds(info?.startedAt ?? attachment.createdAt);
  if (phase === 'Pending') return { waiting: { reason: 'ContainerCreating' } };
  if (phase === 'Running') return { running: { startedAt } };
  const exitCode = ended?.exitCode ?? info?.exitCode ?? 255;
  return {
    terminated: {
      exitCode,
      reason: exitCode === 0 ? 'Completed' : 'Error',
      startedAt,
      finishedAt: seconds(info?.finishedAt ?? ended?.at ?? attachment.createdAt),
    },
  };
}

/**
 * What must be written so that the API has these Pods, and of ours no others.
 * @param own Pods of this node in the API
 * @param isOver whether the time is over that a Pod was given when somebody deleted it; until then it drains
 */
export function planWrites(
  desired: readonly Pod[],
  own: readonly Pod[],
  isOver: (pod: Pod) => boolean,
): PodWrite[] {
  const observed = new Map(own.map((pod) => [objectKey(pod), pod]));
  const writes: PodWrite[] = [];
  const kept = new Set<string>();
  for (const pod of desired) {
    const key = objectKey(pod);
    const was = observed.get(key);
    // Another life of the name goes first: the API would take the change of a container for one of the same Pod.
    if (
      was !== undefined &&
      (containerIdOf(was) !== containerIdOf(pod) || (isTerminating(was) && isOver(was)))
    ) {
      writes.push({ type: 'delete', key, pod: was });
      writes.push({ type: 'create', pod });
    } else if (was === undefined) writes.push({ type: 'create', pod });
    else writes.push(...planChanges(pod, was));
    kept.add(key);
  }
  for (const [key, pod] of observed) if (!kept.has(key)) writes.push({ type: 'delete', key, pod });
  // What is gone stops being an endpoint before anything else is told.
  return writes.sort((a, b) => rank(a) - rank(b));
}

/** What must be written to turn one Pod into the other; labels and annotations of others stay. */
export function planChanges(desired: Pod, observed: Pod): PodWrite[] {
  const labels = missing(desired.metadata.labels, observed.metadata.labels);
  const annotations = missing(desired.metadata.annotations, observed.metadata.annotations);
  const writes: PodWrite[] = [];
  if (labels !== undefined || annotations !== undefined)
    writes.push({
      type: 'metadata',
      pod: desired,
      patch: {
        ...(labels === undefined ? {} : { labels }),
        ...(annotations === undefined ? {} : { annotations }),
      },
    });
  if (!contains(observed.status, desired.status)) writes.push({ type: 'status', pod: desired });
  return writes;
}

function rank(write: PodWrite): number {
  return ['delete', 'status', 'metadata', 'create'].indexOf(write.type);
}

function containerIdOf(pod: Pod): string {
  return pod.metadata.annotations?.[CONTAINER_ID_ANNOTATION] ?? '';
}

/**
 * Pods on this node that nobody else ends: they were deleted, and what they stood for is not attached here, or had its time.
 * Only of a node without a kubelet.
 * @param others Pods of this node that no agent made
 */
export function planEndings(
  others: readonly Pod[],
  attachments: readonly Attachment[],
  isOver: (pod: Pod) => boolean,
): PodWrite[] {
  const attached = new Set(attachments.map(({ pod }) => `${pod.namespace}/${pod.name}`));
  return others.flatMap((pod) => {
    const key = objectKey(pod);
    if (!isTerminating(pod) || (attached.has(key) && !isOver(pod))) return [];
    return [{ type: 'delete', key, pod }];
  });
}

function missing(
  desired: Readonly<Record<string, string>> = {},
  observed: Readonly<Record<string, string>> = {},
): Record<string, string> | undefined {
  const entries = Object.entries(desired).filter(([key, value]) => observed[key] !== value);
  return entries.length === 0 ? undefined : Object.fromEntries(entries);
}

/** Whether `actual` has everything that `wanted` has; lists must be of the same length. */
function contains(actual: unknown, wanted: unknown): boolean {
  if (Array.isArray(wanted))
    return (
      Array.isArray(actual) &&
      actual.length === wanted.length &&
      wanted.every((item, i) => contains(actual[i], item))
    );
  if (typeof wanted !== 'object' || wanted === null) return actual === wanted;
  if (typeof actual !== 'object' || actual === null) return false;
  const fields = actual as Readonly<Record<string, unknown>>;
  return Object.entries(wanted).every(([key, value]) => contains(fields[key], value));
}

function validLabels(
  labels: Readonly<Record<string, string>>,
  onSkip: (label: string, reason: string) => void,
): Record<string, string> {
  return filterEntries(
    labels,
    onSkip,
    (key, value) => checkQualifiedName(key) ?? checkLabelValue(value),
  );
}

function validAnnotations(
  annotations: Readonly<Record<string, string>>,
  onSkip: (label: string, reason: string) => void,
): Record<string, string> {
  // Annotation keys may have upper case where label keys may not; the check is done on the lower case, as upstream.
  return filterEntries(annotations, onSkip, (key) => checkQualifiedName(key.toLowerCase()));
}

function filterEntries(
  entries: Readonly<Record<string, string>>,
  onSkip: (key: string, reason: string) => void,
  check: (key: string, value: string) => string | undefined,
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(entries).filter(([key, value]) => {
      const fault = check(key, value);
      if (fault !== undefined) onSkip(key, fault);
      return fault === undefined;
    }),
  );
}

function containerName({ pod }: Attachment): string {
  return toObjectName(pod.name)
    .replaceAll('.', '-')
    .slice(0, MAX_CONTAINER_NAME_LENGTH)
    .replace(/-+$/, '');
}

function imageOf(info: ContainerInfo | undefined): string {
  return info === undefined || info.image === '' ? NO_IMAGE : info.image;
}

/** RFC 3339 as `metav1.Time` writes it: whole seconds. */
function seconds(time: string): string {
  return time.replace(/\.\d+Z$/, 'Z');
}
