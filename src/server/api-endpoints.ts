/**
 * Which servers there are: the endpoints of the service `kubernetes`, when several servers have one store.
 *
 *     /tulle/servers/<address> <port>    written anew every few seconds by the server that is reached there
 *
 * A server whose record has not changed for a while *by the clock of who looks* is gone; no two clocks are compared.
 * Every server keeps the slices; writes are conditional, and a slice that is right already is not written.
 */
import {
  ENDPOINT_SLICE,
  type EndpointSlice,
  MANAGED_BY_LABEL,
  SERVICE_NAME_LABEL,
} from '#api/discovery/v1/endpoint-slice.ts';
import type { Clock } from '#lib/clock.ts';
import { isAlreadyExists, isNotFound } from '#lib/errors.ts';
import { familyOf, type Ip, parseIp } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Store } from '#store/port.ts';
import { familyName } from './admission/service-families.ts';
import { API_SERVICE_NAME } from './bootstrap.ts';
import { SERVER_PRINCIPAL } from './principal.ts';
import { decodeEntry } from './registry/codec.ts';
import { collectionPrefix } from './registry/keys.ts';
import type { ResourceRegistry } from './registry/resource-registry.ts';

const SERVERS_PREFIX = '/tulle/servers/';
const NAMESPACE = 'default';
const MANAGED_BY = 'tulle-servers';
/** Each server writes so often that it lives. */
export const RENEW_MS = 5_000;
/** And is believed in for so long: three renewals may be late. */
export const EXPIRE_MS = 20_000;
const WRITE_OPTIONS = { principal: SERVER_PRINCIPAL, dryRun: false } as const;

export interface ServerAddress {
  readonly address: Ip;
  readonly port: number;
}

/** When a record was last seen to change. */
type Observations = Map<string, { readonly modRevision: number; readonly seenAtMs: number }>;

/** Pure: the slices for servers that live. One per family and port, because a slice has one of each. */
export function planApiSlices(servers: readonly ServerAddress[]): EndpointSlice[] {
  const groups = Map.groupBy(servers, ({ address, port }) => `ipv${familyOf(address)}-${port}`);
  return [...groups].toSorted().flatMap(([suffix, members]) => {
    const [first] = members;
    if (first === undefined) return [];
    return {
      apiVersion: 'discovery.k8s.io/v1' as const,
      kind: 'EndpointSlice' as const,
      metadata: {
        name: `${API_SERVICE_NAME}-${suffix}`,
        namespace: NAMESPACE,
        labels: { [SERVICE_NAME_LABEL]: API_SERVICE_NAME, [MANAGED_BY_LABEL]: MANAGED_BY },
      },
      addressType: familyName(familyOf(first.address)),
      endpoints: members
        .map(({ address }) => address)
        .toSorted()
        .map((address) => ({ addresses: [address], conditions: { ready: true } })),
      ports: [{ name: 'https', protocol: 'TCP' as const, port: first.port }],
    };
  });
}

export interface ApiEndpointsOptions {
  readonly store: Store;
  readonly slices: ResourceRegistry;
  /** Where this server is reached; missing: it only looks after the others' records. */
  readonly own: ServerAddress | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Begins to announce this server; disposing takes it back. */
export async function startApiEndpoints(options: ApiEndpointsOptions): Promise<AsyncDisposable> {
  const { store, own, clock, log } = options;
  const observations: Observations = new Map();
  let renewals = 0;
  const sync = async () => {
    if (own !== undefined) {
      const value = new TextEncoder().encode(String(++renewals));
      await store.transact([], [{ type: 'put', key: keyOf(own), value }]);
    }
    await syncSlices(options, await livingServers(store, observations, clock.elapsed()));
  };
  await sync();
  const loop = new SyncLoop(sync, {
    name: 'the servers of the cluster',
    log,
    clock,
    resyncMs: RENEW_MS,
  });
  loop.trigger();
  return {
    async [Symbol.asyncDispose]() {
      await loop[Symbol.asyncDispose]();
      if (own === undefined) return;
      try {
        await store.transact([], [{ type: 'delete', key: keyOf(own) }]);
        await syncSlices(options, await livingServers(store, observations, clock.elapsed()));
      } catch (error) {
        // The others find out by themselves, a little later.
        log.debug({ error }, 'could not take back the record of this server');
      }
    },
  };
}

async function livingServers(
  store: Store,
  observations: Observations,
  nowMs: number,
): Promise<ServerAddress[]> {
  const { entries } = await store.list(SERVERS_PREFIX);
  const keys = new Set(entries.map((entry) => entry.key));
  for (const key of observations.keys()) if (!keys.has(key)) observations.delete(key);
  const living: ServerAddress[] = [];
  for (const { key, modRevision } of entries) {
    if (observations.get(key)?.modRevision !== modRevision)
      observations.set(key, { modRevision, seenAtMs: nowMs });
    const server = serverOf(key);
    if (server === undefined) continue;
    if (nowMs - (observations.get(key)?.seenAtMs ?? 0) < EXPIRE_MS) living.push(server);
    // A server that was only held up writes its record again.
    else await store.transact([{ key, modRevision }], [{ type: 'delete', key }]);
  }
  return living;
}

async function syncSlices(
  { store, slices }: ApiEndpointsOptions,
  servers: readonly ServerAddress[],
): Promise<void> {
  const wanted = new Map(planApiSlices(servers).map((slice) => [slice.metadata.name, slice]));
  const { entries } = await store.list(collectionPrefix(ENDPOINT_SLICE, NAMESPACE));
  for (const slice of wanted.values()) {
    const target = { namespace: NAMESPACE, name: slice.metadata.name };
    const content = { endpoints: slice.endpoints, ports: slice.ports };
    try {
      await slices.update(target, (old) => ({ ...old, ...content }), WRITE_OPTIONS);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      await unless(isAlreadyExists, () => slices.create(NAMESPACE, slice, WRITE_OPTIONS));
    }
  }
  for (const entry of entries) {
    const { name, labels = {} } = decodeEntry(entry).metadata;
    if (labels[SERVICE_NAME_LABEL] !== API_SERVICE_NAME || wanted.has(name)) continue;
    // Ours, or the one that a single server made before it had others.
    if (labels[MANAGED_BY_LABEL] !== MANAGED_BY && name !== API_SERVICE_NAME) continue;
    const target = { namespace: NAMESPACE, name };
    await unless(isNotFound, () => slices.delete(target, WRITE_OPTIONS));
  }
}

async function unless(
  isExpected: (error: unknown) => boolean,
  action: () => Promise<unknown>,
): Promise<void> {
  try {
    await action();
  } catch (error) {
    if (!isExpected(error)) throw error;
  }
}

function keyOf({ address, port }: ServerAddress): string {
  return `${SERVERS_PREFIX}${address} ${port}`;
}

function serverOf(key: string): ServerAddress | undefined {
  const [text = '', port] = key.slice(SERVERS_PREFIX.length).split(' ');
  const address = parseIp(text);
  return address === undefined ? undefined : { address, port: Number(port) };
}
