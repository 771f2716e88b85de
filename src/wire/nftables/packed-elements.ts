/**
 * Many elements that are alike, as bytes: keys of one length and, in a map to values, data of one length.
 *
 * ```text
 *  bytes  | key | data | key | data | …
 * ```
 * A million elements as objects would be some hundred megabytes and a second of garbage collection; so they are one
 * array, which the encoder copies from. Everybody else may read them as the {@link SetElement}s that they stand for.
 */
import type { SetElement } from './objects.ts';

export class PackedElements implements Iterable<SetElement> {
  readonly keyBytes: number;
  /** 0 in a set. */
  readonly dataBytes: number;
  readonly bytes: Uint8Array;

  /** @param shape `bytes`: whole elements one after another; not to be changed any more */
  constructor(shape: { keyBytes: number; dataBytes: number; bytes: Uint8Array }) {
    this.keyBytes = shape.keyBytes;
    this.dataBytes = shape.dataBytes;
    this.bytes = shape.bytes;
  }

  get length(): number {
    return this.bytes.length / (this.keyBytes + this.dataBytes);
  }

  *[Symbol.iterator](): Generator<SetElement> {
    const { bytes, keyBytes, dataBytes } = this;
    for (let at = 0; at < bytes.length; at += keyBytes + dataBytes) {
      const key = bytes.slice(at, at + keyBytes);
      if (dataBytes === 0) yield { key };
      else yield { key, data: bytes.slice(at + keyBytes, at + keyBytes + dataBytes) };
    }
  }
}

/** Collects elements into {@link PackedElements} of bounded length. */
export class ElementPacker {
  readonly #shape: { keyBytes: number; dataBytes: number };
  readonly #maxElements: number;
  #bytes: Uint8Array;
  #length = 0;

  constructor(init: { keyBytes: number; dataBytes: number; maxElements: number }) {
    this.#shape = { keyBytes: init.keyBytes, dataBytes: init.dataBytes };
    this.#maxElements = init.maxElements;
    this.#bytes = this.#allocate();
  }

  /** True if the next element must wait for {@link take}. */
  get isFull(): boolean {
    return this.#length === this.#bytes.length;
  }
  get isEmpty(): boolean {
    return this.#length === 0;
  }

  /** @param suffix follows `key` in the key, as a number of 4 bytes in host order */
  add(key: Uint8Array, suffix: number | undefined, data: Uint8Array | undefined): void {
    const bytes = this.#bytes;
    let at = this.#length;
    for (let i = 0; i < key.length; i++) bytes[at++] = key[i] ?? 0;
    if (suffix !== undefined) {
      bytes[at++] = suffix;
      bytes[at++] = suffix >>> 8;
      bytes[at++] = suffix >>> 16;
      bytes[at++] = suffix >>> 24;
    }
    if (data !== undefined) for (let i = 0; i < data.length; i++) bytes[at++] = data[i] ?? 0;
    this.#length += this.#shape.keyBytes + this.#shape.dataBytes;
    if (at !== this.#length)
      throw new RangeError(`an element of ${at - this.#length} bytes too many or too few`);
  }

  /** What was added since the last call. */
  take(): PackedElements {
    const taken = this.#bytes.subarray(0, this.#length);
    this.#bytes = this.#allocate();
    this.#length = 0;
    return new PackedElements({ ...this.#shape, bytes: taken });
  }

  #allocate(): Uint8Array {
    return new Uint8Array(this.#maxElements * (this.#shape.keyBytes + this.#shape.dataBytes));
  }
}
