/** JSON patches, RFC 6902, with the JSON pointers of RFC 6901. */
import { ApiError } from '#lib/errors.ts';
import { assertDepth } from './depth.ts';
import { copyJson, isObject, type JsonObject, sameJson, setField } from './json.ts';

/** As upstream: each operation may walk and copy the document. */
export const MAX_OPERATIONS = 10_000;
/** Of all `copy` operations of a patch together, as upstream: repeated copies double the document each time. */
const MAX_COPY_BYTES = 3 * 1024 * 1024;

const OPERATIONS = ['add', 'remove', 'replace', 'move', 'copy', 'test'] as const;
type OperationName = (typeof OPERATIONS)[number];

interface Operation {
  readonly op: OperationName;
  readonly path: string;
  readonly from?: string;
  readonly value?: unknown;
}

/**
 * Applies the operations in order; if one fails nothing is changed. The arguments are not changed.
 * @param patch the decoded body
 * @throws ApiError 400 for what is no patch, 413 for too much work, 422 for an operation that does not apply
 */
export function applyJsonPatch(document: unknown, patch: unknown): unknown {
  const operations = decodePatch(patch);
  let result = copyJson(document);
  let copiedBytes = 0;
  operations.forEach((operation, index) => {
    if (operation.op === 'copy') {
      const value = read(result, operation.from ?? '', index);
      assertDepth(value, 'JSON patch (the value of a copy)');
      copiedBytes += JSON.stringify(value).length;
      if (copiedBytes > MAX_COPY_BYTES)
        throw new ApiError(
          413,
          'RequestEntityTooLarge',
          `Cannot apply JSON patch: its copy operations make more than ${MAX_COPY_BYTES} bytes`,
        );
    }
    result = applyOperation(result, operation, index);
  });
  return result;
}

function decodePatch(patch: unknown): Operation[] {
  assertDepth(patch, 'JSON patch');
  if (!Array.isArray(patch)) throw badPatch('it must be an array of operations');
  if (patch.length > MAX_OPERATIONS)
    throw new ApiError(
      413,
      'RequestEntityTooLarge',
      `Cannot apply JSON patch: it has ${patch.length} operations, allowed are ${MAX_OPERATIONS}`,
    );
  return patch.map(decodeOperation);
}

function decodeOperation(operation: unknown, index: number): Operation {
  const where = `operation ${index}`;
  if (!isObject(operation)) throw badPatch(`${where} must be an object`);
  const { op, path, from } = operation;
  const name = OPERATIONS.find((known) => known === op);
  if (name === undefined)
    throw badPatch(`${where} has op ${JSON.stringify(op)}, known are ${OPERATIONS.join(', ')}`);
  if (typeof path !== 'string' || !isPointer(path))
    throw badPatch(`${where} has no "path" that is a JSON pointer`);
  if (name === 'move' || name === 'copy') {
    if (typeof from !== 'string' || !isPointer(from))
      throw badPatch(`${where} (${name}) has no "from" that is a JSON pointer`);
    return { op: name, path, from };
  }
  if (name === 'remove') return { op: name, path };
  if (operation.value === undefined && !Object.hasOwn(operation, 'value'))
    throw badPatch(`${where} (${name}) has no "value"`);
  return { op: name, path, value: operation.value };
}

function applyOperation(document: unknown, operation: Operation, index: number): unknown {
  const { op, path, from = '' } = operation;
  switch (op) {
    case 'add':
      return add(document, path, { value: copyJson(operation.value), index });
    case 'remove':
      return remove(document, path, index);
    case 'replace':
      // Section 4.3: as remove and add, but an element of an array keeps its place.
      read(document, path, index);
      if (path === '') return copyJson(operation.value);
      return add(remove(document, path, index), path, { value: copyJson(operation.value), index });
    case 'move': {
      if (path === from) return document;
      // Section 4.4: "from" must not be a proper prefix of "path".
      if (path.startsWith(`${from}/`))
        throw failed(index, `cannot move ${quote(from)} into itself`);
      const value = read(document, from, index);
      return add(remove(document, from, index), path, { value, index });
    }
    case 'copy':
      return add(document, path, { value: copyJson(read(document, from, index)), index });
    case 'test':
      if (!sameJson(read(document, path, index), operation.value))
        throw failed(index, `test of ${quote(path)} failed: the value is another one`);
      return document;
  }
}

function read(document: unknown, pointer: string, index: number): unknown {
  let value = document;
  for (const token of tokensOf(pointer)) value = child(value, token, { pointer, index });
  return value;
}

function child(value: unknown, token: string, where: { pointer: string; index: number }): unknown {
  if (Array.isArray(value)) {
    const at = arrayIndex(token, value.length - 1, where);
    return value[at];
  }
  if (isObject(value) && Object.hasOwn(value, token)) return value[token];
  throw failed(where.index, `there is no ${quote(where.pointer)} (missing: ${quote(token)})`);
}

function add(
  document: unknown,
  pointer: string,
  options: { value: unknown; index: number },
): unknown {
  const { value, index } = options;
  if (pointer === '') return value;
  const { parent, token } = parentOf(document, pointer, index);
  if (Array.isArray(parent)) {
    // Section 4.1: "-" is the place behind the last element.
    const at = token === '-' ? parent.length : arrayIndex(token, parent.length, { pointer, index });
    parent.splice(at, 0, value);
  } else setField(parent, token, value);
  return document;
}

function remove(document: unknown, pointer: string, index: number): unknown {
  if (pointer === '') throw failed(index, 'the whole document cannot be removed');
  const { parent, token } = parentOf(document, pointer, index);
  child(parent, token, { pointer, index });
  if (Array.isArray(parent)) parent.splice(Number(token), 1);
  else delete parent[token];
  return document;
}

function parentOf(
  document: unknown,
  pointer: string,
  index: number,
): { parent: unknown[] | JsonObject; token: string } {
  const tokens = tokensOf(pointer);
  const token = tokens.pop() ?? '';
  let parent = document;
  for (const step of tokens) parent = child(parent, step, { pointer, index });
  if (Array.isArray(parent) || isObject(parent)) return { parent, token };
  throw failed(index, `${quote(pointer)} is inside a value that has no parts`);
}

/** RFC 6901 section 4: no sign, no leading zeros. */
function arrayIndex(token: string, max: number, where: { pointer: string; index: number }): number {
  const at = /^(0|[1-9]\d{0,9})$/.test(token) ? Number(token) : Number.NaN;
  if (at <= max) return at;
  throw failed(
    where.index,
    `${quote(where.pointer)}: ${quote(token)} is no index of the array (0 to ${max})`,
  );
}

function isPointer(text: string): boolean {
  return /^(\/([^~/]|~[01])*)*$/.test(text);
}

/** RFC 6901 section 4: first `~1`, then `~0`. */
function tokensOf(pointer: string): string[] {
  return pointer
    .split('/')
    .slice(1)
    .map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'));
}

function quote(text: string): string {
  return JSON.stringify(text);
}

function badPatch(message: string): ApiError {
  return new ApiError(400, 'BadRequest', `Cannot read JSON patch: ${message}`);
}

function failed(index: number, message: string): ApiError {
  return new ApiError(422, 'Invalid', `Cannot apply JSON patch: operation ${index}: ${message}`);
}
