/**
 * Prints the expressions of a rule by following what the registers hold:
 * a load gives its register a text, and what uses the register prints that text.
 */
import type { DataTypeName } from './data-types.ts';
import type { Expression, NatFlags, Register } from './expressions.ts';
import { formatValue, formatVerdict, hex } from './format-values.ts';

/** `ip daddr . meta l4proto . th dport vmap @frontends` */
export function formatExpressions(expressions: readonly Expression[]): string {
  const printer = new Printer();
  for (const expression of expressions) printer.add(expression);
  return printer.text();
}

interface Held {
  readonly text: string;
  readonly bytes: number;
  readonly type: DataTypeName | undefined;
  /** A constant; what it means shows only where it is used. */
  readonly data?: Uint8Array;
  /** Bytes of no known meaning: printed in hexadecimal. */
  readonly raw?: boolean;
  /** Only this many first bytes of an address were loaded, which compares a prefix. */
  readonly leadingBytes?: number;
  /** Set after a mask: printed as a prefix if it is one. */
  readonly mask?: Uint8Array;
  readonly unmasked?: string;
}

const FIELDS: readonly (readonly [string, string, DataTypeName | undefined])[] = [
  ['network 9 1', 'ip protocol', 'inet_proto'],
  ['network 12 4', 'ip saddr', 'ipv4_addr'],
  ['network 16 4', 'ip daddr', 'ipv4_addr'],
  ['network 6 1', 'ip6 nexthdr', 'inet_proto'],
  ['network 8 16', 'ip6 saddr', 'ipv6_addr'],
  ['network 24 16', 'ip6 daddr', 'ipv6_addr'],
  ['transport 0 2', 'th sport', 'inet_service'],
  ['transport 2 2', 'th dport', 'inet_service'],
  ['transport 0 1', 'icmp type', 'icmp_type'],
  ['transport 1 1', 'icmp code', 'icmp_type'],
  ['transport 13 1', 'tcp flags', undefined],
  ['link 0 6', 'ether daddr', 'ether_addr'],
  ['link 6 6', 'ether saddr', 'ether_addr'],
];
const META_TYPES: Readonly<Record<string, DataTypeName>> = {
  mark: 'mark',
  l4proto: 'inet_proto',
  nfproto: 'nf_proto',
  iif: 'iface_index',
  oif: 'iface_index',
  iifname: 'ifname',
  oifname: 'ifname',
};
const CT_TYPES: Readonly<Record<string, DataTypeName>> = {
  state: 'ct_state',
  status: 'ct_status',
  mark: 'mark',
  protocol: 'inet_proto',
  'proto-src': 'inet_service',
  'proto-dst': 'inet_service',
  'ip saddr': 'ipv4_addr',
  'ip daddr': 'ipv4_addr',
  'ip6 saddr': 'ipv6_addr',
  'ip6 daddr': 'ipv6_addr',
};

class Printer {
  readonly #parts: string[] = [];
  readonly #registers = new Map<Register, Held>();

  text(): string {
    return this.#parts.join(' ');
  }

  add(e: Expression): void {
    switch (e.kind) {
      case 'meta':
        this.#hold(e.to, `meta ${e.key}`, META_TYPES[e.key]);
        break;
      case 'payload':
        this.#registers.set(e.to, heldField(e));
        break;
      case 'ct': {
        const direction = e.direction === undefined ? '' : `${e.direction} `;
        this.#hold(e.to, `ct ${direction}${e.key}`, CT_TYPES[e.key]);
        break;
      }
      case 'fib':
        this.#hold(
          e.to,
          `fib ${e.by.join(' . ')} ${e.result}`,
          e.result === 'type' ? 'fib_addrtype' : undefined,
        );
        break;
      case 'numgen':
        this.#hold(e.to, `numgen ${e.mode} mod ${e.modulus}${offsetOf(e.offset)}`, undefined);
        break;
      case 'jhash': {
        const seed = e.seed === undefined ? '' : ` seed 0x${e.seed.toString(16)}`;
        const source = this.#concat(e.from);
        this.#hold(e.to, `jhash ${source} mod ${e.modulus}${seed}${offsetOf(e.offset)}`, undefined);
        break;
      }
      case 'symhash':
        this.#hold(e.to, `symhash mod ${e.modulus}${offsetOf(e.offset)}`, undefined);
        break;
      case 'socket':
        this.#hold(e.to, `socket ${e.key}`, undefined);
        break;
      case 'immediate':
        this.#immediate(e.to, e.data);
        break;
      case 'bitwise':
        this.#bitwise(e);
        break;
      case 'shift':
        this.#hold(
          e.to,
          `${this.#at(e.from)} ${e.direction === 'left' ? '<<' : '>>'} ${e.bits}`,
          this.#registers.get(e.from)?.type,
        );
        break;
      case 'byteorder':
        this.#hold(e.to, this.#at(e.from), this.#registers.get(e.from)?.type, e.bytes);
        break;
      default:
        this.#statement(e);
    }
  }

  #statement(e: Expression): void {
    switch (e.kind) {
      case 'set meta':
        this.#parts.push(`meta ${e.key} set ${this.#as(e.from, META_TYPES[e.key])}`);
        break;
      case 'set ct':
        this.#parts.push(`ct ${e.key} set ${this.#as(e.from, CT_TYPES[e.key])}`);
        break;
      case 'set payload':
        this.#parts.push(`@${e.base},${e.offset * 8},${e.bytes * 8} set ${this.#at(e.from)}`);
        break;
      case 'cmp':
        this.#cmp(e);
        break;
      case 'range': {
        const type = this.#registers.get(e.from)?.type;
        const range = `${formatValue(e.low, type)}-${formatValue(e.high, type)}`;
        this.#parts.push(`${this.#at(e.from)} ${e.op === '==' ? '' : '!= '}${range}`);
        break;
      }
      case 'lookup':
        this.#lookup(e);
        break;
      case 'dynset': {
        const timeout = e.timeoutMs === undefined ? '' : ` timeout ${e.timeoutMs}ms`;
        const key = this.#concat(e.key, e.data);
        const data = e.data === undefined ? '' : ` : ${this.#concat(e.data)}`;
        this.#parts.push(`${e.op} @${e.set} { ${key}${timeout}${data} }`);
        this.#registers.clear();
        break;
      }
      case 'verdict':
        this.#parts.push(formatVerdict(e.verdict));
        break;
      case 'nat': {
        const to = this.#natTarget(e.address, e.port);
        this.#parts.push(`${e.type} ${e.family}${to}${natFlags(e.flags)}`);
        break;
      }
      case 'masquerade':
        this.#parts.push(`masquerade${this.#natTarget(undefined, e.port)}${natFlags(e.flags)}`);
        break;
      case 'redirect':
        this.#parts.push(`redirect${this.#natTarget(undefined, e.port)}${natFlags(e.flags)}`);
        break;
      case 'tproxy':
        this.#parts.push(`tproxy ${e.family ?? ''}${this.#natTarget(e.address, e.port)}`);
        break;
      default:
        this.#parts.push(formatPlain(e));
    }
  }

  #hold(to: Register, text: string, type: DataTypeName | undefined, bytes?: number): void {
    const size = bytes ?? (type === 'ifname' || type === 'ipv6_addr' ? 16 : 4);
    this.#registers.set(to, { text, bytes: size, type });
  }

  #at(register: Register): string {
    return this.#registers.get(register)?.text ?? `reg ${register}`;
  }

  /** The fields from a register on, up to `end` or the first one that holds nothing. */
  #concat(from: Register, end = Number.POSITIVE_INFINITY): string {
    const texts: string[] = [];
    for (let at = from; at < end; ) {
      const held = this.#registers.get(at);
      if (held === undefined) break;
      texts.push(held.text);
      at += Math.ceil(held.bytes / 4);
    }
    return texts.length === 0 ? `reg ${from}` : texts.join(' . ');
  }

  #immediate(to: Register, data: Uint8Array): void {
    this.#registers.set(to, { text: hex(data), bytes: data.length, type: undefined, data });
  }

  /** What a register holds, where it is used as this type. */
  #as(register: Register, type: DataTypeName | undefined): string {
    const data = this.#registers.get(register)?.data;
    return data === undefined ? this.#at(register) : formatValue(data, type);
  }

  #bitwise(e: Extract<Expression, { kind: 'bitwise' }>): void {
    const held = this.#registers.get(e.from);
    const type = held?.type;
    const masked = `${this.#at(e.from)} & ${formatHeld(e.mask, held)}`;
    const xor = e.xor.every((byte) => byte === 0) ? '' : ` ^ ${formatHeld(e.xor, held)}`;
    this.#registers.set(e.to, {
      text: `${masked}${xor}`,
      bytes: e.mask.length,
      type,
      ...(held?.raw === true ? { raw: true } : {}),
      mask: e.mask,
      unmasked: this.#at(e.from),
    });
  }

  #cmp(e: Extract<Expression, { kind: 'cmp' }>): void {
    const held = this.#registers.get(e.from);
    const op = e.op === '==' ? '' : `${e.op} `;
    const prefix = held?.mask === undefined ? undefined : prefixOf(held.mask);
    const isAddress = held?.type === 'ipv4_addr' || held?.type === 'ipv6_addr';
    if (held?.unmasked !== undefined && prefix !== undefined && isAddress) {
      this.#parts.push(`${held.unmasked} ${op}${formatValue(e.data, held.type)}/${prefix}`);
      return;
    }
    if (held?.leadingBytes !== undefined) {
      const address = new Uint8Array(held.type === 'ipv4_addr' ? 4 : 16);
      address.set(e.data);
      const length = held.leadingBytes * 8;
      this.#parts.push(`${held.text} ${op}${formatValue(address, held.type)}/${length}`);
      return;
    }
    const masked = held?.mask === undefined ? op : `${e.op} `;
    this.#parts.push(`${this.#at(e.from)} ${masked}${formatHeld(e.data, held)}`);
  }

  #lookup(e: Extract<Expression, { kind: 'lookup' }>): void {
    const key = this.#concat(e.from);
    this.#registers.clear();
    if (e.to === undefined) this.#parts.push(`${key} ${e.inverted === true ? '!= ' : ''}@${e.set}`);
    else if (e.to === 'verdict') this.#parts.push(`${key} vmap @${e.set}`);
    else this.#hold(e.to, `${key} map @${e.set}`, undefined);
  }

  /** A port whose register holds nothing of its own came with the address, out of one map. */
  #natTarget(address: Register | undefined, port: Register | undefined): string {
    if (address === undefined && port === undefined) return '';
    const to = address === undefined ? '' : this.#as(address, 'ipv6_addr');
    const hasOwn = port !== undefined && this.#registers.has(port);
    return ` to ${to}${hasOwn ? `:${this.#as(port, 'inet_service')}` : ''}`;
  }
}

/** A field of a header, or the first bytes of an address: nft compares a prefix of whole bytes so. */
function heldField(e: Extract<Expression, { kind: 'payload' }>): Held {
  const { bytes } = e;
  const exact = FIELDS.find(([place]) => place === `${e.base} ${e.offset} ${bytes}`);
  if (exact !== undefined) return { text: exact[1], bytes, type: exact[2] };
  const leading = FIELDS.find(([place, , type]) => {
    const whole = type === 'ipv4_addr' ? 4 : type === 'ipv6_addr' ? 16 : 0;
    // Fewer than 4 bytes at the place of an IPv6 address are more likely something of IPv4.
    const isPart = bytes < whole && (whole === 4 || bytes >= 4);
    return isPart && place === `${e.base} ${e.offset} ${whole}`;
  });
  if (leading !== undefined)
    return { text: leading[1], bytes, type: leading[2], leadingBytes: bytes };
  const text = `@${e.base},${e.offset * 8},${bytes * 8}`;
  return { text, bytes, type: undefined, raw: true };
}

/** Statements that use no register. */
function formatPlain(e: Expression): string {
  switch (e.kind) {
    case 'counter':
      return `counter packets ${e.packets} bytes ${e.bytes}`;
    case 'limit': {
      const unit = e.of === 'bytes' ? ' bytes' : '';
      return `limit rate ${e.over === true ? 'over ' : ''}${e.rate}${unit}/${e.per} burst ${e.burst}`;
    }
    case 'log': {
      const prefix = e.prefix === undefined ? '' : ` prefix ${JSON.stringify(e.prefix)}`;
      const group = e.group === undefined ? '' : ` group ${e.group}`;
      return `log${prefix}${group}${e.snaplen === undefined ? '' : ` snaplen ${e.snaplen}`}`;
    }
    case 'reject': {
      if (e.with === 'tcp reset') return 'reject with tcp reset';
      return 'icmpx' in e.with
        ? `reject with icmpx ${e.with.icmpx}`
        : `reject with icmp code ${e.with.icmp}`;
    }
    case 'unknown':
      return `[${e.name} ${hex(e.attributes)}]`;
    default:
      return e.kind;
  }
}

function formatHeld(value: Uint8Array, held: Held | undefined): string {
  return held?.raw === true ? hex(value) : formatValue(value, held?.type);
}

function natFlags(flags: NatFlags | undefined): string {
  return [
    flags?.random === true ? ' random' : '',
    flags?.fullyRandom === true ? ' fully-random' : '',
    flags?.persistent === true ? ' persistent' : '',
  ].join('');
}

function offsetOf(offset: number | undefined): string {
  return offset === undefined || offset === 0 ? '' : ` offset ${offset}`;
}

/** @returns the length if the mask is ones followed by zeros */
function prefixOf(mask: Uint8Array): number | undefined {
  const bits = Array.from(mask, (byte) => byte.toString(2).padStart(8, '0')).join('');
  const length = bits.indexOf('0') < 0 ? bits.length : bits.indexOf('0');
  return bits.includes('1', length) ? undefined : length;
}
