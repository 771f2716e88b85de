/** DNS metrics, under CoreDNS's names, so that dashboards and alerts made for it keep working. */
import { Counter, Gauge, Histogram, type Metric, type Registry } from 'prom-client';
import { RCODE_NAMES } from '#wire/dns/constants.ts';
import type { ForwardCounts } from './forward-stats.ts';
import type { StatsDelta } from './server/messages.ts';
import {
  DURATION_BUCKETS_S,
  requestLabels,
  SIZE_BUCKETS_BYTES,
  SIZE_SLOTS,
  sizeSlot,
} from './stats.ts';

/** CoreDNS has a label for the server block and its zone; we have one of each. */
const SERVER = { server: 'dns://:53', zone: '.', view: '' } as const;
const DURATION_NAME = 'coredns_dns_request_duration_seconds';

export interface DnsMetrics extends Disposable {
  /** Adds the responder's counts. */
  add(stats: StatsDelta): void;
  /** Adds the forwarder's counts. */
  addForwarded(counts: ForwardCounts): void;
  /** A headless service's endpoints changed so long ago and are in the table now. */
  programmed(durationS: number): void;
  readonly queries: number;
}

/** Creates the metrics in the registry; disposing takes them out again. @throws Error if it has some of these names already */
export function createDnsMetrics(registry: Registry): DnsMetrics {
  const registers = [registry];
  const requests = new Counter({
    name: 'coredns_dns_requests_total',
    help: 'Counter of DNS requests made per zone, protocol and family.',
    labelNames: ['server', 'zone', 'view', 'proto', 'family', 'type'],
    registers,
  });
  const responses = new Counter({
    name: 'coredns_dns_responses_total',
    help: 'Counter of response status codes.',
    labelNames: ['server', 'zone', 'view', 'rcode', 'plugin'],
    registers,
  });
  const durations = new CountedHistogram(
    DURATION_NAME,
    'Histogram of the time (in seconds) each request took per zone.',
    { bounds: DURATION_BUCKETS_S, labels: SERVER },
  );
  const sizes = (['request', 'response'] as const).map((direction) => ({
    direction,
    histogram: new CountedHistogram(
      `coredns_dns_${direction}_size_bytes`,
      `Size of the ${direction} in octets.`,
      { bounds: SIZE_BUCKETS_BYTES, labels: SERVER },
    ),
  }));
  for (const histogram of [durations, ...sizes.map((it) => it.histogram)])
    registerHistogram(registry, histogram);
  const wantsDnssec = new Counter({
    name: 'coredns_dns_do_requests_total',
    help: 'Counter of DNS requests with DO bit set per zone.',
    labelNames: ['server', 'zone', 'view'],
    registers,
  });
  const addForwarded = forwardMetrics(registry);
  const cache = cacheMetrics(registers);
  const programming = new Histogram({
    name: 'coredns_kubernetes_dns_programming_duration_seconds',
    help: 'Time it took to program a DNS instance since the change of endpoints.',
    labelNames: ['service_kind'],
    buckets: Array.from({ length: 20 }, (_, i) => 0.001 * 2 ** i),
    registers,
  });
  const limited = new Counter({
    name: 'tulle_dns_rate_limited_total',
    help: 'Queries dropped because their client had sent more than it may.',
    registers,
  });
  const cut = new Counter({
    name: 'tulle_dns_cut_for_strangers_total',
    help: 'Answers cut to the size of the question because the client’s address can be forged.',
    registers,
  });
  let queries = 0;
  return {
    get queries() {
      return queries;
    },
    add(stats) {
      for (const [key, count] of stats.requests) {
        queries += count;
        const { rcode, type, family, transport, source } = requestLabels(key);
        requests.inc(
          { ...SERVER, proto: transport, family: family === 4 ? '1' : '2', type },
          count,
        );
        const plugin = source === 'cluster' ? 'kubernetes' : 'forward';
        responses.inc({ ...SERVER, rcode: RCODE_NAMES[rcode] ?? String(rcode), plugin }, count);
      }
      durations.add({}, stats.durationBuckets, stats.durationSumS);
      for (const { direction, histogram } of sizes)
        for (const proto of ['udp', 'tcp'] as const) {
          const slot = sizeSlot(proto, direction);
          const counts = stats.sizes.slice(slot, slot + SIZE_SLOTS);
          histogram.add({ proto }, counts.slice(0, -1), counts.at(-1) ?? 0);
        }
      wantsDnssec.inc(SERVER, stats.dnssecOk);
      cache.add(stats);
      limited.inc(stats.rateLimited);
      cut.inc(stats.cutForStrangers);
    },
    [Symbol.dispose]() {
      for (const { name } of registry.getMetricsAsArray())
        if (/^(coredns|tulle_dns)_/.test(name)) registry.removeSingleMetric(name);
    },
    programmed: (durationS) =>
      programming.observe({ service_kind: 'headless_with_selector' }, durationS),
    addForwarded,
  };
}

function forwardMetrics(registry: Registry): (counts: ForwardCounts) => void {
  const registers = [registry];
  const requests = new Counter({
    name: 'coredns_forward_requests_total',
    help: 'Counter of requests made per upstream.',
    labelNames: ['to'],
    registers,
  });
  const responses = new Counter({
    name: 'coredns_forward_responses_total',
    help: 'Counter of responses received per upstream.',
    labelNames: ['to', 'rcode'],
    registers,
  });
  const durations = new CountedHistogram(
    'coredns_forward_request_duration_seconds',
    'Histogram of the time each request took.',
    { bounds: DURATION_BUCKETS_S },
  );
  registerHistogram(registry, durations);
  const rejects = new Counter({
    name: 'coredns_forward_max_concurrent_rejects_total',
    help: 'Counter of the number of queries rejected because the concurrent queries were at maximum.',
    registers,
  });
  return ({ tries, rejected }) => {
    rejects.inc(rejected);
    for (const { upstream: to, rcode, count, durationBuckets, durationSumS } of tries) {
      requests.inc({ to }, count);
      if (rcode === undefined) continue;
      const labels = { to, rcode: RCODE_NAMES[rcode] ?? String(rcode) };
      responses.inc(labels, count);
      durations.add(labels, durationBuckets, durationSumS);
    }
  };
}

function cacheMetrics(registers: Registry[]): { add(stats: StatsDelta): void } {
  const labels = { server: SERVER.server, zones: SERVER.zone, view: SERVER.view };
  const labelNames = ['server', 'zones', 'view'];
  const counter = (name: string, help: string) =>
    new Counter({ name, help, labelNames, registers });
  const requests = counter('coredns_cache_requests_total', 'The count of cache requests.');
  const misses = counter('coredns_cache_misses_total', 'The count of cache misses.');
  const stale = counter('coredns_cache_served_stale_total', 'The count of stale answers served.');
  const prefetches = counter(
    'coredns_cache_prefetch_total',
    'The number of times the cache has prefetched a cached item.',
  );
  const evictions = counter('coredns_cache_evictions_total', 'The count of cache evictions.');
  const hits = new Counter({
    name: 'coredns_cache_hits_total',
    help: 'The count of cache hits.',
    labelNames: [...labelNames, 'type'],
    registers,
  });
  const entries = new Gauge({
    name: 'coredns_cache_entries',
    help: 'The number of elements in the cache.',
    labelNames: [...labelNames, 'type'],
    registers,
  });
  return {
    add(stats) {
      requests.inc(labels, stats.cacheHits + stats.cacheDenialHits + stats.cacheMisses);
      misses.inc(labels, stats.cacheMisses);
      stale.inc(labels, stats.staleServed);
      hits.inc({ ...labels, type: 'success' }, stats.cacheHits);
      hits.inc({ ...labels, type: 'denial' }, stats.cacheDenialHits);
      prefetches.inc(labels, stats.prefetches);
      evictions.inc(labels, stats.evictions);
      entries.set({ ...labels, type: 'success' }, stats.cacheSuccess);
      entries.set({ ...labels, type: 'denial' }, stats.cacheDenial);
    },
  };
}

function registerHistogram(registry: Registry, histogram: CountedHistogram): void {
  // The registry needs of a metric only its name and `get()`; its types ask for one of its own classes.
  registry.registerMetric(histogram as unknown as Metric);
}

/** A histogram that is given whole counts: prom-client's own takes one observation at a time. */
class CountedHistogram {
  readonly name: string;
  readonly help: string;
  readonly type = 'histogram';
  readonly aggregator = 'sum';
  readonly #bounds: readonly number[];
  readonly #labels: Readonly<Record<string, string>>;
  /** By what stands in the labels beside those that are the same in all. */
  readonly #series = new Map<string, Series>();

  constructor(
    name: string,
    help: string,
    options: { bounds: readonly number[]; labels?: Readonly<Record<string, string>> },
  ) {
    this.name = name;
    this.help = help;
    this.#bounds = options.bounds;
    this.#labels = options.labels ?? {};
  }

  /** @param counts not cumulative; one more than there are bounds */
  add(labels: Readonly<Record<string, string>>, counts: readonly number[], sum: number): void {
    const key = Object.values(labels).join();
    const series = this.#series.get(key) ?? { labels, counts: counts.map(() => 0), sum: 0 };
    this.#series.set(key, {
      labels,
      counts: series.counts.map((count, i) => count + (counts[i] ?? 0)),
      sum: series.sum + sum,
    });
  }

  reset(): void {
    this.#series.clear();
  }

  async get(): Promise<object> {
    const { name, help, type, aggregator } = this;
    const values = [...this.#series.values()].flatMap((series) => this.#values(series));
    return { name, help, type, aggregator, values };
  }

  #values({ labels: own, counts, sum }: Series): object[] {
    const labels = { ...this.#labels, ...own };
    const bounds: (number | string)[] = [...this.#bounds, '+Inf'];
    let total = 0;
    const buckets = bounds.map((le, i) => {
      total += counts[i] ?? 0;
      return { metricName: `${this.name}_bucket`, labels: { ...labels, le }, value: total };
    });
    return [
      ...buckets,
      { metricName: `${this.name}_sum`, labels, value: sum },
      { metricName: `${this.name}_count`, labels, value: total },
    ];
  }
}

interface Series {
  readonly labels: Readonly<Record<string, string>>;
  readonly counts: readonly number[];
  readonly sum: number;
}
