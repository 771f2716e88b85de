/** What all certificates of Tulle have in common. RFC 5280. */
import { randomBytes } from 'node:crypto';

/** Certificates begin this long ago, so that a machine whose clock is behind believes a new one. */
export const CLOCK_SKEW_MS = 5 * 60 * 1000;

export const SIGNATURE = { name: 'ECDSA', hash: 'SHA-256' };

/** A random positive serial number of 127 bits, in hex (section 4.1.2.2: at most 20 bytes, never negative). */
export function newSerialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return bytes.toString('hex');
}
