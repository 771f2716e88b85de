/** Typed access to the attributes of nftables messages. Integers are big endian throughout nf_tables. */
import { DecodeError } from '#lib/errors.ts';
import type { Attributes } from '#wire/netlink/reader.ts';
import { readAttributes, readString } from '#wire/netlink/reader.ts';

/** Attributes of one object or expression; `where` names it in errors. */
export class AttributeReader {
  readonly where: string;
  readonly #attributes: Attributes;

  constructor(where: string, bytes: Buffer, from = 0) {
    this.where = where;
    this.#attributes = readAttributes(bytes, from);
  }

  bytes(type: number): Buffer | undefined {
    return this.#attributes.get(type);
  }
  u8(type: number): number | undefined {
    return this.#sized(type, 1)?.readUInt8(0);
  }
  u16(type: number): number | undefined {
    return this.#sized(type, 2)?.readUInt16BE(0);
  }
  u32(type: number): number | undefined {
    return this.#sized(type, 4)?.readUInt32BE(0);
  }
  i32(type: number): number | undefined {
    return this.#sized(type, 4)?.readInt32BE(0);
  }
  u64(type: number): bigint | undefined {
    return this.#sized(type, 8)?.readBigUInt64BE(0);
  }
  /** A 64-bit value that people and the kernel keep below 2^53: handles, times. */
  number(type: number): number | undefined {
    const value = this.u64(type);
    return value === undefined ? undefined : Number(value);
  }
  string(type: number): string | undefined {
    const value = this.bytes(type);
    return value === undefined ? undefined : readString(value);
  }
  nested(type: number): AttributeReader | undefined {
    const value = this.bytes(type);
    return value === undefined ? undefined : new AttributeReader(this.where, value);
  }

  /** @throws DecodeError if the value is absent */
  required<T>(value: T | undefined, field: string): T {
    if (value === undefined) throw this.error(field, 'the attribute is missing');
    return value;
  }
  requiredU32(type: number, field: string): number {
    return this.required(this.u32(type), field);
  }
  requiredString(type: number, field: string): string {
    return this.required(this.string(type), field);
  }
  error(field: string, message: string): DecodeError {
    return new DecodeError(message, { protocol: 'nftables', field: `${this.where} ${field}` });
  }

  #sized(type: number, bytes: number): Buffer | undefined {
    const value = this.bytes(type);
    if (value !== undefined && value.length < bytes)
      throw this.error(`attribute ${type}`, `${value.length} bytes are not ${bytes}`);
    return value;
  }
}
