/** The server's own figures, under the names that dashboards for kube-apiserver look for. */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Store } from '#store/port.ts';
import type { ConnectionGate } from './connection-gate.ts';
import type { RequestInfo } from './request.ts';

export interface ServerMetrics {
  readonly registry: Registry;
  /** Counts a finished request. Watches count by number only: their duration says nothing. */
  observe(info: RequestInfo | undefined, code: number, durationMs: number): void;
  /** @returns a function that says that the watch has ended */
  watchStarted(info: { group: string; version: string; resource: string }): () => void;
  watchCut(reason: 'slow' | 'lagged'): void;
  connectionRefused(reason: string): void;
}

/** Verbs that plain requests may be counted under; the rest is one, so that clients cannot make labels. */
const PLAIN_VERBS = new Set(['get', 'head', 'post', 'put', 'patch', 'delete', 'options']);

/**
 * @param known whether a resource exists: unknown ones are counted as one, so that clients cannot make labels
 */
export function createServerMetrics(
  store: Store,
  known: (info: { group: string; resource: string }) => boolean,
  connections: () => ConnectionGate['counts'],
): ServerMetrics {
  const registry = new Registry();
  const registers = [registry];
  const requests = new Counter({
    name: 'apiserver_request_total',
    help: 'Requests by verb, resource, scope and HTTP status code.',
    labelNames: ['verb', 'group', 'version', 'resource', 'subresource', 'scope', 'code'],
    registers,
  });
  const durations = new Histogram({
    name: 'apiserver_request_duration_seconds',
    help: 'Time to answer requests that are no watches.',
    labelNames: ['verb', 'group', 'resource', 'subresource'],
    buckets: [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers,
  });
  const watchers = new Gauge({
    name: 'apiserver_registered_watchers',
    help: 'Watches that are open.',
    labelNames: ['group', 'version', 'resource'],
    registers,
  });
  const cuts = new Counter({
    name: 'apiserver_terminated_watchers_total',
    help: 'Watches ended because their client did not keep up.',
    labelNames: ['reason'],
    registers,
  });
  new Gauge({
    name: 'tulle_store_revision',
    help: 'Newest revision of the store: the number of writing transactions ever made.',
    registers,
    async collect() {
      this.set(await store.revision());
    },
  });
  new Gauge({
    name: 'tulle_server_connections',
    help: 'Connections that are open, of clients that are known and of strangers.',
    labelNames: ['of'],
    registers,
    collect() {
      const { known, strangers } = connections();
      this.set({ of: 'known' }, known);
      this.set({ of: 'strangers' }, strangers);
    },
  });
  const refusals = new Counter({
    name: 'tulle_server_connections_refused_total',
    help: 'Connections that were closed or refused because there were too many.',
    labelNames: ['reason'],
    registers,
  });
  return {
    registry,
    observe(info, code, durationMs) {
      const labels = labelsOf(info, known);
      requests.inc({ ...labels, code: String(code) });
      if (labels.verb === 'watch') return;
      const { version: _v, scope: _s, ...fewer } = labels;
      durations.observe(fewer, durationMs / 1000);
    },
    watchStarted({ group, version, resource }) {
      watchers.inc({ group, version, resource });
      return () => watchers.dec({ group, version, resource });
    },
    watchCut: (reason) => cuts.inc({ reason }),
    connectionRefused: (reason) => refusals.inc({ reason }),
  };
}

function labelsOf(
  info: RequestInfo | undefined,
  known: (info: { group: string; resource: string }) => boolean,
) {
  const none = { group: '', version: '', resource: '', subresource: '', scope: '' };
  if (info === undefined) return { verb: 'invalid', ...none };
  if (info.type === 'plain')
    return { verb: PLAIN_VERBS.has(info.verb) ? info.verb : 'other', ...none };
  if (!known(info)) return { verb: info.verb, ...none, resource: 'unknown' };
  const { verb, group, version, resource, namespace, name } = info;
  const subresource = ['', 'status', 'scale'].includes(info.subresource)
    ? info.subresource
    : 'other';
  const scope = name !== '' ? 'resource' : namespace !== '' ? 'namespace' : 'cluster';
  return { verb, group, version, resource, subresource, scope };
}
