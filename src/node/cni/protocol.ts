/**
 * What the plugin file (`shim.pl`) and the agent say to each other over the unix socket: one frame each way.
 *
 * ```
 * frame   = length of the rest (32 bits, big endian) , field*
 * field   = length (32 bits, big endian) , bytes
 * request = ( name , value )* , "stdin" , standard input       names are those of the CNI_* variables
 * answer  = exit status in decimal , standard output
 * ```
 */
import { DecodeError } from '#lib/errors.ts';

/** libcni sends a few kilobytes; a long list of valid attachments (GC) some hundred. The shim has the same bound. */
export const MAX_FRAME_BYTES = 1 << 21;

export interface PluginCall {
  readonly env: Readonly<Record<string, string>>;
  readonly stdin: string;
}

export interface PluginAnswer {
  readonly exitCode: number;
  readonly stdout: string;
}

export function encodeFrame(fields: readonly (string | Uint8Array)[]): Buffer {
  const parts = fields.flatMap((field) => {
    const bytes = typeof field === 'string' ? Buffer.from(field) : Buffer.from(field);
    return [uint32(bytes.length), bytes];
  });
  const body = Buffer.concat(parts);
  return Buffer.concat([uint32(body.length), body]);
}

/**
 * Takes a frame off the front of what has been received.
 * @returns undefined while it is not complete
 * @throws DecodeError if it is longer than {@link MAX_FRAME_BYTES} or its fields do not fill it exactly
 */
export function decodeFrame(received: Buffer): Buffer[] | undefined {
  if (received.length < 4) return undefined;
  const size = received.readUInt32BE(0);
  if (size > MAX_FRAME_BYTES)
    throw decodeError('length', 0, `${size} bytes are more than ${MAX_FRAME_BYTES}`);
  if (received.length < 4 + size) return undefined;
  const end = 4 + size;
  const fields: Buffer[] = [];
  for (let at = 4; at < end; ) {
    if (at + 4 > end) throw decodeError('field', at, 'the frame ends in the middle of a length');
    const length = received.readUInt32BE(at);
    if (at + 4 + length > end)
      throw decodeError('field', at, `${length} bytes reach past the frame`);
    fields.push(received.subarray(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return fields;
}

/** @throws DecodeError if the fields are no request */
export function decodeCall(fields: readonly Buffer[]): PluginCall {
  if (fields.length % 2 !== 0)
    throw decodeError('request', 0, `${fields.length} fields, but names and values come in pairs`);
  const env: Record<string, string> = {};
  let stdin = '';
  for (let i = 0; i < fields.length; i += 2) {
    const name = String(fields[i]);
    const value = String(fields[i + 1]);
    if (name === 'stdin') stdin = value;
    else if (/^CNI_[A-Z0-9_]+$/.test(name)) env[name] = value;
    else throw decodeError('request', 0, `"${name}" is not the name of a CNI variable`);
  }
  return { env, stdin };
}

export function encodeAnswer(answer: PluginAnswer): Buffer {
  return encodeFrame([String(answer.exitCode), answer.stdout]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function decodeError(field: string, offset: number, message: string): DecodeError {
  return new DecodeError(message, { protocol: 'CNI socket', field, offset });
}
