/** What of the connections of a load was wrong, given what the services were told meanwhile. Pure. */
import type { Connection } from './load.ts';

/** What was told of one service: an endpoint may get connections from `sentMs` of an entry to `doneMs` of the next. */
export interface Told {
  /** The service, as a client says it. */
  readonly host: string;
  /** `address|port` */
  readonly endpoints: readonly string[];
  readonly sentMs: number;
  /** When the kernel that leads the client's connections had it. */
  readonly doneMs: number;
}

/** From a damage to its repair. */
export interface Window {
  readonly startMs: number;
  readonly endMs: number;
}

/** A refusal is heard somewhat after it is said: the clients have a busy machine. */
export const HEARING_MS = 50;

/**
 * @param options.stable the service whose one endpoint stays, and what clients call it
 * @param options.windows when a new connection may be refused
 * @param options.mayCut whether in a window also what is connected may be cut
 * @returns connections that went wrong, in words
 */
export function wrongConnections(
  connections: readonly Connection[],
  history: readonly Told[],
  options: {
    readonly stable: { readonly hosts: readonly string[]; readonly endpoint: string };
    readonly windows?: readonly Window[];
    readonly mayCut?: boolean;
  },
): string[] {
  const { stable, windows = [], mayCut = false } = options;
  const toldOf = Map.groupBy(history, ({ host }) => host);
  const isInWindow = (ms: number) => windows.some((w) => w.startMs <= ms && ms <= w.endMs);
  return connections.flatMap(({ host, startMs, endMs, answer, echoes }) => {
    if (answer === 'ECONNREFUSED' && isInWindow(endMs)) return [];
    // The server's answer came out untranslated, and the client's kernel reset it.
    const isCut = answer === 'ECONNRESET' || answer === 'mute';
    if (mayCut && isCut && isInWindow(startMs + HEARING_MS)) return [];
    const lasted = `${host} answered "${answer}" after ${(endMs - startMs).toFixed(1)} ms`;
    if (stable.hosts.includes(host)) {
      // A cut is noticed when the next packet goes unanswered.
      if (mayCut && echoes !== undefined && answer === 'ECONNRESET') return [];
      if (answer === stable.endpoint && (echoes === undefined || echoes > 0)) return [];
      return `the service that stays: ${lasted}, ${echoes ?? 'no'} echoes`;
    }
    const told = toldOf.get(host) ?? [];
    const during = told.filter(
      (entry, i) => entry.sentMs <= endMs && (told[i + 1]?.doneMs ?? Infinity) >= startMs,
    );
    // A connection to an endpoint that goes is reset when the client sends.
    if (answer === 'ECONNRESET' && during.length > 1) return [];
    return during.some(({ endpoints }) => endpoints.includes(answer)) ? [] : lasted;
  });
}
