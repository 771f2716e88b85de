/**
 * Domain names: text, labels and the wire form of RFC 1035 section 3.1.
 *
 * ```text
 *   | length u8 (1…63) | octets … | … | 0 |          a name
 *   | 11 | offset, 14 bits |                         in place of the rest: a pointer to an earlier name (4.1.4)
 * ```
 * A name is kept as its text with the final dot and in the case it was given; comparisons ignore ASCII case
 * (RFC 4343). Octets that text cannot show stand as `\DDD`, a dot inside a label as `\.` (RFC 1035 section 5.1).
 */
import { DecodeError } from '#lib/errors.ts';
import { MAX_LABEL_BYTES, MAX_NAME_BYTES } from './constants.ts';

declare const brand: unique symbol;
/** A fully qualified name as text, with its final dot. Comes only out of this file's functions. */
export type Name = string & { readonly [brand]: 'Name' };

export const ROOT_NAME = '.' as Name;

const POINTER_MASK = 0xc0;
const DOT = 0x2e;
const BACKSLASH = 0x5c;

/**
 * Reads a name from text; the final dot may be missing.
 * @returns `undefined` for an empty label, a bad escape, a label over 63 or a name over 255 octets
 */
export function parseName(text: string): Name | undefined {
  return readText(text) < 0 ? undefined : textOfLabels(scratch, 0);
}

/** Like {@link parseName}. @throws TypeError for text that is no name: for constants and checked input */
export function name(text: string): Name {
  const parsed = parseName(text);
  if (parsed === undefined) throw new TypeError(`"${text}" is not a domain name`);
  return parsed;
}

/** The name with ASCII letters in lower case: the form to compare and to use as key. */
export function canonicalName(value: Name): Name {
  if (!/[A-Z]/.test(value)) return value;
  return value.replace(/[A-Z]+/g, (letters) => letters.toLowerCase()) as Name;
}

/** @returns the uncompressed wire form, 1 to 255 octets */
export function nameToWire(value: Name): Uint8Array {
  const wire = wireOfText(value);
  // Only this file makes names, so it can only be a cast somewhere.
  if (wire === undefined) throw new TypeError(`"${value}" is not a domain name`);
  return wire;
}

/**
 * Writes the uncompressed wire form, at most 255 octets, without an array of its own.
 * @returns the number of octets
 */
export function writeName(value: Name, into: Uint8Array, at: number): number {
  const length = readText(value);
  if (length < 0) throw new TypeError(`"${value}" is not a domain name`);
  for (let i = 0; i < length; i++) into[at + i] = scratch[i] ?? 0;
  return length;
}

/** @param wire an uncompressed name, as {@link nameToWire} makes it */
export function nameFromWire(wire: Uint8Array): Name {
  return decodeName(wire, 0).name;
}

/** The name without its first label; the root's parent is the root. */
export function parentOf(value: Name): Name {
  for (let i = 0; i < value.length; i++) {
    const c = value.charCodeAt(i);
    if (c === BACKSLASH) i++;
    else if (c === DOT) return (i + 1 === value.length ? ROOT_NAME : value.slice(i + 1)) as Name;
  }
  return ROOT_NAME;
}

/** Whether `value` is `zone` or below it. Both canonical. */
export function isWithin(value: Name, zone: Name): boolean {
  if (zone === ROOT_NAME || value === zone) return true;
  if (!value.endsWith(`.${zone}`)) return false;
  // The dot must separate labels: `a\.example.` is not below `example.`. An even run of backslashes escapes itself.
  let backslashes = 0;
  for (let i = value.length - zone.length - 2; i >= 0 && value[i] === '\\'; i--) backslashes++;
  return backslashes % 2 === 0;
}

/**
 * Decodes a name, following compression pointers.
 * @param at offset of the first octet
 * @returns the name, and the offset of what comes after it in the message
 * @throws DecodeError for a name that leaves the bytes, is longer than 255 octets, or has a pointer that does not
 *   point before the part that holds it (which also rules out loops), or an unknown label type
 */
export function decodeName(bytes: Uint8Array, at: number): { name: Name; next: number } {
  const wire = scratch;
  let length = 0;
  let next = -1;
  // Each pointer must go before the start of the run of labels it ends; the bound falls, so the walk ends.
  let runStart = at;
  for (let from = at; ; ) {
    const octet = octetAt(bytes, from);
    if ((octet & POINTER_MASK) === POINTER_MASK) {
      const target = ((octet & 0x3f) << 8) | octetAt(bytes, from + 1);
      if (next < 0) next = from + 2;
      if (target >= runStart) throw bad('the pointer does not point backwards', from);
      runStart = target;
      from = target;
      continue;
    }
    if ((octet & POINTER_MASK) !== 0) throw bad(`label type 0x${octet.toString(16)}`, from);
    if (from + 1 + octet > bytes.length) throw bad('the label leaves the message', from);
    if (length + 1 + octet > MAX_NAME_BYTES) throw bad('the name is longer than 255 octets', at);
    for (let i = 0; i <= octet; i++) wire[length + i] = bytes[from + i] ?? 0;
    length += 1 + octet;
    from += 1 + octet;
    if (octet === 0) return { name: textOfLabels(wire, 0), next: next < 0 ? from : next };
  }
}

/**
 * Steps over a name without reading it.
 * @returns the offset after it
 * @throws DecodeError if it leaves the bytes
 */
export function skipName(bytes: Uint8Array, at: number): number {
  for (let from = at; ; ) {
    const octet = octetAt(bytes, from);
    if ((octet & POINTER_MASK) === POINTER_MASK) {
      octetAt(bytes, from + 1);
      return from + 2;
    }
    if ((octet & POINTER_MASK) !== 0) throw bad(`label type 0x${octet.toString(16)}`, from);
    from += 1 + octet;
    if (octet === 0) return from;
    if (from - at > MAX_NAME_BYTES) throw bad('the name is longer than 255 octets', at);
  }
}

function octetAt(bytes: Uint8Array, at: number): number {
  const octet = bytes[at];
  if (octet === undefined) throw bad('the name leaves the message', at);
  return octet;
}

function bad(message: string, offset: number): DecodeError {
  return new DecodeError(message, { protocol: 'DNS', field: 'name', offset });
}

function wireOfText(text: string): Uint8Array | undefined {
  const length = readText(text);
  return length < 0 ? undefined : scratch.slice(0, length);
}

/** Writes the wire form of a text to {@link scratch}. @returns its length; -1 if the text is no name */
function readText(text: string): number {
  const wire = scratch;
  wire[0] = 0;
  if (text === '.') return 1;
  if (text === '') return -1;
  let lengthAt = 0;
  let at = 1;
  for (let i = 0; i < text.length; i++) {
    let octet = text.charCodeAt(i);
    if (octet === DOT) {
      const labelBytes = at - lengthAt - 1;
      if (labelBytes === 0) return -1;
      wire[lengthAt] = labelBytes;
      lengthAt = at;
      at++;
      continue;
    }
    if (octet === BACKSLASH) {
      const found = /^(?:(\d{3})|([^\d]))/.exec(text.slice(i + 1, i + 4));
      if (found === null) return -1;
      octet = found[1] === undefined ? text.charCodeAt(i + 1) : Number(found[1]);
      i += found[1] === undefined ? 1 : 3;
    }
    if (octet > 0xff || at - lengthAt > MAX_LABEL_BYTES || at + 1 >= MAX_NAME_BYTES) return -1;
    wire[at++] = octet;
  }
  if (at === lengthAt + 1) {
    wire[lengthAt] = 0; // the text ended with the final dot
    return at;
  }
  wire[lengthAt] = at - lengthAt - 1;
  wire[at] = 0;
  return at + 1;
}

/** A name on its way from one form to the other; nothing is kept in it. */
const scratch = new Uint8Array(MAX_NAME_BYTES);
/** The text of a name without escapes. */
const plainText = Buffer.alloc(MAX_NAME_BYTES);

function textOfLabels(wire: Uint8Array, start: number): Name {
  let length = 0;
  for (let at = start, left = 0; ; at++) {
    const octet = wire[at] ?? 0;
    if (left > 0) {
      if (octet === DOT || octet === BACKSLASH || octet <= 0x20 || octet >= 0x7f)
        return textWithEscapes(wire, start);
      plainText[length++] = octet;
      left--;
      continue;
    }
    if (at > start) plainText[length++] = DOT;
    if (octet === 0) break;
    left = octet;
  }
  // Names are kept in great numbers: a string made of its octets at once takes a tenth of one put together.
  return (length === 0 ? '.' : plainText.toString('latin1', 0, length)) as Name;
}

function textWithEscapes(wire: Uint8Array, start: number): Name {
  let text = '';
  for (let at = start; ; ) {
    const length = wire[at] ?? 0;
    if (length === 0) return (text === '' ? '.' : text) as Name;
    for (let i = at + 1; i <= at + length; i++) text += textOfOctet(wire[i] ?? 0);
    text += '.';
    at += length + 1;
  }
}

function textOfOctet(octet: number): string {
  if (octet === DOT || octet === BACKSLASH) return `\\${String.fromCharCode(octet)}`;
  if (octet > 0x20 && octet < 0x7f) return String.fromCharCode(octet);
  return `\\${octet.toString().padStart(3, '0')}`;
}
