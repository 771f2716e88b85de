/** Field selectors of URLs: `metadata.name=web,spec.nodeName!=m1`. `k8s.io/apimachinery/pkg/fields`. */
import type { KindDefinition } from '../kind.ts';
import type { KubeObject } from '../meta.ts';

export interface FieldRequirement {
  readonly field: string;
  readonly operator: '=' | '!=';
  readonly value: string;
}

/** No requirement: everything matches. */
export type FieldSelector = readonly FieldRequirement[];

export type ParsedFieldSelector =
  | { readonly ok: true; readonly selector: FieldSelector }
  | { readonly ok: false; readonly message: string };

/** Far above what a URL holds: bounds the work on one request. */
const MAX_SELECTOR_LENGTH = 64 * 1024;

/**
 * Reads a selector's text. A backslash takes the meaning from a following `\`, `,` or `=`.
 * @returns the requirements, none for empty text, or what is wrong
 */
export function parseFieldSelector(text: string): ParsedFieldSelector {
  if (text.length > MAX_SELECTOR_LENGTH)
    return {
      ok: false,
      message: `field selector is longer than ${MAX_SELECTOR_LENGTH} characters`,
    };
  const selector: FieldRequirement[] = [];
  for (const term of splitTerms(text)) {
    if (term === '') continue;
    const match = /^([^=!]*)(!=|==|=)(.*)$/s.exec(term);
    const value = match === null ? undefined : unescapeValue(match[3] ?? '');
    if (match === null || value === undefined)
      return { ok: false, message: `invalid selector: '${text}'; can't understand '${term}'` };
    selector.push({ field: match[1] ?? '', operator: match[2] === '!=' ? '!=' : '=', value });
  }
  return { ok: true, selector };
}

/** @returns what is wrong with the selector for this kind, or `undefined` */
export function checkFieldSelector(
  selector: FieldSelector,
  kind: KindDefinition,
): string | undefined {
  const unknown = selector.find(({ field }) => readerOf(kind, field) === undefined);
  if (unknown === undefined) return undefined;
  const known = ['metadata.name', 'metadata.namespace', ...Object.keys(kind.selectableFields)];
  return `field label not supported: ${unknown.field}; ${kind.resource} can be selected by ${known.join(', ')}`;
}

/** Whether the object satisfies every requirement. A field the kind does not offer matches nothing. */
export function matchFields(
  selector: FieldSelector,
  object: KubeObject,
  kind: KindDefinition,
): boolean {
  return selector.every(({ field, operator, value }) => {
    const read = readerOf(kind, field);
    return read !== undefined && (read(object) === value) === (operator === '=');
  });
}

/**
 * The value that the selector wants a field to have, for reading one object or one namespace instead of all.
 * @returns `undefined` if it leaves the field open
 */
export function requiredValue(selector: FieldSelector, field: string): string | undefined {
  return selector.find((term) => term.field === field && term.operator === '=')?.value;
}

export function formatFieldSelector(selector: FieldSelector): string {
  return selector
    .map(({ field, operator, value }) => `${field}${operator}${value.replace(/[\\,=]/g, '\\$&')}`)
    .join(',');
}

function readerOf(
  kind: KindDefinition,
  field: string,
): ((object: KubeObject) => string) | undefined {
  if (field === 'metadata.name') return (object) => object.metadata.name;
  if (field === 'metadata.namespace') return (object) => object.metadata.namespace ?? '';
  return Object.hasOwn(kind.selectableFields, field) ? kind.selectableFields[field] : undefined;
}

/** Splits at commas that no backslash stands before. */
function splitTerms(text: string): string[] {
  const terms: string[] = [];
  let term = '';
  for (let i = 0; i < text.length; i++) {
    const c = text[i] ?? '';
    if (c === '\\') term += c + (text[++i] ?? '');
    else if (c === ',') {
      terms.push(term);
      term = '';
    } else term += c;
  }
  return [...terms, term];
}

/** @returns `undefined` for a backslash before anything else, or for a `=` or `,` without one */
function unescapeValue(text: string): string | undefined {
  return /^(?:[^\\,=]|\\[\\,=])*$/s.test(text) ? text.replace(/\\([\\,=])/g, '$1') : undefined;
}
