/**
 * The policy feature: watches policies, pods, namespaces and nodes, and keeps the rules for this node's pods at the plan.
 *
 * A pod is closed from the moment its link exists until its policies are in the kernel, because its address leads
 * nowhere: {@link Policy.prepare} puts them there before the link is made, if the pod's labels are known by then.
 */
import { isDeepStrictEqual } from 'node:util';
import type { Namespace } from '#api/core/v1/namespace.ts';
import type { Node } from '#api/core/v1/node.ts';
import type { Pod } from '#api/core/v1/pod.ts';
import type { Service } from '#api/core/v1/service.ts';
import type { KubeObject } from '#api/meta.ts';
import type { NetworkPolicy } from '#api/networking/v1/network-policy.ts';
import type { ClusterNetworkPolicy } from '#api/policy/v1alpha2/cluster-network-policy.ts';
import type { Cache, CacheChange } from '#client/port.ts';
import type { Clock } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import { type Ip, splitCidr } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { CompiledPolicy, PolicyPod } from '#policy/model.ts';
import { compilePolicy, dnsPod, policyNamespace, policyNode, policyPod } from '#policy/world.ts';
import { type Attachment, type Attachments, ipsOf } from '../attachment.ts';
import type { Ruleset } from '../ruleset.ts';
import { Directory } from './directory.ts';
import { Domains } from './domain-watch.ts';
import { PolicyPlanner } from './planner.ts';
import { Programmer } from './programmer.ts';
import type { PolicyState } from './reports.ts';

/** A burst of changes becomes one transaction; one change waits no longer than this. */
const MIN_SYNC_INTERVAL_MS = 1;
/** A kubelet's pod is in the API before it is attached; the watch may be a little late. After this the pod starts closed. */
const MAX_POD_WAIT_MS = 500;
/** Attachments that were prepared and never completed, forgotten at the next change after this. */
const MAX_PENDING_MS = 60_000;

export interface PolicyComponents {
  /** One per family. */
  readonly rulesets: readonly Ruleset[];
  /** Of all nodes. */
  readonly pods: Cache<Pod>;
  readonly namespaces: Cache<Namespace>;
  readonly nodes: Cache<Node>;
  readonly services: Cache<Service>;
  readonly networkPolicies: Cache<NetworkPolicy>;
  /** Undefined where the API does not have the kind. */
  readonly clusterPolicies: Cache<ClusterNetworkPolicy> | undefined;
  readonly log: Logger;
  readonly clock?: Clock;
  /** Called when what is allowed may have become less, or more, after it is in the kernel. */
  readonly onProgrammed?: () => void;
  /** How a policy is now: understood or not, in the kernel or not. Undefined: it is gone. */
  readonly onState?: (id: string, state: PolicyState | undefined) => void;
  /** Domain names are wanted that were not: DNS must not answer for them from its cache. */
  readonly onNewDomains?: () => void;
}

export interface PolicyInit {
  /** Annotation of Pods that are made for containers: the container's id. */
  readonly containerIdAnnotation: string;
  /** `namespace/name` of the service for which the nodes answer DNS, and where else they do. */
  readonly dnsService: string;
  readonly dnsAddresses: readonly Ip[];
  /** Where it is kept which addresses pods were told for domain names. Undefined: nowhere. */
  readonly domainsFile?: string;
}

export interface PolicyStatus {
  readonly ready: boolean;
  readonly policies: number;
  readonly localPods: number;
  readonly problems: readonly string[];
}

interface Pending {
  readonly attachment: Attachment;
  readonly since: number;
}

export class Policy implements AsyncDisposable {
  readonly planner: PolicyPlanner;
  /** To be told of DNS answers. */
  readonly domains: Domains;
  readonly #c: PolicyComponents;
  readonly #init: PolicyInit;
  readonly #loop: SyncLoop;
  readonly #programmer: Programmer;
  readonly #stops: (() => void)[] = [];
  readonly #started = Promise.withResolvers<void>();
  #hasStarted = false;
  readonly #dirtyPods = new Set<string>();
  readonly #dirtyNamespaces = new Set<string>();
  readonly #dirtyNodes = new Set<string>();
  readonly #dirtyPolicies = new Map<string, KubeObject | undefined>();
  /** Changed since the kernel last had everything. */
  readonly #unprogrammed = new Set<string>();
  /** Of these, those of which nothing was told yet. */
  readonly #untold = new Set<string>();
  /** Why the last try to program failed. */
  #failure: string | undefined;
  #attachmentsDirty = true;
  /** The sync that the pods which are being attached wait for. */
  #preparation: Promise<unknown> | undefined;
  #dnsDirty = true;
  #dnsKey: string | undefined;
  #attachments: Attachments | undefined;
  readonly #pending = new Map<string, Pending>();
  /** Local pods by key of their Pod and by container: how a change of a Pod finds its attachment. */
  readonly #podOfContainer = new Map<string, string>();
  readonly #locals = new Map<string, { attachment: Attachment; key: string }>();
  readonly #handlesOfKey = new Map<string, Set<string>>();
  readonly #handleOfContainer = new Map<string, string>();
  readonly #localByIp = new Map<Ip, string>();
  readonly #podWaiters = new Set<() => void>();

  constructor(components: PolicyComponents, init: PolicyInit) {
    this.#c = components;
    this.#init = init;
    this.planner = new PolicyPlanner(
      new Directory((pattern) => this.domains.memory.resolved(pattern)),
    );
    const { log, clock } = components;
    this.domains = new Domains({
      ...{ file: init.domainsFile, log, ...(clock === undefined ? {} : { clock }) },
      onResolved: (...change) => this.planner.directory.setResolved(...change),
      onChanged: () => {
        if (this.#hasStarted) this.#syncNow('the addresses of a domain name');
      },
      onNewPatterns: () => components.onNewDomains?.(),
    });
    this.#programmer = new Programmer({
      ...{ ...components, planner: this.planner },
      onRetry: () => this.#loop.trigger(),
    });
    this.#loop = new SyncLoop(() => this.#sync(), {
      name: 'policy',
      log: components.log,
      minIntervalMs: MIN_SYNC_INTERVAL_MS,
    });
  }

  /** Resolves when the policies that the API has are in the kernel for the pods that are attached. */
  async start(attachments: Attachments): Promise<void> {
    const { pods, namespaces, nodes, services, networkPolicies, clusterPolicies } = this.#c;
    const caches = [pods, namespaces, nodes, services, networkPolicies];
    await Promise.all([...caches.map((cache) => cache.synced()), clusterPolicies?.synced()]);
    this.#attachments = attachments;
    this.#watch(pods, (change) => this.#podChanged(change));
    this.#watch(namespaces, ({ key }) => this.#dirtyNamespaces.add(key));
    this.#watch(nodes, ({ key }) => this.#dirtyNodes.add(key));
    this.#watch(services, ({ key }) => {
      if (key === this.#init.dnsService) this.#dnsDirty = true;
    });
    const follow = (kind: string, { key, old, current }: CacheChange<KubeObject>) => {
      if (!isSamePolicy(old, current)) this.#dirtyPolicies.set(`${kind} ${key}`, current);
    };
    this.#watch(networkPolicies, (change) => follow('NetworkPolicy', change));
    if (clusterPolicies !== undefined)
      this.#watch(clusterPolicies, (change) => follow('ClusterNetworkPolicy', change));
    this.#stops.push(
      attachments.onChange(() => {
        this.#attachmentsDirty = true;
        this.#loop.trigger();
      }),
    );
    const settled = this.#loop.settled();
    await settled;
    this.#hasStarted = true;
    this.#started.resolve();
  }

  /**
   * Puts a new pod's policies in the kernel before its link is made. If that fails the pod is closed, not refused.
   * @param attachment with its addresses
   * @throws for a pod on a bridge, or by another plugin's link, whose policies cannot be programmed: there it would be
   *   open, because only what is routed by links of ours is closed until its address is known
   */
  async prepare(attachment: Attachment): Promise<void> {
    await this.#started.promise;
    const now = Date.now();
    for (const [handle, { attachment: other, since }] of this.#pending) {
      const isReplaced = addressesOf(other).some((address) =>
        addressesOf(attachment).includes(address),
      );
      if (isReplaced || now - since > MAX_PENDING_MS) this.#pending.delete(handle);
    }
    this.#pending.set(attachment.handle, { attachment, since: now });
    this.#attachmentsDirty = true;
    if (attachment.pod.kubelet && this.#objectOf(attachment) === undefined)
      await this.#podAppears(attachment);
    // Pods that come in the same turn come in one transaction.
    this.#preparation ??= Promise.resolve().then(() => {
      this.#preparation = undefined;
      return this.#syncNow('the rules of new pods');
    });
    const failure = await this.#preparation;
    const { bridge, chained } = attachment;
    if (failure !== undefined && (bridge !== undefined || chained !== undefined)) throw failure;
  }

  status(): PolicyStatus {
    const closed = this.planner.closedPods().map(({ key }) => key);
    const { refused } = this.#programmer;
    const problems: string[] = [];
    if (this.#loop.lastError !== undefined) problems.push(this.#loop.lastError);
    for (const [id, reason] of refused) problems.push(`${id}: the kernel refuses it: ${reason}`);
    for (const policy of this.planner.policies)
      for (const problem of policy.problems) problems.push(`${policy.id}: ${problem}`);
    const { forgotten } = this.domains.memory;
    if (forgotten > 0)
      problems.push(
        `policies mean more domain names than are kept; ${forgotten} were closed until pods ask for them again`,
      );
    if (closed.length > 0)
      problems.push(
        `closed until ${refused.size > 0 ? 'the kernel takes their policies' : 'their labels are known'}: ${closed.slice(0, 5).join(', ')}`,
      );
    return {
      ready: this.#loop.runs > 0 && this.#loop.lastError === undefined,
      policies: this.planner.policyCount,
      localPods: this.planner.localCount,
      problems,
    };
  }

  /** The pod of this node that has the address. */
  localAt(address: Ip): PolicyPod | undefined {
    const handle = this.#localByIp.get(address);
    return handle === undefined ? undefined : this.planner.localPod(handle);
  }

  /** Resolves when everything that is known now is in the kernel. */
  settled(): Promise<void> {
    return this.#loop.settled();
  }

  /** Stops watching; the rules stay, and so does what they forbid. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const stop of this.#stops) stop();
    this.#programmer[Symbol.dispose]();
    await this.domains[Symbol.asyncDispose]();
    await this.#loop[Symbol.asyncDispose]();
  }

  /** Follows a cache, with what is in it already. */
  #watch<T extends KubeObject>(cache: Cache<T>, onChange: (change: CacheChange<T>) => void): void {
    this.#stops.push(
      cache.onChange((change) => {
        onChange(change);
        this.#loop.trigger();
      }),
    );
    for (const current of cache.values()) {
      const { namespace, name } = current.metadata;
      onChange({ key: namespace ? `${namespace}/${name}` : name, old: undefined, current });
    }
  }

  #podChanged({ key, old, current }: CacheChange<Pod>): void {
    const annotation = this.#init.containerIdAnnotation;
    const before = old?.metadata.annotations?.[annotation];
    const after = current?.metadata.annotations?.[annotation];
    if (before !== undefined && before !== after && this.#podOfContainer.get(before) === key)
      this.#podOfContainer.delete(before);
    if (after !== undefined) this.#podOfContainer.set(after, key);
    this.#dirtyPods.add(key);
    for (const wake of this.#podWaiters) wake();
  }

  /** Programs what is known without waiting for the loop. What fails is closed, and tried again. @returns the failure */
  #syncNow(what: string): unknown {
    try {
      this.#sync();
      return undefined;
    } catch (error) {
      this.#c.log.error(
        { reason: explainError(error) },
        `policy: cannot program ${what}; it is closed until that succeeds`,
      );
      this.#loop.trigger();
      return error;
    }
  }

  #sync(): void {
    this.#takeInput();
    const before = this.#programmer.refused;
    try {
      this.#programmer.program(this.#unprogrammed);
    } catch (error) {
      this.#tellFailure(explainError(error));
      throw error;
    }
    const { refused } = this.#programmer;
    for (const id of new Set([...this.#unprogrammed, ...before.keys(), ...refused.keys()]))
      if (this.#unprogrammed.has(id) || before.get(id) !== refused.get(id))
        this.#tell(id, undefined);
    this.#failure = undefined;
    this.#untold.clear();
    this.#unprogrammed.clear();
    this.#c.onProgrammed?.();
  }

  /** A transaction is all or nothing: none of the policies that changed since the last is in the kernel. */
  #tellFailure(failure: string): void {
    // The same again says nothing new.
    if (failure === this.#failure && this.#untold.size === 0) return;
    this.#failure = failure;
    for (const id of this.#untold) this.#tell(id, failure);
    this.#untold.clear();
  }

  /** @param failure of everything; one policy may be refused beside it */
  #tell(id: string, failure: string | undefined): void {
    const problems = this.planner.policy(id)?.problems;
    const refused = this.#programmer.refused.get(id);
    this.#c.onState?.(
      id,
      problems === undefined
        ? undefined
        : { problems, failure: refused ?? failure, closes: refused !== undefined },
    );
  }

  /** Brings what has changed to the planner. */
  #takeInput(): void {
    const { planner } = this;
    for (const name of this.#dirtyNamespaces) {
      const namespace = this.#c.namespaces.get(name);
      planner.setNamespace(name, namespace === undefined ? undefined : policyNamespace(namespace));
    }
    this.#dirtyNamespaces.clear();
    for (const name of this.#dirtyNodes) {
      const node = this.#c.nodes.get(name);
      planner.setNode(name, node === undefined ? undefined : policyNode(node));
    }
    this.#dirtyNodes.clear();
    if (this.#dnsDirty) this.#refreshDns();
    if (this.#dirtyPolicies.size > 0) {
      for (const [id, object] of this.#dirtyPolicies) {
        planner.setPolicy(id, object === undefined ? undefined : this.#compile(id, object));
        this.#unprogrammed.add(id);
        this.#untold.add(id);
      }
      this.#dirtyPolicies.clear();
      // Before a rule of theirs is programmed, so that its set begins with what is known already.
      this.domains.setPolicies(planner.policies);
    }
    if (this.#attachmentsDirty) this.#refreshLocals();
    for (const key of this.#dirtyPods) {
      this.#refreshPod(key);
      const handles = new Set(this.#handlesOfKey.get(key));
      // Its container may have been attached before the Pod was known.
      const id = this.#c.pods.get(key)?.metadata.annotations?.[this.#init.containerIdAnnotation];
      const handle = id === undefined ? undefined : this.#handleOfContainer.get(id);
      if (handle !== undefined) handles.add(handle);
      for (const affected of handles) {
        const local = this.#locals.get(affected);
        if (local !== undefined) this.#refreshLocal(local.attachment);
      }
    }
    this.#dirtyPods.clear();
  }

  #compile(id: string, object: KubeObject): CompiledPolicy {
    const compiled = compilePolicy(object);
    if (compiled.problems.length > 0)
      this.#c.log.warn(
        { policy: id, problems: compiled.problems },
        'policy: not all is understood',
      );
    return compiled;
  }

  #refreshDns(): void {
    this.#dnsDirty = false;
    const service = this.#c.services.get(this.#init.dnsService);
    const pod = service === undefined ? undefined : dnsPod(service, this.#init.dnsAddresses);
    if (this.#dnsKey !== undefined && this.#dnsKey !== pod?.key)
      this.planner.setPod(this.#dnsKey, undefined);
    if (pod !== undefined) this.planner.setPod(pod.key, pod);
    this.#dnsKey = pod?.key;
  }

  #refreshLocals(): void {
    this.#attachmentsDirty = false;
    const complete = this.#attachments?.list() ?? [];
    const wanted = new Map<string, Attachment>();
    for (const [handle, { attachment }] of this.#pending) wanted.set(handle, attachment);
    for (const attachment of complete) {
      wanted.set(attachment.handle, attachment);
      this.#pending.delete(attachment.handle);
    }
    for (const [handle, { attachment }] of this.#locals)
      if (!wanted.has(handle)) this.#forgetLocal(attachment);
    for (const attachment of wanted.values()) {
      const known = this.#locals.get(attachment.handle)?.attachment;
      if (known?.createdAt !== attachment.createdAt || known.netns !== attachment.netns)
        this.#refreshLocal(attachment);
    }
  }

  #refreshLocal(attachment: Attachment): void {
    const { handle } = attachment;
    const key = this.#keyOf(attachment);
    const before = this.#locals.get(handle)?.key;
    if (before !== undefined && before !== key) this.#dropKey(before, handle);
    this.#locals.set(handle, { attachment, key });
    const handles = this.#handlesOfKey.get(key) ?? new Set();
    this.#handlesOfKey.set(key, handles.add(handle));
    this.#handleOfContainer.set(attachment.containerId, handle);
    for (const address of addressesOf(attachment)) this.#localByIp.set(address, handle);
    const old = this.planner.localPod(handle);
    const pod = this.#localPod(attachment, key);
    if (!samePod(old, pod)) this.planner.setLocal(handle, pod);
    this.#refreshPod(key);
  }

  #forgetLocal(attachment: Attachment): void {
    const { handle } = attachment;
    const key = this.#locals.get(handle)?.key;
    this.#locals.delete(handle);
    if (this.#handleOfContainer.get(attachment.containerId) === handle)
      this.#handleOfContainer.delete(attachment.containerId);
    for (const address of addressesOf(attachment))
      if (this.#localByIp.get(address) === handle) this.#localByIp.delete(address);
    this.planner.setLocal(handle, undefined);
    if (key !== undefined) this.#dropKey(key, handle);
  }

  #dropKey(key: string, handle: string): void {
    const handles = this.#handlesOfKey.get(key);
    handles?.delete(handle);
    if (handles?.size === 0) this.#handlesOfKey.delete(key);
    this.#refreshPod(key);
  }

  /** A pod as peers see it: with the addresses that its Pod says, and those that it has here already. */
  #refreshPod(key: string): void {
    const object = this.#c.pods.get(key);
    const seen = object === undefined ? undefined : policyPod(object);
    const locals = [...(this.#handlesOfKey.get(key) ?? [])].flatMap(
      (handle) => this.planner.localPod(handle) ?? [],
    );
    const base = seen ?? locals[0];
    const pod =
      base === undefined
        ? undefined
        : { ...base, ips: [...new Set([...base.ips, ...locals.flatMap(({ ips }) => ips)])] };
    if (!samePod(this.planner.directory.pods.get(key), pod)) this.planner.setPod(key, pod);
  }

  #localPod(attachment: Attachment, key: string): PolicyPod {
    const object = this.#objectOf(attachment);
    const { namespace, name } = attachment.pod;
    const unknown = {
      ...{ key, namespace, name, labels: undefined, node: undefined },
      ...{ hostNetwork: false, ports: [] },
    };
    // A Pod that has ended is attached still: its labels hold as long as its link does.
    const living = object === undefined ? undefined : { ...object, status: {} };
    const known = living === undefined ? undefined : policyPod(living);
    return { ...(known ?? unknown), hostNetwork: false, ips: addressesOf(attachment) };
  }

  #keyOf(attachment: Attachment): string {
    const { namespace, name, kubelet } = attachment.pod;
    const made = kubelet ? undefined : this.#podOfContainer.get(attachment.containerId);
    return made ?? `${namespace}/${name}`;
  }

  /** The Pod of an attachment; one of the same name from another life is not it. */
  #objectOf(attachment: Attachment): Pod | undefined {
    const { kubelet, uid } = attachment.pod;
    const object = this.#c.pods.get(this.#keyOf(attachment));
    if (kubelet) return uid === undefined || object?.metadata.uid === uid ? object : undefined;
    const id = object?.metadata.annotations?.[this.#init.containerIdAnnotation];
    return id === attachment.containerId ? object : undefined;
  }

  async #podAppears(attachment: Attachment): Promise<void> {
    await new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#podWaiters.delete(check);
        resolve();
      };
      const check = () => {
        if (this.#objectOf(attachment) !== undefined) end();
      };
      const timer = setTimeout(end, MAX_POD_WAIT_MS);
      this.#podWaiters.add(check);
    });
  }
}

/** A policy whose conditions changed is the same: its rules, and their counters, stay as they are. */
function isSamePolicy(old: KubeObject | undefined, current: KubeObject | undefined): boolean {
  if (old === undefined || current === undefined) return false;
  const said = ({ metadata, spec }: KubeObject & { readonly spec?: unknown }) => ({
    ...{ spec, uid: metadata.uid, annotations: metadata.annotations },
  });
  return isDeepStrictEqual(said(old), said(current));
}

function samePod(a: PolicyPod | undefined, b: PolicyPod | undefined): boolean {
  return a === b || (a !== undefined && b !== undefined && JSON.stringify(a) === JSON.stringify(b));
}

/** Ours, those that an address plugin gave for a bridge, and those of a plugin before us. */
function addressesOf(attachment: Attachment): readonly Ip[] {
  const others = [...(attachment.bridge?.ips ?? []), ...(attachment.chained?.ips ?? [])];
  const ips = others.flatMap(({ address }) => splitCidr(address)?.address ?? []);
  return [...ipsOf(attachment), ...ips];
}
