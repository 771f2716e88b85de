/** What packets can tell of a table: to compare tables that came about in different ways. */
import assert from 'node:assert/strict';
import type { Nftables } from '#linux/nftables/port.ts';
import {
  AFFINITY,
  AFFINITY_SLOTS,
  CHOICES,
  ENDED,
  ENDPOINTS,
  FRONTENDS,
  OUTSIDE_FRONTENDS,
} from '../program.ts';

const SLOT_BYTES = 4;
const LEFT_OUT: readonly string[] = [AFFINITY, CHOICES, ENDED];

/**
 * The sets of the table with their elements, sorted. Endpoints may stand in any order of slots, but the slots must be
 * those that are drawn. What packets wrote, what expires, and chains that nothing leads to, are left out; chains are numbered in the
 * order of their coming, so frontends are shown with the chain itself.
 */
export function serviceState(nftables: Nftables, family: 'ip' | 'ip6' = 'ip'): unknown {
  const sets = nftables.dumpTable(family, 'tulle')?.sets ?? [];
  const choices = sets.find(({ set }) => set === CHOICES)?.elements ?? [];
  const chains = new Map(choices.map(({ key, verdict }) => [hex(key), JSON.stringify(verdict)]));
  return sets
    .filter(({ set, elements }) => !LEFT_OUT.includes(set) && elements.length > 0)
    .map(({ set, elements }) => [
      set,
      ...(isSlots(set) ? [elements.map(({ key }) => hex(key)).sort()] : []),
      elements
        .map(({ key, keyEnd, data, verdict, intervalEnd }) => {
          const shown = isSlots(set) ? key.subarray(0, key.length - SLOT_BYTES) : key;
          const end = intervalEnd === true ? ' end' : '';
          const isFrontend = set === FRONTENDS || set === OUTSIDE_FRONTENDS;
          const value = isFrontend ? chains.get(hex(data)) : hex(data);
          return `${hex(shown)}-${hex(keyEnd)}${end} ${value} ${JSON.stringify(verdict ?? '')}`;
        })
        .sort(),
    ])
    .sort();
}

/** Up to so much of a state a difference is shown whole: to make one of more takes minutes, and all memory. */
const MAX_SHOWN_BYTES = 256 * 1024;

/** Asserts that two tables are the same to packets. */
export function sameState(found: Nftables, wanted: Nftables): void {
  const [have, want] = [serviceState(found), serviceState(wanted)];
  const texts = [JSON.stringify(have), JSON.stringify(want)] as const;
  if (texts[0].length + texts[1].length <= MAX_SHOWN_BYTES) assert.deepEqual(have, want);
  else
    assert.ok(texts[0] === texts[1], `${texts[0].length} bytes of state, not ${texts[1].length}`);
}

function isSlots(set: string): boolean {
  return set === ENDPOINTS || set === AFFINITY_SLOTS;
}

function hex(bytes: Uint8Array | undefined): string {
  return Buffer.from(bytes ?? []).toString('hex');
}
