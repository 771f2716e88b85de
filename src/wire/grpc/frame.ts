/**
 * The frames in which gRPC sends messages over HTTP/2:
 *
 *     compressed (1 byte: 0) | length (4 bytes, big endian) | message
 *
 * @see https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
 */
import { DecodeError } from '#lib/errors.ts';

const FRAME_HEADER_BYTES = 5;

/** @param pieces of the message, in order */
export function encodeFrame(pieces: readonly Uint8Array[]): Buffer<ArrayBuffer> {
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  header.writeUInt32BE(
    pieces.reduce((sum, piece) => sum + piece.length, 0),
    1,
  );
  return Buffer.concat([header, ...pieces]);
}

/** A message is larger than who reads it can take. */
export class FrameTooLargeError extends Error {
  readonly code = 'FRAME_TOO_LARGE' as const;
}

/** Puts messages together from the bytes of a stream. */
export interface FrameReader {
  /**
   * @returns the messages that are complete with this chunk; views into it where one chunk holds all of them
   * @throws FrameTooLargeError, DecodeError; not to be called again then
   */
  push(chunk: Uint8Array): Uint8Array[];
}

/** @param maxBytes of one message */
export function createFrameReader(maxBytes: number): FrameReader {
  let chunks: Uint8Array[] = [];
  let held = 0;
  /** Bytes that must be there before it is worth to look again. */
  let wanted = FRAME_HEADER_BYTES;
  return {
    push(chunk) {
      chunks.push(chunk);
      held += chunk.length;
      if (held < wanted) return [];
      const bytes =
        chunks.length === 1
          ? Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
          : Buffer.concat(chunks);
      const messages: Uint8Array[] = [];
      let at = 0;
      for (;;) {
        wanted = FRAME_HEADER_BYTES;
        if (bytes.length - at < FRAME_HEADER_BYTES) break;
        if (bytes[at] !== 0)
          throw new DecodeError('it is compressed, which was not offered', {
            protocol: 'grpc',
            field: 'frame',
            offset: at,
          });
        const length = bytes.readUInt32BE(at + 1);
        if (length > maxBytes)
          throw new FrameTooLargeError(
            `the message has ${length} bytes, at most ${maxBytes} are read`,
          );
        wanted = FRAME_HEADER_BYTES + length;
        if (bytes.length - at < wanted) break;
        messages.push(bytes.subarray(at + FRAME_HEADER_BYTES, at + wanted));
        at += wanted;
      }
      held = bytes.length - at;
      chunks = held === 0 ? [] : [bytes.subarray(at)];
      return messages;
    },
  };
}
