/** `/healthz`, `/livez`, `/readyz`: whether the server lives and can serve. */
import { explainError } from '#lib/errors.ts';
import type { Store } from '#store/port.ts';
import { type Answer, text } from './exchange.ts';
import type { PlainRequest } from './request.ts';
import { isTrue } from './request.ts';

export interface HealthCheck {
  readonly name: string;
  /** Rejects with the reason if it fails. */
  check(): Promise<void>;
}

const HEALTH_PATH = /^\/(healthz|livez|readyz)$/;

export function isHealthPath(path: string): boolean {
  return HEALTH_PATH.test(path);
}

/** The checks of `/livez` (which are those that a restart may cure) and the further ones of `/readyz`. */
export function createHealthChecks(options: { store: Store; isStopping: () => boolean }): {
  live: readonly HealthCheck[];
  ready: readonly HealthCheck[];
} {
  const live: HealthCheck[] = [{ name: 'ping', check: async () => {} }];
  return {
    live,
    ready: [
      ...live,
      {
        name: 'store',
        async check() {
          await options.store.revision();
        },
      },
      {
        name: 'shutdown',
        async check() {
          if (options.isStopping()) throw new Error('the server is stopping');
        },
      },
    ],
  };
}

/** Answers `ok`, or 500 with a line per check; with `?verbose` always the lines. The cause of a failure stays in the log. */
export async function answerHealth(
  info: PlainRequest,
  checks: readonly HealthCheck[],
  onFailure: (name: string, why: string) => void,
): Promise<Answer> {
  let failed = false;
  const lines: string[] = [];
  for (const check of checks) {
    try {
      await check.check();
      lines.push(`[+]${check.name} ok`);
    } catch (error) {
      failed = true;
      onFailure(check.name, explainError(error));
      lines.push(`[-]${check.name} failed: reason withheld`);
    }
  }
  const what = info.path.slice(1);
  if (failed) return text(500, `${lines.join('\n')}\n${what} check failed\n`);
  if (info.query.has('verbose') && isTrue(info.query.get('verbose')))
    return text(200, `${lines.join('\n')}\n${what} check passed\n`);
  return text(200, 'ok');
}
