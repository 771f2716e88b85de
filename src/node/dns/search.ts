/**
 * The search list of a pod's resolv.conf, walked here. With `ndots:5` a pod asks for `www.example.com` first as
 * `www.example.com.<ns>.svc.<zone>`; the server knows which pod asks, so it knows the rest of the list, and answers the
 * first question with an alias to the name that exists:
 *
 * ```text
 *   asked      www.example.com.shop.svc.cluster.local      by a pod of the namespace "shop"
 *   tried      www.example.com.svc.cluster.local
 *              www.example.com.cluster.local
 *              www.example.com
 *   answered   www.example.com.shop.svc.cluster.local CNAME www.example.com, and its addresses
 * ```
 */
import { MAX_NAME_BYTES } from '#wire/dns/constants.ts';
import { canonicalName, nameToWire, parseName } from '#wire/dns/name.ts';
import { addToHash, finishHash, lowerOctet, type Query } from './query.ts';
import { type NameTable, NO_ENTRY, QUESTION_AT, sameName } from './table.ts';

/** Where the search ended: the name in lower case, and its entry if it is one of ours. */
export interface SearchTarget {
  readonly bytes: Uint8Array;
  length: number;
  hash: number;
  /** {@link NO_ENTRY} if it is none of ours. */
  entry: number;
  /** How many octets at the front come from the question; after them stands the suffix. */
  prefixBytes: number;
  /** Where in the question the target's suffix stands: the target ends as the question does. 0 for the root. */
  suffixAt: number;
  /** The hash of those octets, from which that of each candidate goes on. */
  prefixHash: number;
}

export function newSearchTarget(): SearchTarget {
  const bytes = new Uint8Array(MAX_NAME_BYTES);
  const prefix = { prefixBytes: 0, suffixAt: 0, prefixHash: 0 };
  return { bytes, length: 0, hash: 0, entry: NO_ENTRY, ...prefix };
}

/**
 * @returns the first item of the search list of the namespace's pods, on the wire in lower case; `undefined` if the
 *   runtime gave a namespace that no name can hold
 */
export function searchSuffixOf(namespace: string, zone: string): Uint8Array | undefined {
  const suffix = parseName(`${namespace}.svc.${zone}`);
  return suffix === undefined ? undefined : nameToWire(canonicalName(suffix));
}

/** Of an answerer: what a search needs and where its result goes. */
export interface Searching {
  readonly table: NameTable;
  readonly query: Query;
  readonly search: SearchTarget;
}

/** What {@link walkSearchList} found. */
export const NOTHING = 0;
export const IN_TABLE = 1;
/** The name itself is the last candidate, and is not ours to know. */
export const OUTSIDE = 2;

/**
 * Looks for what a pod may mean by a name that does not exist.
 * @param suffix of {@link searchSuffixOf}: the asking pod's
 * @param searching `query` was read of `bytes`; `search` gets the target unless the result is {@link NOTHING}
 */
export function walkSearchList(
  { table, query: { nameEnd: end }, search: into }: Searching,
  bytes: Uint8Array,
  suffix: Uint8Array,
): number {
  const start = QUESTION_AT;
  const suffixAt = end - suffix.length;
  let at = start;
  let labels = 0;
  while (at < suffixAt) {
    at += (bytes[at] ?? 0) + 1;
    labels++;
  }
  if (at !== suffixAt || labels === 0 || !sameName(suffix, bytes, suffixAt, end)) return NOTHING;
  into.prefixBytes = suffixAt - start;
  for (let i = 0; i < into.prefixBytes; i++) into.bytes[i] = lowerOctet(bytes[start + i] ?? 0);
  into.prefixHash = addToHash(table.seed, into.bytes, 0, into.prefixBytes);
  // `<ns>.svc.<zone>` → `svc.<zone>` → `<zone>`
  for (let i = 0, from = suffixAt; i < 2; i++) {
    from += (bytes[from] ?? 0) + 1;
    setSuffix(into, bytes, from, end);
    into.entry = table.find(into.bytes, 0, into.length, into.hash);
    if (into.entry !== NO_ENTRY) return IN_TABLE;
  }
  setSuffix(into, bytes, end - 1, end);
  into.suffixAt = 0;
  into.entry = table.find(into.bytes, 0, into.length, into.hash);
  if (into.entry !== NO_ENTRY) return IN_TABLE;
  // A single label is a host's short name: nobody outside knows it. What is ours and not in the table does not exist.
  if (labels < 2 || table.zoneOffset(into.bytes, 0, into.length) >= 0) return NOTHING;
  return OUTSIDE;
}

function setSuffix(into: SearchTarget, bytes: Uint8Array, from: number, end: number): void {
  let at = into.prefixBytes;
  for (let i = from; i < end; i++) into.bytes[at++] = lowerOctet(bytes[i] ?? 0);
  into.length = at;
  into.suffixAt = from;
  into.hash = finishHash(addToHash(into.prefixHash, into.bytes, into.prefixBytes, at));
}
