/** A reference to an object of any kind: `TypedLocalObjectReference`. `pkg/apis/networking/validation`. */
import type { FieldError } from '../../kind.ts';
import { invalid, required } from '../../machinery/field-errors.ts';
import { checkDns1123Subdomain, checkPathSegmentName } from '../../machinery/names.ts';

export function validateTypedReference(
  reference: { apiGroup?: string; kind?: string; name?: string },
  field: string,
): FieldError[] {
  const { apiGroup } = reference;
  const wrongGroup = apiGroup === undefined ? undefined : checkDns1123Subdomain(apiGroup);
  return [
    ...(wrongGroup === undefined ? [] : [invalid(`${field}.apiGroup`, apiGroup, wrongGroup)]),
    ...(['kind', 'name'] as const).flatMap((part) => {
      const text = reference[part];
      if (!text) return [required(`${field}.${part}`)];
      const wrong = checkPathSegmentName(text);
      return wrong === undefined ? [] : [invalid(`${field}.${part}`, text, wrong)];
    }),
  ];
}
