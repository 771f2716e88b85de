/** The way of a plan to the server. */
import {
  ENDPOINT_SLICE,
  type EndpointSlice,
  SERVICE_NAME_LABEL,
} from '#api/discovery/v1/endpoint-slice.ts';
import { objectKey } from '#api/meta.ts';
import { deleteExactly } from '#client/delete.ts';
import type { ApiClient } from '#client/port.ts';
import { isNotFound } from '#lib/errors.ts';
import type { SlicePlan } from './plan.ts';
import type { WrittenSlices } from './written.ts';

/** The key of the service that a slice belongs to. */
export function serviceKeyOf({ metadata: { namespace, labels } }: EndpointSlice): string {
  const name = labels?.[SERVICE_NAME_LABEL] ?? '';
  return objectKey({ metadata: namespace === undefined ? { name } : { name, namespace } });
}

/**
 * Writes what is planned for a service, one slice after the other, and notes what is written.
 * @throws StatusError of the first write that fails; the ones after it are not tried
 */
export async function writeSlices(
  { client, written }: { readonly client: ApiClient; readonly written: WrittenSlices },
  serviceKey: string,
  plan: SlicePlan,
): Promise<void> {
  for (const slice of plan.create)
    written.wrote(serviceKey, undefined, await client.create(ENDPOINT_SLICE, slice));
  for (const slice of plan.update)
    await forgettingOnFailure(written, slice, async () => {
      written.wrote(serviceKey, slice, await client.update(ENDPOINT_SLICE, slice));
    });
  for (const slice of plan.remove)
    await forgettingOnFailure(written, slice, async () => {
      await removeSlice(client, slice);
      written.wrote(serviceKey, slice, undefined);
    });
}

async function removeSlice(client: ApiClient, slice: EndpointSlice): Promise<void> {
  try {
    await deleteExactly(client, ENDPOINT_SLICE, slice);
  } catch (error) {
    if (!isNotFound(error)) throw error;
  }
}

async function forgettingOnFailure(
  written: WrittenSlices,
  slice: EndpointSlice,
  write: () => Promise<void>,
): Promise<void> {
  try {
    await write();
  } catch (error) {
    written.forget(objectKey(slice));
    throw error;
  }
}
