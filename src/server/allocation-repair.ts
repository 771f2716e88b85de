/**
 * Compares the records of service addresses and node ports with the services, and repairs what can be repaired. Each
 * record is written in the transaction of its service, so this finds something only after a store was restored from a
 * copy, changed by hand, or written by a server with a fault.
 *
 *     a record that no service has         deleted: the address can be given again
 *     an address that has no record        recorded for the service that has it
 *     an address that two services have    recorded for the older one, and told: only a person can choose
 */
import { SERVICE, type Service } from '#api/core/v1/service.ts';
import {
  type AddressClaim,
  claimOf,
  ingressAddresses,
  isOurLoadBalancer,
  whyNotShared,
} from '#api/core/v1/service-load-balancer.ts';
import { sameJson } from '#api/machinery/json.ts';
import {
  poolContains,
  SERVICE_ADDRESS_POOL,
  type ServiceAddressPool,
} from '#api/tulle/v1alpha1/service-address-pool.ts';
import type { Clock } from '#lib/clock.ts';
import { parseIp } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import {
  MAX_TRANSACTION_OPERATIONS,
  type Store,
  type StoreEntry,
  type WriteOp,
} from '#store/port.ts';
import { clusterIpKey } from './admission/cluster-ips.ts';
import { encodeClaims, loadBalancerIpKey } from './admission/load-balancer-addresses.ts';
import { nodePortKeysOf } from './admission/service-ports.ts';
import { decodeEntry } from './registry/codec.ts';
import {
  CLUSTER_IP_PREFIX,
  collectionPrefix,
  LOAD_BALANCER_IP_PREFIX,
  NODE_PORT_PREFIX,
} from './registry/keys.ts';

/** Upstream's repair interval is three minutes too. */
const REPAIR_INTERVAL_MS = 180_000;
/** Problems named in the log at a time; the count says the rest. */
const MAX_LOGGED = 20;

export interface AllocationProblem {
  readonly kind: 'leaked' | 'missing' | 'duplicate';
  /** The record's key. */
  readonly key: string;
  readonly message: string;
}

/** A write that repairs one record, good as long as what it was decided on is unchanged. */
export interface Repair {
  readonly operation: WriteOp;
  /** `modRevision` of the record; 0: there is none. */
  readonly record: number;
  /** The services that have the address by this state, by their store keys. */
  readonly services: readonly StoreEntry[];
}

export interface RepairPlan {
  readonly problems: readonly AllocationProblem[];
  readonly repairs: readonly Repair[];
}

/** A service as it lies in the store. */
interface StoredService {
  readonly entry: StoreEntry;
  readonly service: Service;
}

/** Pure: what is wrong in one snapshot of the store. */
export function planRepair(
  services: readonly StoreEntry[],
  records: readonly StoreEntry[],
  pools: readonly ServiceAddressPool[],
): RepairPlan {
  const holders = new Map<string, StoredService[]>();
  for (const entry of services) {
    const service = decodeEntry(entry) as Service;
    for (const key of keysOf(service, pools)) {
      const others = holders.get(key);
      if (others === undefined) holders.set(key, [{ entry, service }]);
      else others.push({ entry, service });
    }
  }
  const byKey = new Map(records.map((record) => [record.key, record]));
  const problems: AllocationProblem[] = [];
  const repairs: Repair[] = [];
  for (const [key, holding] of holders) {
    // The one that was there first keeps it.
    holding.sort((a, b) => a.entry.createRevision - b.entry.createRevision);
    const duplicate = describeDuplicate(key, holding);
    if (duplicate !== undefined) problems.push({ kind: 'duplicate', key, message: duplicate });
    const record = byKey.get(key);
    const value = recordOf(key, holding);
    if (record !== undefined && isSameRecord(record.value, value)) continue;
    problems.push({
      kind: 'missing',
      key,
      message: `${nameOf(holding[0])} has it, and its record ${record === undefined ? 'is missing' : 'says something else'}`,
    });
    repairs.push({
      operation: { type: 'put', key, value },
      record: record?.modRevision ?? 0,
      services: holding.map(({ entry }) => entry),
    });
  }
  for (const record of records) {
    if (holders.has(record.key)) continue;
    const { key, modRevision } = record;
    problems.push({ kind: 'leaked', key, message: 'no service has it' });
    repairs.push({ operation: { type: 'delete', key }, record: modRevision, services: [] });
  }
  return { problems, repairs };
}

function keysOf(service: Service, pools: readonly ServiceAddressPool[]): string[] {
  const clusterIps = (service.spec?.clusterIPs ?? []).flatMap((text) => {
    const address = parseIp(text);
    return address === undefined ? [] : [clusterIpKey(address)];
  });
  const balancers = isOurLoadBalancer(service)
    ? ingressAddresses(service).filter((it) => pools.some((pool) => poolContains(pool, it)))
    : [];
  return [
    ...new Set([...clusterIps, ...nodePortKeysOf(service), ...balancers.map(loadBalancerIpKey)]),
  ];
}

function isShareable(key: string): boolean {
  return key.startsWith(LOAD_BALANCER_IP_PREFIX);
}

function describeDuplicate(key: string, holding: readonly StoredService[]): string | undefined {
  const [first, ...more] = holding;
  if (first === undefined || more.length === 0) return undefined;
  const bad = isShareable(key)
    ? more.filter((it) => whyNotShared(claimOf(it.service), claimOf(first.service)) !== undefined)
    : more;
  if (bad.length === 0) return undefined;
  return `${[first, ...bad].map(nameOf).join(' and ')} have it; delete one of them and make it again`;
}

function recordOf(key: string, holding: readonly StoredService[]): Uint8Array {
  if (isShareable(key)) return encodeClaims(holding.map(({ service }) => claimOf(service)));
  const { namespace = '', name = '' } = holding[0]?.service.metadata ?? {};
  return Buffer.from(JSON.stringify({ namespace, name }), 'utf8');
}

/** A record is a list of claims in any order, or one owner. One that cannot be read is like none. */
function isSameRecord(a: Uint8Array, b: Uint8Array): boolean {
  const normal = (value: Uint8Array): unknown => {
    const read: unknown = JSON.parse(Buffer.from(value).toString('utf8'));
    return Array.isArray(read)
      ? (read as AddressClaim[]).map((claim) => JSON.stringify(claim)).sort()
      : read;
  };
  try {
    return sameJson(normal(a), normal(b));
  } catch (error) {
    if (error instanceof SyntaxError) return false;
    throw error;
  }
}

function nameOf(stored: StoredService | undefined): string {
  const { namespace = '', name = '' } = stored?.service.metadata ?? {};
  return `service ${namespace}/${name}`;
}

export interface AllocationRepairOptions {
  readonly store: Store;
  readonly log: Logger;
  readonly clock: Clock;
}

/** Begins to look after the records, now and every few minutes; disposing ends it. */
export function startAllocationRepair(options: AllocationRepairOptions): AsyncDisposable {
  const { store, log, clock } = options;
  const loop = new SyncLoop(
    async () => {
      const problems = await repairAllocations(store);
      if (problems.length > 0)
        log.warn(
          { count: problems.length, problems: problems.slice(0, MAX_LOGGED) },
          'allocations of services were wrong; what could be repaired is',
        );
    },
    { name: 'allocation repair', log, clock, resyncMs: REPAIR_INTERVAL_MS },
  );
  loop.trigger();
  return loop;
}

/** One look over all records. @returns what was found */
export async function repairAllocations(store: Store): Promise<readonly AllocationProblem[]> {
  // All of one revision: a service and its records are never seen apart.
  const services = await store.list(collectionPrefix(SERVICE));
  const { revision } = services;
  const listAt = async (prefix: string) => (await store.list(prefix, { revision })).entries;
  const records = [
    ...(await listAt(CLUSTER_IP_PREFIX)),
    ...(await listAt(NODE_PORT_PREFIX)),
    ...(await listAt(LOAD_BALANCER_IP_PREFIX)),
  ];
  const pools = (await listAt(collectionPrefix(SERVICE_ADDRESS_POOL))).map(
    (entry) => decodeEntry(entry) as ServiceAddressPool,
  );
  const plan = planRepair(services.entries, records, pools);
  // One that fails has been overtaken by a change that wrote its own records; the next look sees the rest.
  for (const repair of plan.repairs)
    await store.transact(
      [
        { key: repair.operation.key, modRevision: repair.record },
        ...repair.services.map(({ key, modRevision }) => ({ key, modRevision })),
      ].slice(0, MAX_TRANSACTION_OPERATIONS),
      [repair.operation],
    );
  return plan.problems;
}
