/**
 * Regular expressions of custom resources: written for Go's RE2, run by V8.
 *
 * RE2 needs time in proportion to the text; a backtracking engine may need for ever, and the text comes from users. So V8
 * is told to go over to its own linear engine when it backtracks too much, which it can for all that RE2 knows (there
 * are no back references and no look-around in it).
 */
import { setFlagsFromString } from 'node:v8';

/** Longer ones are no patterns for people; a bound on what compiling costs. */
const MAX_PATTERN_LENGTH = 10_000;
/** Compiled patterns that are kept: all of a large set of definitions. */
const MAX_KEPT = 2_000;

const compiled = new Map<string, RegExp | string>();
let isLinear = false;

/** @returns the expression, or what is wrong with it */
export function compilePattern(pattern: string): RegExp | string {
  const known = compiled.get(pattern);
  if (known !== undefined) return known;
  const result = compile(pattern);
  if (compiled.size >= MAX_KEPT) compiled.clear();
  compiled.set(pattern, result);
  return result;
}

function compile(pattern: string): RegExp | string {
  if (pattern.length > MAX_PATTERN_LENGTH)
    return `it is longer than ${MAX_PATTERN_LENGTH} characters`;
  if (/\(\?(=|!|<=|<!)/.test(pattern)) return 'look-around is not known';
  if (/\\[1-9]|\\k</.test(pattern)) return 'back references are not known';
  if (!isLinear) {
    setFlagsFromString('--enable-experimental-regexp-engine-on-excessive-backtracks');
    isLinear = true;
  }
  const leading = /^\(\?([ims]+)\)/.exec(pattern);
  const flags = leading?.[1] ?? '';
  const body = translate(leading === null ? pattern : pattern.slice(leading[0].length));
  try {
    // Go's classes of characters (`\pL`) exist here with the flag that makes needless escapes a mistake.
    return new RegExp(body, /\\p[{A-Z]/i.test(body) ? `${flags}u` : flags);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

const POSIX: Readonly<Record<string, string>> = {
  alnum: '0-9A-Za-z',
  alpha: 'A-Za-z',
  blank: '\\t ',
  cntrl: '\\x00-\\x1F\\x7F',
  digit: '0-9',
  graph: '!-~',
  lower: 'a-z',
  print: ' -~',
  punct: '!-\\/:-@\\[-`{-~',
  space: '\\t\\n\\v\\f\\r ',
  upper: 'A-Z',
  word: '0-9A-Za-z_',
  xdigit: '0-9A-Fa-f',
};

/** What RE2 writes otherwise. */
function translate(pattern: string): string {
  return pattern
    .replace(/\[:(\w+):\]/g, (all, name: string) => POSIX[name] ?? all)
    .replace(/\\([Az])/g, (_, anchor: string) => (anchor === 'A' ? '^' : '$'))
    .replace(/\\p([A-Z])/g, '\\p{$1}')
    .replace(/\(\?P</g, '(?<');
}
