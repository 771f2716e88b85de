/**
 * Certificates that are made anew while they are used: long before the end, so that a server that is away for weeks keeps
 * nobody out.
 */
import { X509Certificate } from 'node:crypto';
import type { Clock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';

/** How often a certificate is looked at. A look costs nothing, and the last third of a day is still eight of them. */
const LOOK_INTERVAL_MS = 3_600_000;
/** It is renewed when so much of its life is left. */
const REST_OF_LIFE = 1 / 3;

export interface RenewalOptions {
  /** For the log: `the node`. */
  readonly what: string;
  /** The certificate that is used now, PEM. */
  readonly certificatePem: string;
  /** Makes another one and puts it to use. @returns it, PEM */
  readonly renew: () => Promise<string>;
  readonly log: Logger;
  readonly clock: Clock;
}

/** Looks now and every hour; what fails is tried again. Disposing ends it. */
export function startRenewal(options: RenewalOptions): AsyncDisposable {
  const { what, renew, log, clock } = options;
  let certificate = new X509Certificate(options.certificatePem);
  const look = async () => {
    if (!isDue(certificate, clock.now())) return;
    certificate = new X509Certificate(await renew());
    log.info({ until: certificate.validTo }, `renewed the certificate of ${what}`);
  };
  const name = `certificate of ${what}`;
  const loop = new SyncLoop(look, { name, log, clock, resyncMs: LOOK_INTERVAL_MS });
  loop.trigger();
  return loop;
}

/** Whether the last part of its life has begun. */
export function isDue(certificate: X509Certificate, nowMs: number): boolean {
  const endMs = certificate.validToDate.getTime();
  return endMs - nowMs < (endMs - certificate.validFromDate.getTime()) * REST_OF_LIFE;
}
