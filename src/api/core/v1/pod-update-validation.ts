/** What an update may not change of a pod. `ValidatePodUpdate` of `pkg/apis/core/validation`. */
import type { FieldError } from '../../kind.ts';
import { forbidden, invalid } from '../../machinery/field-errors.ts';
import { isObject, sameJson } from '../../machinery/json.ts';
import type { PodSpec } from './pod.ts';

const CHANGEABLE = [
  '`spec.containers[*].image`',
  '`spec.initContainers[*].image`',
  '`spec.activeDeadlineSeconds`',
  '`spec.tolerations` (only additions to existing tolerations)',
  '`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)',
];

/**
 * A pod keeps what it is: routes, policies and addresses hang on it. There is no scheduler that binds pods by a request
 * of its own, so a pod without a node may be given one.
 */
export function validatePodChange(spec: PodSpec, old: PodSpec): FieldError[] {
  for (const list of ['containers', 'initContainers'] as const)
    if ((spec[list]?.length ?? 0) !== (old[list]?.length ?? 0))
      return [forbidden(`spec.${list}`, 'pod updates may not add or remove containers')];
  const errors = [
    ...validateDeadline(spec.activeDeadlineSeconds, old.activeDeadlineSeconds),
    ...validateTolerations(spec, old),
    ...validateSchedulingGates(spec, old),
  ];
  const changed = changedFields(fixedPart(spec, old), fixedPart(old, old));
  if (changed.length > 0)
    errors.push(
      forbidden(
        'spec',
        `pod updates may not change fields other than ${CHANGEABLE.join(',')}; this one changes ${changed.join(', ')}`,
      ),
    );
  return errors;
}

function validateDeadline(seconds: number | undefined, old: number | undefined): FieldError[] {
  const field = 'spec.activeDeadlineSeconds';
  if (old === undefined) return [];
  if (seconds === undefined)
    return [invalid(field, null, 'must not update from a positive integer to nil value')];
  return seconds > old
    ? [invalid(field, seconds, 'must be less than or equal to previous value')]
    : [];
}

function validateTolerations({ tolerations = [] }: PodSpec, old: PodSpec): FieldError[] {
  const isKept = (old.tolerations ?? []).every((was) =>
    tolerations.some((now) =>
      sameJson({ ...now, tolerationSeconds: 0 }, { ...was, tolerationSeconds: 0 }),
    ),
  );
  return isKept
    ? []
    : [
        forbidden(
          'spec.tolerations',
          'existing toleration can not be modified except its tolerationSeconds',
        ),
      ];
}

function validateSchedulingGates({ schedulingGates = [] }: PodSpec, old: PodSpec): FieldError[] {
  const had = new Set((old.schedulingGates ?? []).map(({ name }) => name));
  return schedulingGates.flatMap(({ name }, i) =>
    had.has(name)
      ? []
      : [
          forbidden(
            `spec.schedulingGates[${i}].name`,
            `only deletion is allowed, but found new scheduling gate '${name}'`,
          ),
        ],
  );
}

/** The spec without what may change. */
function fixedPart(spec: PodSpec, old: PodSpec): Record<string, unknown> {
  const {
    activeDeadlineSeconds: _deadline,
    tolerations: _tolerations,
    schedulingGates: _gates,
    terminationGracePeriodSeconds: grace,
    nodeName,
    nodeSelector,
    ...rest
  } = spec;
  const had = old.terminationGracePeriodSeconds ?? 0;
  const isGated = (old.schedulingGates?.length ?? 0) > 0;
  const addsSelectors =
    isGated && sameJson({ ...nodeSelector, ...old.nodeSelector }, nodeSelector ?? {});
  return {
    ...rest,
    containers: withoutImages(spec.containers),
    initContainers: withoutImages(spec.initContainers),
    terminationGracePeriodSeconds: had < 0 && grace === 1 ? had : grace,
    nodeName: old.nodeName ? nodeName : undefined,
    nodeSelector: addsSelectors ? undefined : nodeSelector,
  };
}

function withoutImages(containers: PodSpec['initContainers']): object[] {
  // The policy follows from the image where it is not said.
  return (containers ?? []).map(({ image: _image, imagePullPolicy: _policy, ...rest }) => rest);
}

/** Names of fields that differ. An empty one is the same as none. */
function changedFields(a: Record<string, unknown>, b: Record<string, unknown>): string[] {
  const names = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...names].filter((name) => !sameJson(filled(a[name]), filled(b[name]))).sort();
}

function filled(value: unknown): unknown {
  if (value === '' || value === false || value === undefined) return null;
  if (Array.isArray(value)) return value.length === 0 ? null : value;
  return isObject(value) && Object.keys(value).length === 0 ? null : value;
}
