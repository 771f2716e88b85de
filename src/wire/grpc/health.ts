/**
 * The health service of gRPC, `grpc.health.v1.Health/Check`.
 *
 *     frame     compressed (1 byte: 0) | length (4 bytes, big endian) | message
 *     request   field 1, string: service
 *     response  field 1, varint: status (1 SERVING)
 *
 * @see https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
 */
import { DecodeError } from '#lib/errors.ts';

export const HEALTH_CHECK_PATH = '/grpc.health.v1.Health/Check';
/** `ServingStatus` by number. */
export const SERVING_STATUSES = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'] as const;
export type ServingStatus = (typeof SERVING_STATUSES)[number];

const FRAME_HEADER_BYTES = 5;
/** A response has two bytes; more is nothing that we asked for. */
export const MAX_RESPONSE_BYTES = 4_096;
const MAX_VARINT_BYTES = 10;
const STRING_FIELD_1 = 0x0a;

/** @param service empty: the server as a whole */
export function encodeHealthRequest(service: string): Uint8Array {
  const name = Buffer.from(service, 'utf8');
  const message =
    name.length === 0
      ? Buffer.alloc(0)
      : Buffer.concat([Uint8Array.of(STRING_FIELD_1), encodeVarint(name.length), name]);
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  header.writeUInt32BE(message.length, 1);
  return Buffer.concat([header, message]);
}

/** @throws DecodeError for anything that is no whole response */
export function decodeHealthResponse(bytes: Uint8Array): ServingStatus {
  const frame = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (frame.length < FRAME_HEADER_BYTES) throw wrong('frame', frame.length, 'it is too short');
  if (frame[0] !== 0) throw wrong('frame', 0, 'it is compressed, which was not offered');
  const length = frame.readUInt32BE(1);
  if (length !== frame.length - FRAME_HEADER_BYTES)
    throw wrong('frame', 1, `it says ${length} bytes and has ${frame.length - FRAME_HEADER_BYTES}`);
  let at = FRAME_HEADER_BYTES;
  let status = 0;
  while (at < frame.length) {
    const [key, afterKey] = decodeVarint(frame, at);
    at = afterKey;
    const wireType = key & 7;
    if (wireType === 0) {
      const [value, next] = decodeVarint(frame, at);
      if (key >> 3 === 1) status = value;
      at = next;
    } else at = skip(frame, at, wireType);
  }
  return SERVING_STATUSES[status] ?? 'UNKNOWN';
}

function skip(frame: Buffer, at: number, wireType: number): number {
  let end: number;
  if (wireType === 1) end = at + 8;
  else if (wireType === 5) end = at + 4;
  else if (wireType === 2) {
    const [length, start] = decodeVarint(frame, at);
    end = start + length;
  } else throw wrong('field', at, `the wire type ${wireType} is unknown`);
  if (end > frame.length) throw wrong('field', at, 'it is cut off');
  return end;
}

function encodeVarint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 0x7f) {
    bytes.push((rest & 0x7f) | 0x80);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
  return Uint8Array.from(bytes);
}

/** @returns the value, not exact above 2^53, and where the next field begins */
function decodeVarint(frame: Buffer, start: number): [number, number] {
  let value = 0;
  for (let i = 0; i < MAX_VARINT_BYTES; i++) {
    const byte = frame[start + i];
    if (byte === undefined) throw wrong('varint', start, 'it is cut off');
    value += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return [value, start + i + 1];
  }
  throw wrong('varint', start, `it is longer than ${MAX_VARINT_BYTES} bytes`);
}

function wrong(field: string, offset: number, message: string): DecodeError {
  return new DecodeError(message, { protocol: 'grpc health', field, offset });
}
