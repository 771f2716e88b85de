/**
 * The store of several servers: an etcd, over gRPC.
 *
 *     transact() ──────────── KV.Txn ───────────────────► etcd (any member)
 *     get, list, watch ◄── mirror in memory ◄─── Watch ─────┘
 *                  └─ how far is the cluster? KV.Range, shared by all reads that wait
 *
 * Reads are answered from the mirror, but not before it has come as far as the cluster was when the read was asked for:
 * so no acknowledged write is missed, whichever server made it, and no read goes back in time when members change.
 */
import { type Clock, pause, sleep, systemClock } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import { type Logger, silentLogger } from '#lib/log.ts';
import type { Pieces } from '#wire/protobuf/writer.ts';
import { type HeldOp, holdOp } from '../held-entry.ts';
import { MAX_HISTORY_BYTES, MAX_HISTORY_REVISIONS } from '../journaled-store.ts';
import { checkLeaseTtl, newLeaseId } from '../leases.ts';
import type {
  Compare,
  ListResult,
  Store,
  StoreEntry,
  StoreLease,
  StoreReader,
  TransactionResult,
  WatchBatch,
  WriteOp,
} from '../port.ts';
import {
  FutureRevisionError,
  LeaseNotFoundError,
  StoreUnavailableError,
  StoreWriteError,
  TransactionTooLargeError,
} from '../port.ts';
import { checkTransaction } from '../transaction.ts';
import {
  EtcdAnswerTooLargeError,
  EtcdError,
  isCompacted,
  isOutOfSpace,
  isRefusal,
} from './errors.ts';
import { followEtcd, loadSnapshot } from './follow.ts';
import { KeyOrder } from './key-order.ts';
import {
  compactRequest,
  decodeLeaseTtlMs,
  decodeRange,
  decodeTxn,
  leaseGrantRequest,
  leaseRequest,
  METHODS,
  type Method,
  revisionRequest,
  txnRequest,
} from './messages.ts';
import { Mirror, type MirrorOptions } from './mirror.ts';
import { type EtcdConnection, EtcdTransport } from './transport.ts';

/** Our keys in an etcd: apart from a kube-apiserver's, which begin with `/registry/`. */
export const DEFAULT_ETCD_PREFIX = '/tulle.dev';

export interface EtcdStoreOptions extends EtcdConnection {
  /** Put before every key. Default {@link DEFAULT_ETCD_PREFIX}. */
  readonly prefix?: string;
  /** The etcd revision that is the port's 0. An empty etcd is at revision 1, so that is the default. */
  readonly revisionOffset?: number;
  readonly clock?: Clock;
  readonly log?: Logger;
  /** Revisions of history kept; default `MAX_HISTORY_REVISIONS`. */
  readonly historyRevisions?: number;
}

/** Transactions under way or waiting for others of the same keys; more would only time out. */
const MAX_WAITING_TRANSACTIONS = 10_000;
/** A write is acknowledged when its own watches could see it, but not much later than etcd has answered. */
const MAX_VISIBLE_WAIT_MS = 1_000;
/** A read that cannot be brought up to date in this time fails. */
const MAX_READ_WAIT_MS = 10_000;
/** How often we make sure that the watch is not silently dead, and so within what time that is found. */
const HEARTBEAT_MS = 1_000;
/** A watch that is behind the cluster and brings nothing for this long is given up for another member's. */
const MAX_STALL_MS = 2_000;
/** The etcd is compacted once so many more revisions may be forgotten, or at this interval: often, so that it is little. */
const COMPACTION_STEP_REVISIONS = 1_000;
const COMPACTION_INTERVAL_MS = 60_000;

/**
 * Connects and loads the state.
 * @throws StoreUnavailableError if no member answers or lets us in
 */
export async function openEtcdStore(options: EtcdStoreOptions): Promise<Store> {
  const transport = new EtcdTransport(options, {
    method: METHODS.range,
    message: revisionRequest(options.prefix ?? DEFAULT_ETCD_PREFIX),
  });
  try {
    const store = new EtcdStore(transport, options);
    await store.load();
    store.start();
    return store;
  } catch (cause) {
    transport[Symbol.dispose]();
    throw new StoreUnavailableError(
      `Cannot open the store in etcd at ${options.endpoints.join(', ')}: ${explainError(cause)}`,
      { cause },
    );
  }
}

class EtcdStore implements Store {
  readonly #transport: EtcdTransport;
  readonly #options: MirrorOptions;
  readonly #log: Logger;
  readonly #closed = new AbortController();
  readonly #underWay = new Set<Promise<unknown>>();
  readonly #order = new KeyOrder();
  #mirror: Mirror | undefined;
  #interruptWatch: (reason: Error) => void = () => {};
  #running: Promise<unknown> = Promise.resolve();
  #closing: Promise<void> | undefined;
  /** The question how far the cluster is: the one under way, and the one for those who came after it was sent. */
  #asking: Promise<number> | undefined;
  #nextAsking: Promise<number> | undefined;
  #compactedEtcdRevision = 0;

  constructor(transport: EtcdTransport, options: EtcdStoreOptions) {
    this.#transport = transport;
    this.#log = (options.log ?? silentLogger).child({ component: 'store' });
    this.#options = {
      prefix: options.prefix ?? DEFAULT_ETCD_PREFIX,
      revisionOffset: options.revisionOffset ?? 1,
      historyRevisions: options.historyRevisions ?? MAX_HISTORY_REVISIONS,
      historyBytes: MAX_HISTORY_BYTES,
      clock: options.clock ?? systemClock,
    };
  }

  /** Fills the mirror, or puts a new one in its place. */
  async load(): Promise<void> {
    const snapshot = await loadSnapshot(this.#transport, {
      ...this.#options,
      signal: this.#closed.signal,
    });
    const before = this.#mirror;
    this.#mirror = new Mirror(snapshot, this.#options);
    this.#compactedEtcdRevision = snapshot.etcdRevision;
    before?.replace(this.#mirror.revision);
    const { revision } = this.#mirror;
    this.#log.info({ endpoint: this.#transport.currentEndpoint, revision }, 'etcd: state loaded');
  }

  start(): void {
    const { signal } = this.#closed;
    this.#running = Promise.all([
      followEtcd({
        transport: this.#transport,
        revisionOffset: this.#options.revisionOffset,
        // The tests' clock moves the watches of the port, not the network's.
        clock: systemClock,
        signal,
        log: this.#log,
        mirror: () => this.#loaded(),
        reload: () => this.load(),
        onWatch: (interrupt) => {
          this.#interruptWatch = interrupt;
        },
      }),
      this.#superviseWatch(signal),
      this.#compactRegularly(signal),
    ]);
  }

  readonly known: StoreReader = {
    get: async (key, atRevision) => this.#loaded().state.get(key, atRevision),
    list: async (prefix, options) => this.#loaded().state.list(prefix, options),
  };

  async revision(): Promise<number> {
    return (await this.#clusterRevision()) - this.#options.revisionOffset;
  }

  async get(key: string, atRevision?: number): Promise<StoreEntry | undefined> {
    return (await this.#upToDate(atRevision)).state.get(key, atRevision);
  }

  async list(
    prefix: string,
    options: { revision?: number; limit?: number; startAfter?: string } = {},
  ): Promise<ListResult> {
    return (await this.#upToDate(options.revision)).state.list(prefix, options);
  }

  async transact(
    compares: readonly Compare[],
    operations: readonly WriteOp[],
  ): Promise<TransactionResult> {
    checkTransaction(compares, operations);
    if (this.#closing !== undefined)
      throw new StoreWriteError('Cannot write to the store: it is closed');
    if (this.#underWay.size >= MAX_WAITING_TRANSACTIONS)
      throw new StoreWriteError(
        `Cannot write to the store: ${this.#underWay.size} writes wait for etcd already`,
      );
    const { prefix, revisionOffset } = this.#options;
    // Made before anything is waited for: the caller may change its buffers.
    const request = txnRequest(
      prefix,
      compares.map((compare) => ({
        ...compare,
        etcdRevision: compare.modRevision === 0 ? 0 : compare.modRevision + revisionOffset,
      })),
      operations,
    );
    const keys = {
      compared: compares.map(({ key }) => key),
      written: operations.map(({ key }) => key),
    };
    const held = operations.map(holdOp);
    const run = this.#order.run(keys, () => this.#transact(request, held));
    this.#underWay.add(run);
    try {
      return await run;
    } finally {
      this.#underWay.delete(run);
    }
  }

  async grantLease(ttlMs: number): Promise<StoreLease> {
    checkLeaseTtl(ttlMs);
    const id = newLeaseId();
    const answer = await this.#call(METHODS.leaseGrant, leaseGrantRequest(id, ttlMs));
    return { id, ttlMs: decodeLeaseTtlMs(answer) };
  }

  async keepLeaseAlive(id: number): Promise<boolean> {
    return decodeLeaseTtlMs(await this.#call(METHODS.leaseKeepAlive, leaseRequest(id))) > 0;
  }

  async revokeLease(id: number): Promise<void> {
    try {
      await this.#transport.call(METHODS.leaseRevoke, leaseRequest(id), { isWrite: true });
    } catch (cause) {
      if (!isLeaseMissing(cause)) throw writeError(cause);
    }
    // What it deleted is seen by whoever reads now.
    await this.#upToDate();
  }

  async #call(method: Method, message: Pieces): Promise<Uint8Array> {
    try {
      return await this.#transport.call(method, message, { isWrite: true });
    } catch (cause) {
      throw writeError(cause);
    }
  }

  async *watch(
    prefix: string,
    afterRevision: number,
    options: { signal: AbortSignal; progressMs?: number },
  ): AsyncGenerator<WatchBatch, void, undefined> {
    // Another server may have given out a revision that has not come here yet.
    if (afterRevision > this.#loaded().revision)
      try {
        await this.#upToDate(afterRevision);
      } catch (error) {
        // It ends with the store, as one that has begun.
        if (this.#closed.signal.aborted) return;
        throw error;
      }
    yield* this.#loaded().watches.watch(prefix, afterRevision, options);
  }

  async compact(revision: number): Promise<void> {
    const mirror = await this.#upToDate(revision);
    if (revision > mirror.revision) throw new FutureRevisionError(revision, mirror.revision);
    await this.#compactEtcd(revision + this.#options.revisionOffset);
    this.#loaded().forget(revision);
  }

  /** Waits for the writes under way, then ends the watches and the connections. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closing ??= (async () => {
      await Promise.allSettled(this.#underWay);
      this.#closed.abort();
      this.#mirror?.watches[Symbol.dispose]();
      this.#mirror?.replace(this.#mirror.revision);
      this.#transport[Symbol.dispose]();
      await this.#running;
    })();
    return this.#closing;
  }

  #loaded(): Mirror {
    if (this.#mirror === undefined) throw new TypeError('the store is not loaded');
    return this.#mirror;
  }

  async #transact(request: Pieces, operations: readonly HeldOp[]): Promise<TransactionResult> {
    let answer: Uint8Array;
    try {
      answer = await this.#transport.call(METHODS.txn, request, { isWrite: true });
    } catch (cause) {
      const leased = operations.find((op) => op.type === 'put' && op.lease !== 0);
      if (leased?.type === 'put' && isLeaseMissing(cause))
        throw new LeaseNotFoundError(leased.lease, { cause });
      throw writeError(cause);
    }
    const { revision: etcdRevision, succeeded, found } = decodeTxn(answer);
    const revision = etcdRevision - this.#options.revisionOffset;
    if (succeeded) this.#loaded().wrote(revision, operations);
    await this.#visible(revision);
    if (succeeded) return { succeeded, revision };
    const mirror = this.#loaded();
    return {
      succeeded,
      revision,
      conflicts: found.map((entry) => (entry === undefined ? undefined : mirror.toEntry(entry))),
    };
  }

  async #visible(revision: number): Promise<void> {
    const mirror = this.#loaded();
    if (mirror.revision >= revision) return;
    const enough = new AbortController();
    await Promise.race([
      mirror.reached(revision),
      pause(systemClock, MAX_VISIBLE_WAIT_MS, enough.signal),
    ]);
    enough.abort();
  }

  /**
   * The mirror, at least as new as the cluster is now; or as `revision`, if that suffices.
   * @throws StoreUnavailableError
   */
  async #upToDate(revision?: number): Promise<Mirror> {
    const present = this.#loaded();
    if (revision !== undefined && revision <= present.revision) return present;
    const wanted = (await this.#clusterRevision()) - this.#options.revisionOffset;
    const limit = new AbortController();
    const timeout = pause(systemClock, MAX_READ_WAIT_MS, limit.signal).then(() => 'late' as const);
    try {
      for (;;) {
        const mirror = this.#loaded();
        if (mirror.revision >= wanted) return mirror;
        if (this.#closed.signal.aborted) throw closedError();
        if ((await Promise.race([mirror.reached(wanted), timeout])) === 'late')
          throw new StoreUnavailableError(
            `The changes of etcd do not arrive: this server knows revision ${mirror.revision}, etcd is at ${wanted}`,
          );
      }
    } finally {
      limit.abort();
    }
  }

  /**
   * etcd's revision, from a question that was sent after this call. Those who come while one is under way share the next.
   * @throws StoreUnavailableError
   */
  #clusterRevision(): Promise<number> {
    if (this.#nextAsking !== undefined) return this.#nextAsking;
    const ask = (): Promise<number> => {
      const asking = this.#ask().finally(() => {
        if (this.#asking === asking) this.#asking = undefined;
      });
      this.#asking = asking;
      return asking;
    };
    if (this.#asking === undefined) return ask();
    const next = this.#asking.then(noResult, noResult).then(() => {
      this.#nextAsking = undefined;
      return ask();
    });
    this.#nextAsking = next;
    return next;
  }

  async #ask(): Promise<number> {
    if (this.#closed.signal.aborted) throw closedError();
    const known = this.#loaded().revision + this.#options.revisionOffset;
    let revision: number;
    try {
      const request = revisionRequest(this.#options.prefix);
      ({ revision } = decodeRange(await this.#transport.call(METHODS.range, request)));
    } catch (cause) {
      if (this.#closed.signal.aborted) throw closedError();
      throw new StoreUnavailableError(`etcd cannot be read: ${explainError(cause)}`, { cause });
    }
    if (revision < known) {
      // Nothing but an etcd put back from a copy makes this: what we know did not happen.
      this.#log.error({ known, revision }, 'etcd went back in time: loading its state anew');
      try {
        await this.load();
      } catch (cause) {
        throw new StoreUnavailableError(`etcd cannot be read: ${explainError(cause)}`, { cause });
      }
      this.#interruptWatch(new Error('etcd was put back from a copy'));
    }
    return revision;
  }

  /** Ends a watch that has silently stopped to bring what happens. */
  async #superviseWatch(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await pause(systemClock, HEARTBEAT_MS, signal);
      if (signal.aborted) return;
      try {
        const etcdRevision = await this.#clusterRevision();
        const mirror = this.#loaded();
        const before = mirror.revision;
        if (before >= etcdRevision - this.#options.revisionOffset) continue;
        await sleep(MAX_STALL_MS, signal);
        if (this.#mirror === mirror && mirror.revision === before)
          this.#interruptWatch(new Error('the watch brings nothing, though there are changes'));
      } catch (error) {
        if (!signal.aborted)
          this.#log.debug({ reason: explainError(error) }, 'etcd: no answer to the heartbeat');
      }
    }
  }

  /** Every server does it; the second one to ask for the same is told so, and that is all. */
  async #compactRegularly(signal: AbortSignal): Promise<void> {
    let lastMs = performance.now();
    while (!signal.aborted) {
      await pause(systemClock, HEARTBEAT_MS, signal);
      const mirror = this.#loaded();
      const target =
        mirror.state.compactionTarget(this.#options.historyRevisions, MAX_HISTORY_BYTES) +
        this.#options.revisionOffset;
      const many = target - this.#compactedEtcdRevision;
      const isDue = performance.now() - lastMs >= COMPACTION_INTERVAL_MS;
      if (signal.aborted || many <= 0 || (many < COMPACTION_STEP_REVISIONS && !isDue)) continue;
      lastMs = performance.now();
      try {
        await this.#compactEtcd(target);
      } catch (error) {
        this.#log.warn({ reason: explainError(error) }, 'etcd: cannot compact; trying again later');
      }
    }
  }

  /** @throws StoreWriteError */
  async #compactEtcd(etcdRevision: number): Promise<void> {
    // Revision 0 of etcd cannot be asked for, and before ours there is nothing to forget.
    if (etcdRevision <= this.#options.revisionOffset) return;
    try {
      // Compacting twice does nothing, so it may be sent twice.
      await this.#transport.call(METHODS.compact, compactRequest(etcdRevision));
    } catch (cause) {
      if (!isCompacted(cause)) throw writeError(cause);
    }
    this.#compactedEtcdRevision = Math.max(this.#compactedEtcdRevision, etcdRevision);
  }
}

function isLeaseMissing(cause: unknown): boolean {
  return cause instanceof EtcdError && /requested lease not found/.test(cause.message);
}

function noResult(): void {}

function closedError(): StoreUnavailableError {
  return new StoreUnavailableError('Cannot read the store: it is closed');
}

function writeError(cause: unknown): Error {
  const message = explainError(cause);
  if (/request is too large|too many operations in txn/.test(message))
    return new TransactionTooLargeError(`etcd takes no transaction of this size: ${message}`);
  if (isOutOfSpace(cause))
    return new StoreWriteError(`etcd takes no writes: its space is used up (${message})`, {
      cause,
      isOutOfSpace: true,
    });
  if (isRefusal(cause) && !(cause instanceof EtcdAnswerTooLargeError))
    return new StoreWriteError(`etcd did not take the write: ${message}`, { cause });
  return new StoreWriteError(
    `The answer of etcd was lost, the write may have happened or not: ${message}`,
    { cause, isUncertain: true },
  );
}
