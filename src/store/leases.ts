/** What all stores have in common of leases. */
import { randomBytes } from 'node:crypto';
import { MAX_LEASE_TTL_MS } from './port.ts';

/** A number that no other lease has: random, so that several processes need not agree. Never 0, and exact as a number. */
export function newLeaseId(): number {
  return randomBytes(6).readUIntBE(0, 6) + 1;
}

/** @throws TypeError */
export function checkLeaseTtl(ttlMs: number): void {
  if (!(ttlMs > 0 && ttlMs <= MAX_LEASE_TTL_MS))
    throw new TypeError(`A lease has a time of 1 to ${MAX_LEASE_TTL_MS} ms, not ${ttlMs}`);
}
