/** Whether containers answer, as far as they asked to be asked: between the feature that asks and the one that tells. */
import type { Ip } from '#lib/ip.ts';

/** Start of the labels and annotations that ask for a probe: `tulle.dev/readiness-http`. */
export const READINESS_PREFIX = 'tulle.dev/readiness-';
/** What a probe may run must come from whoever started the container, not from whoever may write its Pod. */
export const EXEC_SETTING = 'exec';

/** A running container that asks to be probed. */
export interface ProbeTarget {
  readonly containerId: string;
  /** Of the pod, the preferred first. */
  readonly addresses: readonly Ip[];
  /** Name of the runtime that knows the container. */
  readonly runtime: string | undefined;
  /** The labels and annotations without {@link READINESS_PREFIX}: `http`, `period`. */
  readonly settings: Readonly<Record<string, string>>;
  /** RFC 3339: the start period begins here. */
  readonly startedAt: string;
  /** What the API says of it, so that an agent that starts anew does not take it out of the services. */
  readonly was: { readonly ready: boolean; readonly since: string | undefined } | undefined;
}

export interface Readiness {
  readonly ready: boolean;
  /** RFC 3339. */
  readonly since: string;
  /** Why it is not ready; empty if it is. */
  readonly message: string;
}

export interface ReadinessProbes {
  /** From now on these are probed, and no others. */
  follow(targets: readonly ProbeTarget[]): void;
  /** @returns undefined for a container that is not followed */
  readinessOf(containerId: string): Readiness | undefined;
  /** Calls back after each change of a readiness, until the returned function is called. */
  onChange(listener: () => void): () => void;
}
