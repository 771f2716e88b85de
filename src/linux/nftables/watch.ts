/**
 * Listens to the commits of a namespace.
 *
 * The kernel sends the changes of a commit, then one message with the new generation and who made it. A queue that
 * overflows loses events; then the generations tell whether only our own were lost, which is of no interest.
 */
import { ENOBUFS, isErrno } from '#lib/errors.ts';
import { NETLINK_NETFILTER, NLA_HEADER_BYTES } from '#wire/netlink/constants.ts';
import type { NetlinkMessage } from '#wire/netlink/reader.ts';
import { NFGENMSG_BYTES, NFNLGRP_NFTABLES, NFT_MSG_NEWGEN } from '#wire/nftables/constants.ts';
import { decodeGeneration, decodeObjectName } from '#wire/nftables/object-decoder.ts';
import { NetlinkSocket } from '../netlink/socket.ts';
import type { Netns, NetnsPath } from '../netns.ts';
import type { Poller } from '../poller.ts';
import type { RulesetChange, RulesetEvent } from './port.ts';

/**
 * The kernel sends each element on its own. Who empties a map of 44,000 services makes 220,000 events, and what was lost
 * can be put back only if they all come. The memory is used only while they wait.
 */
const EVENT_QUEUE_BYTES = 64 * 1024 * 1024;
/** Own commits whose event has not come yet; past this the oldest are taken for others', which is safe. */
const MAX_EXPECTED = 4096;

interface OwnCommit {
  readonly generation: number;
  readonly firstSequence: number;
  readonly messageCount: number;
  /** Committed while the watch was paused: its events do not come. */
  readonly isSilent?: boolean;
}

export interface GenerationWatchOptions {
  readonly netns: Netns | NetnsPath | undefined;
  readonly poller: Poller;
  readonly listener: (event: RulesetEvent) => void;
  /** Asks the kernel for the current generation. */
  readonly generation: () => number;
  readonly queueBytes?: number | undefined;
}

export class GenerationWatch implements Disposable {
  readonly #socket: NetlinkSocket;
  readonly #options: GenerationWatchOptions;
  readonly #unwatch: () => void;
  /** Own commits by generation. */
  readonly #expected = new Map<number, OwnCommit>();
  /** The last generation that was told or skipped. */
  #seen: number;
  /** Changes since the last generation, each once. */
  #changes = new Map<string, RulesetChange>();
  /** Type and first bytes of the last message about elements: who empties a map makes very many for one change. */
  #last: { readonly type: number; readonly head: Buffer } | undefined;
  #closed = false;

  constructor(options: GenerationWatchOptions) {
    this.#options = options;
    this.#socket = new NetlinkSocket({
      protocol: NETLINK_NETFILTER,
      netns: options.netns,
      groups: [NFNLGRP_NFTABLES],
      receiveQueueBytes: options.queueBytes ?? EVENT_QUEUE_BYTES,
    });
    this.#seen = options.generation();
    this.#unwatch = options.poller.add(this.#socket.fd, () => this.#read());
  }

  /** To be called right after each own commit, before the event loop runs. */
  expect(commit: OwnCommit): void {
    this.#expected.set(commit.generation, commit);
    if (this.#expected.size <= MAX_EXPECTED) return;
    const [oldest] = this.#expected.keys();
    if (oldest !== undefined) this.#expected.delete(oldest);
  }

  /**
   * Stops and starts the kernel's events; it spares itself making those that nobody hears. Who calls it must know of
   * foreign commits in between, and tell them by {@link lost}.
   */
  setPaused(isPaused: boolean): void {
    if (!this.#closed) this.#socket.setMembership(NFNLGRP_NFTABLES, !isPaused);
  }

  /** Tells the listener, later, that something may have been missed. */
  lost(generation: number): void {
    setImmediate(() => {
      if (!this.#closed) this.#options.listener({ kind: 'lost', generation });
    });
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#unwatch();
    this.#socket[Symbol.dispose]();
  }

  #read(): void {
    while (!this.#closed) {
      let messages: NetlinkMessage[];
      try {
        messages = this.#socket.receive('listen to nftables', false);
      } catch (error) {
        if (!isErrno(error, ENOBUFS)) throw error;
        this.#overrun();
        continue;
      }
      if (messages.length === 0) return;
      for (const message of messages) this.#message(message);
    }
  }

  #message(message: NetlinkMessage): void {
    if (message.type === NFT_MSG_NEWGEN) {
      this.#newGeneration(message);
      return;
    }
    // Our own change: nothing that the owner does not know, and there may be very many.
    if (this.#isOwn(message.sequence)) return;
    if (message.type === this.#last?.type && startsWith(message.payload, this.#last.head)) return;
    const change = decodeObjectName(message.type, message.payload);
    if (change === undefined) return;
    const { verb, kind, family, table, name } = change;
    this.#changes.set(`${verb} ${kind} ${family} ${table} ${name ?? ''}`, change);
    if (kind !== 'elements' || name === undefined) return;
    // The kernel writes the names of the table and the set first.
    const headBytes = NFGENMSG_BYTES + attributeBytes(table) + attributeBytes(name);
    this.#last = { type: message.type, head: Buffer.from(message.payload.subarray(0, headBytes)) };
  }

  #forgetChanges(): void {
    this.#changes = new Map();
    this.#last = undefined;
  }

  #newGeneration(message: NetlinkMessage): void {
    const { generation, pid, processName } = decodeGeneration(message.payload);
    const changes = [...this.#changes.values()];
    this.#forgetChanges();
    if (!isAfter(generation, this.#seen)) return;
    this.#seen = generation;
    const own = this.#takeOwn(generation, message.sequence);
    this.#options.listener({ kind: 'commit', generation, own, pid, processName, changes });
  }

  /** Events come in the order of commits, so only the oldest that is expected can be meant. */
  #isOwn(sequence: number): boolean {
    for (const commit of this.#expected.values())
      if (commit.isSilent !== true) return isOf(commit, sequence);
    return false;
  }

  /** Both must fit: a batch of ours that changed nothing made no generation, and then it was another's. */
  #takeOwn(generation: number, sequence: number): boolean {
    const commit = this.#expected.get(generation);
    for (const expected of this.#expected.keys())
      if (!isAfter(expected, generation)) this.#expected.delete(expected);
    return commit !== undefined && isOf(commit, sequence);
  }

  /** Forgets what is queued and looks at the generations instead. */
  #overrun(): void {
    this.#discard();
    this.#forgetChanges();
    const generation = this.#options.generation();
    let foreign = false;
    while (isAfter(generation, this.#seen)) {
      this.#seen = (this.#seen + 1) >>> 0 || 1;
      if (!this.#expected.delete(this.#seen)) foreign = true;
    }
    if (foreign) this.#options.listener({ kind: 'lost', generation });
  }

  #discard(): void {
    for (;;) {
      try {
        if (this.#socket.receive('listen to nftables', false).length === 0) return;
      } catch (error) {
        // Lost again meanwhile: the generation is read after this.
        if (!isErrno(error, ENOBUFS)) throw error;
      }
    }
  }
}

function startsWith(bytes: Buffer, head: Buffer): boolean {
  return bytes.length >= head.length && bytes.compare(head, 0, head.length, 0, head.length) === 0;
}

/** Of a text with its end, in whole words. */
function attributeBytes(text: string): number {
  return NLA_HEADER_BYTES + ((Buffer.byteLength(text) + 1 + 3) & ~3);
}

function isOf(commit: OwnCommit, sequence: number): boolean {
  return (sequence - commit.firstSequence) >>> 0 < commit.messageCount;
}

/** Serial number arithmetic (RFC 1982): generations wrap. */
export function isAfter(a: number, b: number): boolean {
  return ((a - b) | 0) > 0;
}
