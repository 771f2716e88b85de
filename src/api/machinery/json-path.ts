/**
 * The part of JSONPath that columns, selectors and scales of custom resources use:
 *
 *     .spec.hosts   .a['b.c']   .list[0]   .list[-1]   .list[*].x   .conditions[?(@.type=="Ready")].status   ..name
 *
 * `k8s.io/client-go/util/jsonpath` defines the full language, for templates.
 */
import { isObject, ownField, sameJson } from './json.ts';

type Step =
  | { readonly type: 'field'; readonly name: string }
  | { readonly type: 'index'; readonly index: number }
  | { readonly type: 'all' }
  | {
      readonly type: 'filter';
      readonly path: JsonPath;
      readonly operator: string;
      readonly value: unknown;
    };

export type JsonPath = readonly Step[];

/** More values than a cell shows. */
const MAX_RESULTS = 1000;
const MAX_STEPS = 100;

/** @returns the path, or what is wrong with the text */
export function parseJsonPath(text: string): JsonPath | string {
  const steps: Step[] = [];
  let rest = text
    .trim()
    .replace(/^\{(.*)\}$/s, '$1')
    .replace(/^\$/, '');
  while (rest !== '') {
    const parsed = parseStep(rest);
    if (typeof parsed === 'string') return parsed;
    if (steps.push(parsed.step) > MAX_STEPS) return `it has more than ${MAX_STEPS} steps`;
    rest = rest.slice(parsed.length);
  }
  return steps;
}

function parseStep(text: string): { step: Step; length: number } | string {
  const field = /^\.((?:\\.|[^.[\]\\'"\s(){}*])+)/.exec(text);
  if (field !== null)
    return {
      step: { type: 'field', name: (field[1] ?? '').replace(/\\(.)/g, '$1') },
      length: field[0].length,
    };
  const quoted = /^\.?\[(?:'((?:\\.|[^'\\])*)'|"((?:\\.|[^"\\])*)")\]/.exec(text);
  if (quoted !== null) {
    const name = (quoted[1] ?? quoted[2] ?? '').replace(/\\(.)/g, '$1');
    return { step: { type: 'field', name }, length: quoted[0].length };
  }
  const index = /^\[(-?\d{1,9})\]/.exec(text);
  if (index !== null)
    return { step: { type: 'index', index: Number(index[1]) }, length: index[0].length };
  const all = /^(?:\[\*\]|\.\*)/.exec(text);
  if (all !== null) return { step: { type: 'all' }, length: all[0].length };
  return parseFilter(text);
}

function parseFilter(text: string): { step: Step; length: number } | string {
  const filter =
    /^\[\?\(\s*@((?:[^=!<>'"\s)]|\[[^\]]*\])+)\s*(?:(==|!=|<=|>=|<|>)\s*("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^\s)]+)\s*)?\)\]/.exec(
      text,
    );
  if (filter === null) return `cannot read it from ${JSON.stringify(text.slice(0, 40))} on`;
  const path = parseJsonPath(filter[1] ?? '');
  if (typeof path === 'string') return path;
  const value = readLiteral(filter[3]);
  return {
    step: { type: 'filter', path, operator: filter[2] ?? 'exists', value },
    length: filter[0].length,
  };
}

function readLiteral(text: string | undefined): unknown {
  if (text === undefined) return undefined;
  const quoted = /^(["'])(.*)\1$/s.exec(text);
  if (quoted !== null) return (quoted[2] ?? '').replace(/\\(.)/g, '$1');
  if (text === 'true' || text === 'false') return text === 'true';
  const number = Number(text);
  return Number.isNaN(number) ? text : number;
}

/** All values the path leads to; none if something on the way is missing. */
export function findByPath(path: JsonPath, root: unknown): unknown[] {
  let values: unknown[] = [root];
  for (const step of path)
    values = values.flatMap((value) => follow(step, value)).slice(0, MAX_RESULTS);
  return values;
}

function follow(step: Step, value: unknown): unknown[] {
  switch (step.type) {
    case 'field': {
      const part = isObject(value) ? ownField(value, step.name) : undefined;
      return part === undefined || part === null ? [] : [part];
    }
    case 'index': {
      const part = Array.isArray(value) ? value.at(step.index) : undefined;
      return part === undefined ? [] : [part];
    }
    case 'all':
      if (Array.isArray(value)) return value;
      return isObject(value) ? Object.values(value) : [];
    case 'filter':
      return Array.isArray(value) ? value.filter((item) => holds(step, item)) : [];
  }
}

function holds({ path, operator, value }: Step & { type: 'filter' }, item: unknown): boolean {
  const [found] = findByPath(path, item);
  switch (operator) {
    case 'exists':
      return found !== undefined;
    case '==':
      return sameJson(found, value);
    case '!=':
      return !sameJson(found, value);
    default: {
      if (typeof found !== typeof value || (typeof found !== 'number' && typeof found !== 'string'))
        return false;
      const [a, b] = [found, value as typeof found];
      if (operator === '<') return a < b;
      if (operator === '<=') return a <= b;
      return operator === '>' ? a > b : a >= b;
    }
  }
}

/** Values as a cell of a table shows them: texts as they are, the rest as JSON, several with spaces between. */
export function formatFound(values: readonly unknown[]): string {
  return values
    .map((value) => (typeof value === 'string' ? value : JSON.stringify(value)))
    .join(' ');
}
