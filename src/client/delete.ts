import type { KindRef } from '#api/kind.ts';
import type { KubeObject } from '#api/meta.ts';
import type { ApiClient } from './port.ts';

/**
 * Deletes this very object: the server refuses (409) if another one has its name by now.
 * @throws StatusError
 */
export async function deleteExactly(
  client: ApiClient,
  kind: KindRef,
  { metadata: { name, namespace, uid } }: KubeObject,
  options: { readonly gracePeriodSeconds?: number } = {},
): Promise<void> {
  await client.delete(
    kind,
    { name, ...(namespace === undefined ? {} : { namespace }) },
    { ...options, ...(uid === undefined ? {} : { preconditions: { uid } }) },
  );
}
