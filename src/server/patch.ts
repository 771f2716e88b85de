/** Bodies of PATCH requests, as functions from the stored object to the wanted one. */
import type { KindDefinition } from '#api/kind.ts';
import { isObject } from '#api/machinery/json.ts';
import { applyJsonPatch } from '#api/machinery/json-patch.ts';
import { applyMergePatch } from '#api/machinery/merge-patch.ts';
import { badRequest, unsupportedMediaType } from '#api/machinery/status.ts';
import { applyStrategicMergePatch } from '#api/machinery/strategic-merge-patch.ts';
import type { KubeObject } from '#api/meta.ts';
import { decodeBody } from './body.ts';
import { JSON_TYPE, parseMediaTypes } from './negotiation.ts';

export const JSON_PATCH_TYPE = 'application/json-patch+json';
export const MERGE_PATCH_TYPE = 'application/merge-patch+json';
export const STRATEGIC_PATCH_TYPE = 'application/strategic-merge-patch+json';
const APPLY_PATCH_TYPE = 'application/apply-patch+yaml';

const PATCH_TYPES = [JSON_PATCH_TYPE, MERGE_PATCH_TYPE, STRATEGIC_PATCH_TYPE, APPLY_PATCH_TYPE];

/** True for a configuration that is applied; everything else is a change of what is stored. */
export function isApplyPatch(contentType: string | undefined): boolean {
  return parseMediaTypes(contentType ?? '')[0]?.type === APPLY_PATCH_TYPE;
}

/**
 * Reads a patch.
 * @returns a function that gives the patched object and leaves its argument as it is; it may throw ApiError 400 or 422
 * @throws ApiError 415 for a kind of patch that is not understood, 400 for a body that is no patch
 */
export function decodePatch(
  kind: KindDefinition,
  contentType: string | undefined,
  body: Buffer,
): (stored: KubeObject) => unknown {
  const type = parseMediaTypes(contentType ?? '')[0]?.type ?? '';
  // A custom kind's schema does not say how a strategic merge would go; clients then send a merge patch.
  const known = PATCH_TYPES.filter(
    (one) => one !== STRATEGIC_PATCH_TYPE || kind.custom === undefined,
  );
  if (!known.includes(type)) throw unsupportedMediaType(type, known);
  const patch = decodeBody(body, JSON_TYPE);
  if (type === JSON_PATCH_TYPE) return (stored) => applyJsonPatch(stored, patch);
  if (!isObject(patch)) throw badRequest('the body of a merge patch must be an object');
  if (type === MERGE_PATCH_TYPE) return (stored) => applyMergePatch(stored, patch);
  return (stored) => applyStrategicMergePatch(kind.schema, { ...stored }, patch);
}
