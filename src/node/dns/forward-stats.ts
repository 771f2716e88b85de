/** Counts what upstreams do, for as many questions as there are: by server and outcome, whose number is bounded. */
import type { ForwardObserver } from './forward.ts';
import { bucketOf, emptyBuckets } from './stats.ts';

/** Tries that ended alike. */
export interface ForwardCount {
  readonly upstream: string;
  /** `undefined`: without an answer. */
  readonly rcode: number | undefined;
  readonly count: number;
  /** Per bucket of `DURATION_BUCKETS_S`, and one more for the rest; not cumulative. */
  readonly durationBuckets: readonly number[];
  readonly durationSumS: number;
}

/** What happened since the last time. */
export interface ForwardCounts {
  readonly tries: readonly ForwardCount[];
  readonly rejected: number;
}

interface Tries {
  count: number;
  readonly buckets: number[];
  sumS: number;
}

export class ForwardStats implements ForwardObserver {
  readonly #tries = new Map<string, Map<number | undefined, Tries>>();
  #rejected = 0;

  tried(upstream: string, rcode: number | undefined, durationMs: number): void {
    const byRcode = this.#tries.get(upstream) ?? new Map<number | undefined, Tries>();
    this.#tries.set(upstream, byRcode);
    const tries = byRcode.get(rcode) ?? { count: 0, buckets: emptyBuckets(), sumS: 0 };
    byRcode.set(rcode, tries);
    const slot = bucketOf(durationMs / 1000);
    tries.buckets[slot] = (tries.buckets[slot] ?? 0) + 1;
    tries.count++;
    tries.sumS += durationMs / 1000;
  }

  rejected(): void {
    this.#rejected++;
  }

  /** The counts since the last call; `undefined` if there are none. */
  take(): ForwardCounts | undefined {
    if (this.#tries.size === 0 && this.#rejected === 0) return undefined;
    const tries = [...this.#tries].flatMap(([upstream, byRcode]) =>
      [...byRcode].map(([rcode, { count, buckets, sumS }]) => {
        return { upstream, rcode, count, durationBuckets: buckets, durationSumS: sumS };
      }),
    );
    const rejected = this.#rejected;
    this.#tries.clear();
    this.#rejected = 0;
    return { tries, rejected };
  }
}
