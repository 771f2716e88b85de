/**
 * What the three threads of the DNS server tell each other. Plain data: it is copied from thread to thread.
 *
 * ```text
 *              main thread            names, settings, clients; addresses that policies want to know
 *               │       │
 *   ToResponder │       │ ToForwarder
 *               ▼       ▼
 *        responder ◄──► forwarder     questions and answers, without the main thread
 *         (UDP)        (TCP, upstreams)
 * ```
 */
import type { MessagePort } from 'node:worker_threads';
import type { Cidr, Family, Ip } from '#lib/ip.ts';
import type { ToldAddress } from '../../answer-watch.ts';
import type { PodMode } from '../config.ts';
import type { ForwardConfig, ForwardQuestion } from '../forward.ts';
import type { ForwardCounts } from '../forward-stats.ts';
import type { Upstream } from '../upstream.ts';
import type { NameChange } from '../zone.ts';
import type { ClientLimits, PodClient } from './clients.ts';
import type { LoggedQuery } from './request.ts';

/** A place to answer on. */
export interface Endpoint {
  readonly address: Ip;
  readonly port: number;
}

/** A socket that could not be opened. It is tried again. */
export interface FailingEndpoint extends Endpoint {
  readonly reason: string;
}

export interface OpenSocket extends Endpoint {
  /** File descriptors are the process's: it outlives a worker that crashes, and the next one goes on with it. */
  readonly fd: number;
}

/**
 * Messages for the responder, which looks for them between two batches: the number sent says whether there are any, for
 * a read of memory costs nothing and asking the port a microsecond.
 */
export interface Inbox {
  readonly port: MessagePort;
  /** One number: how many messages were sent. */
  readonly sent: SharedArrayBuffer;
}

export interface ResponderConfig {
  readonly listen: readonly Endpoint[];
  /** Sockets that a worker before this one has left. */
  readonly inherited: readonly OpenSocket[];
  /** The cluster domain, canonical, with its final dot. */
  readonly zone: string;
  /** Start of the table's hash; secret. */
  readonly seed: number;
  /** The eventfd that says "there are messages". */
  readonly wakeFd: number;
  /** One number: how many messages the main thread has sent. See {@link Inbox}. */
  readonly sent: SharedArrayBuffer;
}

export interface ForwarderConfig {
  readonly listen: readonly Endpoint[];
}

/** Of the configuration, what the responder needs. */
export interface ResponderSettings {
  readonly podMode: PodMode;
  readonly searchPath: boolean;
  readonly cacheEntries: number;
  readonly serveStaleS: number;
  readonly prefetch: boolean;
  readonly cookies: boolean;
  readonly limits: ClientLimits;
}

/** Who may ask. */
export interface ClientTable {
  /** This node's pods. */
  readonly pods: readonly PodClient[];
  /** Prefixes whose addresses nobody outside can send from: the pods' and this machine's own. */
  readonly trusted: readonly Cidr[];
}

/** From the main thread. */
export type ToResponder =
  | {
      readonly kind: 'names';
      readonly changes: readonly NameChange[];
      readonly serial: number;
      /** All services are in: from now on what is not in the table does not exist. */
      readonly synced: boolean;
    }
  /** All that a new worker has to know has been said: it may answer. */
  | { readonly kind: 'ready' }
  | {
      readonly kind: 'settings';
      readonly settings: ResponderSettings;
      /** Another number than before: what upstreams said until now counts no more. */
      readonly epoch: number;
    }
  | { readonly kind: 'clients'; readonly clients: ClientTable }
  /** Turns the log of a pod's queries on or off. */
  | { readonly kind: 'log'; readonly pod: string; readonly on: boolean }
  /** A forwarder has started. What the one before it was asked has to be asked again. */
  | { readonly kind: 'forwarder'; readonly inbox: Inbox }
  | { readonly kind: 'stop' };

/** To the main thread. */
export type FromResponder =
  /** The UDP sockets: open, and not with the reason. Sent when it changes. */
  | {
      readonly kind: 'sockets';
      readonly open: readonly OpenSocket[];
      readonly failing: readonly FailingEndpoint[];
    }
  | { readonly kind: 'stats'; readonly stats: StatsDelta }
  | { readonly kind: 'logged'; readonly queries: readonly LoggedQuery[]; readonly lost: number }
  | { readonly kind: 'stopped' };

/** From the responder to the forwarder. */
export type Asked =
  | { readonly kind: 'forward'; readonly token: number; readonly question: ForwardQuestion }
  /** The answer to a `query`; without bytes there is none. */
  | { readonly kind: 'reply'; readonly token: number; readonly bytes: Uint8Array | undefined };

/** From the forwarder to the responder. */
export type Answered =
  /** The answer to a `forward`; without bytes there is none. */
  | {
      readonly kind: 'resolved';
      readonly token: number;
      readonly bytes: Uint8Array | undefined;
      /** Of the settings under which it was asked: an older answer may be given, and not be kept. */
      readonly epoch: number;
    }
  /** A query that came over TCP. */
  | {
      readonly kind: 'query';
      readonly token: number;
      readonly bytes: Uint8Array;
      readonly peer: Ip;
    };

/** From the main thread. */
export type ToForwarder =
  | {
      readonly kind: 'settings';
      readonly config: ForwardConfig;
      /** For names that no rule is for; undefined: those of the host's resolv.conf. */
      readonly upstreams: readonly Upstream[] | undefined;
      /** Names and patterns; undefined: all. */
      readonly wanted: ReadonlySet<string> | undefined;
      readonly epoch: number;
    }
  /** A responder has started. */
  | { readonly kind: 'responder'; readonly inbox: Inbox; readonly wakeFd: number }
  /** An `answered` is known to who wants to know it; if not, the answer must not be given. */
  | { readonly kind: 'told'; readonly token: number; readonly ok: boolean }
  | { readonly kind: 'stop' };

/** To the main thread. */
export type FromForwarder =
  | { readonly kind: 'report'; readonly report: ForwarderReport }
  | { readonly kind: 'counts'; readonly counts: ForwardCounts }
  | {
      readonly kind: 'line';
      readonly level: 'debug' | 'warn' | 'error';
      readonly fields: object;
      readonly text: string;
    }
  | { readonly kind: 'asked'; readonly name: string; readonly family: Family }
  | {
      readonly kind: 'answered';
      readonly token: number;
      readonly name: string;
      readonly family: Family;
      readonly addresses: readonly ToldAddress[] | undefined;
    };

/** How it goes; sent when it changes. */
export interface ForwarderReport {
  readonly open: readonly Endpoint[];
  readonly failing: readonly FailingEndpoint[];
  readonly upstreams: readonly Upstream[];
  readonly problems: readonly string[];
}

/** Counts since the last message. */
export interface StatsDelta {
  /** Pairs of a key of `stats.ts` and a count. */
  readonly requests: readonly (readonly [key: number, count: number])[];
  /** Per bucket of `DURATION_BUCKETS_S`, and one more for the rest; not cumulative. */
  readonly durationBuckets: readonly number[];
  readonly durationSumS: number;
  /** Of `sizeSlot`: messages by size, and their octets. */
  readonly sizes: readonly number[];
  /** Queries that want DNSSEC's records. */
  readonly dnssecOk: number;
  readonly cacheHits: number;
  readonly cacheDenialHits: number;
  readonly prefetches: number;
  readonly evictions: number;
  readonly rateLimited: number;
  readonly cutForStrangers: number;
  readonly cacheMisses: number;
  readonly staleServed: number;
  readonly cacheSuccess: number;
  readonly cacheDenial: number;
  readonly dropped: number;
  readonly sendErrors: number;
  readonly names: number;
}
