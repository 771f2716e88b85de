/**
 * Reads the fixed headers and attribute values of rtnetlink with bounds: bytes that are too few give a `DecodeError`
 * that names the field, whatever the kernel (or a fuzzer) sent.
 */
import { DecodeError } from '#lib/errors.ts';
import {
  type Cidr,
  cidrOf,
  type Family,
  type Ip,
  ipFromBytes,
  type Mac,
  macFromBytes,
} from '#lib/ip.ts';

const PROTOCOL = 'rtnetlink';

/** @throws DecodeError if the payload is shorter than the fixed header of its kind */
export function expectHeader(payload: Buffer, lengthBytes: number, field: string): void {
  if (payload.length < lengthBytes)
    throw new DecodeError(`${payload.length} bytes, the fixed header has ${lengthBytes}`, {
      protocol: PROTOCOL,
      field,
      offset: 0,
    });
}

/** Each reader below gives `undefined` for an absent attribute. @throws DecodeError if the value is too short */
export function readU8(value: Buffer | undefined, field: string): number | undefined {
  return value === undefined ? undefined : expectValue(value, 1, field).readUInt8(0);
}
export function readU16Be(value: Buffer | undefined, field: string): number | undefined {
  return value === undefined ? undefined : expectValue(value, 2, field).readUInt16BE(0);
}
export function readU32(value: Buffer | undefined, field: string): number | undefined {
  return value === undefined ? undefined : expectValue(value, 4, field).readUInt32LE(0);
}
export function readI32(value: Buffer | undefined, field: string): number | undefined {
  return value === undefined ? undefined : expectValue(value, 4, field).readInt32LE(0);
}

/** An address whose length (4 or 16 bytes) says its family. */
export function readIp(value: Buffer | undefined, field: string): Ip | undefined {
  if (value === undefined) return undefined;
  if (value.length !== 4 && value.length !== 16)
    throw new DecodeError(`an address of ${value.length} bytes`, { protocol: PROTOCOL, field });
  return ipFromBytes(value);
}

/** @returns undefined also for hardware addresses that are not 6 bytes: tunnels and InfiniBand have others */
export function readMac(value: Buffer | undefined): Mac | undefined {
  return value?.length === 6 ? macFromBytes(value) : undefined;
}

/**
 * The prefix of a header's length field and an optional address attribute; the kernel leaves the attribute out
 * when the length is 0.
 * @throws DecodeError if the length or the address does not fit the family
 */
export function readPrefix(
  value: Buffer | undefined,
  prefixLength: number,
  of: { family: Family; field: string },
): Cidr {
  const bytes = of.family === 4 ? 4 : 16;
  if (prefixLength > bytes * 8 || (value !== undefined && value.length !== bytes))
    throw new DecodeError(
      `a prefix of length ${prefixLength} and ${value?.length ?? 0} bytes does not fit IPv${of.family}`,
      { protocol: PROTOCOL, field: of.field },
    );
  return cidrOf(ipFromBytes(value ?? new Uint8Array(bytes)), prefixLength);
}

function expectValue(value: Buffer, lengthBytes: number, field: string): Buffer {
  if (value.length < lengthBytes)
    throw new DecodeError(`${value.length} bytes, ${lengthBytes} expected`, {
      protocol: PROTOCOL,
      field,
    });
  return value;
}
