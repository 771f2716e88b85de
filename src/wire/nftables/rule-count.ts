/**
 * What a rule has counted, read out of its message without the rest: there are thousands of rules, and to decode one
 * costs many times as much.
 */
import { DecodeError } from '#lib/errors.ts';
import { NLA_HEADER_BYTES, NLA_TYPE_MASK } from '#wire/netlink/constants.ts';
import {
  NFGENMSG_BYTES,
  NFTA_EXPR_DATA,
  NFTA_EXPR_NAME,
  NFTA_LIST_ELEM,
  NFTA_RULE_EXPRESSIONS,
  NFTA_RULE_USERDATA,
} from './constants.ts';
import { NFTA_COUNTER_BYTES, NFTA_COUNTER_PACKETS } from './expression-attributes.ts';
import { decodeComment } from './userdata.ts';

/** What the first counter of a rule says. */
export interface RuleCount {
  readonly comment: string;
  readonly packets: bigint;
  readonly bytes: bigint;
}

const COUNTER = Buffer.from('counter\0');

/**
 * @param payload of a message of a dump of rules
 * @returns undefined for a rule without a comment or without a counter
 * @throws DecodeError if a length lies outside the bytes
 */
export function decodeRuleCount(payload: Buffer): RuleCount | undefined {
  let userdata: Span | undefined;
  let counter: Span | undefined;
  eachAttribute(payload, { from: NFGENMSG_BYTES, to: payload.length }, (type, span) => {
    if (type === NFTA_RULE_USERDATA) userdata = span;
    else if (type === NFTA_RULE_EXPRESSIONS) counter = counterIn(payload, span);
  });
  if (counter === undefined || userdata === undefined) return undefined;
  const comment = decodeComment(payload.subarray(userdata.from, userdata.to));
  if (comment === undefined) return undefined;
  let packets = 0n;
  let bytes = 0n;
  eachAttribute(payload, counter, (type, { from }) => {
    if (type === NFTA_COUNTER_PACKETS) packets = payload.readBigUInt64BE(from);
    else if (type === NFTA_COUNTER_BYTES) bytes = payload.readBigUInt64BE(from);
  });
  return { comment, packets, bytes };
}

/** Offsets in a message: `to` is that of what comes after. */
interface Span {
  readonly from: number;
  readonly to: number;
}

/** @returns where the attributes of the first counter are */
function counterIn(payload: Buffer, list: Span): Span | undefined {
  let found: Span | undefined;
  eachAttribute(payload, list, (kind, item) => {
    if (kind !== NFTA_LIST_ELEM || found !== undefined) return;
    let isCounter = false;
    let data: Span | undefined;
    eachAttribute(payload, item, (type, span) => {
      if (type === NFTA_EXPR_NAME) isCounter = COUNTER.compare(payload, span.from, span.to) === 0;
      else if (type === NFTA_EXPR_DATA) data = span;
    });
    if (isCounter) found = data;
  });
  return found;
}

function eachAttribute(
  bytes: Buffer,
  { from, to }: Span,
  visit: (type: number, value: Span) => void,
): void {
  for (let at = from; at + NLA_HEADER_BYTES <= to; ) {
    const length = bytes.readUInt16LE(at);
    if (length < NLA_HEADER_BYTES || at + length > to)
      throw new DecodeError('the length does not fit the bytes', {
        protocol: 'nftables',
        field: 'attribute length',
        offset: at,
      });
    const type = bytes.readUInt16LE(at + 2) & NLA_TYPE_MASK;
    visit(type, { from: at + NLA_HEADER_BYTES, to: at + length });
    at += (length + 3) & ~3;
  }
}
