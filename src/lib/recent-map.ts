/**
 * A map that remembers what was used lately, within a weight: two halves, of which the older is dropped when the younger is
 * full. Cheaper than keeping an order, and what is used in between survives.
 */
export class RecentMap<K, V> {
  readonly #maxWeight: number;
  #young = new Map<K, V>();
  #old = new Map<K, V>();
  #weight = 0;

  /** @param maxWeight of each half */
  constructor(maxWeight: number) {
    this.#maxWeight = maxWeight;
  }

  get(key: K, weight: number): V | undefined {
    const young = this.#young.get(key);
    if (young !== undefined) return young;
    const old = this.#old.get(key);
    if (old !== undefined) this.set(key, old, weight);
    return old;
  }

  set(key: K, value: V, weight: number): void {
    if (this.#weight + weight > this.#maxWeight) {
      this.#old = this.#young;
      this.#young = new Map();
      this.#weight = 0;
    }
    this.#young.set(key, value);
    this.#weight += weight;
  }

  /** How many are remembered, those twice that are in both halves. */
  get size(): number {
    return this.#young.size + this.#old.size;
  }
}
