/**
 * Writes netlink messages one after another into one growing buffer.
 *
 * ```text
 *  message    | length u32 | type u16 | flags u16 | sequence u32 | port u32 | payload … | pad to 4
 *  attribute  | length u16 | type u16 | payload … | pad to 4
 * ```
 * Lengths count the header but not the padding. Integers are in host order (little endian on every machine
 * that we run on) unless the method's name says `Be`. Source: `include/uapi/linux/netlink.h`.
 */
import { NLA_F_NESTED, NLMSG_HEADER_BYTES } from './constants.ts';

const encoder = new TextEncoder();
/** The length of an attribute has 16 bits. */
const MAX_ATTRIBUTE_BYTES = 0xffff;

export class NetlinkWriter {
  #buffer: Buffer;
  #length = 0;
  #messages = 0;
  /** Sequence number that the next message gets. */
  #sequence: number;

  /** @param options `buffer`: is written to as long as it is large enough */
  constructor(options: { capacityBytes?: number; firstSequence?: number; buffer?: Buffer } = {}) {
    const { capacityBytes = 4096, buffer } = options;
    this.#buffer =
      buffer !== undefined && buffer.length >= capacityBytes ? buffer : Buffer.alloc(capacityBytes);
    this.#sequence = options.firstSequence ?? 1;
  }

  /** The bytes written so far: a view that the next write may invalidate. */
  bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }
  get length(): number {
    return this.#length;
  }
  get messageCount(): number {
    return this.#messages;
  }
  get nextSequence(): number {
    return this.#sequence;
  }
  /** Forgets all bytes and keeps the buffer and the sequence. */
  reset(): void {
    this.#length = 0;
    this.#messages = 0;
  }

  /** @returns a mark for {@link endMessage} */
  beginMessage(type: number, flags: number): number {
    this.#reserve(NLMSG_HEADER_BYTES);
    const start = this.#length;
    this.#buffer.writeUInt32LE(0, start);
    this.#buffer.writeUInt16LE(type, start + 4);
    this.#buffer.writeUInt16LE(flags, start + 6);
    this.#buffer.writeUInt32LE(this.#sequence, start + 8);
    this.#buffer.writeUInt32LE(0, start + 12);
    this.#sequence = (this.#sequence + 1) >>> 0;
    this.#length += NLMSG_HEADER_BYTES;
    this.#messages++;
    return start;
  }
  endMessage(start: number): void {
    this.#buffer.writeUInt32LE(this.#length - start, start);
    this.#pad();
  }

  /** @returns a mark for {@link endAttribute} */
  beginAttribute(type: number): number {
    this.#reserve(4);
    const start = this.#length;
    // Stored byte by byte: there are some thirty attributes to a rule, and Buffer's checks would be a third of the work.
    this.#buffer[start + 2] = type;
    this.#buffer[start + 3] = type >>> 8;
    this.#length += 4;
    return start;
  }
  /** Like {@link beginAttribute}, with the flag that says attributes are inside. */
  beginNested(type: number): number {
    return this.beginAttribute(type | NLA_F_NESTED);
  }
  endAttribute(start: number): void {
    const length = this.#length - start;
    if (length > MAX_ATTRIBUTE_BYTES)
      throw new RangeError(`a netlink attribute of ${length} bytes exceeds ${MAX_ATTRIBUTE_BYTES}`);
    this.#buffer[start] = length;
    this.#buffer[start + 1] = length >>> 8;
    this.#pad();
  }
  nested(type: number, write: () => void): void {
    const start = this.beginNested(type);
    write();
    this.endAttribute(start);
  }

  attributeFlag(type: number): void {
    this.endAttribute(this.beginAttribute(type));
  }
  attributeU8(type: number, value: number): void {
    const start = this.beginAttribute(type);
    this.u8(value);
    this.endAttribute(start);
  }
  attributeU16(type: number, value: number): void {
    const start = this.beginAttribute(type);
    this.u16(value);
    this.endAttribute(start);
  }
  attributeU16Be(type: number, value: number): void {
    const start = this.beginAttribute(type);
    this.u16Be(value);
    this.endAttribute(start);
  }
  attributeU32(type: number, value: number): void {
    const start = this.beginAttribute(type);
    this.u32(value);
    this.endAttribute(start);
  }
  attributeU32Be(type: number, value: number): void {
    const start = this.beginAttribute(type);
    this.u32Be(value);
    this.endAttribute(start);
  }
  attributeU64(type: number, value: bigint): void {
    const start = this.beginAttribute(type);
    this.#reserve(8);
    this.#length = this.#buffer.writeBigUInt64LE(value, this.#length);
    this.endAttribute(start);
  }
  attributeU64Be(type: number, value: bigint): void {
    const start = this.beginAttribute(type);
    this.#reserve(8);
    this.#length = this.#buffer.writeBigUInt64BE(value, this.#length);
    this.endAttribute(start);
  }
  attributeBytes(type: number, value: Uint8Array): void {
    const start = this.beginAttribute(type);
    this.raw(value);
    this.endAttribute(start);
  }
  /** A string with its terminating zero byte. */
  attributeString(type: number, value: string): void {
    const start = this.beginAttribute(type);
    this.#reserve(value.length + 1);
    // Names are short ASCII nearly always; a call into the encoder for each would be half the cost of a large batch.
    let isAscii = true;
    for (let i = 0; isAscii && i < value.length; i++) {
      const code = value.charCodeAt(i);
      isAscii = code < 0x80;
      this.#buffer[this.#length + i] = code;
    }
    if (isAscii) this.#length += value.length;
    else this.raw(encoder.encode(value));
    this.u8(0);
    this.endAttribute(start);
  }

  u8(value: number): void {
    this.#reserve(1);
    this.#length = this.#buffer.writeUInt8(value, this.#length);
  }
  u16(value: number): void {
    this.#reserve(2);
    this.#length = this.#buffer.writeUInt16LE(value, this.#length);
  }
  u16Be(value: number): void {
    this.#reserve(2);
    this.#length = this.#buffer.writeUInt16BE(value, this.#length);
  }
  u32(value: number): void {
    this.#reserve(4);
    this.#length = this.#buffer.writeUInt32LE(value >>> 0, this.#length);
  }
  u32Be(value: number): void {
    this.#reserve(4);
    const at = this.#length;
    this.#buffer[at] = value >>> 24;
    this.#buffer[at + 1] = value >>> 16;
    this.#buffer[at + 2] = value >>> 8;
    this.#buffer[at + 3] = value;
    this.#length = at + 4;
  }
  i32(value: number): void {
    this.#reserve(4);
    this.#length = this.#buffer.writeInt32LE(value, this.#length);
  }
  raw(value: Uint8Array): void {
    this.#reserve(value.length);
    this.#buffer.set(value, this.#length);
    this.#length += value.length;
  }

  #pad(): void {
    const padded = (this.#length + 3) & ~3;
    this.#reserve(padded - this.#length);
    while (this.#length < padded) this.#buffer[this.#length++] = 0;
  }
  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#buffer.length) return;
    const larger = Buffer.alloc(Math.max(this.#buffer.length * 2, this.#length + bytes));
    this.#buffer.copy(larger, 0, 0, this.#length);
    this.#buffer = larger;
  }
}
