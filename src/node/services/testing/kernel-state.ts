/** What packets can tell of a table: to compare tables that came about in different ways. */
import type { Nftables } from '#linux/nftables/port.ts';
import {
  AFFINITY,
  AFFINITY_SLOTS,
  CHOICES,
  ENDPOINTS,
  FRONTENDS,
  OUTSIDE_FRONTENDS,
} from '../program.ts';

const SLOT_BYTES = 4;

/**
 * The sets of the table with their elements, sorted. Endpoints may stand in any order of slots, but the slots must be
 * those that are drawn. What packets wrote, and chains that nothing leads to, are left out; chains are numbered in the
 * order of their coming, so frontends are shown with the chain itself.
 */
export function serviceState(nftables: Nftables, family: 'ip' | 'ip6' = 'ip'): unknown {
  const sets = nftables.dumpTable(family, 'tulle')?.sets ?? [];
  const choices = sets.find(({ set }) => set === CHOICES)?.elements ?? [];
  const chains = new Map(choices.map(({ key, verdict }) => [hex(key), JSON.stringify(verdict)]));
  return sets
    .filter(({ set, elements }) => set !== AFFINITY && set !== CHOICES && elements.length > 0)
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

function isSlots(set: string): boolean {
  return set === ENDPOINTS || set === AFFINITY_SLOTS;
}

function hex(bytes: Uint8Array | undefined): string {
  return Buffer.from(bytes ?? []).toString('hex');
}
