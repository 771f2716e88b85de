/**
 * SipHash-2-4 (Aumasson and Bernstein): a keyed hash of short inputs that nobody can forge without the key. 64-bit numbers
 * stand as pairs of 32-bit ones, low half first, so that hashing allocates nothing.
 */

/** The state v0…v3 in pairs; a hash is finished before the next begins. */
const v = new Int32Array(8);

/**
 * Hashes `bytes` from `start` to `end`.
 * @param key 16 octets
 * @param into gets the eight octets of the hash at `at`, in little endian as the reference writes them
 */
export function sipHash(
  key: Uint8Array,
  bytes: Uint8Array,
  { start, end, into, at }: { start: number; end: number; into: Uint8Array; at: number },
): void {
  const [k0, k1, k2, k3] = [u32(key, 0), u32(key, 4), u32(key, 8), u32(key, 12)];
  v[0] = k0 ^ 0x70736575;
  v[1] = k1 ^ 0x736f6d65;
  v[2] = k2 ^ 0x6e646f6d;
  v[3] = k3 ^ 0x646f7261;
  v[4] = k0 ^ 0x6e657261;
  v[5] = k1 ^ 0x6c796765;
  v[6] = k2 ^ 0x79746573;
  v[7] = k3 ^ 0x74656462;
  let from = start;
  for (; from + 8 <= end; from += 8) take(u32(bytes, from), u32(bytes, from + 4));
  let low = 0;
  let high = ((end - start) & 0xff) << 24;
  for (let i = 0; from + i < end; i++) {
    const octet = bytes[from + i] ?? 0;
    if (i < 4) low |= octet << (i * 8);
    else high |= octet << ((i - 4) * 8);
  }
  take(low, high);
  v[4] = get(4) ^ 0xff;
  for (let i = 0; i < 4; i++) round();
  for (let i = 0; i < 2; i++) {
    const half = get(i) ^ get(i + 2) ^ get(i + 4) ^ get(i + 6);
    for (let j = 0; j < 4; j++) into[at + i * 4 + j] = half >>> (j * 8);
  }
}

function take(low: number, high: number): void {
  v[6] = get(6) ^ low;
  v[7] = get(7) ^ high;
  round();
  round();
  v[0] = get(0) ^ low;
  v[1] = get(1) ^ high;
}

function round(): void {
  add(0, 2);
  rotate(2, 13);
  xor(2, 0);
  swap(0);
  add(4, 6);
  rotate(6, 16);
  xor(6, 4);
  add(0, 6);
  rotate(6, 21);
  xor(6, 0);
  add(4, 2);
  rotate(2, 17);
  xor(2, 4);
  swap(4);
}

/** Adds the pair at `b` to that at `a`. */
function add(a: number, b: number): void {
  const low = (get(a) >>> 0) + (get(b) >>> 0);
  v[a] = low;
  v[a + 1] = get(a + 1) + get(b + 1) + (low > 0xffff_ffff ? 1 : 0);
}

/** @param bits below 32 */
function rotate(a: number, bits: number): void {
  const low = get(a);
  const high = get(a + 1);
  v[a] = (low << bits) | (high >>> (32 - bits));
  v[a + 1] = (high << bits) | (low >>> (32 - bits));
}

function xor(a: number, b: number): void {
  v[a] = get(a) ^ get(b);
  v[a + 1] = get(a + 1) ^ get(b + 1);
}

/** A rotation by 32 bits. */
function swap(a: number): void {
  const low = get(a);
  v[a] = get(a + 1);
  v[a + 1] = low;
}

function get(i: number): number {
  return v[i] ?? 0;
}

function u32(bytes: Uint8Array, at: number): number {
  return (
    (bytes[at] ?? 0) |
    ((bytes[at + 1] ?? 0) << 8) |
    ((bytes[at + 2] ?? 0) << 16) |
    ((bytes[at + 3] ?? 0) << 24)
  );
}
