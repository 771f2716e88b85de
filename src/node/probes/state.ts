/** What follows from the answers of a container, one after the other. Pure. */
import type { Probe } from './settings.ts';

export type ProbeResult = { readonly ok: true } | { readonly ok: false; readonly message: string };

export interface ProbeState {
  readonly ready: boolean;
  /** Good or bad answers in a row, whichever the last one was. */
  readonly successes: number;
  readonly failures: number;
  /** Milliseconds since the epoch. */
  readonly sinceMs: number;
  /** Of the last bad answer while it is not ready. */
  readonly message: string;
}

/** @param was what is said of the container so far; a new one is not ready until it answers */
export function initialState(
  was: { readonly ready: boolean; readonly since: string | undefined } | undefined,
  nowMs: number,
): ProbeState {
  const ready = was?.ready === true;
  const sinceMs = Date.parse(was?.since ?? '') || nowMs;
  return {
    ready,
    successes: 0,
    failures: 0,
    sinceMs,
    message: ready ? '' : 'has not been asked yet',
  };
}

export function nextState(
  state: ProbeState,
  result: ProbeResult,
  at: { probe: Probe; startedMs: number; nowMs: number },
): ProbeState {
  const { probe, nowMs } = at;
  if (result.ok) {
    const successes = Math.min(state.successes + 1, probe.successThreshold);
    const isReady = state.ready || successes >= probe.successThreshold;
    const since = isReady === state.ready ? {} : { sinceMs: nowMs };
    const message = isReady ? '' : `${successes} of ${probe.successThreshold} good answers`;
    return { ...state, ...since, ready: isReady, successes, failures: 0, message };
  }
  // A container that is still starting has nothing to lose, and one that was ready early keeps it.
  const counts = nowMs - at.startedMs >= probe.startPeriodMs;
  const failures = Math.min(state.failures + (counts ? 1 : 0), probe.failureThreshold);
  const isReady = state.ready && failures < probe.failureThreshold;
  const since = isReady === state.ready ? {} : { sinceMs: nowMs };
  const message = isReady ? '' : result.message;
  return { ...state, ...since, ready: isReady, successes: 0, failures, message };
}
