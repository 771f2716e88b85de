/**
 * The kernel's nftables over netlink.
 *
 * A commit is one `send`: the kernel checks and applies the whole batch before the call returns, so all its answers
 * are waiting in the socket then. Every batch carries the generation it was made for; that makes our own commits
 * known by number, which is how {@link Nftables.watch} tells them from others' even when events were lost.
 */
import { randomInt } from 'node:crypto';
import { EAGAIN, EINTR, EINVAL, ENOENT, ERESTART, isErrno, KernelError } from '#lib/errors.ts';
import { NETLINK_NETFILTER } from '#wire/netlink/constants.ts';
import type { NetlinkMessage } from '#wire/netlink/reader.ts';
import type { NetlinkWriter } from '#wire/netlink/writer.ts';
import * as N from '#wire/nftables/constants.ts';
import { encodeElement } from '#wire/nftables/element-codec.ts';
import {
  decodeChain,
  decodeGeneration,
  decodeRule,
  decodeSet,
  decodeSetCount,
  decodeTable,
} from '#wire/nftables/object-decoder.ts';
import type { ChainRef, NftFamily, SetRef, TableRef, Transaction } from '#wire/nftables/objects.ts';
import type { ElementList } from '#wire/nftables/packed-elements.ts';
import { decodeRuleCount, type RuleCount } from '#wire/nftables/rule-count.ts';
import type { EncodedTransaction } from '#wire/nftables/transaction-encoder.ts';
import {
  encodeHeader,
  encodeTransaction,
  setGeneration,
} from '#wire/nftables/transaction-encoder.ts';
import { NetlinkSocket } from '../netlink/socket.ts';
import type { Netns, NetnsPath } from '../netns.ts';
import { Poller } from '../poller.ts';
import { type Batch, BatchSocket } from './batches.ts';
import { replaceDestroys } from './destroy.ts';
import { type Dump, readElements, readPacked } from './elements.ts';
import type {
  ChainState,
  Nftables,
  RuleState,
  RulesetEvent,
  SetState,
  TableState,
} from './port.ts';
import { elementsWanted } from './port.ts';
import { GenerationWatch, isAfter } from './watch.ts';

/**
 * Larger batches, from some hundred elements on, are committed with our watch off. If anybody listens, the kernel makes
 * an event for each element, which costs more than to add it, and holds them all, four kilobytes each, until the
 * commit ends.
 */
const MAX_WATCHED_BATCH_BYTES = 32 * 1024;
const BATCH_BUFFER_BYTES = 512 * 1024;
/** Other programs would have to commit between each of our tries. */
const MAX_COMMIT_TRIES = 20;
/** A dump that others' commits interrupt so often is a fault to be told of. */
const MAX_DUMP_TRIES = 20;

export interface NftablesOptions {
  /** Default: this process's own. */
  readonly netns?: Netns | NetnsPath;
  /** Shared poller for {@link Nftables.watch}; without one each watch brings its own. */
  readonly poller?: Poller;
  /** Whether the kernel has the `destroy` messages (Linux 6.3). Default: asked. */
  readonly destroy?: boolean;
  /** Size of the queue for events of {@link Nftables.watch}. */
  readonly eventQueueBytes?: number;
}

/**
 * Opens nftables of a network namespace.
 * @throws KernelError if the namespace cannot be entered, or (EPERM) without CAP_NET_ADMIN
 */
export function openNftables(options: NftablesOptions = {}): Nftables {
  return new KernelNftables(options);
}

class KernelNftables implements Nftables {
  readonly #options: NftablesOptions;
  readonly #batches: BatchSocket;
  readonly #queries: NetlinkSocket;
  /** One for all listeners: the kernel writes each event once for each socket, and each would have to be read. */
  #watch: GenerationWatch | undefined;
  #stopWatch: (() => void) | undefined;
  readonly #listeners = new Set<{ readonly tell: (event: RulesetEvent) => void }>();
  /** Starts anywhere, so that another program's sequence numbers are unlikely to be ours. */
  #sequence = randomInt(1, 0x7fffffff);
  /**
   * Most likely the current generation: that after our last commit. A wrong guess costs one refused batch.
   * Undefined until asked for.
   */
  #lastGeneration: number | undefined;
  #hasDestroy: boolean | undefined;
  /** For all batches that fit: a new one for each would cost more than to fill it. */
  readonly #buffer = Buffer.alloc(BATCH_BUFFER_BYTES);
  /** For a series: one batch is encoded while the kernel reads another. */
  readonly #secondBuffer = Buffer.alloc(BATCH_BUFFER_BYTES);
  /** No other program committed during our last large batch; after one that did, the next is watched to its end. */
  #isAlone = true;

  constructor(options: NftablesOptions) {
    this.#options = options;
    this.#hasDestroy = options.destroy;
    this.#queries = new NetlinkSocket({ protocol: NETLINK_NETFILTER, netns: options.netns });
    this.#batches = new BatchSocket(options.netns);
  }

  commit(transaction: Transaction, options: { readonly generation?: number } = {}): void {
    const destroys = transaction.some((operation) => operation.verb === 'destroy');
    const rewrite = destroys && !this.#canDestroy();
    let encoded: EncodedTransaction | undefined;
    for (let tries = 0; tries < MAX_COMMIT_TRIES; tries++) {
      // What exists is looked up after the generation is asked for, so a change in between is noticed.
      const guess = rewrite ? undefined : this.#lastGeneration;
      const generation = options.generation ?? guess ?? this.generation();
      const operations = rewrite ? replaceDestroys(transaction, this.#exists) : transaction;
      if (encoded === undefined || rewrite) encoded = this.#encode(operations, generation);
      else setGeneration(encoded, generation);
      const batch = { operations, encoded };
      const isLarge = encoded.bytes.length > MAX_WATCHED_BATCH_BYTES && this.#watch !== undefined;
      const isUnwatched = isLarge && this.#isAlone;
      let failure: KernelError | undefined;
      if (isLarge)
        this.#unwatched(() => {
          failure = this.#batches.send(batch);
          return failure === undefined ? 1 : 0;
        });
      else failure = this.#batches.send(batch);
      if (failure === undefined) {
        this.#committed(encoded, generation, isUnwatched);
        return;
      }
      this.#lastGeneration = undefined;
      if (!isOutdated(failure) || options.generation !== undefined) throw failure;
    }
    throw changedTooOften();
  }

  commitSeries(
    transactions: Iterable<Transaction>,
    onAnswer: (transaction: Transaction) => void = () => {},
  ): void {
    const isUnwatched = this.#isAlone;
    this.#unwatched(() => {
      let commits = 0;
      let [spare, used] = [this.#buffer, this.#secondBuffer];
      let underWay: (Batch & { readonly generation: number }) | undefined;
      const land = () => {
        if (underWay === undefined) return;
        const { generation, ...batch } = underWay;
        underWay = undefined;
        onAnswer(batch.operations);
        const failure = this.#batches.finish();
        const made = failure === undefined ? generation : this.#sendAgain(batch, failure);
        if (batch.encoded.operationMessages === 0) return;
        commits++;
        this.#lastGeneration = after(made);
        this.#expect(batch.encoded, this.#lastGeneration, isUnwatched);
      };
      try {
        for (const operations of transactions) {
          if (operations.some(({ verb }) => verb === 'destroy')) {
            land();
            onAnswer(operations);
            this.commit(operations);
            commits++;
            continue;
          }
          const encoded = this.#encode(operations, 0, spare);
          [spare, used] = [used, spare];
          land();
          const generation = this.#lastGeneration ?? this.generation();
          setGeneration(encoded, generation);
          underWay = { operations, encoded, generation };
          this.#batches.start(underWay);
        }
        land();
      } catch (error) {
        this.#lastGeneration = undefined;
        // When one could not be made, the kernel may still be at work on the last one, out of our memory.
        land();
        throw error;
      }
      return commits;
    });
  }

  generation(): number {
    const [answer] = this.#queries.request(
      'get the nftables generation',
      { type: N.NFT_MSG_GETGEN },
      (writer) => encodeHeader(writer, undefined),
    );
    if (answer === undefined)
      throw new KernelError('get the nftables generation', ENOENT, { extack: 'empty answer' });
    return decodeGeneration(answer.payload).generation;
  }

  dumpTable(
    family: NftFamily,
    table: string,
    options: { readonly elements?: boolean | readonly string[] } = {},
  ): TableState | undefined {
    return this.#whole(`dump table ${family} ${table}`, () =>
      this.#readTable({ family, table }, elementsWanted(options.elements)),
    );
  }

  /** @returns what was read in one generation */
  #whole<T>(op: string, read: () => T | 'changed'): T {
    for (let tries = 0; tries < MAX_DUMP_TRIES; tries++) {
      const before = this.generation();
      const state = read();
      if (state === 'changed' || this.generation() !== before) continue;
      return state;
    }
    throw new KernelError(op, EINTR, {
      extack: `the ruleset changed during each of ${MAX_DUMP_TRIES} dumps`,
    });
  }

  #dumpOf(op: string, family: NftFamily): Dump {
    return (type, write) =>
      this.#queries.dump(op, { type }, (writer) => {
        encodeHeader(writer, family);
        write(writer);
      });
  }

  #getSet({ family, table, set }: SetRef, op: string): NetlinkMessage | undefined {
    return this.#get(op, N.NFT_MSG_GETSET, family, (writer) => {
      writer.attributeString(N.NFTA_SET_TABLE, table);
      writer.attributeString(N.NFTA_SET_NAME, set);
    });
  }

  elementsOf({ family, table, set }: SetRef): ElementList {
    const op = `dump set ${family} ${table} ${set}`;
    return this.#whole(op, () => {
      const found = this.#getSet({ family, table, set }, op);
      if (found === undefined) return [];
      const dump = this.#dumpOf(op, family);
      return readPacked(dump, decodeSet(found.payload), decodeSetCount(found.payload)) ?? 'changed';
    });
  }

  listChains(family: NftFamily, table: string): string[] {
    return this.#queries
      .dump(`list chains of ${family} ${table}`, { type: N.NFT_MSG_GETCHAIN }, (writer) =>
        encodeHeader(writer, family),
      )
      .map((message) => decodeChain(message.payload))
      .flatMap((chain) => (chain.table === table ? [chain.chain] : []));
  }

  countsOf({ family, table, chain }: ChainRef): RuleCount[] {
    return this.#queries
      .dump(
        `read the counters of chain ${family} ${table} ${chain}`,
        { type: N.NFT_MSG_GETRULE },
        (writer) => {
          encodeHeader(writer, family);
          writer.attributeString(N.NFTA_RULE_TABLE, table);
          writer.attributeString(N.NFTA_RULE_CHAIN, chain);
        },
      )
      .flatMap((message) => decodeRuleCount(message.payload) ?? []);
  }

  listTables(family?: NftFamily): TableRef[] {
    return this.#queries
      .dump('list nftables tables', { type: N.NFT_MSG_GETTABLE }, (writer) =>
        encodeHeader(writer, family),
      )
      .map((message) => decodeTable(message.payload))
      .map((decoded) => ({ family: decoded.family, table: decoded.table }));
  }

  watch(listener: (event: RulesetEvent) => void): () => void {
    this.#watch ??= this.#startWatch();
    const since = this.generation();
    const entry = {
      tell: (event: RulesetEvent) => {
        // What others still have to read of the time before.
        if (isAfter(event.generation, since)) listener(event);
      },
    };
    this.#listeners.add(entry);
    return () => {
      if (this.#listeners.delete(entry) && this.#listeners.size === 0) this.#stopWatch?.();
    };
  }

  #startWatch(): GenerationWatch {
    const poller = this.#options.poller ?? new Poller();
    const watch = new GenerationWatch({
      netns: this.#options.netns,
      poller,
      listener: (event) => {
        // One that stops while others are told is told no more.
        for (const entry of [...this.#listeners]) if (this.#listeners.has(entry)) entry.tell(event);
      },
      queueBytes: this.#options.eventQueueBytes,
      generation: () => this.generation(),
    });
    this.#stopWatch = () => {
      this.#watch = undefined;
      this.#stopWatch = undefined;
      watch[Symbol.dispose]();
      if (poller !== this.#options.poller) poller[Symbol.dispose]();
    };
    return watch;
  }

  [Symbol.dispose](): void {
    this.#listeners.clear();
    this.#stopWatch?.();
    this.#batches[Symbol.dispose]();
    this.#queries[Symbol.dispose]();
  }

  #encode(operations: Transaction, generation: number, buffer = this.#buffer): EncodedTransaction {
    const encoded = encodeTransaction(operations, {
      ...{ firstSequence: this.#sequence, generation, buffer },
    });
    this.#sequence = (this.#sequence + encoded.messageCount) >>> 0;
    return encoded;
  }

  /**
   * Sends a batch that was refused for the generation of others.
   * @returns the generation that it was made for
   * @throws KernelError
   */
  #sendAgain(batch: Batch, first: KernelError): number {
    let failure = first;
    for (let tries = 1; tries < MAX_COMMIT_TRIES; tries++) {
      if (!isOutdated(failure)) throw failure;
      const generation = this.generation();
      setGeneration(batch.encoded, generation);
      const again = this.#batches.send(batch);
      if (again === undefined) return generation;
      failure = again;
    }
    throw changedTooOften();
  }

  /**
   * Commits without events for our watch, if no other program is busy: whether one committed meanwhile is counted, on
   * the ground that batches so large change something.
   * @param commit what it is about; returns how many batches the kernel took
   */
  #unwatched(commit: () => number): void {
    const watch = this.#isAlone ? this.#watch : undefined;
    // Asked before the watch is off: what was committed until here is in its queue.
    const before = this.generation();
    watch?.setPaused(true);
    let own = 0;
    try {
      own = commit();
    } finally {
      watch?.setPaused(false);
      // Asked after it is on: what is committed from here on will be in its queue.
      const now = this.generation();
      this.#isAlone = (now - before) >>> 0 <= own;
      if (!this.#isAlone) watch?.lost(now);
    }
  }

  #committed(encoded: EncodedTransaction, generation: number, isSilent: boolean): void {
    if (encoded.operationMessages === 0) return;
    this.#lastGeneration = after(generation);
    if (this.#watch === undefined) return;
    // A batch that changed nothing makes no generation.
    this.#lastGeneration = this.generation();
    if (this.#lastGeneration !== generation) this.#expect(encoded, after(generation), isSilent);
  }

  #expect(encoded: EncodedTransaction, generation: number, isSilent: boolean): void {
    const { beginSequence: firstSequence, messageCount } = encoded;
    this.#watch?.expect({
      ...{ generation, firstSequence, messageCount },
      ...(isSilent ? { isSilent } : {}),
    });
  }

  /** @returns `changed` if something vanished or moved while it was read */
  #readTable(ref: TableRef, wants: (set: string) => boolean): TableState | undefined | 'changed' {
    const { family, table } = ref;
    const op = `dump table ${family} ${table}`;
    const decoded = this.#get(op, N.NFT_MSG_GETTABLE, family, (writer) =>
      writer.attributeString(N.NFTA_TABLE_NAME, table),
    );
    if (decoded === undefined) return undefined;
    const dump = this.#dumpOf(op, family);
    try {
      const rules = new Map<string, RuleState[]>();
      const ruleMessages = dump(N.NFT_MSG_GETRULE, (writer) =>
        writer.attributeString(N.NFTA_RULE_TABLE, table),
      );
      for (const message of ruleMessages) {
        const { family: _f, table: inTable, chain, ...rule } = decodeRule(message.payload);
        if (inTable !== table) continue;
        const ofChain = rules.get(chain);
        if (ofChain === undefined) rules.set(chain, [rule]);
        else ofChain.push(rule);
      }
      const chains: ChainState[] = dump(N.NFT_MSG_GETCHAIN, () => {})
        .map((message) => decodeChain(message.payload))
        .filter((chain) => chain.table === table)
        .map((chain) => ({ ...chain, rules: rules.get(chain.chain) ?? [] }));
      const setMessages = dump(N.NFT_MSG_GETSET, (writer) =>
        writer.attributeString(N.NFTA_SET_TABLE, table),
      );
      const sets: SetState[] = [];
      for (const { payload } of setMessages) {
        const set = decodeSet(payload);
        if (set.table !== table) continue;
        const elements = wants(set.set) ? readElements(dump, set, decodeSetCount(payload)) : [];
        if (elements === undefined) return 'changed';
        sets.push({ ...set, elements });
      }
      return { ...decodeTable(decoded.payload), chains, sets };
    } catch (error) {
      if (isErrno(error, ENOENT)) return 'changed';
      throw error;
    }
  }

  #get(
    op: string,
    type: number,
    family: NftFamily,
    write: (writer: NetlinkWriter) => void,
  ): NetlinkMessage | undefined {
    try {
      return this.#queries.request(op, { type }, (writer) => {
        encodeHeader(writer, family);
        write(writer);
      })[0];
    } catch (error) {
      if (isErrno(error, ENOENT)) return undefined;
      throw error;
    }
  }

  /** A batch that destroys what cannot exist changes nothing; an older kernel does not know the message. */
  #canDestroy(): boolean {
    if (this.#hasDestroy !== undefined) return this.#hasDestroy;
    const probe: Transaction = [
      { verb: 'destroy', kind: 'table', ref: { family: 'ip', table: 'tulle-probe-destroy' } },
    ];
    const failure = this.#batches.send({
      operations: probe,
      encoded: this.#encode(probe, this.generation()),
    });
    if (failure !== undefined && failure.errno !== EINVAL && failure.errno !== ERESTART)
      throw failure;
    if (failure?.errno === ERESTART) return this.#canDestroy();
    this.#hasDestroy = failure === undefined;
    return this.#hasDestroy;
  }

  readonly #exists: Parameters<typeof replaceDestroys>[1] = {
    table: ({ family, table }) =>
      this.#get(`look up table ${family} ${table}`, N.NFT_MSG_GETTABLE, family, (writer) =>
        writer.attributeString(N.NFTA_TABLE_NAME, table),
      ) !== undefined,
    chain: ({ family, table, chain }) =>
      this.#get(`look up chain ${family} ${table} ${chain}`, N.NFT_MSG_GETCHAIN, family, (w) => {
        w.attributeString(N.NFTA_CHAIN_TABLE, table);
        w.attributeString(N.NFTA_CHAIN_NAME, chain);
      }) !== undefined,
    rule: ({ family, table, chain }, handle) =>
      this.#get(`look up rule ${handle} of ${family} ${table}`, N.NFT_MSG_GETRULE, family, (w) => {
        w.attributeString(N.NFTA_RULE_TABLE, table);
        w.attributeString(N.NFTA_RULE_CHAIN, chain);
        w.attributeU64Be(N.NFTA_RULE_HANDLE, BigInt(handle));
      }) !== undefined,
    set: (ref) =>
      this.#getSet(ref, `look up set ${ref.family} ${ref.table} ${ref.set}`) !== undefined,
    element: ({ family, table, set }, element) =>
      this.#get(
        `look up an element of ${family} ${table} ${set}`,
        N.NFT_MSG_GETSETELEM,
        family,
        (w) => {
          w.attributeString(N.NFTA_SET_ELEM_LIST_TABLE, table);
          w.attributeString(N.NFTA_SET_ELEM_LIST_SET, set);
          const list = w.beginNested(N.NFTA_SET_ELEM_LIST_ELEMENTS);
          encodeElement(w, element);
          w.endAttribute(list);
        },
      ) !== undefined,
  };
}

/** The generation that a commit makes of this one: zero is left out. */
function after(generation: number): number {
  return (generation + 1) >>> 0 || 1;
}

/** Another program committed before. */
function isOutdated({ errno }: KernelError): boolean {
  return errno === ERESTART || errno === EAGAIN;
}

function changedTooOften(): KernelError {
  return new KernelError('commit an nftables transaction', ERESTART, {
    extack: `the ruleset changed during each of ${MAX_COMMIT_TRIES} tries`,
  });
}
