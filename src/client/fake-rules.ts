/** The pure parts of {@link FakeApi}: which objects a selection holds, and what a patch makes of an object. */
import { parseFieldSelector } from '#api/machinery/field-selector.ts';
import { isObject } from '#api/machinery/json.ts';
import { applyJsonPatch } from '#api/machinery/json-patch.ts';
import { matchLabels, parseLabelSelector } from '#api/machinery/label-selector.ts';
import { applyMergePatch } from '#api/machinery/merge-patch.ts';
import type { KubeObject } from '#api/meta.ts';
import { ApiError } from '#lib/errors.ts';
import type { PatchType } from './port.ts';

/** What a list or a watch asks for. */
export interface Selection {
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
}

/**
 * Whether the selection holds the object. Every field can be selected, not only those that servers know.
 * @throws ApiError 400 for text that is no selector
 */
export function selects(selection: Selection, object: KubeObject): boolean {
  const { namespace = '', labelSelector = '', fieldSelector = '' } = selection;
  const labels = parseLabelSelector(labelSelector);
  const fields = parseFieldSelector(fieldSelector);
  if (!labels.ok) throw new ApiError(400, 'BadRequest', labels.message);
  if (!fields.ok) throw new ApiError(400, 'BadRequest', fields.message);
  return (
    (namespace === '' || object.metadata.namespace === namespace) &&
    matchLabels(labels.selector, object.metadata.labels) &&
    fields.selector.every(
      ({ field, operator, value }) => (fieldOf(object, field) === value) === (operator === '='),
    )
  );
}

function fieldOf(object: KubeObject, path: string): string {
  let value: unknown = object;
  for (const name of path.split('.')) value = isObject(value) ? value[name] : undefined;
  return value === undefined ? '' : String(value);
}

/**
 * A changed copy of `old`.
 * @throws ApiError 415 for a strategic merge patch: it needs the kind's schema, and what is under test with this fake
 * must not use it against servers it does not know
 */
export function applyPatch<T extends KubeObject>(
  old: T,
  patch: { type: PatchType; body: unknown },
): T {
  if (patch.type === 'application/merge-patch+json')
    return structuredClone(applyMergePatch(old, patch.body) as T);
  if (patch.type === 'application/json-patch+json')
    return structuredClone(applyJsonPatch(old, patch.body) as T);
  throw new ApiError(415, 'UnsupportedMediaType', `the fake API does not know ${patch.type}`);
}
