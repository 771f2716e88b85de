/** The API client of commands: which kubeconfig, and what to say when there is none. */
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { createApiClient } from '#client/http-client.ts';
import { loadKubeconfig } from '#client/kubeconfig.ts';
import type { ApiClient } from '#client/port.ts';
import { UserError } from '#lib/errors.ts';

const SERVER_KUBECONFIG = '/var/lib/tulle/server/admin.kubeconfig';

/** @throws UserError if there is no kubeconfig, or it cannot be used */
export function connect(kubeconfig: string | undefined): ApiClient & AsyncDisposable {
  // The variable may list several files; set and empty it is as good as not set.
  const isListed = kubeconfig === undefined && (process.env.KUBECONFIG ?? '') !== '';
  const path = kubeconfig ?? (isListed ? undefined : defaultPath());
  if (path === undefined && !isListed)
    throw new UserError('No kubeconfig found', {
      hint: `Give --kubeconfig FILE or set KUBECONFIG. On the server's machine it is ${SERVER_KUBECONFIG}.`,
    });
  return createApiClient(loadKubeconfig(path === undefined ? {} : { path }));
}

function defaultPath(): string | undefined {
  return [SERVER_KUBECONFIG, join(homedir(), '.kube/config')].find((path) => existsSync(path));
}
