/** Eviction: asks for a pod to leave its node. `k8s.io/api/policy/v1`; posted to `pods/<name>/eviction`, never kept. */
import type { KindDefinition } from '../../kind.ts';
import { reviewKind } from '../../machinery/review.ts';
import { boolean, int64, kindSchema, object, string, strings } from '../../machinery/schema.ts';
import type { KubeObject } from '../../meta.ts';

export interface Eviction extends KubeObject {
  /** As in the body of a DELETE. */
  deleteOptions?: Record<string, unknown>;
}

const DELETE_OPTIONS = object('DeleteOptions', {
  apiVersion: string('Of the options themselves.'),
  kind: string('DeleteOptions.'),
  gracePeriodSeconds: int64('How long the pod has to end; missing: its own time.'),
  preconditions: object('Preconditions', {
    uid: string('The pod must have this UID.'),
    resourceVersion: string('The pod must have this version.'),
  }),
  orphanDependents: boolean('Whether what the pod owns stays. Old: see propagationPolicy.'),
  propagationPolicy: string('What becomes of what the pod owns: Orphan, Background, Foreground.'),
  dryRun: strings('All: everything is checked, nothing is done.'),
  ignoreStoreReadErrorWithClusterBreakingPotential: boolean('Has no meaning here.'),
});

export const EVICTION: KindDefinition<Eviction> = reviewKind<Eviction>(
  'policy',
  'Eviction',
  kindSchema('Eviction', 'Asks for a pod to leave its node.', { deleteOptions: DELETE_OPTIONS }),
  { namespaced: true },
);

/** The same thing under its old version, which is still sent. */
export const EVICTION_V1BETA1: KindDefinition<Eviction> = { ...EVICTION, version: 'v1beta1' };
