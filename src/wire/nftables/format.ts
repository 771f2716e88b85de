/**
 * Prints operations as text that reads like nft's: for plans shown to people, golden tests and errors.
 * It is not meant to be parsed, and says nothing of handles' values beyond the number.
 */
import { decodeElement } from './element-codec.ts';
import { formatExpressions } from './format-expressions.ts';
import { formatFields, formatVerdict } from './format-values.ts';
import type {
  Chain,
  ChainRef,
  NftSet,
  Operation,
  SetElement,
  SetRef,
  TableRef,
  Transaction,
} from './objects.ts';

/** Elements printed of one operation, unless told otherwise: a plan for a large cluster has very many. */
const DEFAULT_MAX_ELEMENTS = 100;

export interface FormatOptions {
  /** Elements printed of one operation; how many are left out is said. */
  readonly maxElements?: number;
}

/** One line for each operation, in order. Empty for an empty transaction. */
export function formatTransaction(transaction: Transaction, options: FormatOptions = {}): string {
  // The types of keys make elements readable; a set is usually made or known earlier in the same text.
  const sets = new Map<string, NftSet>();
  return transaction
    .map((operation) => {
      if (operation.kind === 'set' && 'object' in operation)
        sets.set(nameOfSet(operation.object), operation.object);
      return formatOperation(operation, sets, options);
    })
    .join('\n');
}

function formatOperation(
  operation: Operation,
  sets: ReadonlyMap<string, NftSet>,
  options: FormatOptions,
): string {
  switch (operation.kind) {
    case 'table':
      return 'object' in operation
        ? `${operation.verb} table ${nameOfTable(operation.object)}${braced([
            ...(operation.object.dormant === true ? ['flags dormant'] : []),
            ...commentOf(operation.object),
          ])}`
        : describeOperation(operation);
    case 'chain':
      return 'object' in operation
        ? `${operation.verb} chain ${nameOfChain(operation.object)}${braced([
            ...baseOf(operation.object),
            ...commentOf(operation.object),
          ])}`
        : describeOperation(operation);
    case 'set':
      return 'object' in operation
        ? `${operation.verb} ${formatSetHead(operation.object)}`
        : describeOperation(operation);
    case 'rule': {
      if ('ref' in operation) return describeOperation(operation);
      const { object, verb } = operation;
      const comment = object.comment === undefined ? '' : ` comment ${quote(object.comment)}`;
      const place =
        operation.verb === 'replace'
          ? ` handle ${operation.handle}`
          : operation.at === undefined
            ? ''
            : ` position ${operation.at}`;
      const text = formatExpressions(object.expressions);
      return `${verb} rule ${nameOfChain(object)}${place} ${text}${comment}`;
    }
    case 'elements': {
      const set = sets.get(nameOfSet(operation.ref));
      const { texts, left } = firstElements(operation.elements, set, options);
      const more = left === 0 ? '' : `, … ${left} more`;
      return `${operation.verb} element ${nameOfSet(operation.ref)} { ${texts.join(', ')}${more} }`;
    }
  }
}

/** What an operation does, in a few words, for errors: `add rule to chain ip tulle n5`. */
export function describeOperation(operation: Operation): string {
  const { verb } = operation;
  switch (operation.kind) {
    case 'table':
      return `${verb} table ${nameOfTable('object' in operation ? operation.object : operation.ref)}`;
    case 'chain':
      return `${verb} chain ${nameOfChain('object' in operation ? operation.object : operation.ref)}`;
    case 'set':
      return `${verb} set ${nameOfSet('object' in operation ? operation.object : operation.ref)}`;
    case 'rule':
      if ('ref' in operation)
        return `${verb} rule ${operation.handle} of chain ${nameOfChain(operation.ref)}`;
      if (operation.verb === 'replace')
        return `replace rule ${operation.handle} of chain ${nameOfChain(operation.object)}`;
      return `${verb} rule ${operation.verb === 'add' ? 'to' : 'in'} chain ${nameOfChain(operation.object)}`;
    case 'elements': {
      const to = verb === 'add' || verb === 'create' ? 'to' : 'from';
      return `${verb} elements ${to} set ${nameOfSet(operation.ref)}`;
    }
  }
}

/** `10.96.0.1 . tcp . 80 : goto n5` */
export function formatElement(element: SetElement, set?: Pick<NftSet, 'key' | 'data'>): string {
  const fields = set?.key;
  const key = element.catchAll === true ? '*' : formatFields(element.key, fields);
  const end = element.keyEnd === undefined ? '' : `-${formatFields(element.keyEnd, fields)}`;
  const data =
    element.verdict !== undefined
      ? ` : ${formatVerdict(element.verdict)}`
      : element.data === undefined
        ? ''
        : ` : ${formatFields(element.data, set?.data === 'verdict' ? undefined : set?.data)}`;
  const timeout = element.timeoutMs === undefined ? '' : ` timeout ${element.timeoutMs}ms`;
  const comment = element.comment === undefined ? '' : ` comment ${quote(element.comment)}`;
  return `${element.intervalEnd === true ? 'end ' : ''}${key}${end}${timeout}${comment}${data}`;
}

/**
 * The element that an encoded list has at an offset, as text: which one the kernel did not accept.
 * @param bytes from the element's attribute header on
 * @returns undefined if there is none: the offset was of something else
 */
export function formatElementAt(
  bytes: Buffer,
  set: Pick<NftSet, 'key' | 'data'> | undefined,
): string | undefined {
  if (bytes.length < 4) return undefined;
  const length = bytes.readUInt16LE(0);
  if (length < 4 || length > bytes.length) return undefined;
  try {
    return formatElement(decodeElement(bytes.subarray(4, length)), set);
  } catch {
    // Not an element: the kernel pointed at another attribute, and its own message has to do.
    return undefined;
  }
}

function formatSetHead(set: NftSet): string {
  const key = set.key.join(' . ');
  const data =
    set.data === undefined ? '' : ` : ${set.data === 'verdict' ? 'verdict' : set.data.join(' . ')}`;
  const flags = [
    ...(set.constant === true ? ['constant'] : []),
    ...(set.interval === true ? ['interval'] : []),
    ...(set.timeout === true ? ['timeout'] : []),
    ...(set.dynamic === true ? ['dynamic'] : []),
  ];
  return `${set.data === undefined ? 'set' : 'map'} ${nameOfSet(set)}${braced([
    `${set.key.some((field) => field.includes(' ')) ? 'typeof' : 'type'} ${key}${data}`,
    ...(flags.length === 0 ? [] : [`flags ${flags.join(',')}`]),
    ...(set.size === undefined ? [] : [`size ${set.size}`]),
    ...(set.timeoutMs === undefined ? [] : [`timeout ${set.timeoutMs}ms`]),
    ...(set.gcIntervalMs === undefined ? [] : [`gc-interval ${set.gcIntervalMs}ms`]),
    ...commentOf(set),
  ])}`;
}

function firstElements(
  elements: Iterable<SetElement>,
  set: NftSet | undefined,
  options: FormatOptions,
): { texts: string[]; left: number } {
  const max = options.maxElements ?? DEFAULT_MAX_ELEMENTS;
  const texts: string[] = [];
  let left = 0;
  for (const element of elements) {
    if (texts.length < max) texts.push(formatElement(element, set));
    else left++;
  }
  return { texts, left };
}

const nameOfTable = (ref: TableRef) => `${ref.family} ${ref.table}`;
const nameOfChain = (ref: ChainRef) => `${ref.family} ${ref.table} ${ref.chain}`;
const nameOfSet = (ref: SetRef) => `${ref.family} ${ref.table} ${ref.set}`;

function baseOf({ base }: Chain): string[] {
  if (base === undefined) return [];
  const device = base.device === undefined ? '' : ` device ${quote(base.device)}`;
  return [
    `type ${base.type} hook ${base.hook}${device} priority ${base.priority}`,
    `policy ${base.policy ?? 'accept'}`,
  ];
}

const commentOf = ({ comment }: { readonly comment?: string }): string[] =>
  comment === undefined ? [] : [`comment ${quote(comment)}`];
const braced = (parts: readonly string[]) =>
  parts.length === 0 ? '' : ` { ${parts.join('; ')}; }`;
const quote = (text: string) => JSON.stringify(text);
