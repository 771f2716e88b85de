/** Writes the parts of a DNS message, with compression of names (RFC 1035 section 4.1.4). Integers are big endian. */
import { MAX_MESSAGE_BYTES } from './constants.ts';
import { canonicalName, type Name, nameToWire, parentOf, ROOT_NAME } from './name.ts';

/** A pointer has 14 bits for the offset. */
const MAX_POINTER = 0x3fff;

/** A message became larger than its 16-bit length allows. */
export class MessageTooLongError extends Error {
  readonly code = 'DNS_TOO_LONG' as const;
  constructor() {
    super(`Cannot encode DNS message: it is longer than ${MAX_MESSAGE_BYTES} bytes`);
    this.name = 'MessageTooLongError';
  }
}

export class DnsWriter {
  #bytes = new Uint8Array(512);
  #length = 0;
  /** Where each name, and each of its ancestors, stands: canonical text to offset. */
  readonly #offsets = new Map<Name, number>();

  get length(): number {
    return this.#length;
  }
  /** A copy of what was written. */
  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  u8(value: number): void {
    const at = this.#reserve(1);
    this.#bytes[at] = value;
  }
  u16(value: number): void {
    const at = this.#reserve(2);
    this.#bytes[at] = value >> 8;
    this.#bytes[at + 1] = value;
  }
  u32(value: number): void {
    this.u16((value >>> 16) & 0xffff);
    this.u16(value & 0xffff);
  }
  raw(bytes: Uint8Array): void {
    const at = this.#reserve(bytes.length);
    this.#bytes.set(bytes, at);
  }
  /** Writes a 16-bit length, then what `write` writes, and sets the length to that. */
  sized(write: () => void): void {
    const at = this.#reserve(2);
    write();
    const length = this.#length - at - 2;
    this.#bytes[at] = length >> 8;
    this.#bytes[at + 1] = length;
  }

  /** Writes a name as short as earlier names allow. Names are compared without case, so the earlier case wins. */
  name(value: Name): void {
    this.#writeName(value, true);
  }
  /** Writes a name in full, for data where pointers are forbidden (RFC 3597 section 4); later names may point into it. */
  fullName(value: Name): void {
    this.#writeName(value, false);
  }

  #writeName(value: Name, compress: boolean): void {
    const wire = nameToWire(value);
    let at = 0;
    for (let rest = value; rest !== ROOT_NAME; rest = parentOf(rest)) {
      const key = canonicalName(rest);
      const seen = this.#offsets.get(key);
      if (seen !== undefined && compress) {
        this.u16(0xc000 | seen);
        return;
      }
      if (seen === undefined && this.#length <= MAX_POINTER) this.#offsets.set(key, this.#length);
      const labelEnd = at + 1 + (wire[at] ?? 0);
      this.raw(wire.subarray(at, labelEnd));
      at = labelEnd;
    }
    this.u8(0);
  }

  /** @returns the offset of the reserved bytes. @throws MessageTooLongError */
  #reserve(count: number): number {
    const at = this.#length;
    const end = at + count;
    if (end > MAX_MESSAGE_BYTES) throw new MessageTooLongError();
    if (end > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#bytes.length * 2, end));
      larger.set(this.#bytes.subarray(0, at));
      this.#bytes = larger;
    }
    this.#length = end;
    return at;
  }
}
