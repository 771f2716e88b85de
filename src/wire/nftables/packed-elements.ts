/**
 * Many elements that are alike, as bytes: keys of one length and, in a map to values, data of one length.
 *
 * ```text
 *  bytes  | key | data | key | data | …
 * ```
 * A million elements as objects would be some hundred megabytes and a second of garbage collection; so they are one
 * array, which the encoder copies from. Everybody else may read them as the {@link SetElement}s that they stand for.
 */
import { NLA_HEADER_BYTES, NLA_TYPE_MASK } from '#wire/netlink/constants.ts';
import { NFTA_DATA_VALUE, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_KEY } from './constants.ts';
import type { SetElement } from './objects.ts';

/** What {@link PackedElements} and an array have in common. */
export type ElementList = PackedElements | readonly SetElement[];

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

  /** @param index 0 … length - 1 */
  at(index: number): SetElement {
    const { bytes, keyBytes, dataBytes } = this;
    const at = index * (keyBytes + dataBytes);
    const key = bytes.slice(at, at + keyBytes);
    return dataBytes === 0
      ? { key }
      : { key, data: bytes.slice(at + keyBytes, at + keyBytes + dataBytes) };
  }

  *[Symbol.iterator](): Generator<SetElement> {
    for (let i = 0; i < this.length; i++) yield this.at(i);
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

/**
 * Packs the elements of a dump.
 *
 * ```text
 *  NFTA_LIST_ELEM { KEY { VALUE key }, DATA { VALUE data }? }
 * ```
 * @param lists contents of `NFTA_SET_ELEM_LIST_ELEMENTS`, one after another
 * @returns undefined if one has something else than a key and data of these lengths
 */
export function packDumped(
  lists: readonly Buffer[],
  { keyBytes, dataBytes }: { readonly keyBytes: number; readonly dataBytes: number },
): PackedElements | undefined {
  const nested = 2 * NLA_HEADER_BYTES;
  const dataAt = NLA_HEADER_BYTES + nested + align(keyBytes);
  const elementBytes = dataBytes === 0 ? dataAt : dataAt + nested + align(dataBytes);
  if (lists.some((list) => list.length % elementBytes !== 0)) return undefined;
  const total = lists.reduce((sum, list) => sum + list.length / elementBytes, 0);
  const bytes = new Uint8Array(total * (keyBytes + dataBytes));
  let to = 0;
  for (const list of lists)
    for (let at = 0; at < list.length; at += elementBytes) {
      const isPlain =
        align(list.readUInt16LE(at)) === elementBytes &&
        isValue(list, { at: at + NLA_HEADER_BYTES, type: NFTA_SET_ELEM_KEY, length: keyBytes }) &&
        (dataBytes === 0 ||
          isValue(list, { at: at + dataAt, type: NFTA_SET_ELEM_DATA, length: dataBytes }));
      if (!isPlain) return undefined;
      const key = at + NLA_HEADER_BYTES + nested;
      to += list.copy(bytes, to, key, key + keyBytes);
      if (dataBytes > 0)
        to += list.copy(bytes, to, at + dataAt + nested, at + dataAt + nested + dataBytes);
    }
  return new PackedElements({ keyBytes, dataBytes, bytes });
}

function isValue(
  list: Buffer,
  { at, type, length }: { readonly at: number; readonly type: number; readonly length: number },
): boolean {
  return (
    (list.readUInt16LE(at + 2) & NLA_TYPE_MASK) === type &&
    list.readUInt16LE(at + NLA_HEADER_BYTES) === NLA_HEADER_BYTES + length &&
    (list.readUInt16LE(at + NLA_HEADER_BYTES + 2) & NLA_TYPE_MASK) === NFTA_DATA_VALUE
  );
}

const align = (bytes: number) => (bytes + 3) & ~3;
