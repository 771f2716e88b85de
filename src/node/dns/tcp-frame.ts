/** Messages over TCP: each behind its length in 16 bits (RFC 1035 section 4.2.2, RFC 7766 section 8). */

/** A message with its length in front, to be written at once so that it leaves in one segment. */
export function frame(message: Uint8Array): Uint8Array {
  const framed = new Uint8Array(message.length + 2);
  framed[0] = message.length >> 8;
  framed[1] = message.length;
  framed.set(message, 2);
  return framed;
}

/** Cuts a stream into messages. Holds at most one unfinished message and a chunk. */
export class FrameReader {
  #chunks: Buffer[] = [];
  #length = 0;
  /** Bytes needed before there is anything to do, so that a slow stream of small chunks is joined only once. */
  #needed = 2;

  /** @returns the messages that are complete with this chunk */
  push(chunk: Buffer): Buffer[] {
    this.#chunks.push(chunk);
    this.#length += chunk.length;
    if (this.#length < this.#needed) return [];
    const bytes = Buffer.concat(this.#chunks, this.#length);
    const messages: Buffer[] = [];
    let at = 0;
    this.#needed = 2;
    while (at + 2 <= bytes.length) {
      const end = at + 2 + bytes.readUInt16BE(at);
      this.#needed = end - at;
      if (end > bytes.length) break;
      messages.push(bytes.subarray(at + 2, end));
      at = end;
      this.#needed = 2;
    }
    this.#chunks = [bytes.subarray(at)];
    this.#length = bytes.length - at;
    return messages;
  }
}
