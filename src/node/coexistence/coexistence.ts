/**
 * The coexistence feature: keeps our rules in the firewalls of other programs on this node (`plan.ts`), whenever one of
 * them comes, is reloaded or flushes its chains.
 */
import { existsSync, readFileSync } from 'node:fs';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import type { Cache } from '#client/port.ts';
import { isSpecChange } from '#client/spec-change.ts';
import { ENOENT, isErrno } from '#lib/errors.ts';
import { parseCidr } from '#lib/ip.ts';
import { NFT_TABLE } from '#lib/kernel-objects.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Nftables, RulesetEvent, TableState } from '#linux/nftables/port.ts';
import { KNOWN_CHAINS, planAbstention, planCoexistence, planRemoval } from './plan.ts';

/** A firewall that loads its rules commits many times; the last one counts. */
const MIN_SYNC_INTERVAL_MS = 20;
/** Backstop for lost events. */
const RESYNC_MS = 60_000;
/** The families that see packets of pods. */
const FAMILIES = ['ip', 'ip6', 'inet'] as const;

export interface CoexistenceComponents {
  readonly nftables: Nftables;
  readonly pools: Cache<IPPool>;
  readonly log: Logger;
  /** Names of the old kernel interface's tables that are loaded, which nobody sees from here. */
  readonly legacyTables?: () => readonly string[];
  /** Default true. If not, our rules are taken out of others' firewalls, and what stops pods is only named. */
  readonly isOpening?: boolean;
}

export interface CoexistenceStatus {
  /** Chains of others that have our rules. */
  readonly opened: readonly string[];
  readonly problems: readonly string[];
}

export class Coexistence implements AsyncDisposable {
  readonly #c: CoexistenceComponents;
  readonly #loop: SyncLoop;
  readonly #stops: (() => void)[] = [];
  #status: CoexistenceStatus = { opened: [], problems: [] };

  constructor(components: CoexistenceComponents) {
    this.#c = components;
    this.#loop = new SyncLoop(() => this.#sync(), {
      name: 'coexistence',
      log: components.log,
      minIntervalMs: MIN_SYNC_INTERVAL_MS,
      resyncMs: RESYNC_MS,
    });
  }

  /** Resolves after the first sync. */
  async start(): Promise<void> {
    const { nftables, pools } = this.#c;
    await pools.synced();
    this.#stops.push(
      pools.onChange((change) => {
        if (isSpecChange(change)) this.#loop.trigger();
      }),
      nftables.watch((event) => {
        if (isForeign(event)) this.#loop.trigger();
      }),
    );
    await this.#loop.settled();
  }

  status(): CoexistenceStatus {
    const { lastError } = this.#loop;
    if (lastError === undefined) return this.#status;
    return { ...this.#status, problems: [lastError, ...this.#status.problems] };
  }

  /** Stops watching; the rules stay. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const stop of this.#stops) stop();
    await this.#loop[Symbol.asyncDispose]();
  }

  #sync(): void {
    const { nftables, pools, log } = this.#c;
    const generation = nftables.generation();
    const networks = [...pools.values()].flatMap((pool) => parseCidr(pool.spec.cidr) ?? []);
    const tables = foreignTables(nftables);
    const plan =
      this.#c.isOpening === false ? planAbstention(tables) : planCoexistence(tables, networks);
    const { operations, opened } = plan;
    const problems = [...plan.problems, ...legacyProblems(this.#c.legacyTables?.() ?? [])];
    if (operations.length > 0) {
      // Theirs may change any moment: what was planned for other rules is refused, and planned anew.
      nftables.commit(operations, { generation });
      log.info({ chains: opened }, "coexistence: changed our rules in other programs' firewalls");
    }
    if (problems.join() !== this.#status.problems.join() && problems.length > 0)
      log.warn({ problems }, "coexistence: somebody's firewall stops pods");
    this.#status = { opened, problems };
  }
}

/**
 * The tables that `iptables-legacy` has loaded in this network namespace.
 * @returns an empty list where the kernel does not have that interface
 */
export function readLegacyTables(): readonly string[] {
  return ['/proc/net/ip_tables_names', '/proc/net/ip6_tables_names'].flatMap((path) =>
    existsSync(path)
      ? readFileSync(path, 'utf8')
          .split('\n')
          .filter((name) => name !== '')
      : [],
  );
}

function legacyProblems(tables: readonly string[]): string[] {
  if (!tables.includes('filter')) return [];
  return [
    'rules of iptables-legacy are loaded, which Tulle neither sees nor changes: if they drop forwarded packets, let the pods through there (iptables-legacy -I FORWARD -s POOL -j ACCEPT, and -d), or use iptables-nft',
  ];
}

/** Takes our rules out of other programs' tables. @returns the chains that had them */
export function removeFromOthers(nftables: Nftables): readonly string[] {
  const tables = foreignTables(nftables);
  const operations = planRemoval(tables);
  if (operations.length === 0) return [];
  nftables.commit(operations);
  const ours = new Set(KNOWN_CHAINS.map((it) => it.ours));
  return tables.flatMap(({ family, table, chains }) =>
    chains
      .filter((it) => ours.has(it.chain))
      .map(({ chain }) => `nftables chain ${family} ${table} ${chain}`),
  );
}

function foreignTables(nftables: Nftables): TableState[] {
  return nftables
    .listTables()
    .filter(({ family, table }) => !isIgnored(table) && FAMILIES.some((it) => it === family))
    .flatMap(({ family, table }) => {
      try {
        return nftables.dumpTable(family, table, { elements: false }) ?? [];
      } catch (error) {
        // It went while it was read.
        if (isErrno(error, ENOENT)) return [];
        throw error;
      }
    });
}

/** Ours; and iptables' other tables, which filter nothing and may be very large (kube-proxy's). */
function isIgnored(table: string): boolean {
  return [NFT_TABLE, 'nat', 'mangle', 'raw', 'security'].includes(table);
}

function isForeign(event: RulesetEvent): boolean {
  if (event.kind === 'lost') return true;
  // The services' elements change all the time.
  return !event.own && event.changes.some((it) => !isIgnored(it.table) && it.kind !== 'elements');
}
