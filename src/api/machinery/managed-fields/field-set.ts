/**
 * Sets of fields as trees: a node says whether its own path is in the set, and what is below it. That is FieldsV1,
 * the text in `metadata.managedFields`, as a value. All functions are pure and share unchanged parts.
 */
import { isObject, type JsonObject } from '../json.ts';
import { MAX_DEPTH } from '../unknown-fields.ts';
import { parsePathElement } from './path-element.ts';

export interface FieldSet {
  readonly member: boolean;
  readonly children: ReadonlyMap<string, FieldSet>;
}

const NO_CHILDREN: ReadonlyMap<string, FieldSet> = new Map();
export const EMPTY_SET: FieldSet = { member: false, children: NO_CHILDREN };
/** The path itself, and nothing below. */
export const LEAF: FieldSet = { member: true, children: NO_CHILDREN };

export function isEmptySet(set: FieldSet): boolean {
  return !set.member && set.children.size === 0;
}

/** @param children may hold empty sets, which are left out */
export function nodeOf(member: boolean, children: Iterable<readonly [string, FieldSet]>): FieldSet {
  let kept: Map<string, FieldSet> | undefined;
  for (const [element, child] of children)
    if (!isEmptySet(child)) {
      kept ??= new Map();
      kept.set(element, child);
    }
  if (kept === undefined) return member ? LEAF : EMPTY_SET;
  return { member, children: kept };
}

export function union(a: FieldSet, b: FieldSet): FieldSet {
  if (isEmptySet(b) || a === b) return a;
  if (isEmptySet(a)) return b;
  let children: Map<string, FieldSet> | undefined;
  for (const [element, child] of b.children) {
    const own = a.children.get(element);
    const both = own === undefined ? child : union(own, child);
    if (both === own) continue;
    children ??= new Map(a.children);
    children.set(element, both);
  }
  const member = a.member || b.member;
  return children === undefined && member === a.member
    ? a
    : { member, children: children ?? a.children };
}

/** What is in `a` and not in `b`. A path that goes leaves the paths below it. */
export function difference(a: FieldSet, b: FieldSet): FieldSet {
  if (isEmptySet(b) || isEmptySet(a)) return a;
  let children: Map<string, FieldSet> | undefined;
  for (const [element, other] of b.children) {
    const own = a.children.get(element);
    if (own === undefined) continue;
    const left = difference(own, other);
    if (left === own) continue;
    children ??= new Map(a.children);
    if (isEmptySet(left)) children.delete(element);
    else children.set(element, left);
  }
  const member = a.member && !b.member;
  if (children === undefined && member === a.member) return a;
  return nodeOf(member, children ?? a.children);
}

export function intersection(a: FieldSet, b: FieldSet): FieldSet {
  if (isEmptySet(a) || isEmptySet(b)) return EMPTY_SET;
  return nodeOf(
    a.member && b.member,
    [...a.children].flatMap(([element, child]) => {
      const other = b.children.get(element);
      return other === undefined ? [] : [[element, intersection(child, other)] as const];
    }),
  );
}

export function sameSet(a: FieldSet, b: FieldSet): boolean {
  if (a === b) return true;
  if (a.member !== b.member || a.children.size !== b.children.size) return false;
  for (const [element, child] of a.children) {
    const other = b.children.get(element);
    if (other === undefined || !sameSet(child, other)) return false;
  }
  return true;
}

/** The part of the set below one of these paths, with the path itself. */
export function onlyBelow(set: FieldSet, elements: readonly string[]): FieldSet {
  return nodeOf(
    false,
    elements.flatMap((element) => {
      const child = set.children.get(element);
      return child === undefined ? [] : [[element, child] as const];
    }),
  );
}

/** The set without everything below these top-level paths. */
export function withoutBelow(set: FieldSet, elements: readonly string[]): FieldSet {
  if (!elements.some((element) => set.children.has(element))) return set;
  return nodeOf(
    set.member,
    [...set.children].filter(([element]) => !elements.includes(element)),
  );
}

/** All paths in the set, parents before what is below them. */
export function pathsOf(set: FieldSet): string[][] {
  const paths: string[][] = [];
  const walk = (node: FieldSet, path: readonly string[]) => {
    if (node.member) paths.push([...path]);
    for (const [element, child] of node.children) walk(child, [...path, element]);
  };
  walk(set, []);
  return paths;
}

/** The set of these paths. */
export function setOf(paths: Iterable<readonly string[]>): FieldSet {
  let set = EMPTY_SET;
  for (const path of paths) {
    let branch = LEAF;
    for (const element of path.toReversed())
      branch = { member: false, children: new Map([[element, branch]]) };
    set = union(set, branch);
  }
  return set;
}

/** Sets last as long as objects are updated by the same writers, and are written with each of them. */
const encodedSets = new WeakMap<FieldSet, JsonObject>();

/** FieldsV1: a field in the set is `{}`, or holds `".": {}` beside what is below it. The result is shared. */
export function encodeFieldsV1(set: FieldSet): JsonObject {
  const known = encodedSets.get(set);
  if (known !== undefined) return known;
  const encoded = fieldsV1Of(set);
  encodedSets.set(set, encoded);
  return encoded;
}

function fieldsV1Of(set: FieldSet): JsonObject {
  const result: JsonObject = {};
  if (set.member && set.children.size > 0) result['.'] = {};
  for (const element of [...set.children.keys()].sort()) {
    const child = set.children.get(element);
    if (child !== undefined) result[element] = fieldsV1Of(child);
  }
  return result;
}

/** @throws Error that says what is wrong */
export function decodeFieldsV1(value: unknown): FieldSet {
  if (!isObject(value)) throw new Error('Cannot read FieldsV1: it must be an object');
  // The root has no path of its own: an empty object there is an empty set.
  return nodeOf(Object.hasOwn(value, '.'), childrenOf(value, 1));
}

function childrenOf(value: JsonObject, depth: number): [string, FieldSet][] {
  if (depth > MAX_DEPTH) throw new Error(`Cannot read FieldsV1: it is deeper than ${MAX_DEPTH}`);
  return Object.entries(value)
    .filter(([element]) => element !== '.')
    .map(([element, child]) => {
      if (!isObject(child))
        throw new Error(`Cannot read FieldsV1: ${JSON.stringify(element)} must be an object`);
      const children = childrenOf(child, depth + 1);
      return [
        parsePathElement(element),
        nodeOf(children.length === 0 || Object.hasOwn(child, '.'), children),
      ];
    });
}
