/** For tests: walks a packet through a table as the kernel would, as far as policy's rules need. */
import { type Ip, ipToBytes } from '#lib/ip.ts';
import type { SetState, TableState } from '#linux/nftables/port.ts';
import type { Expression, Verdict } from '#wire/nftables/expressions.ts';
import { ifnameBytes } from '#wire/nftables/values.ts';

export interface TracedPacket {
  readonly source: Ip;
  readonly destination: Ip;
  readonly protocol: number;
  readonly destinationPort: number;
  readonly inLink: string;
  readonly outLink: string;
  /** Bits of `ct state`. */
  readonly state: number;
  readonly mark: number;
}

const REGISTER_BYTES = 4;
const MAX_JUMPS = 16;

/** @returns true if the base chain lets the packet go on */
export function accepts(table: TableState, baseChain: string, packet: TracedPacket): boolean {
  const verdict = walk(table, baseChain, packet, 0);
  return verdict !== 'drop';
}

type Outcome = 'accept' | 'drop' | 'return';

function walk(table: TableState, name: string, packet: TracedPacket, depth: number): Outcome {
  if (depth > MAX_JUMPS) throw new Error(`more than ${MAX_JUMPS} jumps`);
  const chain = table.chains.find((candidate) => candidate.chain === name);
  if (chain === undefined) throw new Error(`there is no chain ${name}`);
  for (const { expressions } of chain.rules) {
    const verdict = run(table, expressions, packet);
    if (verdict === undefined) continue;
    if (verdict.kind === 'accept' || verdict.kind === 'drop') return verdict.kind;
    if (verdict.kind === 'return') return 'return';
    if (verdict.kind === 'goto') return walk(table, verdict.chain, packet, depth + 1);
    if (verdict.kind === 'jump') {
      const outcome = walk(table, verdict.chain, packet, depth + 1);
      if (outcome !== 'return') return outcome;
    }
  }
  return 'return';
}

/** @returns undefined if the rule does not match, or says nothing */
function run(
  table: TableState,
  expressions: readonly Expression[],
  packet: TracedPacket,
): Verdict | undefined {
  const registers = new Uint8Array(16 * REGISTER_BYTES);
  const put = (register: number, bytes: Uint8Array) => {
    // Loading a short value clears the rest of its last register.
    const at = register * REGISTER_BYTES;
    registers.fill(0, at, at + Math.ceil(bytes.length / REGISTER_BYTES) * REGISTER_BYTES);
    registers.set(bytes, at);
  };
  const get = (register: number, length: number) =>
    registers.slice(register * REGISTER_BYTES, register * REGISTER_BYTES + length);
  for (const expression of expressions) {
    switch (expression.kind) {
      case 'meta':
        put(expression.to, metaOf(expression.key, packet));
        break;
      case 'ct':
        put(expression.to, u32(expression.key === 'mark' ? packet.mark : packet.state));
        break;
      case 'payload':
        put(expression.to, payloadOf(expression, packet));
        break;
      case 'bitwise': {
        const { mask, xor } = expression;
        const value = get(expression.from, mask.length);
        put(
          expression.to,
          value.map((byte, i) => (byte & (mask[i] ?? 0)) ^ (xor[i] ?? 0)),
        );
        break;
      }
      case 'cmp': {
        const order = Buffer.compare(get(expression.from, expression.data.length), expression.data);
        if (!holds(expression.op, order)) return undefined;
        break;
      }
      case 'range': {
        const value = get(expression.from, expression.low.length);
        const isInside =
          Buffer.compare(value, expression.low) >= 0 && Buffer.compare(value, expression.high) <= 0;
        if (isInside !== (expression.op === '==')) return undefined;
        break;
      }
      case 'lookup': {
        const set = table.sets.find((candidate) => candidate.set === expression.set);
        if (set === undefined) throw new Error(`there is no set ${expression.set}`);
        const found = lookUp(set, (length) => get(expression.from, length));
        if ((found === undefined) !== (expression.inverted === true)) return undefined;
        if (expression.to === 'verdict') return found?.verdict;
        break;
      }
      case 'verdict':
        return expression.verdict;
      case 'counter':
      case 'limit':
      case 'log':
        break;
      default:
        throw new Error(`the tracer does not know "${expression.kind}"`);
    }
  }
  return undefined;
}

function lookUp(
  set: SetState,
  key: (length: number) => Uint8Array,
): SetState['elements'][number] | undefined {
  if (set.interval !== true)
    return set.elements.find(
      (element) => Buffer.compare(key(element.key.length), element.key) === 0,
    );
  if (set.key.length > 1)
    return set.elements.find((element) => {
      const value = key(element.key.length);
      const end = element.keyEnd ?? element.key;
      for (let at = 0; at < value.length; at += REGISTER_BYTES) {
        const part = (bytes: Uint8Array) => bytes.subarray(at, at + REGISTER_BYTES);
        if (Buffer.compare(part(value), part(element.key)) < 0) return false;
        if (Buffer.compare(part(value), part(end)) > 0) return false;
      }
      return true;
    });
  // The last start or end at or before the key says whether it is inside.
  const before = set.elements
    .filter((element) => Buffer.compare(element.key, key(element.key.length)) <= 0)
    .sort((a, b) => Buffer.compare(a.key, b.key) || (a.intervalEnd === true ? -1 : 1))
    .at(-1);
  return before?.intervalEnd === true ? undefined : before;
}

function metaOf(key: string, packet: TracedPacket): Uint8Array {
  switch (key) {
    case 'l4proto':
      return Uint8Array.of(packet.protocol);
    case 'iifname':
      return ifnameBytes(packet.inLink);
    case 'oifname':
      return ifnameBytes(packet.outLink);
    default:
      throw new Error(`the tracer does not know "meta ${key}"`);
  }
}

function payloadOf(
  { base, offset, bytes }: { base: string; offset: number; bytes: number },
  packet: TracedPacket,
): Uint8Array {
  if (base === 'transport') {
    const header = Uint8Array.of(0, 0, packet.destinationPort >>> 8, packet.destinationPort);
    return header.slice(offset, offset + bytes);
  }
  const isV6 = packet.source.includes(':');
  const header = new Uint8Array(isV6 ? 40 : 20);
  header.set(ipToBytes(packet.source), isV6 ? 8 : 12);
  header.set(ipToBytes(packet.destination), isV6 ? 24 : 16);
  return header.slice(offset, offset + bytes);
}

function holds(op: string, order: number): boolean {
  switch (op) {
    case '==':
      return order === 0;
    case '!=':
      return order !== 0;
    case '>=':
      return order >= 0;
    case '<=':
      return order <= 0;
    case '<':
      return order < 0;
    default:
      return order > 0;
  }
}

function u32(value: number): Uint8Array {
  return Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24);
}
