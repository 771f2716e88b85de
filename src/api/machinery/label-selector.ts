/**
 * Label selectors: the text form of URLs (`a=b,c!=d,e in (x,y),!f`) and the object form of manifests.
 * `k8s.io/apimachinery/pkg/labels`.
 */
import type { FieldError } from '../kind.ts';
import type { LabelSelector, LabelSelectorRequirement } from '../meta.ts';
import { forbidden, invalid, notSupported, required } from './field-errors.ts';
import { checkLabelValue, checkQualifiedName } from './names.ts';

/** One condition. All conditions of a selector must hold. */
export interface Requirement {
  readonly key: string;
  readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist' | 'GreaterThan' | 'LessThan';
  /** Empty for Exists and DoesNotExist, one number for GreaterThan and LessThan. */
  readonly values: readonly string[];
}

/** No requirement: everything matches. */
export type Selector = readonly Requirement[];

export type Labels = Readonly<Record<string, string>>;

/** Result of a parser that may meet bad text from outside. */
export type ParsedSelector =
  | { readonly ok: true; readonly selector: Selector }
  | { readonly ok: false; readonly message: string };

/** Far above what a URL holds: bounds the work on one request. */
const MAX_SELECTOR_LENGTH = 64 * 1024;

/**
 * Reads a selector's text.
 * @returns the requirements, none for empty text, or what is wrong and where
 */
export function parseLabelSelector(text: string): ParsedSelector {
  if (text.length > MAX_SELECTOR_LENGTH)
    return wrong(`selector is longer than ${MAX_SELECTOR_LENGTH} characters`);
  const tokens = tokenize(text);
  if (tokens.length === 0) return { ok: true, selector: [] };
  const selector: Requirement[] = [];
  let at = 0;
  for (;;) {
    const parsed = parseRequirement(tokens, at);
    if (typeof parsed === 'string') return wrong(parsed);
    const mistake = checkRequirement(parsed.requirement);
    if (mistake !== undefined) return wrong(mistake);
    selector.push(parsed.requirement);
    at = parsed.next;
    const separator = tokens[at];
    if (separator === undefined) return { ok: true, selector };
    if (separator !== ',') return wrong(`found '${separator}', expected: ',' or 'end of string'`);
    at++;
  }
}

/** Whether the labels satisfy every requirement. */
export function matchLabels(selector: Selector, labels: Labels | undefined): boolean {
  return selector.every((requirement) => holds(requirement, labelValue(labels, requirement.key)));
}

/** A selector that wants exactly these labels, as `spec.selector` of a service does. */
export function selectorOfLabels(labels: Labels | undefined): Selector {
  return Object.entries(labels ?? {}).map(([key, value]) => ({
    key,
    operator: 'In',
    values: [value],
  }));
}

/** The requirements of a `metav1.LabelSelector`. An empty one matches everything. Unknown operators match nothing. */
export function selectorOf(object: LabelSelector | undefined): Selector {
  const expressions = (object?.matchExpressions ?? []).map(({ key, operator, values }) => ({
    key,
    operator,
    values: values ?? [],
  }));
  return [...selectorOfLabels(object?.matchLabels), ...expressions];
}

/** Whether labels match a `metav1.LabelSelector`; a missing selector matches nothing, an empty one everything. */
export function matchLabelSelector(object: LabelSelector | undefined, labels: Labels | undefined) {
  return object !== undefined && matchLabels(selectorOf(object), labels);
}

/** The text form, as kubectl shows it: keys in order, `<none>` without requirements. */
export function formatSelector(selector: Selector): string {
  if (selector.length === 0) return '<none>';
  return [...selector]
    .sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0))
    .map(formatRequirement)
    .join(',');
}

/** `a=b,c=d` in order of the keys; `<none>` without labels. */
export function formatLabels(labels: Labels | undefined): string {
  const pairs = Object.keys(labels ?? {})
    .sort()
    .map((key) => `${key}=${labelValue(labels, key) ?? ''}`);
  return pairs.join(',') || '<none>';
}

/** Checks a `metav1.LabelSelector` in a manifest. @param field where it stands: `spec.podSelector` */
export function validateLabelSelector(
  object: LabelSelector | undefined,
  field: string,
): FieldError[] {
  const labels = Object.entries(object?.matchLabels ?? {}).flatMap(([key, value]) => [
    ...oneError(`${field}.matchLabels`, key, checkQualifiedName(key)),
    ...oneError(`${field}.matchLabels`, value, checkLabelValue(value)),
  ]);
  const expressions = (object?.matchExpressions ?? []).flatMap((requirement, i) =>
    validateExpression(requirement, `${field}.matchExpressions[${i}]`),
  );
  return [...labels, ...expressions];
}

const OPERATORS = ['In', 'NotIn', 'Exists', 'DoesNotExist'];

function validateExpression(requirement: LabelSelectorRequirement, field: string): FieldError[] {
  const { key, operator, values = [] } = requirement;
  const errors = oneError(`${field}.key`, key, checkQualifiedName(key ?? ''));
  if (!OPERATORS.includes(operator))
    return [...errors, notSupported(`${field}.operator`, operator, OPERATORS)];
  if (operator === 'In' || operator === 'NotIn') {
    if (values.length === 0)
      errors.push(
        required(`${field}.values`, "must be specified when `operator` is 'In' or 'NotIn'"),
      );
  } else if (values.length > 0)
    errors.push(
      forbidden(
        `${field}.values`,
        "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
      ),
    );
  values.forEach((value, i) => {
    errors.push(...oneError(`${field}.values[${i}]`, value, checkLabelValue(value)));
  });
  return errors;
}

function oneError(field: string, value: unknown, detail: string | undefined): FieldError[] {
  return detail === undefined ? [] : [invalid(field, value, detail)];
}

function holds(requirement: Requirement, value: string | undefined): boolean {
  switch (requirement.operator) {
    case 'In':
      return value !== undefined && requirement.values.includes(value);
    case 'NotIn':
      return value === undefined || !requirement.values.includes(value);
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
    case 'GreaterThan':
    case 'LessThan':
      return compares(requirement, value);
    default:
      // Objects from a newer server may hold an operator we do not know: what cannot be judged is not chosen.
      return false;
  }
}

const INTEGER_PATTERN = /^[+-]?\d{1,19}$/;

function compares(requirement: Requirement, value: string | undefined): boolean {
  const limit = requirement.values[0] ?? '';
  if (value === undefined || !INTEGER_PATTERN.test(value) || !INTEGER_PATTERN.test(limit))
    return false;
  const difference = BigInt(value.replace('+', '')) - BigInt(limit.replace('+', ''));
  return requirement.operator === 'GreaterThan' ? difference > 0n : difference < 0n;
}

function labelValue(labels: Labels | undefined, key: string): string | undefined {
  return labels !== undefined && Object.hasOwn(labels, key) ? labels[key] : undefined;
}

function formatRequirement({ key, operator, values }: Requirement): string {
  const sorted = [...values].sort();
  switch (operator) {
    case 'In':
      return sorted.length === 1 ? `${key}=${sorted[0]}` : `${key} in (${sorted.join(',')})`;
    case 'NotIn':
      return sorted.length === 1 ? `${key}!=${sorted[0]}` : `${key} notin (${sorted.join(',')})`;
    case 'Exists':
      return key;
    case 'DoesNotExist':
      return `!${key}`;
    case 'GreaterThan':
      return `${key}>${sorted[0]}`;
    case 'LessThan':
      return `${key}<${sorted[0]}`;
  }
}

function wrong(message: string): ParsedSelector {
  return { ok: false, message: `unable to parse requirement: ${message}` };
}

/** Symbols are tokens of their own; everything else between spaces and symbols is a word. */
function tokenize(text: string): string[] {
  return text.match(/!=|==|[=!<>(),]|[^\s=!<>(),]+/g) ?? [];
}

const SYMBOLS: ReadonlySet<string> = new Set(['!=', '==', '=', '!', '<', '>', '(', ')', ',']);

function isWord(token: string | undefined): token is string {
  return token !== undefined && !SYMBOLS.has(token);
}

type ParsedRequirement = { requirement: Requirement; next: number };

/** requirement = "!" key | key [ operator values ] */
function parseRequirement(tokens: readonly string[], at: number): ParsedRequirement | string {
  const first = tokens[at];
  if (first === '!') {
    const key = tokens[at + 1];
    if (!isWord(key)) return `found '${key ?? ''}', expected: identifier`;
    return { requirement: { key, operator: 'DoesNotExist', values: [] }, next: at + 2 };
  }
  if (!isWord(first)) return `found '${first ?? ''}', expected: !, identifier, or 'end of string'`;
  const operator = tokens[at + 1];
  switch (operator) {
    case undefined:
    case ',':
      return { requirement: { key: first, operator: 'Exists', values: [] }, next: at + 1 };
    case '=':
    case '==':
      return parseValue(tokens, at + 2, { key: first, operator: 'In' });
    case '!=':
      return parseValue(tokens, at + 2, { key: first, operator: 'NotIn' });
    case '>':
      return parseValue(tokens, at + 2, { key: first, operator: 'GreaterThan' });
    case '<':
      return parseValue(tokens, at + 2, { key: first, operator: 'LessThan' });
    case 'in':
      return parseValues(tokens, at + 2, { key: first, operator: 'In' });
    case 'notin':
      return parseValues(tokens, at + 2, { key: first, operator: 'NotIn' });
    default:
      return `found '${operator}', expected: in, notin, =, ==, !=, gt, lt`;
  }
}

/** value = word | nothing (an empty value) */
function parseValue(
  tokens: readonly string[],
  at: number,
  head: Pick<Requirement, 'key' | 'operator'>,
): ParsedRequirement | string {
  const token = tokens[at];
  if (token === undefined || token === ',')
    return { requirement: { ...head, values: [''] }, next: at };
  if (!isWord(token)) return `found '${token}', expected: identifier`;
  return { requirement: { ...head, values: [token] }, next: at + 1 };
}

/** values = "(" [ value ] { "," [ value ] } ")" */
function parseValues(
  tokens: readonly string[],
  start: number,
  head: Pick<Requirement, 'key' | 'operator'>,
): ParsedRequirement | string {
  if (tokens[start] !== '(') return `found '${tokens[start] ?? ''}', expected: '('`;
  const values: string[] = [];
  let at = start + 1;
  for (;;) {
    const token = tokens[at];
    if (isWord(token)) {
      values.push(token);
      at++;
    } else values.push('');
    const end = tokens[at++];
    if (end === ')') {
      // "()" names no value; "(a,)" names the empty one.
      if (values.length === 1 && values[0] === '')
        return "for 'in', 'notin' operators, values set can't be empty";
      return { requirement: { ...head, values: [...new Set(values)] }, next: at };
    }
    if (end !== ',') return `found '${end ?? ''}', expected: ',' or ')'`;
  }
}

function checkRequirement({ key, operator, values }: Requirement): string | undefined {
  const wrongKey = checkQualifiedName(key);
  if (wrongKey !== undefined) return `key: Invalid value: ${JSON.stringify(key)}: ${wrongKey}`;
  for (const value of values) {
    if (operator === 'GreaterThan' || operator === 'LessThan') {
      if (!INTEGER_PATTERN.test(value))
        return "values[0]: Invalid value: for 'Gt', 'Lt' operators, the value must be an integer";
      continue;
    }
    const wrongValue = checkLabelValue(value);
    if (wrongValue !== undefined)
      return `values: Invalid value: ${JSON.stringify(value)}: at key: ${JSON.stringify(key)}: ${wrongValue}`;
  }
  return undefined;
}
