/**
 * What differs between the elements that the kernel has and those that are wanted, as bytes: of hundreds of thousands an
 * object or a string each would cost seconds and hundreds of megabytes. Pure.
 */
import type { SetElement } from '#wire/nftables/objects.ts';
import { PackedElements } from '#wire/nftables/packed-elements.ts';

export interface Difference {
  readonly add: readonly SetElement[];
  readonly remove: readonly SetElement[];
}

/** @param wanted elements of the same set, each once, in whatever form */
export function packedDifference(
  present: PackedElements,
  wanted: Iterable<Iterable<SetElement>>,
): Difference {
  const { keyBytes, dataBytes } = present;
  const index = new PackedIndex(present);
  const isWanted = new Uint8Array(present.length);
  const add: SetElement[] = [];
  const NOTHING = new Uint8Array(0);
  /** @returns true if it is there */
  const meet = (key: Uint8Array, keyAt: number, data: Uint8Array, dataAt: number): boolean => {
    const found = index.find(key, keyAt);
    if (found < 0 || isWanted[found] === 1) return false;
    const from = found * (keyBytes + dataBytes) + keyBytes;
    if (!sameRange(present.bytes, from, data, dataAt, dataBytes)) return false;
    isWanted[found] = 1;
    return true;
  };
  for (const batch of wanted)
    if (batch instanceof PackedElements) {
      const { bytes, length } = batch;
      for (let i = 0, at = 0; i < length; i++, at += keyBytes + dataBytes)
        if (!meet(bytes, at, bytes, at + keyBytes)) add.push(batch.at(i));
    } else
      for (const element of batch)
        if (!meet(element.key, 0, element.data ?? NOTHING, 0)) add.push(element);
  const remove: SetElement[] = [];
  for (let i = 0; i < present.length; i++) if (isWanted[i] === 0) remove.push(present.at(i));
  return { add, remove };
}

/** Finds elements by their key: a hash table of their numbers, with open addressing. */
class PackedIndex {
  readonly #elements: PackedElements;
  /** Number of an element plus one; 0 where there is none. */
  readonly #slots: Uint32Array;

  constructor(elements: PackedElements) {
    this.#elements = elements;
    // At most half full, so that a search ends soon.
    this.#slots = new Uint32Array(2 ** Math.ceil(Math.log2(2 * elements.length + 2)));
    const stride = elements.keyBytes + elements.dataBytes;
    for (let i = 0; i < elements.length; i++) {
      let slot = this.#slotOf(elements.bytes, i * stride);
      while (this.#slots[slot] !== 0) slot = (slot + 1) & (this.#slots.length - 1);
      this.#slots[slot] = i + 1;
    }
  }

  /** @returns its number, or -1 */
  find(key: Uint8Array, at: number): number {
    const { bytes, keyBytes, dataBytes } = this.#elements;
    for (let slot = this.#slotOf(key, at); ; slot = (slot + 1) & (this.#slots.length - 1)) {
      const found = (this.#slots[slot] ?? 0) - 1;
      if (found < 0) return -1;
      if (sameRange(bytes, found * (keyBytes + dataBytes), key, at, keyBytes)) return found;
    }
  }

  /** FNV-1a, and its high bits into the low ones, which are those that count here. */
  #slotOf(key: Uint8Array, at: number): number {
    let hash = 0x811c9dc5;
    for (let i = at; i < at + this.#elements.keyBytes; i++)
      hash = Math.imul(hash ^ (key[i] ?? 0), 0x01000193);
    return (hash ^ (hash >>> 15)) & (this.#slots.length - 1);
  }
}

function sameRange(
  a: Uint8Array,
  aAt: number,
  b: Uint8Array,
  bAt: number,
  length: number,
): boolean {
  for (let i = 0; i < length; i++) if (a[aAt + i] !== b[bAt + i]) return false;
  return true;
}
