/** Under which name a request's fields are managed: `fieldManager`, or what the client calls itself. */
import type { KindDefinition } from '#api/kind.ts';
import { invalid, required } from '#api/machinery/field-errors.ts';
import { MAX_MANAGER_LENGTH } from '#api/machinery/managed-fields/managers.ts';
import { invalidObject } from '#api/machinery/status.ts';

/** What a client without a name is called. */
const UNKNOWN_CLIENT = 'unknown';

/** The part of a `User-Agent` before the version: `kubectl` of `kubectl/v1.33.0 (linux/amd64)`. */
export function managerOfUserAgent(userAgent: string | undefined): string {
  const name = (userAgent ?? '').split('/', 1)[0] ?? '';
  const printable = name.replace(/[^\x20-\x7e]/g, '').slice(0, MAX_MANAGER_LENGTH);
  return printable === '' ? UNKNOWN_CLIENT : printable;
}

/** @throws ApiError 422 for a name that is too long or cannot be printed */
export function readFieldManager(query: URLSearchParams, userAgent: string | undefined): string {
  const name = query.get('fieldManager') ?? '';
  if (name === '') return managerOfUserAgent(userAgent);
  if (name.length > MAX_MANAGER_LENGTH)
    throw badOptions([
      {
        type: 'TooLong',
        field: 'fieldManager',
        detail: `may not be more than ${MAX_MANAGER_LENGTH} bytes`,
      },
    ]);
  if (/[\p{C}]/u.test(name))
    throw badOptions([invalid('fieldManager', name, 'should only contain printable characters')]);
  return name;
}

/** The options of an apply. @throws ApiError 422 */
export function readApplyOptions(query: URLSearchParams): { force: boolean } {
  if ((query.get('fieldManager') ?? '') === '')
    throw badOptions([required('fieldManager', 'is required for apply patch')]);
  return { force: isTrueWord(query.get('force')) };
}

/** @throws ApiError 422 for `force` on a patch that is no apply */
export function refuseForce(query: URLSearchParams): void {
  if (query.get('force') !== null)
    throw badOptions([
      { type: 'Forbidden', field: 'force', detail: 'may not be specified for non-apply patch' },
    ]);
}

function isTrueWord(value: string | null): boolean {
  return value === 'true' || value === '1';
}

function badOptions(errors: Parameters<typeof invalidObject>[2]) {
  const kind: Pick<KindDefinition, 'group' | 'kind'> = {
    group: 'meta.k8s.io',
    kind: 'PatchOptions',
  };
  return invalidObject(kind, '', errors);
}
