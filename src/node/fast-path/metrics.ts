/** What the fast path has taken, for monitoring. */
import { Counter, Gauge, type Registry } from 'prom-client';
import type { FastPath } from './fast-path.ts';
import { COUNTERS } from './program.ts';

export function createFastPathMetrics(registry: Registry, fastPath: FastPath): void {
  new Counter({
    name: 'tulle_fast_path_packets_total',
    help: 'Packets between pods that passed the host’s routing and rules by, since the agent’s start.',
    labelNames: ['to'],
    registers: [registry],
    collect() {
      this.reset();
      const counts = fastPath.counts();
      for (const to of COUNTERS) this.inc({ to }, counts[to]);
    },
  });
  new Gauge({
    name: 'tulle_fast_path_links',
    help: 'Links at which packets may take the fast path.',
    registers: [registry],
    collect() {
      this.set(fastPath.links);
    },
  });
}
