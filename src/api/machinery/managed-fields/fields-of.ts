/** Which fields a value has, and what differs between two values. */
import type { Schema } from '../../kind.ts';
import { sameJson } from '../json.ts';
import { EMPTY_SET, type FieldSet, LEAF, nodeOf } from './field-set.ts';
import { type Part, type Shape, shapeOf } from './shape.ts';

/**
 * The fields that an applied configuration claims: every value that is one whole, keys of maps, elements of lists.
 * @returns an empty set for an empty object at the root
 */
export function fieldsOf(schema: Schema | undefined, value: unknown): FieldSet {
  return { ...claimed(schema, value), member: false };
}

function claimed(schema: Schema | undefined, value: unknown): FieldSet {
  const shape = shapeOf(schema, value);
  if (shape.type === 'whole' || shape.parts.length === 0) return LEAF;
  return nodeOf(false, shape.parts.map(claimedPart));
}

function claimedPart(part: Part): readonly [string, FieldSet] {
  const below = claimed(part.schema, part.value);
  return [part.element, part.isNamed ? { ...below, member: true } : below];
}

export interface Comparison {
  readonly added: FieldSet;
  readonly modified: FieldSet;
  readonly removed: FieldSet;
}

const SAME: Comparison = { added: EMPTY_SET, modified: EMPTY_SET, removed: EMPTY_SET };

/** What makes `after` out of `before`. The order of elements that have names of their own does not count. */
export function compareFields(
  schema: Schema | undefined,
  before: unknown,
  after: unknown,
): Comparison {
  const { added, modified, removed } = compare(schema, before, after);
  const atRoot = (set: FieldSet) => (set.member ? { ...set, member: false } : set);
  return { added: atRoot(added), modified: atRoot(modified), removed: atRoot(removed) };
}

function compare(schema: Schema | undefined, before: unknown, after: unknown): Comparison {
  if (before === undefined && after === undefined) return SAME;
  if (before === undefined) return { ...SAME, added: everything(schema, after) };
  if (after === undefined) return { ...SAME, removed: everything(schema, before, true) };
  // Most of an object is as it was: that is found out with less work than what is owned of it.
  if (sameJson(before, after)) return SAME;
  const old = shapeOf(schema, before);
  const next = shapeOf(schema, after);
  if (old.type === 'whole' || next.type === 'whole' || old.type !== next.type) {
    return {
      modified: LEAF,
      removed: old.type === 'whole' ? EMPTY_SET : below(everything(schema, before, true)),
      added: next.type === 'whole' ? EMPTY_SET : below(everything(schema, after)),
    };
  }
  return compareParts(old, next);
}

type PartedShape = Exclude<Shape, { type: 'whole' }>;

function compareParts(old: PartedShape, next: PartedShape): Comparison {
  const pairs = new Map<string, { before: Part[]; after: Part[] }>();
  const pairOf = (element: string) => {
    const pair = pairs.get(element) ?? { before: [], after: [] };
    pairs.set(element, pair);
    return pair;
  };
  for (const part of old.parts) pairOf(part.element).before.push(part);
  for (const part of next.parts) pairOf(part.element).after.push(part);
  const results: (readonly [element: string, result: Comparison])[] = [];
  for (const [element, { before, after }] of pairs) {
    const result = comparePart(before, after);
    if (result !== SAME) results.push([element, result]);
  }
  const gather = (pick: (result: Comparison) => FieldSet) =>
    nodeOf(
      false,
      results.map(([element, result]) => [element, pick(result)] as const),
    );
  const isNowEmpty = next.parts.length === 0 && old.parts.length > 0;
  const wasEmpty = old.parts.length === 0 && next.parts.length > 0;
  const added = gather((result) => result.added);
  const removed = gather((result) => result.removed);
  return {
    // An object or list that has nothing in it is itself what is owned of it.
    added: isNowEmpty ? { ...added, member: true } : added,
    modified: gather((result) => result.modified),
    removed: wasEmpty ? { ...removed, member: true } : removed,
  };
}

/** Usually one part on each side; a stored list may hold an element twice, and then they count as one. */
function comparePart(before: readonly Part[], after: readonly Part[]): Comparison {
  const [old] = before;
  const [next] = after;
  const schema = next?.schema ?? old?.schema;
  if (before.length <= 1 && after.length <= 1) {
    const result = compare(schema, old?.value, next?.value);
    if (old === undefined && next?.isNamed) return { ...result, added: asMember(result.added) };
    if (next === undefined && old?.isNamed) return { ...result, removed: asMember(result.removed) };
    return result;
  }
  const values = (parts: readonly Part[]) => parts.map((part) => part.value);
  if (sameJson(values(before), values(after))) return SAME;
  if (next === undefined)
    return { ...SAME, removed: asMember(everything(schema, old?.value, true)) };
  return { ...SAME, modified: asMember(everything(schema, next.value)) };
}

/**
 * Everything there is in a value: what it claims, and the maps and lists that it begins.
 * @param withStructures also the structures it begins: somebody may have claimed one as an empty object
 */
function everything(schema: Schema | undefined, value: unknown, withStructures = false): FieldSet {
  const shape = shapeOf(schema, value);
  if (shape.type === 'whole' || shape.parts.length === 0) return LEAF;
  return nodeOf(
    withStructures || schema?.type !== 'object',
    shape.parts.map((part) => {
      const inside = everything(part.schema, part.value, withStructures);
      return [part.element, part.isNamed ? asMember(inside) : inside];
    }),
  );
}

function asMember(set: FieldSet): FieldSet {
  return set.member ? set : { ...set, member: true };
}

function below(set: FieldSet): FieldSet {
  return set.member ? { ...set, member: false } : set;
}
