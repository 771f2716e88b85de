/** The elements of a set, which the kernel gives in many messages. */

import type { NetlinkMessage } from '#wire/netlink/reader.ts';
import { readAttributes } from '#wire/netlink/reader.ts';
import type { NetlinkWriter } from '#wire/netlink/writer.ts';
import * as N from '#wire/nftables/constants.ts';
import { keyBytes } from '#wire/nftables/data-types.ts';
import { type DecodedSet, decodeElements } from '#wire/nftables/object-decoder.ts';
import type { SetElement } from '#wire/nftables/objects.ts';
import { type ElementList, packDumped } from '#wire/nftables/packed-elements.ts';

export type Dump = (type: number, write: (writer: NetlinkWriter) => void) => NetlinkMessage[];

/**
 * The elements of a set. A hash table that grows meanwhile makes the kernel leave out some and give others twice, in a
 * dump of one and the same generation; that is seen by the count, or on older kernels by what came twice.
 * @returns undefined if the dump was not whole
 */
export function readElements(
  dump: Dump,
  set: DecodedSet,
  count: number | undefined,
): SetElement[] | undefined {
  return wholeElements(dumpElements(dump, set), set, count);
}

function dumpElements(dump: Dump, set: DecodedSet): NetlinkMessage[] {
  return dump(N.NFT_MSG_GETSETELEM, (writer) => {
    writer.attributeString(N.NFTA_SET_ELEM_LIST_TABLE, set.table);
    writer.attributeString(N.NFTA_SET_ELEM_LIST_SET, set.set);
  });
}

function wholeElements(
  messages: readonly NetlinkMessage[],
  set: DecodedSet,
  count: number | undefined,
): SetElement[] | undefined {
  const elements = messages.flatMap((message) => decodeElements(message.payload).elements);
  // Intervals are kept in trees and counted otherwise; what rules and time change has no steady count.
  if (set.interval === true || set.dynamic === true || set.timeout === true) return elements;
  const keyed = elements.filter((element) => element.catchAll !== true);
  if (count !== undefined && count !== keyed.length) return undefined;
  const names = new Set(keyed.map(({ key }) => Buffer.from(key).toString('latin1')));
  return names.size === keyed.length ? elements : undefined;
}

/** The same in a few bytes an element, where the set is so plain that it can be. */
export function readPacked(
  dump: Dump,
  set: DecodedSet,
  count: number | undefined,
): ElementList | undefined {
  const messages = dumpElements(dump, set);
  if (count === undefined || set.data === 'verdict' || set.interval === true)
    return wholeElements(messages, set, count);
  const lists = messages.flatMap(
    ({ payload }) =>
      readAttributes(payload, N.NFGENMSG_BYTES).get(N.NFTA_SET_ELEM_LIST_ELEMENTS) ?? [],
  );
  const dataBytes = set.data === undefined ? 0 : keyBytes(set.data);
  const packed = packDumped(lists, { keyBytes: keyBytes(set.key), dataBytes });
  if (packed === undefined) return wholeElements(messages, set, count);
  return packed.length === count ? packed : undefined;
}
