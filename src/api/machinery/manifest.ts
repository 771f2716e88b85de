/**
 * Manifests: YAML or JSON text with one or more objects, read as `kubectl apply -f` does, but with the place
 * of every mistake.
 *
 * YAML 1.2 core schema: `yes` and `on` are texts, not booleans as in the YAML 1.1 of kubectl.
 */
import {
  type Document,
  isAlias,
  isCollection,
  isMap,
  isNode,
  isPair,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseAllDocuments,
  visit,
} from 'yaml';
import { UserError } from '#lib/errors.ts';
import type { KubeObject } from '../meta.ts';
import { isDeeperThan, MAX_JSON_DEPTH } from './depth.ts';
import { isObject, type JsonObject } from './json.ts';

/** A manifest is written by people or templates; what is larger is the wrong file. */
export const MAX_MANIFEST_BYTES = 32 * 1024 * 1024;
/** Aliases multiply what they point to ("billion laughs"); manifests use a handful. */
const MAX_ALIASES = 100;
export interface ManifestObject {
  readonly object: KubeObject;
  /** The file's name as it was given. */
  readonly file: string;
  /** Where the object begins. The first line is 1. */
  readonly line: number;
  /**
   * The line of a field, or of the nearest part around it that exists.
   * @param field path as in a `FieldError`: `spec.ports[0].port`
   */
  readonly lineOf: (field: string) => number;
}

/**
 * Reads all objects of a text, those inside `List`s too. Empty documents are skipped.
 * @param options.file the name that messages give the text: `app.yaml`, `standard input`
 * @returns in the order of the text; empty if there are none
 * @throws UserError for text that is no YAML or JSON, or holds something that is no API object, with `file:line`
 */
export function parseManifest(text: string, options: { file: string }): ManifestObject[] {
  const { file } = options;
  if (text.length > MAX_MANIFEST_BYTES)
    throw new UserError(
      `Cannot read ${file}: it has ${text.length} characters, a manifest has at most ${MAX_MANIFEST_BYTES}`,
      { hint: 'Check that this is the right file, or split it.' },
    );
  const lines = new LineCounter();
  const documents = guard(file, () =>
    parseAllDocuments(text, {
      lineCounter: lines,
      prettyErrors: false,
      uniqueKeys: true,
      merge: true,
      stringKeys: false,
    }),
  );
  if (!Array.isArray(documents)) return [];
  return documents.flatMap((document) => objectsOf(document, { file, lines }));
}

interface Source {
  readonly file: string;
  readonly lines: LineCounter;
}

function objectsOf(document: Document.Parsed, source: Source): ManifestObject[] {
  const { file } = source;
  const problem = document.errors[0] ?? document.warnings[0];
  if (problem !== undefined) {
    const { line, col } = source.lines.linePos(problem.pos[0]);
    throw syntaxError(`${file}:${line}:${col}`, problem);
  }
  if (document.contents === null || isEmptyScalar(document.contents)) return [];
  const line = lineOfNode(document.contents, source) ?? 1;
  const value: unknown = guard(`${file}:${line}`, () => {
    assertJson(document, source);
    return document.toJS({ maxAliasCount: MAX_ALIASES });
  });
  if (isDeeperThan(value, MAX_JSON_DEPTH))
    throw new UserError(
      `Cannot read ${file}:${line}: the object is nested deeper than ${MAX_JSON_DEPTH} levels`,
    );
  if (value === null) return [];
  return splitList(value, document.contents).map(({ value: part, node, prefix }) => {
    const start = lineOfNode(node, source) ?? line;
    return {
      object: checkObject(part, `${file}:${start}`),
      file,
      line: start,
      lineOf: (field) => lineOfField(document, [...prefix, ...pathOf(field)], source) ?? start,
    };
  });
}

interface ListPart {
  readonly value: unknown;
  readonly node: unknown;
  readonly prefix: readonly (string | number)[];
}

/** `kind: List` with `items` is only a wrapping. */
function splitList(value: unknown, contents: unknown): ListPart[] {
  if (!isObject(value) || value.kind !== 'List' || !Array.isArray(value.items))
    return [{ value, node: contents, prefix: [] }];
  const items = isMap(contents) ? contents.get('items', true) : undefined;
  return value.items.map((item: unknown, i) => ({
    value: item,
    node: isSeq(items) ? items.items[i] : undefined,
    prefix: ['items', i],
  }));
}

/** Only what every object must have to be sent anywhere; the rest is the server's to check. */
function checkObject(value: unknown, where: string): KubeObject {
  if (!isObject(value))
    throw new UserError(`Cannot use ${where}: found ${describe(value)}, not an API object`, {
      hint: 'An object begins with apiVersion, kind and metadata.',
    });
  for (const field of ['apiVersion', 'kind'] as const) {
    const text = value[field];
    if (typeof text !== 'string' || text === '')
      throw new UserError(
        `Cannot use ${where}: ${field} is ${text === undefined ? 'not set' : describe(text)}`,
        { hint: `Set ${field}, for example ${field === 'kind' ? 'Service' : 'v1'}.` },
      );
  }
  if (hasName(value)) return value;
  const name = isObject(value.metadata) ? value.metadata.name : undefined;
  throw new UserError(
    `Cannot use ${where}: metadata.name is ${name === undefined ? 'not set' : describe(name)}`,
    { hint: 'Give the object a name under metadata; quote it if it looks like a number.' },
  );
}

function hasName(value: JsonObject): value is JsonObject & KubeObject {
  const { metadata } = value;
  if (!isObject(metadata)) return false;
  const isText = (text: unknown) => typeof text === 'string' && text !== '';
  return isText(metadata.name) || (metadata.name === undefined && isText(metadata.generateName));
}

function syntaxError(where: string, problem: { code: string; message: string }): UserError {
  const hints: Readonly<Record<string, string>> = {
    TAB_AS_INDENT: 'Indent with spaces: YAML does not allow tabs.',
    DUPLICATE_KEY: 'Keep one of the two.',
    RESOURCE_EXHAUSTION: 'Check that this is the right file.',
    TAG_RESOLVE_FAILED: 'Remove the tag: a manifest holds only JSON values.',
  };
  // The parser recurses, and says so in the words of its stack.
  const message =
    problem.code === 'RESOURCE_EXHAUSTION'
      ? 'it is nested too deep'
      : problem.message.replace(/\s*\n[\s\S]*$/, '');
  const hint = hints[problem.code] ?? 'Correct the YAML at this place.';
  return new UserError(`Cannot read ${where}: ${message}`, { hint });
}

/** Whatever the parser throws (too many aliases, too deep) is a mistake in the text. */
function guard<T>(where: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    if (cause instanceof UserError) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new UserError(`Cannot read ${where}: ${why}`, {
      hint: 'Correct the anchors (&) and aliases (*) there.',
      cause,
    });
  }
}

/** Tags of what JSON has too. */
const JSON_TAGS = ['str', 'int', 'float', 'bool', 'null', 'map', 'seq'].map(
  (name) => `tag:yaml.org,2002:${name}`,
);

/** YAML can say more than JSON: keys that are no texts, numbers that are none, bytes, sets. */
function assertJson(document: Document.Parsed, source: Source): void {
  const refuse = (node: unknown, what: string) => {
    const line = lineOfNode(node, source) ?? 1;
    throw new UserError(`Cannot read ${source.file}:${line}: ${what}`, {
      hint: 'A manifest holds only what JSON can hold.',
    });
  };
  visit(document, {
    Pair(_, pair) {
      if (isCollection(pair.key) || isAlias(pair.key))
        refuse(pair.key, 'the key of a field is not a text');
    },
    Node(_, node) {
      if (isAlias(node)) return;
      if (node.tag !== undefined && !JSON_TAGS.includes(node.tag))
        refuse(node, `the tag ${node.tag} stands for something else`);
      if (isScalar(node) && typeof node.value === 'number' && !Number.isFinite(node.value))
        refuse(node, `${node.source ?? node.value} is not a number that JSON knows`);
    },
  });
}

/** `spec.ports[0].port`, `data[my.key]` → its steps. */
function pathOf(field: string): (string | number)[] {
  return [...field.matchAll(/\[([^\]]*)\]|[^.[\]]+/g)].map(([step, inBrackets]) => {
    if (inBrackets === undefined) return step;
    return /^\d+$/.test(inBrackets) ? Number(inBrackets) : inBrackets;
  });
}

function lineOfField(
  document: Document.Parsed,
  path: readonly (string | number)[],
  source: Source,
): number | undefined {
  let node: unknown = document.contents;
  let line = lineOfNode(node, source);
  for (const step of path) {
    if (isAlias(node)) node = node.resolve(document);
    const pair = isMap(node)
      ? node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(step))
      : undefined;
    const next: unknown = isSeq(node) && typeof step === 'number' ? node.items[step] : pair?.value;
    const at = lineOfNode(isPair(pair) ? pair.key : next, source);
    if (at === undefined) return line;
    line = at;
    node = next;
  }
  return line;
}

function lineOfNode(node: unknown, source: Source): number | undefined {
  const range = isNode(node) ? (node as Node).range : undefined;
  return range ? source.lines.linePos(range[0]).line : undefined;
}

function isEmptyScalar(node: unknown): boolean {
  return isScalar(node) && node.value === null;
}

function describe(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (isObject(value)) return 'an object';
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}
