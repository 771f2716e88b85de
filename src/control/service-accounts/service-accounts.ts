/** Every namespace has a service account `default`: who a pod is that does not say who it is. */
import { NAMESPACE, type Namespace } from '#api/core/v1/namespace.ts';
import { SERVICE_ACCOUNT, type ServiceAccount } from '#api/core/v1/service-account.ts';
import { isNamespaceGone } from '#api/machinery/status.ts';
import { startCache } from '#client/cache.ts';
import type { ApiClient, Cache } from '#client/port.ts';
import type { Clock } from '#lib/clock.ts';
import { isAlreadyExists } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { Controller } from '../controller.ts';

export const DEFAULT_ACCOUNT = 'default';

export interface ServiceAccountsOptions {
  readonly client: ApiClient;
  readonly log: Logger;
  readonly clock: Clock;
}

/** The namespaces that need their account made. */
export function planAccounts(
  namespaces: Iterable<Namespace>,
  hasAccount: (namespace: string) => boolean,
): string[] {
  return [...namespaces]
    .filter(
      ({ metadata }) => metadata.deletionTimestamp === undefined && !hasAccount(metadata.name),
    )
    .map(({ metadata }) => metadata.name);
}

/** Starts to keep the accounts; one that is deleted comes back. Disposing ends it. */
export function startServiceAccounts(options: ServiceAccountsOptions): Controller {
  const { client, log, clock } = options;
  const stack = new AsyncDisposableStack();
  const namespaces = stack.use(startCache(client, NAMESPACE, { log, clock }));
  const accounts = stack.use(
    startCache(client, SERVICE_ACCOUNT, {
      log,
      clock,
      fieldSelector: `metadata.name=${DEFAULT_ACCOUNT}`,
    }),
  );
  const loop = new SyncLoop(() => sync(client, namespaces, accounts), {
    name: 'service-accounts',
    log,
    clock,
  });
  stack.use(loop);
  stack.defer(namespaces.onChange(() => loop.trigger()));
  stack.defer(
    accounts.onChange(({ current }) => {
      if (current === undefined) loop.trigger();
    }),
  );
  void Promise.all([namespaces.synced(), accounts.synced()]).then(() => loop.trigger());
  return {
    settled: () => loop.settled(),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

async function sync(
  client: ApiClient,
  namespaces: Cache<Namespace>,
  accounts: Cache<ServiceAccount>,
): Promise<void> {
  if (!namespaces.isSynced || !accounts.isSynced) return;
  const missing = planAccounts(
    namespaces.values(),
    (namespace) => accounts.get(`${namespace}/${DEFAULT_ACCOUNT}`) !== undefined,
  );
  for (const namespace of missing) {
    try {
      await client.create<ServiceAccount>(SERVICE_ACCOUNT, {
        apiVersion: 'v1',
        kind: 'ServiceAccount',
        metadata: { name: DEFAULT_ACCOUNT, namespace },
      });
    } catch (error) {
      // Somebody else made it, or the namespace is gone or going: its own change brings us back.
      if (!isAlreadyExists(error) && !isNamespaceGone(error)) throw error;
    }
  }
}
