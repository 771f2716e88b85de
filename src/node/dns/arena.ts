/**
 * Many small pieces of octets in few large ones. What the garbage collector does not see costs it nothing, and a piece
 * costs its octets instead of an object.
 *
 * A piece is known by its *place*, the number of its first cell of 16 octets. A freed piece is used again for the next
 * one of its size, so nothing is ever moved and no change costs more than its own octets.
 */
const CELL_BITS = 4;
const CELL_BYTES = 1 << CELL_BITS;
const CHUNK_BITS = 20;
const CHUNK_BYTES = 1 << CHUNK_BITS;
const CELLS_BITS = CHUNK_BITS - CELL_BITS;
const CELL_MASK = (1 << CELLS_BITS) - 1;
/** Up to here sizes differ by a cell, beyond it by an eighth, so that few sizes have a list of free places. */
const FINE_BYTES = 1024;

export class Arena {
  readonly #chunks: Uint8Array[] = [];
  /** Octets handed out of the last chunk. */
  #used = CHUNK_BYTES;
  /** Places to be used again, by size. */
  readonly #free = new Map<number, number[]>();

  /**
   * @param bytes at most a chunk (1 MiB)
   * @returns a place with room for so many octets; what stands there is of no meaning
   */
  allocate(bytes: number): number {
    const size = sizeOf(bytes);
    if (size > CHUNK_BYTES) throw new RangeError(`a piece of ${bytes} octets is too large`);
    const again = this.#free.get(size)?.pop();
    if (again !== undefined) return again;
    if (this.#used + size > CHUNK_BYTES) {
      this.#chunks.push(new Uint8Array(CHUNK_BYTES));
      this.#used = 0;
    }
    const place = ((this.#chunks.length - 1) << CELLS_BITS) + (this.#used >> CELL_BITS);
    this.#used += size;
    return place;
  }

  /** @param bytes as many as it was allocated with */
  free(place: number, bytes: number): void {
    const size = sizeOf(bytes);
    const list = this.#free.get(size);
    if (list === undefined) this.#free.set(size, [place]);
    else list.push(place);
  }

  /** The memory in which a place is, from {@link offset} on. */
  chunk(place: number): Uint8Array {
    const chunk = this.#chunks[place >> CELLS_BITS];
    if (chunk === undefined) throw new RangeError(`there is no place ${place}`);
    return chunk;
  }
  offset(place: number): number {
    return (place & CELL_MASK) << CELL_BITS;
  }

  /** Octets of memory taken from the system. */
  get bytes(): number {
    return this.#chunks.length * CHUNK_BYTES;
  }
}

function sizeOf(bytes: number): number {
  const step = bytes <= FINE_BYTES ? CELL_BYTES : 1 << (28 - Math.clz32(bytes - 1));
  return Math.ceil(bytes / step) * step;
}
