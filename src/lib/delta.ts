/** What to do to get from what is to what should be. */
export interface Delta<T> {
  readonly add: readonly T[];
  /** Same key, other content: the new one. */
  readonly change: readonly T[];
  /** The old ones, which have no counterpart. */
  readonly remove: readonly T[];
}

/**
 * Compares two collections by key.
 * @param same whether two values of one key are equal as far as it matters
 */
export function planDelta<T>(
  observed: Iterable<T>,
  desired: Iterable<T>,
  options: { key: (value: T) => string; same: (observed: T, desired: T) => boolean },
): Delta<T> {
  const old = new Map<string, T>();
  for (const value of observed) old.set(options.key(value), value);
  const add: T[] = [];
  const change: T[] = [];
  for (const value of desired) {
    const key = options.key(value);
    const was = old.get(key);
    if (was === undefined) add.push(value);
    else {
      if (!options.same(was, value)) change.push(value);
      old.delete(key);
    }
  }
  return { add, change, remove: [...old.values()] };
}
