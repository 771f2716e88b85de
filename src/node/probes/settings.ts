/**
 * Reads what a container's labels or annotations ask for. Pure.
 *
 *     tulle.dev/readiness-http=:8080/healthz            2xx and 3xx are ready; https://:8443/ without looking at the certificate
 *     tulle.dev/readiness-tcp=:5432                     ready if it accepts a connection
 *     tulle.dev/readiness-grpc=:9000/my.Service         grpc.health.v1; the service may be left out
 *     tulle.dev/readiness-exec=["pg_isready","-q"]      in the container; text that is no list goes to /bin/sh -c
 *     tulle.dev/readiness-period=10s                    default 10s
 *     tulle.dev/readiness-timeout=1s                    default 1s
 *     tulle.dev/readiness-success-threshold=1           so many good answers in a row make it ready
 *     tulle.dev/readiness-failure-threshold=3           so many bad ones in a row make it not ready
 *     tulle.dev/readiness-start-period=0s               bad answers count only after it
 */
import { READINESS_PREFIX } from '../readiness.ts';

export type ProbeAction =
  | { readonly kind: 'http'; readonly tls: boolean; readonly port: number; readonly path: string }
  | { readonly kind: 'tcp'; readonly port: number }
  | { readonly kind: 'grpc'; readonly port: number; readonly service: string }
  | { readonly kind: 'exec'; readonly argv: readonly string[] };

export interface Probe {
  readonly action: ProbeAction;
  readonly periodMs: number;
  readonly timeoutMs: number;
  readonly successThreshold: number;
  readonly failureThreshold: number;
  readonly startPeriodMs: number;
}

export type ParsedProbe =
  | { readonly kind: 'probe'; readonly probe: Probe }
  /** Nothing asks for a probe. */
  | { readonly kind: 'none' }
  | { readonly kind: 'malformed'; readonly message: string };

const ACTIONS = ['http', 'tcp', 'grpc', 'exec'] as const;
type ActionName = (typeof ACTIONS)[number];

const DURATIONS = {
  period: { defaultMs: 10_000, minMs: 100, maxMs: 3_600_000 },
  timeout: { defaultMs: 1_000, minMs: 10, maxMs: 60_000 },
  'start-period': { defaultMs: 0, minMs: 0, maxMs: 86_400_000 },
} as const;
const THRESHOLDS = { 'success-threshold': 1, 'failure-threshold': 3 } as const;
const MAX_THRESHOLD = 1_000;
/** Longer ones are a mistake, and are kept in every Pod. */
const MAX_SETTING_LENGTH = 4_096;
const MAX_ARGUMENTS = 64;

const UNITS_MS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** A setting that cannot be read. */
class SettingError extends Error {}

/** @param settings the labels and annotations without their prefix */
export function parseProbe(settings: Readonly<Record<string, string>>): ParsedProbe {
  try {
    const names = ACTIONS.filter((name) => settings[name] !== undefined);
    const [name, ...more] = names;
    if (name === undefined) return { kind: 'none' };
    if (more.length > 0)
      throw new SettingError(
        `${names.map((it) => READINESS_PREFIX + it).join(' and ')} exclude each other`,
      );
    const probe: Probe = {
      action: parseAction(name, settings[name] ?? ''),
      periodMs: duration(settings, 'period'),
      timeoutMs: duration(settings, 'timeout'),
      startPeriodMs: duration(settings, 'start-period'),
      successThreshold: threshold(settings, 'success-threshold'),
      failureThreshold: threshold(settings, 'failure-threshold'),
    };
    return { kind: 'probe', probe };
  } catch (error) {
    if (error instanceof SettingError) return { kind: 'malformed', message: error.message };
    throw error;
  }
}

function parseAction(name: ActionName, text: string): ProbeAction {
  if (text.length > MAX_SETTING_LENGTH)
    throw wrong(name, `${text.slice(0, 20)}…`, `at most ${MAX_SETTING_LENGTH} characters`);
  if (name === 'exec') return { kind: 'exec', argv: parseCommand(text) };
  // Always the pod's own address: a label must not make the agent ask somebody else.
  const match = /^(?:(https?):\/\/)?:?(\d{1,5})(\/[!-~]*)?$/.exec(text);
  const [, scheme, digits = '', path] = match ?? [];
  const port = Number(digits);
  const isPort = port >= 1 && port <= 65535;
  if (match === null || !isPort || (scheme !== undefined && name !== 'http'))
    throw wrong(name, text, EXPECTED[name]);
  if (name === 'http') return { kind: 'http', tls: scheme === 'https', port, path: path ?? '/' };
  if (name === 'grpc') return { kind: 'grpc', port, service: (path ?? '/').slice(1) };
  if (path !== undefined) throw wrong(name, text, EXPECTED[name]);
  return { kind: 'tcp', port };
}

const EXPECTED: Readonly<Record<Exclude<ActionName, 'exec'>, string>> = {
  http: ':PORT/path or https://:PORT/path',
  tcp: ':PORT',
  grpc: ':PORT or :PORT/service',
};

function parseCommand(text: string): string[] {
  if (text.trim() === '') throw wrong('exec', text, 'a command');
  if (!text.trimStart().startsWith('[')) return ['/bin/sh', '-c', text];
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch {
    throw wrong('exec', text, 'a JSON list of words, such as ["cat","/tmp/ready"]');
  }
  const words = Array.isArray(list) ? (list as unknown[]) : [];
  const argv = words.filter((word): word is string => typeof word === 'string');
  if (argv.length === 0 || argv.length !== words.length || argv.length > MAX_ARGUMENTS)
    throw wrong('exec', text, `a JSON list of 1 to ${MAX_ARGUMENTS} words`);
  return argv;
}

/** `10s`, `500ms`, `1.5m`; a bare number is seconds, as in Kubernetes. */
function duration(
  settings: Readonly<Record<string, string>>,
  name: keyof typeof DURATIONS,
): number {
  const { defaultMs, minMs, maxMs } = DURATIONS[name];
  const text = settings[name];
  if (text === undefined) return defaultMs;
  const match = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h)?$/.exec(text.trim());
  const ms = Number(match?.[1]) * (UNITS_MS[match?.[2] ?? 's'] ?? 1);
  if (!(ms >= minMs && ms <= maxMs))
    throw wrong(name, text, `a time between ${minMs}ms and ${maxMs / 1000}s, such as 10s`);
  return ms;
}

function threshold(
  settings: Readonly<Record<string, string>>,
  name: keyof typeof THRESHOLDS,
): number {
  const text = settings[name];
  if (text === undefined) return THRESHOLDS[name];
  const count = /^\d{1,4}$/.test(text.trim()) ? Number(text) : 0;
  if (count < 1 || count > MAX_THRESHOLD) throw wrong(name, text, `1 to ${MAX_THRESHOLD}`);
  return count;
}

function wrong(name: string, text: string, expected: string): SettingError {
  return new SettingError(`${READINESS_PREFIX}${name} "${text}" is wrong: expected ${expected}`);
}
