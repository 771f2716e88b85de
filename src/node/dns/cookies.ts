/**
 * DNS cookies (RFC 7873) with the server cookie that all servers can agree on (RFC 9018): a client that sends back what it
 * was given has received it, so its address is not forged.
 *
 * ```text
 *   option 10:   | client cookie, 8 octets | version 1 | 0 0 0 | time u32 | SipHash-2-4, 8 octets |
 *   hashed:      client cookie, version, zeros, time, the client's address
 * ```
 */
import { sipHash } from '#lib/siphash.ts';
import { type Query, WHOLE_COOKIE_BYTES } from './query.ts';
import { put16, put32 } from './reply.ts';

const CLIENT_COOKIE_BYTES = 8;
export const SECRET_BYTES = 16;
const VERSION = 1;
/** RFC 9018 section 4.3: a cookie is good for an hour, and may come from a clock that is five minutes fast. */
const MAX_AGE_S = 3600;
const MAX_FUTURE_S = 300;
const HASH_AT = 16;

export class Cookies {
  readonly #secret: Uint8Array;
  /** What is hashed: the first 16 octets of a cookie and an address. */
  readonly #hashed = new Uint8Array(HASH_AT + 16);
  readonly #hash = new Uint8Array(8);
  readonly #place = { start: 0, end: 0, into: this.#hash, at: 0 };

  /** @param secret 16 random octets */
  constructor(secret: Uint8Array) {
    this.#secret = secret;
  }

  /**
   * Looks at the cookie of a query and makes the one that its answer carries, in `query.cookie`.
   * @param bytes the query's message
   * @param address the client's, 4 or 16 octets
   * @returns whether the client has proven its address
   */
  check(bytes: Uint8Array, query: Query, address: Uint8Array, nowS: number): boolean {
    const { cookieAt, cookie } = query;
    const isKnown =
      query.cookieBytes === WHOLE_COOKIE_BYTES && this.#isOurs(bytes, cookieAt, address, nowS);
    for (let i = 0; i < CLIENT_COOKIE_BYTES; i++) cookie[i] = bytes[cookieAt + i] ?? 0;
    put16(cookie, CLIENT_COOKIE_BYTES, VERSION << 8);
    put16(cookie, CLIENT_COOKIE_BYTES + 2, 0);
    put32(cookie, CLIENT_COOKIE_BYTES + 4, nowS);
    this.#sign(cookie, 0, address);
    cookie.set(this.#hash, HASH_AT);
    query.answersCookie = true;
    return isKnown;
  }

  #isOurs(bytes: Uint8Array, at: number, address: Uint8Array, nowS: number): boolean {
    if (bytes[at + CLIENT_COOKIE_BYTES] !== VERSION) return false;
    // Serial number arithmetic: the times are of 32 bits.
    const ageS = (nowS - u32(bytes, at + CLIENT_COOKIE_BYTES + 4)) | 0;
    if (ageS > MAX_AGE_S || ageS < -MAX_FUTURE_S) return false;
    this.#sign(bytes, at, address);
    let difference = 0;
    for (let i = 0; i < 8; i++) difference |= (this.#hash[i] ?? 0) ^ (bytes[at + HASH_AT + i] ?? 0);
    return difference === 0;
  }

  /** Sets {@link #hash} to that of a cookie's first 16 octets. */
  #sign(cookie: Uint8Array, at: number, address: Uint8Array): void {
    for (let i = 0; i < HASH_AT; i++) this.#hashed[i] = cookie[at + i] ?? 0;
    this.#hashed.set(address, HASH_AT);
    this.#place.end = HASH_AT + address.length;
    sipHash(this.#secret, this.#hashed, this.#place);
  }
}

function u32(bytes: Uint8Array, at: number): number {
  const octet = (i: number) => bytes[at + i] ?? 0;
  return (octet(0) << 24) | (octet(1) << 16) | (octet(2) << 8) | octet(3);
}
