/** What the main thread and the DNS worker tell each other. Plain data: it is copied from thread to thread. */
import type { Cidr, Ip } from '#lib/ip.ts';
import type { PodMode } from '../config.ts';
import type { ForwardQuestion } from '../forward.ts';
import type { NameChange } from '../zone.ts';
import type { ClientLimits, PodClient } from './clients.ts';
import type { LoggedQuery } from './responder.ts';

export interface WorkerConfig {
  readonly listen: readonly { readonly address: Ip; readonly port: number }[];
  /** The cluster domain, canonical, with its final dot. */
  readonly zone: string;
  /** Start of the table's hash; secret. */
  readonly seed: number;
  /** The eventfd that says "there are messages". */
  readonly wakeFd: number;
  /** One number: how many messages the main thread has sent. Reading it costs nothing, asking the port a microsecond. */
  readonly sent: SharedArrayBuffer;
}

/** Of the configuration, what the worker needs. */
export interface WorkerSettings {
  readonly podMode: PodMode;
  readonly searchPath: boolean;
  readonly cacheEntries: number;
  readonly serveStaleS: number;
  readonly prefetch: boolean;
  readonly cookies: boolean;
  readonly limits: ClientLimits;
  /** Upstreams have changed: what others said counts no more. */
  readonly flush: boolean;
}

/** Who may ask. */
export interface ClientTable {
  /** This node's pods. */
  readonly pods: readonly PodClient[];
  /** Prefixes whose addresses nobody outside can send from: the pods' and this machine's own. */
  readonly trusted: readonly Cidr[];
}

export type ToWorker =
  | {
      readonly kind: 'names';
      readonly changes: readonly NameChange[];
      readonly serial: number;
      /** All services are in: from now on what is not in the table does not exist. */
      readonly synced: boolean;
    }
  | { readonly kind: 'settings'; readonly settings: WorkerSettings }
  | { readonly kind: 'clients'; readonly clients: ClientTable }
  /** Turns the log of a pod's queries on or off. */
  | { readonly kind: 'log'; readonly pod: string; readonly on: boolean }
  /** A query that came over TCP. */
  | {
      readonly kind: 'query';
      readonly token: number;
      readonly bytes: Uint8Array;
      readonly peer: Ip;
    }
  /** The answer to a `forward`; without bytes there is none. */
  | { readonly kind: 'resolved'; readonly token: number; readonly bytes: Uint8Array | undefined }
  | { readonly kind: 'stop' };

export type FromWorker =
  /** The UDP sockets: open, and not with the reason. Sent when it changes. */
  | {
      readonly kind: 'sockets';
      readonly open: readonly {
        readonly address: Ip;
        readonly port: number;
        /** To be closed by the main thread if the worker dies: the kernel would go on giving it queries. */
        readonly fd: number;
      }[];
      readonly failing: readonly {
        readonly address: Ip;
        readonly port: number;
        readonly reason: string;
      }[];
    }
  | { readonly kind: 'forward'; readonly token: number; readonly question: ForwardQuestion }
  /** The answer to a `query`; without bytes there is none. */
  | { readonly kind: 'reply'; readonly token: number; readonly bytes: Uint8Array | undefined }
  | { readonly kind: 'stats'; readonly stats: StatsDelta }
  | { readonly kind: 'logged'; readonly queries: readonly LoggedQuery[]; readonly lost: number }
  | { readonly kind: 'stopped' };

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
