/**
 * The pods feature: without Kubernetes, every container on the pod network becomes a Pod object, so that services,
 * policies and people find it. Pods of a kubelet are left alone, and so is everything on a node that has one.
 *
 * A Pod that somebody deletes stays for its grace period, and no service sends it anything new. It goes at once when its
 * container is gone. A container that runs on then has a Pod again: to stop it is for who started it.
 */
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { gracePeriods, isTerminating } from '#api/core/v1/pod-deletion.ts';
import { isNamespaceGone } from '#api/machinery/status.ts';
import { objectKey } from '#api/meta.ts';
import { deleteExactly } from '#client/delete.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import { type Clock, systemClock } from '#lib/clock.ts';
import { Countdowns } from '#lib/countdowns.ts';
import { explainError, isAlreadyExists, isConflict, isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import { type Attachments, ipsOf } from '../attachment.ts';
import type { ProbeTarget, ReadinessProbes } from '../readiness.ts';
import { Containers } from './containers.ts';
import {
  assignNames,
  CONTAINER_ID_ANNOTATION,
  type Container,
  isOwnPod,
  type NodeIdentity,
  type PodWrite,
  planChanges,
  planEndings,
  planPod,
  planWrites,
  readinessOfPod,
  readinessSettings,
  withoutFormerSandboxes,
} from './plan.ts';
import type { ContainerRuntime } from './runtimes/runtime.ts';

/** Names of others that were met; more than a node has containers. Forgotten together, and then found again. */
const MAX_TAKEN_NAMES = 10_000;
/** Labels that were reported as impossible, so that each is reported once. */
const MAX_REPORTED = 10_000;
/** How soon a namespace that was made again has the Pods of its containers. */
const NAMESPACE_RETRY_MS = 10_000;

export interface PodsComponents {
  readonly client: ApiClient;
  /** At least the Pods of this node. */
  readonly pods: Cache<Pod>;
  readonly attachments: Attachments;
  readonly runtimes: readonly ContainerRuntime[];
  readonly watchExit: (pid: number, onExit: () => void) => () => void;
  readonly isInNetns: (pid: number, netns: string) => boolean;
  /** Missing: whoever runs is ready. */
  readonly probes?: ReadinessProbes;
  /** Whether a kubelet keeps this node. */
  readonly isBesideKubelet?: () => boolean;
  readonly log: Logger;
  readonly clock?: Clock;
}

export class Pods implements AsyncDisposable {
  readonly #components: PodsComponents;
  readonly #node: NodeIdentity;
  readonly #loop: SyncLoop;
  readonly #endings: Countdowns;
  readonly #taken = new Set<string>();
  readonly #reported = new Set<string>();
  /** Namespaces that are gone and whose containers run on. */
  #goneNamespaces: ReadonlySet<string> = new Set();
  #cancelRetry: (() => void) | undefined;
  #containers: Containers | undefined;
  readonly #stops: (() => void)[] = [];

  constructor(components: PodsComponents, init: { node: NodeIdentity }) {
    this.#components = components;
    this.#node = init.node;
    const { log, clock } = components;
    this.#endings = new Countdowns({
      clock: clock ?? systemClock,
      onOver: () => this.#loop.trigger(),
    });
    this.#loop = new SyncLoop(() => this.#sync(), {
      name: 'pods',
      log,
      ...(clock === undefined ? {} : { clock }),
    });
  }

  /** Begins; returns at once. What an earlier agent made is adopted when the API's Pods are known. */
  start(): void {
    const trigger = () => this.#loop.trigger();
    const { pods, probes } = this.#components;
    this.#stops.push(
      pods.onChange(({ old, current }) => {
        const isOurs = [old, current].some((pod) => pod && isOwnPod(pod, this.#node.name));
        if (isOurs || (current !== undefined && this.#isToEnd(current))) trigger();
      }),
    );
    if (probes !== undefined) this.#stops.push(probes.onChange(trigger));
    this.#containers = new Containers({ ...this.#components, onChange: trigger });
    trigger();
  }

  /** Why the Pods in the API may not be right, or undefined. */
  get problem(): string | undefined {
    return this.#loop.lastError;
  }

  /** Resolves when everything that is known now is in the API. */
  settled(): Promise<void> {
    return this.#loop.settled();
  }

  /** Stops; the Pods stay. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const stop of this.#stops) stop();
    this.#cancelRetry?.();
    this.#endings[Symbol.dispose]();
    await this.#containers?.[Symbol.asyncDispose]();
    await this.#loop[Symbol.asyncDispose]();
  }

  async #sync(): Promise<void> {
    await this.#components.pods.synced();
    const failures: unknown[] = [];
    const gone = new Set<string>();
    for (const write of this.#plan())
      await this.#apply(write).catch((error: unknown) => {
        if (write.type === 'create' && isNamespaceGone(error))
          gone.add(write.pod.metadata.namespace ?? '');
        else failures.push(error);
      });
    this.#waitForNamespaces(gone);
    if (failures.length > 0)
      throw new AggregateError(
        failures,
        `${failures.length} writes of Pods failed; the first: ${explainError(failures[0])}`,
      );
  }

  /** Somebody has deleted a namespace with all that is in it. That is no fault of this node, which stays ready. */
  #waitForNamespaces(gone: ReadonlySet<string>): void {
    const { clock = systemClock, log } = this.#components;
    for (const namespace of gone)
      if (!this.#goneNamespaces.has(namespace))
        log.warn(
          { namespace },
          'the namespace of running containers is gone, so they have no Pods and are in no service; stop them, or make the namespace again',
        );
    this.#goneNamespaces = gone;
    this.#cancelRetry?.();
    if (gone.size > 0)
      this.#cancelRetry = clock.schedule(NAMESPACE_RETRY_MS, () => this.#loop.trigger());
  }

  #plan(): PodWrite[] {
    if (this.#components.isBesideKubelet?.() === true) return [];
    const containers = this.#containers?.list() ?? [];
    const own: Pod[] = [];
    const others: Pod[] = [];
    for (const pod of this.#components.pods.values())
      if (isOwnPod(pod, this.#node.name)) own.push(pod);
      else if (this.#isToEnd(pod)) others.push(pod);
    const over = this.#endings.follow(gracePeriods([...own, ...others]));
    const isOver = (pod: Pod) => over.has(pod.metadata.uid ?? '');
    const names = assignNames(containers, own, (key) => this.#isForeign(key));
    const { probes } = this.#components;
    probes?.follow(probeTargets(containers, own));
    const desired = containers.map((container) => {
      const { containerId } = container.attachment;
      return planPod(container, names.get(containerId) ?? '', this.#node, {
        onSkip: (label, reason) => this.#reportOnce(containerId, label, reason),
        readiness: probes?.readinessOf(containerId),
      });
    });
    // Until a container is known, nothing is said of it, not even that its Pod of before is gone.
    const attachments = this.#components.attachments.list();
    const pending = new Set(withoutFormerSandboxes(attachments).map((it) => it.containerId));
    for (const { attachment } of containers) pending.delete(attachment.containerId);
    const writes = planWrites(desired, own, isOver).filter(
      (write) =>
        write.type !== 'delete' ||
        !pending.has(write.pod.metadata.annotations?.[CONTAINER_ID_ANNOTATION] ?? ''),
    );
    return [...planEndings(others, attachments, isOver), ...writes];
  }

  /** A Pod here that was deleted, and that is not of ours. */
  #isToEnd(pod: Pod): boolean {
    return isTerminating(pod) && pod.spec.nodeName === this.#node.name;
  }

  async #apply(write: PodWrite): Promise<void> {
    switch (write.type) {
      case 'create':
        return this.#create(write.pod);
      case 'metadata':
        return this.#patch(write.pod, { metadata: write.patch });
      case 'status':
        return this.#patch(write.pod, { status: write.pod.status }, 'status');
      case 'delete':
        return this.#delete(write.pod);
    }
  }

  async #create(pod: Pod): Promise<void> {
    const { client } = this.#components;
    const { status: _, ...withoutStatus } = pod;
    let observed: Pod;
    try {
      observed = await client.create(POD, withoutStatus);
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      observed = await client.get(POD, pod.metadata.name, pod.metadata.namespace);
      if (!isOwnPod(observed, this.#node.name)) return this.#avoid(objectKey(pod));
    }
    for (const write of planChanges(pod, observed)) await this.#apply(write);
  }

  async #patch(pod: Pod, body: object, subresource?: 'status'): Promise<void> {
    const { name, namespace } = pod.metadata;
    const target = {
      name,
      ...(namespace === undefined ? {} : { namespace }),
      ...(subresource === undefined ? {} : { subresource }),
    };
    const patch = { type: 'application/merge-patch+json', body } as const;
    await this.#components.client.patch(POD, target, patch).catch((error: unknown) => {
      // Deleted meanwhile: the cache tells, and the next run makes it again if it should be there.
      if (!isNotFound(error)) throw error;
    });
  }

  async #delete(pod: Pod): Promise<void> {
    try {
      await deleteExactly(this.#components.client, POD, pod, { gracePeriodSeconds: 0 });
    } catch (error) {
      if (!isNotFound(error) && !isConflict(error)) throw error;
    }
  }

  /** The name is somebody else's: the next run takes another. */
  #avoid(key: string): void {
    if (this.#taken.size >= MAX_TAKEN_NAMES) this.#taken.clear();
    this.#taken.add(key);
    this.#components.log.info(
      { pod: key },
      'a Pod of this name exists elsewhere, taking another name',
    );
    this.#loop.trigger();
  }

  #isForeign(key: string): boolean {
    const known = this.#components.pods.get(key);
    if (known !== undefined) return !isOwnPod(known, this.#node.name);
    return this.#taken.has(key);
  }

  #reportOnce(containerId: string, label: string, reason: string): void {
    const key = `${containerId} ${label}`;
    if (this.#reported.has(key)) return;
    if (this.#reported.size >= MAX_REPORTED) this.#reported.clear();
    this.#reported.add(key);
    this.#components.log.warn(
      { container: containerId, label, reason },
      "left out a container's label or annotation that no Pod may have",
    );
  }
}

/** The containers that run; whether one asks for a probe is for the probes to read. */
function probeTargets(containers: readonly Container[], own: readonly Pod[]): ProbeTarget[] {
  const observed = new Map(
    own.map((pod) => [pod.metadata.annotations?.[CONTAINER_ID_ANNOTATION], pod]),
  );
  return containers.flatMap(({ attachment, runtime, info, ended }) => {
    const pod = observed.get(attachment.containerId);
    const settings = readinessSettings(info, pod);
    if (Object.keys(settings).length === 0 || ended !== undefined) return [];
    if (info !== undefined && info.state !== 'running') return [];
    return [
      {
        containerId: attachment.containerId,
        addresses: ipsOf(attachment),
        runtime,
        settings,
        startedAt: info?.startedAt ?? attachment.createdAt,
        was: pod === undefined ? undefined : readinessOfPod(pod),
      },
    ];
  });
}
