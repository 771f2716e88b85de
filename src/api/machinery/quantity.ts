/**
 * Amounts of resources as manifests write them: `500m`, `1.5Gi`, `2e3`. `k8s.io/apimachinery/pkg/api/resource`.
 *
 * ```
 * quantity = [ sign ] digits [ "." digits ] [ suffix ]
 * suffix   = "Ki" … "Ei" | "n" | "u" | "m" | "k" | "M" … "E" | ( "e" | "E" ) [ sign ] digits
 * ```
 */

const PATTERN = /^([+-]?)(\d+\.?\d*|\.\d+)(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?\d{1,3}))?$/;
/** Bounds the work on one text; upstream's largest amount has 19 digits. */
const MAX_LENGTH = 64;
/** Amounts are counted in 10⁻⁹, the smallest step that there is. */
const NANO_EXPONENT = 9;
/** Decimal exponents beyond it would make numbers of any length of a few characters. */
const MAX_EXPONENT = 18;

const BINARY_SUFFIXES = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];
/** From 10⁻⁹ in steps of 10³. */
const DECIMAL_SUFFIXES = ['n', 'u', 'm', '', 'k', 'M', 'G', 'T', 'P', 'E'];

export const NOT_A_QUANTITY = 'must be a quantity (e.g. 500m, 2, 1.5Gi)';

export interface Quantity {
  /** In 10⁻⁹, rounded away from zero. */
  readonly nano: bigint;
  readonly form: 'decimal' | 'binary';
}

/** @returns `undefined` for what is no quantity. A number of JSON is one too. */
export function parseQuantity(value: unknown): Quantity | undefined {
  const text = typeof value === 'number' ? String(value) : value;
  if (typeof text !== 'string' || text.length > MAX_LENGTH) return undefined;
  const match = PATTERN.exec(text.trim());
  if (match === null) return undefined;
  const [, sign = '', digits = '', suffix = '', exponentText] = match;
  const isBinary = suffix.endsWith('i');
  const exponent = isBinary ? 0 : exponentOf(suffix, exponentText);
  if (Math.abs(exponent) > MAX_EXPONENT) return undefined;
  const [whole = '', fraction = ''] = digits.split('.');
  const factor = isBinary ? 1024n ** BigInt(BINARY_SUFFIXES.indexOf(suffix)) : 1n;
  const scale = NANO_EXPONENT + exponent - fraction.length;
  const amount = BigInt(whole + fraction || '0') * factor;
  const nano = scale >= 0 ? amount * 10n ** BigInt(scale) : divideUp(amount, 10n ** BigInt(-scale));
  return { nano: sign === '-' ? -nano : nano, form: isBinary ? 'binary' : 'decimal' };
}

/** The one way to write the amount: no fraction, and the largest suffix that leaves none. */
export function formatQuantity({ nano, form }: Quantity): string {
  const one = 10n ** BigInt(NANO_EXPONENT);
  if (nano === 0n) return '0';
  if (form === 'binary' && nano % one === 0n) {
    let amount = nano / one;
    let step = 0;
    while (amount % 1024n === 0n && step < BINARY_SUFFIXES.length - 1) {
      amount /= 1024n;
      step++;
    }
    return `${amount}${BINARY_SUFFIXES[step] ?? ''}`;
  }
  let amount = nano;
  let step = 0;
  while (amount % 1000n === 0n && step < DECIMAL_SUFFIXES.length - 1) {
    amount /= 1000n;
    step++;
  }
  return `${amount}${DECIMAL_SUFFIXES[step] ?? ''}`;
}

/** The value as it is stored. What is no quantity is left to validation. */
export function canonicalQuantity(value: unknown): unknown {
  const quantity = parseQuantity(value);
  return quantity === undefined ? value : formatQuantity(quantity);
}

function exponentOf(suffix: string, exponent: string | undefined): number {
  if (exponent !== undefined) return Number(exponent);
  return DECIMAL_SUFFIXES.indexOf(suffix) * 3 - NANO_EXPONENT;
}

function divideUp(amount: bigint, divisor: bigint): bigint {
  return (amount + divisor - 1n) / divisor;
}
