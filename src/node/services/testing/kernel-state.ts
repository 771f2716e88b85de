/** What packets can tell of a table: to compare tables that came about in different ways. */
import type { Nftables } from '#linux/nftables/port.ts';
import { AFFINITY, ENDPOINTS } from '../program.ts';

const SLOT_BYTES = 4;

/**
 * The sets of the table with their elements, sorted. Endpoints may stand in any order of slots, but the slots must be
 * those that are drawn. What packets wrote, and chains that nothing leads to, are left out.
 */
export function serviceState(nftables: Nftables, family: 'ip' | 'ip6' = 'ip'): unknown {
  const sets = nftables.dumpTable(family, 'tulle')?.sets ?? [];
  return sets
    .filter(({ set, elements }) => set !== AFFINITY && elements.length > 0)
    .map(({ set, elements }) => [
      set,
      ...(set === ENDPOINTS ? [elements.map(({ key }) => hex(key)).sort()] : []),
      elements
        .map(({ key, keyEnd, data, verdict, intervalEnd }) => {
          const shown = set === ENDPOINTS ? key.subarray(0, key.length - SLOT_BYTES) : key;
          const end = intervalEnd === true ? ' end' : '';
          return `${hex(shown)}-${hex(keyEnd)}${end} ${hex(data)} ${JSON.stringify(verdict ?? '')}`;
        })
        .sort(),
    ])
    .sort();
}

function hex(bytes: Uint8Array | undefined): string {
  return Buffer.from(bytes ?? []).toString('hex');
}
