/** A connection tracking table in memory. */
import type { ConntrackEntry, ConntrackTuple } from '#wire/conntrack/codec.ts';
import { type Conntrack, type ConntrackFilter, type ConntrackName, matchesFilter } from './port.ts';

export class FakeConntrack implements Conntrack {
  readonly #entries = new Map<string, ConntrackEntry>();
  #nextId = 1;

  /** Puts an entry there, as a packet would. */
  add(entry: Omit<ConntrackEntry, 'id' | 'zone' | 'mark'> & { readonly mark?: number }): void {
    const full = { mark: 0, ...entry, id: this.#nextId++, zone: 0 };
    this.#entries.set(nameOf(full), full);
  }

  list(filter: ConntrackFilter = {}): ConntrackEntry[] {
    return [...this.#entries.values()].filter((entry) => matchesFilter(entry, filter));
  }

  async listOnThread(): Promise<ConntrackEntry[]> {
    return this.list();
  }

  delete(entries: Iterable<ConntrackName>): number {
    let deleted = 0;
    for (const entry of entries) {
      const found = this.#entries.get(nameOf(entry));
      if (found === undefined || (entry.id !== undefined && entry.id !== found.id)) continue;
      this.#entries.delete(nameOf(entry));
      deleted++;
    }
    return deleted;
  }

  mark(entries: Iterable<ConntrackName>, change: { mask: number; value: number }): number {
    let marked = 0;
    for (const entry of entries) {
      const found = this.#entries.get(nameOf(entry));
      if (found === undefined) continue;
      const mark = ((found.mark & ~change.mask) | (change.value & change.mask)) >>> 0;
      this.#entries.set(nameOf(entry), { ...found, mark });
      marked++;
    }
    return marked;
  }

  flush(filter: ConntrackFilter): number {
    return this.delete(this.list(filter));
  }

  [Symbol.dispose](): void {
    this.#entries.clear();
  }
}

function nameOf(entry: ConntrackName): string {
  const { source, destination, protocol, sourcePort, destinationPort, icmp } =
    entry.original satisfies ConntrackTuple;
  return JSON.stringify([
    entry.zone ?? 0,
    protocol,
    source,
    sourcePort,
    destination,
    destinationPort,
    icmp,
  ]);
}
