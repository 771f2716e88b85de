/** What the main thread and the DNS worker tell each other. Plain data: it is copied from thread to thread. */
import type { Ip } from '#lib/ip.ts';
import type { ForwardQuestion } from '../forward.ts';
import type { NameChange } from '../zone.ts';

export interface WorkerConfig {
  readonly listen: readonly { readonly address: Ip; readonly port: number }[];
  /** The cluster domain, canonical, with its final dot. */
  readonly zone: string;
  /** Start of the table's hash; secret. */
  readonly seed: number;
  /** The eventfd that says "there are messages". */
  readonly wakeFd: number;
}

export type ToWorker =
  | {
      readonly kind: 'names';
      readonly changes: readonly NameChange[];
      readonly serial: number;
      /** All services are in: from now on what is not in the table does not exist. */
      readonly synced: boolean;
    }
  /** A query that came over TCP. */
  | {
      readonly kind: 'query';
      readonly token: number;
      readonly bytes: Uint8Array;
      readonly family: 4 | 6;
    }
  /** The answer to a `forward`; without bytes there is none. */
  | { readonly kind: 'resolved'; readonly token: number; readonly bytes: Uint8Array | undefined }
  | { readonly kind: 'stop' };

export type FromWorker =
  /** The UDP sockets: open, and not with the reason. Sent when it changes. */
  | {
      readonly kind: 'sockets';
      readonly open: readonly { readonly address: Ip; readonly port: number }[];
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
  | { readonly kind: 'stopped' };

/** Counts since the last message. */
export interface StatsDelta {
  /** Pairs of a key of `stats.ts` and a count. */
  readonly requests: readonly (readonly [key: number, count: number])[];
  /** Per bucket of `DURATION_BUCKETS_S`, and one more for the rest; not cumulative. */
  readonly durationBuckets: readonly number[];
  readonly durationSumS: number;
  readonly cacheHits: number;
  readonly cacheMisses: number;
  readonly staleServed: number;
  readonly cacheSuccess: number;
  readonly cacheDenial: number;
  readonly dropped: number;
  readonly sendErrors: number;
  readonly names: number;
}
