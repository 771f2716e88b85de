/** Putting an applied configuration into an object, and taking out of it what is no longer applied. */
import type { Schema } from '../../kind.ts';
import { isObject, type JsonObject, setField } from '../json.ts';
import { EMPTY_SET, type FieldSet } from './field-set.ts';
import { type Part, shapeOf } from './shape.ts';

/** `live` with all that `config` says; what `config` does not mention stays. The arguments are not changed. */
export function mergeConfig(schema: Schema | undefined, live: unknown, config: unknown): unknown {
  if (live === undefined || config === null) return config;
  const old = shapeOf(schema, live);
  const next = shapeOf(schema, config);
  if (old.type === 'fields' && next.type === 'fields') {
    const result: JsonObject = isObject(live) ? { ...live } : {};
    for (const part of next.parts) {
      const before = old.parts.find(({ element }) => element === part.element);
      setField(result, part.name, mergeConfig(part.schema, before?.value, part.value));
    }
    return result;
  }
  if (old.type === 'list' && next.type === 'list') return mergeLists(old.parts, next.parts);
  return config;
}

/**
 * Elements of both lists in the order of the configuration; those that it does not mention keep their place behind the
 * element they stood behind.
 */
function mergeLists(old: readonly Part[], next: readonly Part[]): unknown[] {
  const wanted = new Set(next.map(({ element }) => element));
  const known = new Map<string, Part>();
  for (const part of old) if (!known.has(part.element)) known.set(part.element, part);
  const result: unknown[] = [];
  let i = 0;
  const takeOthers = () => {
    for (let part = old[i]; part !== undefined && !wanted.has(part.element); part = old[++i])
      result.push(part.value);
  };
  takeOthers();
  for (const part of next) {
    const before = known.get(part.element);
    result.push(mergeConfig(part.schema, before?.value, part.value));
    if (before === undefined) continue;
    // The others go on where the element of the configuration stood, if it stands next in line.
    if (old[i]?.element === part.element) i++;
    takeOthers();
  }
  for (const part of old.slice(i)) if (!wanted.has(part.element)) result.push(part.value);
  return result;
}

/**
 * Takes out what is in `last`, which a manager applied before, and not in `owned`, which is what all managers have now.
 * @returns the value; it shares unchanged parts
 */
export function withoutUnowned(
  schema: Schema | undefined,
  value: unknown,
  sets: { last: FieldSet; owned: FieldSet },
): unknown {
  const shape = shapeOf(schema, value);
  if (shape.type === 'whole') return value;
  const kept: Part[] = [];
  let changed = false;
  for (const part of shape.parts) {
    const next = keepPart(part, sets);
    if (next !== part) changed = true;
    if (next !== undefined) kept.push(next);
  }
  if (!changed) return value;
  if (shape.type === 'list') return kept.map((part) => part.value);
  const result: JsonObject = {};
  for (const part of kept) setField(result, part.name, part.value);
  return result;
}

function keepPart(
  part: Part,
  { last, owned }: { last: FieldSet; owned: FieldSet },
): Part | undefined {
  const was = last.children.get(part.element);
  if (was === undefined) return part;
  const now = owned.children.get(part.element);
  // Nobody has it, or anything of it. A structure goes with what the server filled in, which has no meaning alone.
  const isStructure = part.schema?.type === 'object';
  if (now === undefined && (was.member || isStructure)) return undefined;
  const value = withoutUnowned(part.schema, part.value, { last: was, owned: now ?? EMPTY_SET });
  if (value === part.value) return part;
  // A map or list of which all was taken out goes with it, unless somebody owns it.
  if (now === undefined && isEmptyValue(value)) return undefined;
  return { ...part, value };
}

function isEmptyValue(value: unknown): boolean {
  return Array.isArray(value)
    ? value.length === 0
    : isObject(value) && Object.keys(value).length === 0;
}
