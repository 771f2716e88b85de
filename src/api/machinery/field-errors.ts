/** Constructors and the text of {@link FieldError}s. `k8s.io/apimachinery/pkg/util/validation/field/errors.go`. */
import type { FieldError } from '../kind.ts';

/** Longer values are cut in messages: they are for people, and go into logs. */
const MAX_VALUE_LENGTH = 200;

export function required(field: string, detail = ''): FieldError {
  return { type: 'Required', field, detail };
}

export function invalid(field: string, value: unknown, detail: string): FieldError {
  return { type: 'Invalid', field, value, detail };
}

/** @param supported the words that are allowed */
export function notSupported(
  field: string,
  value: unknown,
  supported: readonly string[],
): FieldError {
  const words = supported.map((word) => JSON.stringify(word)).join(', ');
  return { type: 'NotSupported', field, value, detail: `supported values: ${words}` };
}

/** For a name of something that is not there. */
export function notFound(field: string, value: unknown): FieldError {
  return { type: 'NotFound', field, value, detail: '' };
}

export function duplicate(field: string, value: unknown): FieldError {
  return { type: 'Duplicate', field, value, detail: '' };
}

export function forbidden(field: string, detail: string): FieldError {
  return { type: 'Forbidden', field, detail };
}

export function immutable(field: string, value: unknown): FieldError {
  return invalid(field, value, 'field is immutable');
}

const TEXTS: Readonly<Record<FieldError['type'], string>> = {
  Required: 'Required value',
  Invalid: 'Invalid value',
  NotSupported: 'Unsupported value',
  NotFound: 'Not found',
  Duplicate: 'Duplicate value',
  Forbidden: 'Forbidden',
  TooLong: 'Too long',
  TooMany: 'Too many',
};

/** The word in `StatusCause.reason`. */
export const FIELD_ERROR_REASONS: Readonly<Record<FieldError['type'], string>> = {
  Required: 'FieldValueRequired',
  Invalid: 'FieldValueInvalid',
  NotSupported: 'FieldValueNotSupported',
  NotFound: 'FieldValueNotFound',
  Duplicate: 'FieldValueDuplicate',
  Forbidden: 'FieldValueForbidden',
  TooLong: 'FieldValueTooLong',
  TooMany: 'FieldValueTooMany',
};

const TYPES_WITH_VALUE: ReadonlySet<FieldError['type']> = new Set([
  'Invalid',
  'NotSupported',
  'NotFound',
  'Duplicate',
] as const);

/** The message without its field: `Invalid value: 70000: must be between 1 and 65535, inclusive`. */
export function formatFieldErrorBody(error: FieldError): string {
  const showsValue = TYPES_WITH_VALUE.has(error.type);
  const value = showsValue ? `: ${formatValue(error.value)}` : '';
  return `${TEXTS[error.type]}${value}${error.detail === '' ? '' : `: ${error.detail}`}`;
}

/** `spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive` */
export function formatFieldError(error: FieldError): string {
  return `${error.field}: ${formatFieldErrorBody(error)}`;
}

function formatValue(value: unknown): string {
  const text = value === undefined ? 'null' : JSON.stringify(value);
  return text.length > MAX_VALUE_LENGTH ? `${text.slice(0, MAX_VALUE_LENGTH)}…` : text;
}
