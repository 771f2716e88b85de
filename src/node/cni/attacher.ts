/**
 * Attaches containers to the pod network and detaches them: addresses, interface and durable record, in an order that
 * can be finished or undone after a crash at any point.
 *
 * ```
 *  ADD   record "adding" ─► address chosen ─┬─► address written ─┬─► record "attached" ─► answer
 *                                           └─► rules, veth ─────┘
 *  DEL   record "deleting" ─► veth, rules away ─┬─► answer
 *                                               └─► address back ─► record away
 * ```
 *
 * At start, what is "adding" or "deleting" is undone; the runtime never got an answer, so it asks again. What is
 * "attached" stays; if its answer was lost, the runtime's repeated ADD gets the same one.
 */
import type { Clock } from '#lib/clock.ts';
import { systemClock } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import type { Family, Ip } from '#lib/ip.ts';
import { KeyedLock } from '#lib/keyed-lock.ts';
import type { Logger } from '#lib/log.ts';
import { Lull } from '#lib/lull.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import { Turns } from '#lib/turns.ts';
import type { Link, NetworkStack, OpenNetworkStack } from '#linux/network/port.ts';
import type { TrafficControl } from '#linux/tc/port.ts';
import { CNI_ERROR, CniError } from '#wire/cni/error.ts';
import type { CniRequest } from '#wire/cni/request.ts';
import type { CniResult } from '#wire/cni/result.ts';
import type { AddressSource } from '../addresses.ts';
import type { Attachment, Attachments, PodRules } from '../attachment.ts';
import { type Asked, AttachmentAddresses, tryLater } from './attachment-addresses.ts';
import { checkIpam, ipamOf, passToIpam } from './ipam-plugin.ts';
import { netnsIdentity } from './link.ts';
import { LinkRemover } from './link-remover.ts';
import {
  begin,
  faultsOf,
  followsFabricMtu,
  make,
  observeChained,
  repair,
  resize,
  resultOf,
  unmake,
  unmakeTogether,
} from './modes.ts';
import { comparePrevResult, type DnsSettings, handleOf } from './plan.ts';
import type { AttachmentRecords, RecordPhase } from './records.ts';
import { type AddRequest, wantedOf } from './target.ts';

/** Where a test may let the agent die. Named for what has just been done. */
export const ATTACH_POINTS = [
  'add:recorded',
  'add:allocated',
  'add:linked',
  'add:attached',
  'del:recorded',
  'del:unlinked',
  'del:released',
  'del:forgotten',
] as const;
export type AttachPoint = (typeof ATTACH_POINTS)[number];

export interface AttacherOptions {
  /** The host's own namespace. */
  readonly host: NetworkStack;
  readonly openStack: OpenNetworkStack;
  readonly records: AttachmentRecords;
  readonly addresses: AddressSource;
  /** The MTU for new pods, as the fabric has it now. */
  readonly mtuBytes: () => number;
  readonly dns: DnsSettings;
  readonly log: Logger;
  /** Needed for attachments with a limit of bandwidth. */
  readonly tc?: TrafficControl;
  /** Writes what a pod needs of rules: before its link is made, and until it is gone. */
  readonly rules?: PodRules;
  /** The address from which the host talks to its pods. */
  readonly hostSource?: (family: Family) => Ip | undefined;
  readonly clock?: Clock;
  /** When what follows a call is done. */
  readonly lull?: Lull;
  /** Names the namespace at a path; undefined if there is none. */
  readonly netnsIdentity?: (path: string) => string | undefined;
  /** Whether a kubelet keeps this node: whose pods those of Kubernetes runtimes are. Missing: yes. */
  readonly isBesideKubelet?: () => boolean;
  /** Whether the runtime still knows the container; undefined if that cannot be told. */
  readonly containerExists?: (attachment: Attachment) => Promise<boolean | undefined>;
  /** Whether no plugin after ours wants the place of the fast path's program, in a network. Missing: that is not known. */
  readonly isIngressFree?: (network: string) => boolean;
  /** Called with the addresses, before the link is made: what must be in the kernel before a first packet. */
  readonly prepare?: (attachment: Attachment) => Promise<void>;
  /** Called at each {@link AttachPoint}; for tests. */
  readonly failpoint?: (point: AttachPoint) => Promise<void>;
}

const OWN_NETNS = '/proc/thread-self/ns/net';

export class Attacher implements Attachments, AsyncDisposable {
  readonly #options: AttacherOptions;
  readonly #records: AttachmentRecords;
  readonly #clock: Clock;
  readonly #lull: Lull;
  readonly #lock = new KeyedLock();
  readonly #remover: LinkRemover;
  readonly #addresses: AttachmentAddresses;
  readonly #turns = new Turns();
  #isBeginning = false;
  readonly #listeners = new Set<() => void>();
  readonly #followers = new Set<(attachment: Attachment, isComplete: boolean) => void>();
  #cancelNotify: (() => void) | undefined;
  readonly #identity: (path: string) => string | undefined;
  /** Undoes what could not be undone at once, because the API was away. */
  readonly #undoLoop: SyncLoop;
  /** Attachments that looked dead at the last {@link sweep}. */
  #suspects = new Set<string>();

  constructor(options: AttacherOptions) {
    this.#options = options;
    this.#records = options.records;
    this.#remover = new LinkRemover(options.host);
    this.#clock = options.clock ?? systemClock;
    this.#lull = options.lull ?? new Lull(this.#clock);
    this.#addresses = new AttachmentAddresses({ ...options, lull: this.#lull });
    this.#identity = options.netnsIdentity ?? netnsIdentity;
    this.#undoLoop = new SyncLoop(() => this.#undoPending(), {
      name: 'cni: undo',
      log: options.log,
      clock: this.#clock,
    });
  }

  /**
   * Brings records and kernel together after a start: undoes what was not finished, repairs what was.
   * Call before the first request. Addresses are given back in the background.
   */
  recover(): void {
    this.#options.rules?.start(this.list());
    for (const { phase, attachment } of this.#records.values())
      if (phase === 'attached') this.#repair(attachment);
      else unmake(this.#options, attachment);
    // Addresses need the API, which may be away for long; no reason to wait for it.
    this.#undoLoop.trigger();
  }

  /** Resolves when everything that was begun and not finished is undone. */
  undone(): Promise<void> {
    return this.#undoLoop.settled();
  }

  /** Complete attachments. */
  list(): readonly Attachment[] {
    return this.#records
      .values()
      .filter((record) => record.phase === 'attached')
      .map((record) => record.attachment);
  }

  /** Handles of everything that may have an address: for the garbage collection of addresses. */
  handles(): readonly string[] {
    return this.#records.values().map((record) => record.attachment.handle);
  }

  /**
   * Tells at once of each attachment that is complete, and of each that is not any more: {@link onChange} waits for a
   * lull, and what is broken until then must be seen, too.
   */
  onEach(listener: (attachment: Attachment, isComplete: boolean) => void): () => void {
    this.#followers.add(listener);
    return () => this.#followers.delete(listener);
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** @throws CniError */
  add(request: AddRequest): Promise<CniResult> {
    const { attachment: wanted, ...asked } = wantedOf(request, this.#facts());
    // Its address is on its way back since a DEL that is answered.
    if (this.#records.get(wanted.handle)?.phase === 'deleting') this.#lull.end();
    return this.#lock.run(wanted.handle, async () => {
      this.#requireNetns(request);
      const { prevResult } = request.config;
      const attachment =
        prevResult === undefined ? wanted : observeChained(this.#options, wanted, prevResult);
      const old = this.#records.get(attachment.handle);
      if (old !== undefined) {
        const same = old.phase === 'attached' && old.attachment.netns === attachment.netns;
        // The agent died between attaching and answering, and the shim asks once more.
        if (same && this.#faults(old.attachment).length === 0)
          return resultOf(this.#options, old.attachment);
        await this.#remove(old.attachment).catch(tryLater('cannot remove what was there before'));
      }
      try {
        const complete = await this.#attachOnce(attachment, asked);
        this.#notify();
        return resultOf(this.#options, complete);
      } catch (error) {
        await this.#removeOrLater(attachment);
        throw error;
      }
    });
  }

  /**
   * Removes the attachment. Succeeds if there is none, and without namespace.
   *
   * Resolves when nothing of it is in the kernel any more. Its address goes back after that, which takes a round trip
   * to the API, or as long as the API is away: the record stays until it is done, and so does the lock on the handle.
   */
  async delete(request: Extract<CniRequest, { command: 'DEL' }>): Promise<void> {
    const { config, containerId, ifName } = request;
    const handle = handleOf(config.name, containerId, ifName);
    const unlinked = Promise.withResolvers<void>();
    const removed = this.#lock.run(handle, async () => {
      const record = this.#records.get(handle);
      if (record === undefined) await this.#deleteUnknown(request, handle);
      else await this.#removeOrLater(record.attachment, unlinked.resolve);
    });
    await Promise.race([unlinked.promise, removed]);
  }

  /** @throws CniError 3 if the container is unknown, 101 with the differences if something is not as ADD made it */
  async check(request: AddRequest): Promise<void> {
    const handle = handleOf(request.config.name, request.containerId, request.ifName);
    await this.#lock.run(handle, async () => {
      const record = this.#records.get(handle);
      if (record?.phase !== 'attached')
        throw new CniError(CNI_ERROR.unknownContainer, 'the container is not attached', {
          details: `there is no attachment "${handle}" on this node`,
        });
      const { attachment } = record;
      const prev = request.config.prevResult;
      const faults = [
        ...(prev === undefined ? [] : comparePrevResult(prev, attachment)),
        ...this.#faults({ ...attachment, netns: request.netns }),
      ];
      if (faults.length > 0)
        throw new CniError(CNI_ERROR.checkFailed, 'the attachment is not as it was made', {
          details: faults.join('; '),
        });
      const ipam = attachment.bridge?.ipam;
      const { path, config } = request;
      if (ipam !== undefined)
        await checkIpam({ ...ipam, path, stdin: JSON.stringify(config.json) }, request);
    });
  }

  /** Removes every attachment of the network that the runtime does not list. @throws CniError 7 without a list */
  async collect(request: Extract<CniRequest, { command: 'STATUS' | 'GC' }>): Promise<void> {
    const { name, validAttachments } = request.config;
    if (validAttachments === undefined)
      throw new CniError(CNI_ERROR.invalidConfig, 'GC needs "cni.dev/valid-attachments"');
    const valid = new Set(validAttachments.map((it) => handleOf(name, it.containerID, it.ifname)));
    for (const { attachment } of this.#records.values())
      if (attachment.network === name && !valid.has(attachment.handle))
        await this.#removeLocked(attachment, 'the runtime does not know it any more');
    const ipam = ipamOf(request);
    if (ipam !== undefined) await passToIpam('GC', ipam);
  }

  /** @throws CniError 50 if ADD would fail now, or what the address plugin of the configuration says */
  async status(request: Extract<CniRequest, { command: 'STATUS' | 'GC' }>): Promise<void> {
    const reason = this.#options.addresses.notReady() ?? this.#options.rules?.problem;
    if (reason !== undefined)
      throw new CniError(CNI_ERROR.notAvailable, 'the pod network is not ready', {
        details: reason,
      });
    const ipam = ipamOf(request);
    if (ipam !== undefined) await passToIpam('STATUS', ipam);
  }

  /**
   * Removes attachments whose container is gone without DEL: the namespace does not exist any more, or the runtime
   * has forgotten the container. An attachment has to look dead in two sweeps in a row.
   * @returns whether there are any that look dead for the first time
   */
  async sweep(): Promise<boolean> {
    const suspects = new Set<string>();
    for (const attachment of this.list()) {
      if (!(await this.#looksDead(attachment))) continue;
      if (this.#suspects.has(attachment.handle))
        await this.#removeLocked(attachment, 'its container is gone');
      else suspects.add(attachment.handle);
    }
    this.#suspects = suspects;
    return suspects.size > 0;
  }

  /** Sets the host's side right of those attachments that are chosen. Safe at any time. */
  repair(isChosen: (attachment: Attachment) => boolean = () => true): void {
    for (const attachment of this.list()) if (isChosen(attachment)) this.#repair(attachment);
  }

  /** Gives the pods that there are the MTU that new ones get now. */
  followMtu(): void {
    const mtuBytes = this.#options.mtuBytes();
    const changed = this.list().filter((it) => followsFabricMtu(it) && it.mtuBytes !== mtuBytes);
    const resized = changed.map(({ handle }) =>
      this.#lock
        .run(handle, () => this.#resize(handle))
        .catch((err: unknown) =>
          this.#options.log.error({ err, handle }, "could not change a pod's MTU"),
        ),
    );
    // A bridge that was too small for IPv6 has it back when the last of its ports has grown.
    if (changed.some((it) => it.bridge !== undefined))
      void Promise.all(resized).then(() => this.repair((it) => it.bridge !== undefined));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#cancelNotify?.();
    this.#lull.end();
    await this.#undoLoop[Symbol.asyncDispose]();
    await this.#addresses.settled();
  }

  async #attachOnce(attachment: Attachment, asked: Asked): Promise<Attachment> {
    try {
      return await this.#attach(attachment, asked, { early: true });
    } catch (error) {
      if (!(error instanceof OvertakenError)) throw error;
      await this.#remove(attachment);
      // Another life, for those who remember attachments.
      const createdAt = new Date(this.#clock.now()).toISOString();
      return this.#attach({ ...attachment, createdAt }, asked, { early: false });
    }
  }

  /**
   * @param options `early`: the interface is made while its addresses are still being written, and the ADD ends when both
   *   are done. Whoever writes the block has the address; who loses that race makes the interface anew. The runtime has
   *   no answer before, so that what a crash leaves is undone like any other half of an ADD
   * @throws OvertakenError if it was made with addresses that it did not get
   */
  async #attach(
    attachment: Attachment,
    asked: Asked,
    { early }: { early: boolean },
  ): Promise<Attachment> {
    await this.#record('adding', attachment);
    await this.#reached('add:recorded');
    let isWritten = false;
    let making: Promise<Attachment> | undefined;
    const onChosen = (addresses: Attachment['addresses']) => {
      if (early && !isWritten) making ??= this.#make({ ...attachment, addresses });
    };
    const writing = this.#addresses.get(attachment, asked, onChosen).finally(() => {
      isWritten = true;
    });
    // Both must have ended, however they end, before anything is undone.
    const [written] = await Promise.allSettled([writing]);
    const [made] = await Promise.allSettled([making]);
    if (written.status === 'rejected') throw written.reason;
    await this.#reached('add:allocated');
    if (made.status === 'rejected') throw made.reason;
    const complete = written.value;
    if (made.value === undefined) await this.#make(complete);
    else if (!isSameAddresses(made.value, complete)) throw new OvertakenError();
    await this.#record('attached', complete);
    await this.#reached('add:attached');
    return complete;
  }

  /** One at a time on a thread, and the others as their turn comes: the kernel makes one link at a time anyway. */
  async #begin(attachment: Attachment): Promise<Link | undefined> {
    if (this.#isBeginning) return undefined;
    this.#isBeginning = true;
    try {
      return await begin(this.#options, attachment);
    } finally {
      this.#isBeginning = false;
    }
  }

  /** Rules first, then the interface: until they are there its two ends are down. */
  async #make(complete: Attachment): Promise<Attachment> {
    // Both must have ended, however they end, before anything is undone.
    const [begun, ruled] = await Promise.allSettled([this.#begin(complete), this.#rule(complete)]);
    if (ruled.status === 'rejected') throw ruled.reason;
    if (begun.status === 'rejected') throw begun.reason;
    await this.#turns.next();
    make(this.#options, complete, begun.value);
    await this.#reached('add:linked');
    return complete;
  }

  async #rule(complete: Attachment): Promise<void> {
    const { rules, prepare } = this.#options;
    rules?.stage(complete);
    await prepare?.(complete);
    rules?.commit(complete);
  }

  /** What a call does not say. */
  #facts(): Parameters<typeof wantedOf>[1] {
    return {
      mtuBytes: this.#options.mtuBytes(),
      nowMs: this.#clock.now(),
      isBesideKubelet: this.#options.isBesideKubelet?.() ?? true,
    };
  }

  /** The record was lost, but the names say what there may be. */
  async #deleteUnknown(
    request: Extract<CniRequest, { command: 'DEL' }>,
    handle: string,
  ): Promise<void> {
    const { attachment } = wantedOf(
      {
        ...request,
        command: 'ADD',
        // With DEL it is the result of our own ADD; it does not say that we were chained.
        config: { ...request.config, prevResult: undefined },
        netns: request.netns ?? '',
        netnsOverride: true,
      },
      this.#facts(),
    );
    unmake(this.#options, attachment);
    await this.#addresses.release(attachment).catch((error: unknown) => {
      this.#options.log.warn(
        { handle, reason: explainError(error) },
        'could not look for addresses of an unknown attachment; the garbage collection will',
      );
    });
  }

  /**
   * Takes everything away. If it fails half way, the record says so and {@link #undoLoop} goes on.
   * @param onUnlinked called when nothing of it is in the kernel any more
   */
  async #remove(attachment: Attachment, onUnlinked?: () => void): Promise<void> {
    const { handle } = attachment;
    if (this.#records.get(handle) === undefined) return;
    await this.#record('deleting', attachment);
    this.#notify();
    await this.#reached('del:recorded');
    await unmakeTogether(this.#options, this.#remover, attachment);
    await this.#options.rules?.remove(attachment);
    await this.#reached('del:unlinked');
    onUnlinked?.();
    // Who has an answer does not wait for this.
    await this.#addresses.release(attachment, { inLull: onUnlinked !== undefined });
    await this.#reached('del:released');
    await this.#records.delete(handle);
    await this.#reached('del:forgotten');
  }

  /** What a runtime has asked to remove is removed for it, even if we still have to give back the address. */
  async #removeOrLater(attachment: Attachment, onUnlinked?: () => void): Promise<void> {
    try {
      await this.#remove(attachment, onUnlinked);
    } catch (error) {
      this.#options.log.warn(
        { handle: attachment.handle, reason: explainError(error) },
        'could not remove an attachment completely, will go on in the background',
      );
      this.#undoLoop.trigger();
    }
  }

  async #removeLocked(attachment: Attachment, reason: string): Promise<void> {
    await this.#lock.run(attachment.handle, async () => {
      const now = this.#records.get(attachment.handle)?.attachment;
      // It may have been replaced by a new life of the same name while we waited.
      if (now?.createdAt !== attachment.createdAt) return;
      this.#options.log.warn({ handle: attachment.handle, reason }, 'removing an attachment');
      await this.#removeOrLater(now);
    });
  }

  /** The record follows the kernel: after a crash in between it is done once more. */
  async #resize(handle: string): Promise<void> {
    const record = this.#records.get(handle);
    const mtuBytes = this.#options.mtuBytes();
    if (record?.phase !== 'attached' || record.attachment.mtuBytes === mtuBytes) return;
    const was = record.attachment.mtuBytes;
    const attachment = { ...record.attachment, mtuBytes };
    // Without its namespace it has no interface any more: the sweep will find it.
    if (this.#identity(attachment.netns) === undefined) return;
    resize(this.#options, attachment, was);
    await this.#record('attached', attachment);
    this.#notify();
    this.#options.log.info({ handle, was, mtuBytes }, "changed a pod's MTU");
  }

  async #undoPending(): Promise<void> {
    const unfinished = this.#records.values().filter((record) => record.phase !== 'attached');
    // Under the lock nobody is at work on it any more, so what is still unfinished was given up.
    for (const { attachment } of unfinished)
      await this.#lock.run(attachment.handle, async () => {
        const record = this.#records.get(attachment.handle);
        if (record !== undefined && record.phase !== 'attached')
          await this.#remove(record.attachment);
      });
  }

  #repair(attachment: Attachment): void {
    const { log } = this.#options;
    try {
      if (repair(this.#options, attachment)) return;
      const { handle, hostLink } = attachment;
      if (!this.#canRemake(attachment)) {
        log.warn({ handle, link: hostLink }, "a pod's link is gone");
        return;
      }
      make(this.#options, attachment);
      log.warn({ handle, link: hostLink }, "made a pod's link again, which somebody had deleted");
    } catch (err) {
      log.error({ err, handle: attachment.handle }, "could not repair a pod's link");
    }
  }

  /** A number below `/proc` may be another process's by now, and so another's network. */
  #canRemake({ chained, netns }: Attachment): boolean {
    return (
      chained === undefined && !netns.startsWith('/proc/') && this.#identity(netns) !== undefined
    );
  }

  /** The link dies with the namespace, so a link that is there is a sign of life unless the runtime knows better. */
  async #looksDead(attachment: Attachment): Promise<boolean> {
    const { host, containerExists } = this.#options;
    if (host.links.get(attachment.hostLink) === undefined)
      return this.#identity(attachment.netns) === undefined;
    return (await containerExists?.(attachment)) === false;
  }

  #faults(attachment: Attachment): string[] {
    return faultsOf(this.#options, attachment);
  }

  #requireNetns(request: AddRequest): void {
    const there = this.#identity(request.netns);
    if (there === undefined)
      throw new CniError(CNI_ERROR.invalidNetns, `"${request.netns}" is no network namespace`);
    if (there === this.#identity(OWN_NETNS) && !request.netnsOverride)
      throw new CniError(
        CNI_ERROR.invalidNetns,
        "the container's network namespace is the host's own",
        { details: `"${request.netns}" and "${OWN_NETNS}" are the same` },
      );
  }

  async #record(phase: RecordPhase, attachment: Attachment): Promise<void> {
    await this.#records.put({ version: 1, phase, attachment });
    for (const follower of this.#followers) follower(attachment, phase === 'attached');
  }

  #reached(point: AttachPoint): Promise<void> | undefined {
    return this.#options.failpoint?.(point);
  }

  /** In a while, but before a container's program can have started: what comes and goes together is told together. */
  #notify(): void {
    this.#cancelNotify ??= this.#lull.schedule(() => {
      this.#cancelNotify = undefined;
      for (const listener of this.#listeners) listener();
    });
  }
}

/** The interface was made with addresses that are another's now. */
class OvertakenError extends Error {
  readonly code = 'OVERTAKEN' as const;
  constructor() {
    super(
      'the address block was changed by somebody else while an address of it was being written',
    );
    this.name = 'OvertakenError';
  }
}

function isSameAddresses(a: Attachment, b: Attachment): boolean {
  const ofBoth = [a, b].map(({ addresses }) =>
    addresses.map(({ address, sequence }) => `${address} ${sequence}`).join(),
  );
  return ofBoth[0] === ofBoth[1];
}
