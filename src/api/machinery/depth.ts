/** Bounds the nesting of JSON values from outside, before anything recursive sees them. */
import { ApiError } from '#lib/errors.ts';

/** Far deeper than any object of Kubernetes, far below what exhausts a stack. */
export const MAX_JSON_DEPTH = 200;

/** Whether the value has more than `max` levels of objects and arrays. Does not recurse itself. */
export function isDeeperThan(value: unknown, max: number): boolean {
  const todo: { value: unknown; depth: number }[] = [{ value, depth: 0 }];
  for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
    if (typeof next.value !== 'object' || next.value === null) continue;
    const depth = next.depth + 1;
    if (depth > max) return true;
    for (const child of Object.values(next.value)) todo.push({ value: child, depth });
  }
  return false;
}

/**
 * @param what for the message: `JSON patch`
 * @throws ApiError 400 if the value is nested deeper than {@link MAX_JSON_DEPTH}
 */
export function assertDepth(value: unknown, what: string): void {
  if (isDeeperThan(value, MAX_JSON_DEPTH))
    throw new ApiError(
      400,
      'BadRequest',
      `Cannot read ${what}: it is nested deeper than ${MAX_JSON_DEPTH} levels`,
    );
}
