/** What differs between one server with its own store and several servers on one etcd. */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { hostname } from 'node:os';
import type { EtcdOptions, ServerOptions } from '#cli/options.ts';
import { runLeaderElection } from '#client/leader-election.ts';
import type { ApiClient } from '#client/port.ts';
import { startControllers } from '#control/controllers.ts';
import { explainError, UserError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { readOptionFile } from '#lib/option-file.ts';
import { openCa } from '#server/pki/ca.ts';
import { shareFiles } from '#server/pki/shared-files.ts';
import { openEmbeddedStore } from '#store/embedded/embedded-store.ts';
import { openEtcdStore } from '#store/etcd/etcd-store.ts';
import type { Store } from '#store/port.ts';

/** The secret files that every server of a cluster has the same of. */
const SHARED_PKI_FILES = [
  { name: 'ca.key', mode: 0o600 },
  { name: 'ca.crt', mode: 0o644 },
] as const;
const CONTROLLERS_LEASE = { name: 'tulle-controllers', namespace: 'kube-system' } as const;

/** The store in the data directory, or the etcd. @throws UserError */
export async function openServerStore(options: ServerOptions, log: Logger): Promise<Store> {
  const { etcd, dataDirectory } = options;
  if (etcd === undefined) return await openEmbeddedStore({ directory: dataDirectory, log });
  mkdirSync(dataDirectory, { recursive: true, mode: 0o700 });
  const ca = readOption('--etcd-ca', etcd.caFile);
  const cert = readOption('--etcd-cert', etcd.certificateFile);
  const key = readOption('--etcd-key', etcd.keyFile);
  const password = readOption('--etcd-password-file', etcd.passwordFile)?.trim();
  try {
    return await openEtcdStore({
      endpoints: etcd.endpoints,
      tls: {
        ...(ca === undefined ? {} : { ca }),
        ...(cert === undefined ? {} : { cert }),
        ...(key === undefined ? {} : { key }),
      },
      ...(etcd.user === undefined || password === undefined
        ? {}
        : { user: { name: etcd.user, password } }),
      ...(etcd.prefix === undefined ? {} : { prefix: etcd.prefix }),
      log,
    });
  } catch (cause) {
    throw new UserError(explainError(cause), {
      hint: 'Check the URLs, that etcd runs, and the options --etcd-ca, --etcd-cert, --etcd-key, --etcd-user and --etcd-password-file.',
      cause,
    });
  }
}

/** Gives this server the CA that the others have. @throws UserError */
export async function sharePki(
  store: Store,
  directory: string,
  { etcd, replacesCa }: { etcd: EtcdOptions; replacesCa: boolean },
): Promise<void> {
  await shareFiles({
    store,
    directory,
    secret: readOption('--cluster-secret-file', etcd.clusterSecretFile)?.trim() ?? '',
    files: SHARED_PKI_FILES,
    replaces: replacesCa ? ['ca.key', 'ca.crt'] : [],
    async make() {
      await openCa({ directory });
    },
  });
}

/** The controllers run in one server at a time; when it stops or dies, another one takes them over. */
export function controlByTurns(client: ApiClient, log: Logger): AsyncDisposable {
  const stop = new AbortController();
  const running = runLeaderElection({
    client,
    ...CONTROLLERS_LEASE,
    identity: `${hostname()}_${randomUUID()}`,
    signal: stop.signal,
    log,
    async lead(signal) {
      await using _controllers = startControllers({ client, log });
      if (!signal.aborted) await once(signal, 'abort');
    },
  });
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await running;
    },
  };
}

function readOption(flag: string, path: string | undefined): string | undefined {
  return path === undefined ? undefined : readOptionFile(flag, path);
}
