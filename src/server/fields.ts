/** Field validation: what happens to fields that a kind does not have, and to values of the wrong type. */
import type { KindDefinition } from '#api/kind.ts';
import { apiVersionOf } from '#api/kind.ts';
import { formatFieldError } from '#api/machinery/field-errors.ts';
import type { JsonObject } from '#api/machinery/json.ts';
import { badRequest } from '#api/machinery/status.ts';
import { decodeFields, formatUnknownField } from '#api/machinery/unknown-fields.ts';
import type { KubeObject } from '#api/meta.ts';

export const FIELD_VALIDATIONS = ['Ignore', 'Warn', 'Strict'] as const;
/** Unknown fields are dropped in silence, dropped with a warning, or refused. */
export type FieldValidation = (typeof FIELD_VALIDATIONS)[number];

/** Reads the `fieldValidation` parameter; missing is `Warn`. @throws ApiError 400 */
export function parseFieldValidation(text: string | null): FieldValidation {
  if (text === null || text === '') return 'Warn';
  const mode = FIELD_VALIDATIONS.find((known) => known === text);
  if (mode === undefined)
    throw badRequest(
      `fieldValidation: Unsupported value: ${JSON.stringify(text)}: supported values: ${FIELD_VALIDATIONS.map((known) => JSON.stringify(known)).join(', ')}`,
    );
  return mode;
}

/**
 * Makes a typed object of what a client sent.
 * @throws ApiError 400 for values of the wrong type, and for unknown fields if the mode is `Strict`
 */
export function checkFields(
  kind: KindDefinition,
  sent: JsonObject,
  mode: FieldValidation,
): { object: KubeObject; warnings: readonly string[] } {
  const { object, unknownFields, typeErrors } =
    kind.custom?.decode(sent) ?? decodeFields(kind.schema, sent);
  const what = `${kind.kind} in version "${apiVersionOf(kind)}" cannot be handled as a ${kind.kind}`;
  if (typeErrors.length > 0)
    throw badRequest(`${what}: ${typeErrors.map(formatFieldError).join(', ')}`);
  const unknown = unknownFields.map(formatUnknownField);
  if (unknown.length > 0 && mode === 'Strict')
    throw badRequest(`${what}: strict decoding error: ${unknown.join(', ')}`);
  // The schema has been checked: the object is what the type says, but for fields that validation requires.
  return { object: object as unknown as KubeObject, warnings: mode === 'Warn' ? unknown : [] };
}
