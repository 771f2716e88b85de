/** Records Event objects (`kubectl get events`): what happened to an object, for people. Never a way to tell programs. */

import { EVENT, type Event } from '#api/core/v1/event.ts';
import type { ObjectReference } from '#api/core/v1/object-reference.ts';
import { formatTime } from '#api/machinery/time.ts';
import type { KubeObject } from '#api/meta.ts';
import { Backoff } from '#lib/backoff.ts';
import { type Clock, pause, systemClock } from '#lib/clock.ts';
import { ApiError, explainError, isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { EventCorrelator } from './event-correlator.ts';
import type { ApiClient } from './port.ts';

export interface EventRecorder extends AsyncDisposable {
  /** Returns at once; the event is sent in the background, and lost rather than in the way. */
  record(
    regarding: KubeObject,
    event: { type: 'Normal' | 'Warning'; reason: string; message: string },
  ): void;
  /** Resolves when all that was recorded so far is sent or given up. */
  flushed(): Promise<void>;
}

export interface EventRecorderOptions {
  /** What records: `tulle-agent`. */
  readonly component: string;
  /** The node it runs on. */
  readonly host?: string;
  readonly log: Logger;
  readonly clock?: Clock;
}

/** Events that wait for the server. Older ones say more about a fault than newer: the newest is dropped. */
const MAX_PENDING = 1_000;
/** How often an event is sent in vain; half a minute in all. */
const MAX_ATTEMPTS = 8;
const RETRY_MIN_MS = 200;
const RETRY_MAX_MS = 10_000;
/** Upstream's limit of `note`, kept for messages, too. */
const MAX_MESSAGE_LENGTH = 1_024;

export function createEventRecorder(
  client: ApiClient,
  options: EventRecorderOptions,
): EventRecorder {
  return new Recorder(client, options);
}

interface Job {
  readonly key: string;
  readonly event: Event;
  /** Whether an Event object of the same key is there to be counted up. */
  readonly isRepeated: boolean;
}

class Recorder implements EventRecorder {
  readonly #client: ApiClient;
  readonly #options: EventRecorderOptions;
  readonly #clock: Clock;
  readonly #correlator = new EventCorrelator();
  /** Names of the Event objects by key, as long as the correlator can ask for them. */
  readonly #names = new Map<string, string>();
  readonly #pending: Job[] = [];
  readonly #closed = new AbortController();
  #sending: Promise<void> | undefined;
  #serial = 0;

  constructor(client: ApiClient, options: EventRecorderOptions) {
    this.#client = client;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  record(
    regarding: KubeObject,
    event: { type: 'Normal' | 'Warning'; reason: string; message: string },
  ): void {
    if (this.#closed.signal.aborted) return;
    const atMs = this.#clock.now();
    const reference = referenceTo(regarding);
    const message = event.message.slice(0, MAX_MESSAGE_LENGTH);
    const correlated = this.#correlator.correlate({
      ...event,
      message,
      regarding: reference,
      atMs,
    });
    if (correlated.type === 'drop') return;
    const { key } = correlated;
    if (this.#pending.length >= MAX_PENDING) {
      this.#correlator.forget(key);
      this.#options.log.warn({ reason: event.reason }, 'dropped an event: too many are waiting');
      return;
    }
    const isRepeated = correlated.type === 'count';
    const counted = isRepeated ? correlated : { count: 1, firstAtMs: atMs };
    const object = this.#eventObject(
      reference,
      { ...event, message: correlated.message },
      {
        ...counted,
        lastAtMs: atMs,
      },
    );
    this.#pending.push({ key, event: object, isRepeated });
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = undefined;
    });
  }

  async flushed(): Promise<void> {
    while (this.#sending !== undefined) await this.#sending;
  }

  /** Gives up what is not sent yet. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort();
    await this.flushed();
  }

  #eventObject(
    regarding: ObjectReference,
    { type, reason, message }: { type: string; reason: string; message: string },
    { count, firstAtMs, lastAtMs }: { count: number; firstAtMs: number; lastAtMs: number },
  ): Event {
    const { component, host } = this.#options;
    const id = (BigInt(lastAtMs) * 1_000_000n + BigInt(++this.#serial % 1_000_000)).toString(16);
    return {
      apiVersion: 'v1',
      kind: 'Event',
      // Events about what has no namespace live in `default`, as upstream's.
      metadata: { name: `${regarding.name}.${id}`, namespace: regarding.namespace ?? 'default' },
      involvedObject: regarding,
      type,
      reason,
      message,
      source: { component, ...(host === undefined ? {} : { host }) },
      firstTimestamp: formatTime(firstAtMs),
      lastTimestamp: formatTime(lastAtMs),
      count,
      reportingComponent: component,
      reportingInstance: host ?? '',
    };
  }

  async #sendAll(): Promise<void> {
    // What was recorded in one turn may be counted before it is sent.
    await new Promise<void>((resolve) => setImmediate(resolve));
    for (;;) {
      const job = this.#pending.shift();
      if (job === undefined || this.#closed.signal.aborted) return;
      await this.#send(job);
    }
  }

  async #send(job: Job): Promise<void> {
    const { log } = this.#options;
    const backoff = new Backoff({ minMs: RETRY_MIN_MS, maxMs: RETRY_MAX_MS });
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#write(job);
        return;
      } catch (error) {
        // An answer is final, except that of a server in trouble; no answer may be one later.
        const isFinal = error instanceof ApiError && error.status < 500;
        if (isFinal || attempt >= MAX_ATTEMPTS || this.#closed.signal.aborted) {
          this.#correlator.forget(job.key);
          this.#names.delete(job.key);
          log.warn({ event: job.event.message, reason: explainError(error) }, 'lost an event');
          return;
        }
        await pause(this.#clock, backoff.next(), this.#closed.signal);
      }
    }
  }

  async #write({ key, event, isRepeated }: Job): Promise<void> {
    const signal = this.#closed.signal;
    const name = this.#names.get(key);
    const { namespace = 'default' } = event.metadata;
    if (isRepeated && name !== undefined) {
      const { count, lastTimestamp, message } = event;
      const body = { count, lastTimestamp, message };
      try {
        const patch = { type: 'application/merge-patch+json', body } as const;
        await this.#client.patch(EVENT, { name, namespace }, patch, { signal });
        return;
      } catch (error) {
        // Events expire after an hour or so.
        if (!isNotFound(error)) throw error;
      }
    }
    await this.#client.create(EVENT, event, { signal });
    this.#remember(key, event.metadata.name);
  }

  #remember(key: string, name: string): void {
    this.#names.delete(key);
    this.#names.set(key, name);
    if (this.#names.size <= MAX_PENDING * 4) return;
    for (const oldest of this.#names.keys()) {
      this.#names.delete(oldest);
      return;
    }
  }
}

function referenceTo(object: KubeObject): ObjectReference {
  const { name, namespace, uid, resourceVersion } = object.metadata;
  return {
    apiVersion: object.apiVersion,
    kind: object.kind,
    name,
    ...(namespace === undefined ? {} : { namespace }),
    ...(uid === undefined ? {} : { uid }),
    ...(resourceVersion === undefined ? {} : { resourceVersion }),
  };
}
