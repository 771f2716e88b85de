/** Prints keys, data and verdicts. */
import { ipFromBytes, macFromBytes } from '#lib/ip.ts';
import type { DataTypeName, KeyField } from './data-types.ts';
import { fieldInfo } from './data-types.ts';
import type { Verdict } from './expressions.ts';

const PROTOCOL_NAMES: ReadonlyMap<number, string> = new Map([
  [1, 'icmp'],
  [6, 'tcp'],
  [17, 'udp'],
  [58, 'icmpv6'],
  [132, 'sctp'],
]);

export function formatVerdict(verdict: Verdict): string {
  return 'chain' in verdict ? `${verdict.kind} ${verdict.chain}` : verdict.kind;
}

/**
 * A key or data by its fields: `10.96.0.1 . tcp . 80`. In hexadecimal if the fields are not known or do not fit.
 */
export function formatFields(value: Uint8Array, fields: readonly KeyField[] | undefined): string {
  if (fields === undefined || fields.length === 0) return hex(value);
  const texts: string[] = [];
  let at = 0;
  for (const field of fields) {
    const { bytes, type } = fieldInfo(field);
    if (at + bytes > value.length) return hex(value);
    texts.push(formatValue(value.subarray(at, at + bytes), type));
    at += (bytes + 3) & ~3;
  }
  return texts.join(' . ');
}

/** @param type undefined is a number in host order of 4 bytes, anything else hexadecimal */
export function formatValue(value: Uint8Array, type: DataTypeName | undefined): string {
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  switch (type) {
    case 'ipv4_addr':
    case 'ipv6_addr':
      return bytes.length === 4 || bytes.length === 16 ? ipFromBytes(bytes) : hex(value);
    case 'ether_addr':
      return macFromBytes(bytes);
    case 'inet_service':
    case 'ether_type':
      return bytes.length === 2 ? String(bytes.readUInt16BE(0)) : hex(value);
    case 'inet_proto':
      return PROTOCOL_NAMES.get(bytes[0] ?? 0) ?? String(bytes[0]);
    case 'ifname': {
      // Shorter than the field is a prefix: `eth*`.
      const end = bytes.indexOf(0);
      return JSON.stringify(end < 0 ? `${bytes.toString()}*` : bytes.toString('utf8', 0, end));
    }
    case 'icmp_type':
    case 'icmpv6_type':
    case 'nf_proto':
      return String(bytes[0]);
    case 'iface_index':
    case 'fib_addrtype':
    case undefined:
      return bytes.length === 4 ? String(bytes.readUInt32LE(0)) : hex(value);
    default:
      return bytes.length === 4
        ? `0x${bytes.readUInt32LE(0).toString(16).padStart(8, '0')}`
        : hex(value);
  }
}

export function hex(value: Uint8Array): string {
  return `0x${Buffer.from(value).toString('hex')}`;
}
