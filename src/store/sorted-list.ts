/**
 * Values in the order of their key, in chunks: finding is two binary searches, inserting moves at most one chunk.
 *
 *     chunks   [a b c] [d e f g] [h k]         a chunk is never empty and never longer than MAX_CHUNK
 */

/** Long enough that the list of chunks stays short (a million keys: 4,000 chunks), short enough that a move is nothing. */
const MAX_CHUNK = 512;

export class SortedList<T extends { readonly key: string }> {
  readonly #chunks: T[][] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Inserts a value whose key must not be in the list. */
  insert(value: T): void {
    this.#size++;
    const at = Math.max(0, this.#chunkOf(value.key));
    const chunk = this.#chunks[at];
    if (chunk === undefined) {
      this.#chunks.push([value]);
      return;
    }
    const last = chunk.at(-1);
    // Loading comes in order; appending to full chunks keeps them full instead of splitting them in halves.
    if (last !== undefined && last.key < value.key) {
      if (chunk.length < MAX_CHUNK) chunk.push(value);
      else this.#chunks.splice(at + 1, 0, [value]);
      return;
    }
    chunk.splice(lowerBound(chunk, value.key), 0, value);
    if (chunk.length > MAX_CHUNK) this.#chunks.splice(at + 1, 0, chunk.splice(MAX_CHUNK / 2));
  }

  /** Removes the value with this key, if there is one. */
  delete(key: string): void {
    const at = this.#chunkOf(key);
    const chunk = this.#chunks[at];
    if (chunk === undefined) return;
    const index = lowerBound(chunk, key);
    if (chunk[index]?.key !== key) return;
    chunk.splice(index, 1);
    this.#size--;
    if (chunk.length === 0) this.#chunks.splice(at, 1);
  }

  /** The values with a key not below `key`, in order. The list must not change meanwhile. */
  *from(key: string): Generator<T, void, undefined> {
    let at = Math.max(0, this.#chunkOf(key));
    let index = lowerBound(this.#chunks[at] ?? [], key);
    for (; at < this.#chunks.length; at++, index = 0) {
      const chunk = this.#chunks[at] ?? [];
      for (; index < chunk.length; index++) {
        const value = chunk[index];
        if (value !== undefined) yield value;
      }
    }
  }

  /** Index of the last chunk that starts at or before the key; -1 if all start after it. */
  #chunkOf(key: string): number {
    let low = 0;
    let high = this.#chunks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const first = this.#chunks[middle]?.[0];
      if (first !== undefined && first.key <= key) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}

/** Index of the first value whose key is not below `key`. */
function lowerBound<T extends { readonly key: string }>(chunk: readonly T[], key: string): number {
  let low = 0;
  let high = chunk.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const value = chunk[middle];
    if (value !== undefined && value.key < key) low = middle + 1;
    else high = middle;
  }
  return low;
}
