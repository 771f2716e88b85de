/**
 * `GET /tulle/v1/backup?revision=R&after=KEY`: the whole store, page by page at one revision. For those who may do
 * everything, and only for them: it shows secrets and what other paths guard.
 */
import { badRequest } from '#api/machinery/status.ts';
import { ApiError } from '#lib/errors.ts';
import { type BackupPage, toBackupEntry } from '#store/backup.ts';
import type { Store } from '#store/port.ts';
import { MASTERS_GROUP, type Principal } from './principal.ts';
import { parseRevision } from './registry/list.ts';

export const BACKUP_PATH = '/tulle/v1/backup';
const MAX_PAGE_ENTRIES = 1_000;
/** An answer stays below this, or holds a single entry. */
const MAX_PAGE_BYTES = 4 * 1024 * 1024;

/** @throws ApiError 403; CompactedError if the client was too slow for the history that is kept */
export async function backupPage(
  store: Store,
  principal: Principal,
  query: URLSearchParams,
): Promise<BackupPage> {
  if (!principal.groups.includes(MASTERS_GROUP))
    throw new ApiError(403, 'Forbidden', `only members of ${MASTERS_GROUP} may copy the store`);
  const revision = parseRevision(query.get('revision') ?? '');
  const startAfter = query.get('after') ?? undefined;
  if (startAfter !== undefined && revision === 0)
    throw badRequest('"after" needs the revision of the first page');
  const list = await store.list('', {
    limit: MAX_PAGE_ENTRIES,
    ...(revision === 0 ? {} : { revision }),
    ...(startAfter === undefined ? {} : { startAfter }),
  });
  let bytes = 0;
  let count = 0;
  for (const { key, value } of list.entries) {
    bytes += key.length + value.length;
    if (count > 0 && bytes > MAX_PAGE_BYTES) break;
    count++;
  }
  return {
    revision: list.revision,
    entries: list.entries.slice(0, count).map(toBackupEntry),
    more: list.more || count < list.entries.length,
  };
}
