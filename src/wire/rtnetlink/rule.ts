/**
 * Policy routing rules: `RTM_NEWRULE`, `RTM_DELRULE`, `RTM_GETRULE`.
 *
 * ```text
 *  fib_rule_hdr | family u8 | dst length u8 | src length u8 | tos u8 | table u8 | 0 u8 | 0 u8 | action u8 | flags u32 |
 *  FRA_TABLE u32 counts instead of the header's byte
 * ```
 * Source: `include/uapi/linux/fib_rules.h`.
 */
import { type Cidr, type Family, ipToBytes, networkAddress, prefixLengthOf } from '#lib/ip.ts';
import { readAttributes } from '../netlink/reader.ts';
import type { NetlinkWriter } from '../netlink/writer.ts';
import { addressFamilyOf, familyFrom, RT_TABLE_COMPAT } from './constants.ts';
import { expectHeader, readPrefix, readU32 } from './values.ts';

/** The action "look the route up in a table". */
export const FR_ACT_TO_TBL = 1;

const FIB_RULE_HDR_BYTES = 12;
const FRA_DST = 1;
const FRA_SRC = 2;
const FRA_PRIORITY = 6;
const FRA_FWMARK = 10;
const FRA_TABLE = 15;
const FRA_FWMASK = 16;

export interface RuleMessage {
  readonly family: Family;
  /** `FR_ACT_…` */
  readonly action: number;
  readonly priority: number;
  readonly table: number;
  readonly from: Cidr | undefined;
  readonly to: Cidr | undefined;
  readonly mark: number | undefined;
  readonly markMask: number | undefined;
}

/** Payload of `RTM_NEWRULE` and `RTM_DELRULE`. */
export function encodeRule(writer: NetlinkWriter, rule: RuleMessage): void {
  encodeHeader(writer, rule);
  if (rule.from !== undefined) writer.attributeBytes(FRA_SRC, ipToBytes(networkAddress(rule.from)));
  if (rule.to !== undefined) writer.attributeBytes(FRA_DST, ipToBytes(networkAddress(rule.to)));
  writer.attributeU32(FRA_PRIORITY, rule.priority);
  if (rule.mark !== undefined) writer.attributeU32(FRA_FWMARK, rule.mark);
  if (rule.markMask !== undefined) writer.attributeU32(FRA_FWMASK, rule.markMask);
  writer.attributeU32(FRA_TABLE, rule.table);
}

/** Payload of a dump by `RTM_GETRULE`. */
export function encodeGetRules(writer: NetlinkWriter, family: Family): void {
  encodeHeader(writer, { family, action: 0, table: 0, from: undefined, to: undefined });
}

/**
 * Reads the payload of `RTM_NEWRULE` or `RTM_DELRULE`.
 * @returns undefined for families other than IPv4 and IPv6
 * @throws DecodeError
 */
export function decodeRule(payload: Buffer): RuleMessage | undefined {
  expectHeader(payload, FIB_RULE_HDR_BYTES, 'fib_rule_hdr');
  const family = familyFrom(payload.readUInt8(0));
  if (family === undefined) return undefined;
  const attributes = readAttributes(payload, FIB_RULE_HDR_BYTES);
  const prefix = (type: number, length: number, field: string) => {
    const value = attributes.get(type);
    return value === undefined ? undefined : readPrefix(value, length, { family, field });
  };
  return {
    family,
    action: payload.readUInt8(7),
    priority: readU32(attributes.get(FRA_PRIORITY), 'FRA_PRIORITY') ?? 0,
    table: readU32(attributes.get(FRA_TABLE), 'FRA_TABLE') ?? payload.readUInt8(4),
    from: prefix(FRA_SRC, payload.readUInt8(2), 'FRA_SRC'),
    to: prefix(FRA_DST, payload.readUInt8(1), 'FRA_DST'),
    mark: readU32(attributes.get(FRA_FWMARK), 'FRA_FWMARK'),
    markMask: readU32(attributes.get(FRA_FWMASK), 'FRA_FWMASK'),
  };
}

function encodeHeader(
  writer: NetlinkWriter,
  rule: Pick<RuleMessage, 'family' | 'action' | 'table' | 'from' | 'to'>,
): void {
  writer.u8(addressFamilyOf(rule.family));
  writer.u8(rule.to === undefined ? 0 : prefixLengthOf(rule.to));
  writer.u8(rule.from === undefined ? 0 : prefixLengthOf(rule.from));
  writer.u8(0);
  writer.u8(rule.table > 255 ? RT_TABLE_COMPAT : rule.table);
  writer.u8(0);
  writer.u8(0);
  writer.u8(rule.action);
  writer.u32(0);
}
