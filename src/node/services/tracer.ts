/**
 * Walks the first packet of a connection through a table as the kernel would, and says what becomes of it. Pure.
 *
 * Hooks, in order: prerouting, routing, forward (or input), postrouting; for the node's own packets output and
 * postrouting. Chains of type nat see a packet until one of them has translated it, separately for destination and
 * source. What a rule may use and this does not know is an error, never a guess.
 */
import { type Family, familyOf, type Ip, ipFromBytes, ipToBytes } from '#lib/ip.ts';
import type { SetState, TableState } from '#linux/nftables/port.ts';
import { fieldInfo, keyBytes } from '#wire/nftables/data-types.ts';
import {
  CT_STATE,
  CT_STATUS,
  type Expression,
  FIB_ADDRESS_TYPE,
  type Verdict,
} from '#wire/nftables/expressions.ts';
import type { Hook, SetElement } from '#wire/nftables/objects.ts';
import { hostU32, ifnameBytes, portBytes } from '#wire/nftables/values.ts';

export interface TracedPacket {
  readonly source: Ip;
  readonly destination: Ip;
  /** IP protocol number. */
  readonly protocol: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** Where it comes in; undefined for a packet of the node itself. */
  readonly link?: string;
}

export interface TracedNode {
  /** The link that leads to an address; `lo` for the node's own. */
  route(destination: Ip): string;
  isLocal(address: Ip): boolean;
  /** Draws a number below the modulus, for `numgen` and hashes. */
  draw(modulus: number): number;
}

export interface TraceResult {
  readonly verdict: 'accept' | 'drop' | 'reject';
  /** Where it goes in the end. */
  readonly destination: Ip;
  readonly destinationPort: number;
  readonly isMasqueraded: boolean;
  /** Chains that it passed. */
  readonly chains: readonly string[];
}

/** Somebody else's mark, which must be there in the end. */
const UNRELATED_MARK = 0x0a0b0c0d;
/** A program's rules never call deeper; the kernel's own limit is 16. */
const MAX_JUMPS = 16;

export class Tracer {
  readonly #table: TableState;
  readonly #sets: ReadonlyMap<string, SetState>;
  readonly #index = new Map<string, Map<string, SetElement>>();
  readonly #node: TracedNode;

  /** @param table what packets write into its dynamic sets is remembered here from trace to trace */
  constructor(table: TableState, node: TracedNode) {
    this.#table = table;
    this.#node = node;
    this.#sets = new Map(table.sets.map((set) => [set.set, set]));
    for (const set of table.sets) this.#index.set(set.set, indexOf(set));
  }

  /** Forgets what traced packets wrote into dynamic sets. */
  forget(): void {
    for (const set of this.#table.sets)
      if (set.dynamic === true) this.#index.set(set.set, indexOf(set));
  }

  trace(packet: TracedPacket): TraceResult {
    const walk = new Walk(packet);
    const hooks: Hook[] =
      packet.link === undefined
        ? ['output', 'postrouting']
        : ['prerouting', 'forward', 'postrouting'];
    for (const hook of hooks) {
      if (hook !== 'prerouting' && hook !== 'output') {
        walk.outLink = this.#node.route(walk.destination);
        if (packet.link !== undefined && this.#node.isLocal(walk.destination)) {
          if (hook === 'postrouting') break;
          this.#hook('input', walk);
        } else this.#hook(hook, walk);
      } else this.#hook(hook, walk);
      if (walk.verdict !== 'accept') break;
    }
    if (Buffer.compare(walk.mark, hostU32(UNRELATED_MARK)) !== 0)
      throw new Error('the packet has lost its mark');
    const { verdict, destination, destinationPort, isMasqueraded, chains } = walk;
    return { verdict, destination, destinationPort, isMasqueraded, chains };
  }

  #hook(hook: Hook, walk: Walk): void {
    const chains = this.#table.chains
      .filter(({ base }) => base?.hook === hook)
      .sort((a, b) => (a.base?.priority ?? 0) - (b.base?.priority ?? 0));
    for (const { chain, base } of chains) {
      const isDone = hook === 'postrouting' ? walk.isMasqueraded : walk.isTranslated;
      if (base?.type === 'nat' && isDone) continue;
      const verdict = this.#chain(chain, walk, 0);
      if (verdict === 'drop' || walk.verdict === 'reject') {
        if (walk.verdict === 'accept') walk.verdict = 'drop';
        return;
      }
    }
  }

  /** @returns `return` at its end */
  #chain(name: string, walk: Walk, depth: number): 'accept' | 'drop' | 'return' {
    if (depth > MAX_JUMPS) throw new Error(`chain "${name}": more than ${MAX_JUMPS} jumps`);
    const chain = this.#table.chains.find((candidate) => candidate.chain === name);
    if (chain === undefined) throw new Error(`there is no chain "${name}"`);
    walk.chains.push(name);
    for (const { expressions } of chain.rules) {
      const verdict = this.#rule(expressions, walk);
      if (verdict === undefined) continue;
      if (!('chain' in verdict)) {
        if (verdict.kind === 'continue' || verdict.kind === 'break') continue;
        return verdict.kind;
      }
      const result = this.#chain(verdict.chain, walk, depth + 1);
      if (result !== 'return' || verdict.kind === 'goto') return result;
    }
    return 'return';
  }

  #rule(expressions: readonly Expression[], walk: Walk): Verdict | undefined {
    for (const expression of expressions) {
      const next = this.#evaluate(expression, walk);
      if (next === 'mismatch') return undefined;
      if (next !== undefined) return next;
    }
    return undefined;
  }

  #evaluate(e: Expression, walk: Walk): Verdict | 'mismatch' | undefined {
    switch (e.kind) {
      case 'meta':
      case 'payload':
      case 'ct':
      case 'fib':
        walk.load(e.to, this.#value(e, walk));
        return undefined;
      case 'numgen':
      case 'jhash':
        walk.load(e.to, hostU32((e.offset ?? 0) + this.#node.draw(e.modulus)));
        return undefined;
      case 'immediate':
        walk.load(e.to, e.data);
        return undefined;
      case 'bitwise':
        walk.load(
          e.to,
          walk
            .read(e.from, e.mask.length)
            .map((byte, i) => (byte & (e.mask[i] ?? 0)) ^ (e.xor[i] ?? 0)),
        );
        return undefined;
      case 'byteorder': {
        const swapped = Buffer.from(walk.read(e.from, e.bytes));
        if (e.unit === 4) swapped.swap32();
        else if (e.unit === 2) swapped.swap16();
        else swapped.swap64();
        walk.load(e.to, swapped);
        return undefined;
      }
      case 'cmp':
        return compares(Buffer.compare(walk.read(e.from, e.data.length), e.data), e.op)
          ? undefined
          : 'mismatch';
      case 'lookup':
        return this.#lookup(e, walk);
      case 'dynset':
        this.#write(e, walk);
        return undefined;
      case 'set meta':
        if (e.key !== 'mark') throw new Error(`the tracer does not know "meta ${e.key} set"`);
        walk.mark = walk.read(e.from, 4);
        return undefined;
      case 'verdict':
        return e.verdict;
      case 'reject':
        walk.verdict = 'reject';
        return { kind: 'drop' };
      case 'nat':
        if (e.type !== 'dnat' || e.address === undefined || e.port === undefined)
          throw new Error('only dnat to an address and a port is known');
        walk.translate(e.address, e.port);
        return { kind: 'accept' };
      case 'masquerade':
        walk.isMasqueraded = true;
        return { kind: 'accept' };
      case 'counter':
      case 'log':
        return undefined;
      default:
        throw new Error(`the tracer does not know the expression "${e.kind}"`);
    }
  }

  #value(
    e: Extract<Expression, { kind: 'meta' | 'payload' | 'ct' | 'fib' }>,
    walk: Walk,
  ): Uint8Array {
    if (e.kind === 'payload') {
      const header = e.base === 'network' ? walk.networkHeader() : walk.transportHeader();
      return header.subarray(e.offset, e.offset + e.bytes);
    }
    if (e.kind === 'fib') {
      const address = e.by.includes('saddr') ? walk.packet.source : walk.destination;
      if (e.result !== 'type') throw new Error('of fib only the type is known');
      const type = this.#node.isLocal(address) ? FIB_ADDRESS_TYPE.local : FIB_ADDRESS_TYPE.unicast;
      return hostU32(type);
    }
    const { packet } = walk;
    const values: Record<string, () => Uint8Array> = {
      'meta mark': () => walk.mark,
      'meta l4proto': () => Uint8Array.of(packet.protocol),
      'meta iifname': () => ifnameBytes(packet.link ?? ''),
      'meta oifname': () => ifnameBytes(walk.outLink ?? ''),
      'ct state': () => hostU32(CT_STATE.new),
      'ct status': () => hostU32(walk.isTranslated ? CT_STATUS.dnat : 0),
      'ct ip daddr': () => ipToBytes(packet.destination),
      'ct ip6 daddr': () => ipToBytes(packet.destination),
      'ct proto-dst': () => portBytes(packet.destinationPort),
    };
    const value = values[`${e.kind} ${e.key}`];
    if (value === undefined) throw new Error(`the tracer does not know "${e.kind} ${e.key}"`);
    return value();
  }

  #lookup(
    e: Extract<Expression, { kind: 'lookup' }>,
    walk: Walk,
  ): Verdict | 'mismatch' | undefined {
    const set = this.#sets.get(e.set);
    if (set === undefined) throw new Error(`there is no set "${e.set}"`);
    const key = walk.read(e.from, keyLength(set));
    const found =
      set.interval === true ? findInterval(set, key) : this.#index.get(e.set)?.get(hex(key));
    if (e.to === undefined)
      return (found === undefined) === (e.inverted ?? false) ? undefined : 'mismatch';
    if (found === undefined) return 'mismatch';
    if (e.to === 'verdict') return found.verdict;
    walk.load(e.to, found.data ?? new Uint8Array());
    return undefined;
  }

  /** As the kernel: an update leaves the data of an element that is there. */
  #write(e: Extract<Expression, { kind: 'dynset' }>, walk: Walk): void {
    const set = this.#sets.get(e.set);
    const elements = this.#index.get(e.set);
    if (set === undefined || elements === undefined) throw new Error(`there is no set "${e.set}"`);
    const key = walk.read(e.key, keyLength(set));
    if (e.op === 'delete') elements.delete(hex(key));
    else if (!elements.has(hex(key)))
      elements.set(hex(key), {
        key,
        ...(e.data === undefined ? {} : { data: walk.read(e.data, dataLength(set)) }),
      });
  }
}

/** A packet on its way. */
class Walk {
  readonly packet: TracedPacket;
  readonly chains: string[] = [];
  readonly #registers = new Uint8Array(64);
  readonly #family: Family;
  verdict: TraceResult['verdict'] = 'accept';
  mark: Uint8Array = hostU32(UNRELATED_MARK);
  destination: Ip;
  destinationPort: number;
  outLink: string | undefined;
  isTranslated = false;
  isMasqueraded = false;

  constructor(packet: TracedPacket) {
    this.packet = packet;
    this.#family = familyOf(packet.destination);
    this.destination = packet.destination;
    this.destinationPort = packet.destinationPort;
  }

  load(register: number, value: Uint8Array): void {
    const at = register * 4;
    this.#registers.fill(0, at, at + ((value.length + 3) & ~3));
    this.#registers.set(value, at);
  }
  read(register: number, bytes: number): Uint8Array {
    return this.#registers.slice(register * 4, register * 4 + bytes);
  }
  translate(address: number, port: number): void {
    this.destination = ipFromBytes(this.read(address, this.#family === 4 ? 4 : 16));
    const [high = 0, low = 0] = this.read(port, 2);
    this.destinationPort = (high << 8) | low;
    this.isTranslated = true;
  }
  networkHeader(): Uint8Array {
    const isV4 = this.#family === 4;
    const header = new Uint8Array(isV4 ? 20 : 40);
    header[isV4 ? 9 : 6] = this.packet.protocol;
    header.set(ipToBytes(this.packet.source), isV4 ? 12 : 8);
    header.set(ipToBytes(this.destination), isV4 ? 16 : 24);
    return header;
  }
  transportHeader(): Uint8Array {
    const header = new Uint8Array(20);
    header.set(portBytes(this.packet.sourcePort), 0);
    header.set(portBytes(this.destinationPort), 2);
    // The first packet of a TCP connection: SYN.
    header[13] = 2;
    return header;
  }
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

const indexOf = ({ elements }: SetState) =>
  new Map(elements.map((element) => [hex(element.key), element]));
const keyLength = (set: SetState) => keyBytes(set.key);
const dataLength = (set: SetState) =>
  set.data === undefined || set.data === 'verdict' ? 0 : keyBytes(set.data);

function findInterval(set: SetState, key: Uint8Array): SetElement | undefined {
  if (set.key.length > 1) {
    const fields = fieldsOf(set, key);
    return set.elements.find((element) => {
      const first = fieldsOf(set, element.key);
      const last = fieldsOf(set, element.keyEnd ?? element.key);
      return fields.every(
        (field, i) =>
          Buffer.compare(first[i] ?? field, field) <= 0 &&
          Buffer.compare(field, last[i] ?? field) <= 0,
      );
    });
  }
  const below = set.elements
    .filter((element) => Buffer.compare(element.key, key) <= 0)
    .sort((a, b) => Buffer.compare(b.key, a.key) || (a.intervalEnd === true ? 1 : -1));
  return below[0]?.intervalEnd === true ? undefined : below[0];
}

function fieldsOf(set: SetState, key: Uint8Array): Uint8Array[] {
  let at = 0;
  return set.key.map((field) => {
    const { bytes } = fieldInfo(field);
    const value = key.subarray(at, at + bytes);
    at += (bytes + 3) & ~3;
    return value;
  });
}

function compares(order: number, op: Extract<Expression, { kind: 'cmp' }>['op']): boolean {
  switch (op) {
    case '==':
      return order === 0;
    case '!=':
      return order !== 0;
    case '<':
      return order < 0;
    case '<=':
      return order <= 0;
    case '>':
      return order > 0;
    case '>=':
      return order >= 0;
  }
}
