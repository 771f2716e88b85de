/**
 * The `eviction` subresource of pods: a deletion that may be refused for the sake of the service that the pod is part of,
 * and that leaves word of its reason in the pod's status. What would refuse is a PodDisruptionBudget; that kind is not
 * served, so no pod has one. `k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go`.
 */
import type { Pod } from '#api/core/v1/pod.ts';
import type { KindDefinition } from '#api/kind.ts';
import { isObject } from '#api/machinery/json.ts';
import { badRequest, methodNotAllowed } from '#api/machinery/status.ts';
import { formatTime } from '#api/machinery/time.ts';
import type { Condition, KubeObject, Status } from '#api/meta.ts';
import { EVICTION, EVICTION_V1BETA1, type Eviction } from '#api/policy/v1/eviction.ts';
import type { Answer } from './exchange.ts';
import type { DeleteOptions } from './registry/resource-registry.ts';
import { checkNamespace, deleteOptionsOf, readObject } from './resource-body.ts';
import { type Call, show } from './resource-call.ts';

/** `metav1.Status` of a create that made nothing. */
const EVICTED: Status = {
  kind: 'Status',
  apiVersion: 'v1',
  metadata: {},
  status: 'Success',
  code: 201,
};

/** Whether a request is about evictions. */
export function isEviction(kind: KindDefinition, subresource: string): boolean {
  return subresource === 'eviction' && kind.group === '' && kind.resource === 'pods';
}

/** @throws ApiError */
export async function handleEviction(call: Call): Promise<Answer> {
  const { info, kind, registry, target } = call;
  if (info.verb !== 'create') throw methodNotAllowed(kind, `${info.verb} of eviction`);
  const { object, warnings } = await readObject(call, kindOf);
  checkNamespace(call, object);
  if (object.metadata.name !== info.name)
    throw badRequest(
      `name in URL does not match name in Eviction object: "${info.name}" and "${object.metadata.name ?? ''}"`,
    );
  const { deleteOptions = {} } = object as Eviction;
  // Of the URL's words only the dry run is about an eviction.
  const query = new URLSearchParams(info.query.getAll('dryRun').map((value) => ['dryRun', value]));
  const wish = deleteOptionsOf(call, deleteOptions, query);
  const marked = wish.dryRun ? wish : await markPod(call, wish);
  const deleted = await registry.delete(target, marked);
  return show(call, 201, EVICTED, [...warnings, ...deleted.warnings]);
}

function kindOf(sent: unknown): KindDefinition {
  const isOld = isObject(sent) && sent.apiVersion === 'policy/v1beta1';
  return isOld ? EVICTION_V1BETA1 : EVICTION;
}

/**
 * Says in the pod's status why it goes.
 * @returns the wish, about the pod as it then is
 * @throws ApiError NotFound; Conflict if a precondition does not hold
 */
async function markPod(
  { registry, target, options: { clock } }: Call,
  wish: DeleteOptions,
): Promise<DeleteOptions> {
  const { principal, preconditions = {} } = wish;
  const mark = (stored: KubeObject): KubeObject => {
    const { metadata, status, ...rest } = stored as Pod;
    const conditions = withDisruption(status?.conditions ?? [], formatTime(clock.now()));
    // Those of the wish are checked with the write.
    return {
      ...rest,
      metadata: { ...metadata, ...preconditions },
      status: { ...status, conditions },
    } as Pod;
  };
  const { object } = await registry.update({ ...target, subresource: 'status' }, mark, {
    principal,
    dryRun: false,
  });
  const { resourceVersion } = object.metadata;
  if (preconditions.resourceVersion === undefined || resourceVersion === undefined) return wish;
  // It was this very write that made it another version.
  return { ...wish, preconditions: { ...preconditions, resourceVersion } };
}

function withDisruption(conditions: readonly Condition[], now: string): Condition[] {
  const type = 'DisruptionTarget';
  const was = conditions.find((condition) => condition.type === type);
  const { lastTransitionTime = now } = was?.status === 'True' ? was : {};
  const reason = 'EvictionByEvictionAPI';
  const next: Condition = {
    ...{ type, status: 'True', reason, message: 'Eviction API: evicting' },
    lastTransitionTime,
  };
  return [...conditions.filter((condition) => condition.type !== type), next];
}
