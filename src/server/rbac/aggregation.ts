/** Writes the rules of cluster roles that are made of others (`aggregationRule`), whenever one of those changes. */

import { sameJson } from '#api/machinery/json.ts';
import { matchLabelSelector } from '#api/machinery/label-selector.ts';
import { CLUSTER_ROLE, type ClusterRole } from '#api/rbac/v1/role.ts';
import type { PolicyRule } from '#api/rbac/v1/rules.ts';
import type { Clock } from '#lib/clock.ts';
import { isNotFound } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Store } from '#store/port.ts';
import { startKindLoop } from '../kind-loop.ts';
import { SERVER_PRINCIPAL } from '../principal.ts';
import { decodeEntry } from '../registry/codec.ts';
import { collectionPrefix } from '../registry/keys.ts';
import type { ResourceRegistry } from '../registry/resource-registry.ts';

/** The backstop for a watch that ended. */
const RESYNC_MS = 60_000;
/** An aggregated role may be part of another (view of edit of admin): so many rounds settle a chain of such a length. */
const MAX_ROUNDS = 8;

export interface AggregationOptions {
  readonly store: Store;
  readonly clusterRoles: ResourceRegistry;
  readonly log: Logger;
  readonly clock: Clock;
}

/** The rules that a role should have, in the order of the names of the roles they come from. */
export function aggregatedRules(role: ClusterRole, all: readonly ClusterRole[]): PolicyRule[] {
  const selectors = role.aggregationRule?.clusterRoleSelectors ?? [];
  const rules: PolicyRule[] = [];
  for (const other of all) {
    if (other.metadata.name === role.metadata.name) continue;
    if (!selectors.some((selector) => matchLabelSelector(selector, other.metadata.labels)))
      continue;
    for (const rule of other.rules ?? [])
      if (!rules.some((known) => sameJson(known, rule))) rules.push(rule);
  }
  return rules;
}

/** Brings all aggregated roles up to date. */
export async function syncAggregation({
  store,
  clusterRoles,
}: Pick<AggregationOptions, 'store' | 'clusterRoles'>): Promise<void> {
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const { entries } = await store.list(collectionPrefix(CLUSTER_ROLE));
    const all = entries.map((entry) => decodeEntry(entry) as ClusterRole);
    let changed = false;
    for (const role of all) {
      if (role.aggregationRule === undefined) continue;
      const rules = aggregatedRules(role, all);
      if (sameJson(rules, role.rules ?? [])) continue;
      changed = true;
      try {
        await clusterRoles.update(
          { namespace: '', name: role.metadata.name },
          (stored) => ({ ...stored, rules }) as ClusterRole,
          { principal: SERVER_PRINCIPAL, dryRun: false },
        );
      } catch (error) {
        // It was deleted meanwhile: then it needs no rules.
        if (!isNotFound(error)) throw error;
      }
    }
    if (!changed) return;
  }
}

/** Starts to aggregate; disposing ends it. */
export function startAggregation(options: AggregationOptions): AsyncDisposable {
  return startKindLoop(CLUSTER_ROLE, () => syncAggregation(options), {
    ...options,
    name: 'role aggregation',
    resyncMs: RESYNC_MS,
  });
}
