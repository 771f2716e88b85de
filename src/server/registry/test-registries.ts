/** For tests: the registries of all kinds over a store in memory, with time and chance in the test's hand. */
import { NAMESPACE } from '#api/core/v1/namespace.ts';
import type { KindRef } from '#api/kind.ts';
import type { KubeObject } from '#api/meta.ts';
import { KINDS } from '#api/registry.ts';
import { FakeClock } from '#lib/clock.ts';
import { type Cidr, cidr } from '#lib/ip.ts';
import { openMemoryStore } from '#store/memory/memory-store.ts';
import type { Store } from '#store/port.ts';
import type { PortRange } from '../admission/node-ports.ts';
import { type Principal, SERVER_PRINCIPAL } from '../principal.ts';
import { createRegistries, type Registries } from '../registries.ts';
import type { ResourceRegistry } from './resource-registry.ts';

export interface Fixture extends AsyncDisposable {
  readonly store: Store;
  readonly clock: FakeClock;
  readonly registries: Registries;
  of(kind: KindRef): ResourceRegistry;
  /** Creates as an administrator. */
  create(kind: KindRef, object: object, principal?: Principal): Promise<KubeObject>;
}

export const AS_ADMIN = { principal: SERVER_PRINCIPAL, dryRun: false } as const;
export const DRY_RUN = { principal: SERVER_PRINCIPAL, dryRun: true } as const;

/** A cluster with the namespace `default`. */
export async function openFixture(
  options: {
    serviceCidrs?: readonly Cidr[];
    nodePortRange?: PortRange;
    random?: () => number;
    store?: Store;
  } = {},
): Promise<Fixture> {
  const clock = new FakeClock();
  const store = options.store ?? openMemoryStore({ clock });
  let uids = 0;
  const registries = createRegistries({
    kinds: KINDS,
    store,
    clock,
    configuration: {
      serviceCidrs: options.serviceCidrs ?? [cidr('10.96.0.0/24')],
      ...(options.nodePortRange === undefined ? {} : { nodePortRange: options.nodePortRange }),
    },
    createUid: () => `uid-${++uids}`,
    random: options.random ?? Math.random,
  });
  const fixture: Fixture = {
    store,
    clock,
    registries,
    of: (kind) => registries.of(kind),
    async create(kind, object, principal = SERVER_PRINCIPAL) {
      const sent = object as KubeObject;
      const namespace = kind.namespaced ? (sent.metadata.namespace ?? 'default') : '';
      const written = await registries.of(kind).create(namespace, sent, { ...AS_ADMIN, principal });
      return written.object;
    },
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
  await fixture.create(NAMESPACE, {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'default' },
  });
  return fixture;
}

export function configMap(
  name: string,
  extra: { labels?: Record<string, string>; data?: Record<string, string> } = {},
) {
  const { labels, data } = extra;
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, ...(labels === undefined ? {} : { labels }) },
    ...(data === undefined ? {} : { data }),
  };
}
