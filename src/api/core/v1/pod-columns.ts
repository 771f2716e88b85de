/** The columns of `kubectl get pods`. `k8s.io/kubernetes/pkg/printers/internalversion.printPod`. */
import type { TableColumn } from '../../kind.ts';
import { formatAge } from '../../machinery/age.ts';
import { AGE_COLUMN, column, NAME_COLUMN, NONE, wideColumn } from '../../machinery/columns.ts';
import type { ContainerState, Pod } from './pod.ts';

export const POD_COLUMNS: readonly TableColumn<Pod>[] = [
  NAME_COLUMN,
  column('Ready', 'Containers that are ready, of all.', formatReady),
  column('Status', 'State of the pod.', formatStatus),
  column('Restarts', 'How often containers were restarted, and when last.', formatRestarts),
  AGE_COLUMN,
  wideColumn(
    'IP',
    'Address of the pod.',
    ({ status }) => status?.podIPs?.[0]?.ip || status?.podIP || NONE,
  ),
  wideColumn('Node', 'Node of the pod.', ({ spec }) => spec.nodeName || NONE),
  wideColumn(
    'Nominated Node',
    'Node being cleared for it.',
    ({ status }) => status?.nominatedNodeName || NONE,
  ),
  wideColumn('Readiness Gates', 'Conditions that must also hold.', formatReadinessGates),
];

function formatReady(pod: Pod): string {
  const { containerStatuses = [], initContainerStatuses = [] } = pod.status ?? {};
  const sidecars = sidecarsOf(pod);
  const ready = [
    ...containerStatuses.filter(({ ready, state }) => ready && state?.running !== undefined),
    ...initContainerStatuses.filter(
      ({ name, ready, started }) => ready && started && sidecars.has(name),
    ),
  ];
  return `${ready.length}/${(pod.spec.containers?.length ?? 0) + sidecars.size}`;
}

/** Init containers that go on running beside the others. */
function sidecarsOf({ spec }: Pod): ReadonlySet<string> {
  const sidecars = (spec.initContainers ?? []).filter((it) => it.restartPolicy === 'Always');
  return new Set(sidecars.map(({ name }) => name));
}

/** The one word of `kubectl get pods`: the worst news of the pod and its containers. */
function formatStatus(pod: Pod): string {
  const status = pod.status ?? {};
  const phase = status.reason || status.phase || 'Unknown';
  const hasEnded = status.phase === 'Succeeded' || status.phase === 'Failed';
  if (pod.metadata.deletionTimestamp !== undefined) {
    if (status.reason === 'NodeLost') return 'Unknown';
    if (!hasEnded) return 'Terminating';
  }
  const init = initReason(pod);
  if (init !== undefined) return init;
  const isGated = status.conditions?.some(
    ({ type, reason }) => type === 'PodScheduled' && reason === 'SchedulingGated',
  );
  const statuses = status.containerStatuses ?? [];
  const reason =
    statuses.map(({ state }) => containerReason(state)).find((word) => word !== undefined) ??
    (isGated ? 'SchedulingGated' : phase);
  const isRunning = statuses.some((container) => container.ready && container.state?.running);
  if (reason !== 'Completed' || !isRunning) return reason;
  return hasCondition(pod, 'Ready') ? 'Running' : 'NotReady';
}

/** @returns `undefined` once the pod is through its init containers */
function initReason(pod: Pod): string | undefined {
  if (hasCondition(pod, 'Initialized')) return undefined;
  const statuses = pod.status?.initContainerStatuses ?? [];
  const total = pod.spec.initContainers?.length ?? 0;
  const sidecars = sidecarsOf(pod);
  for (const [i, { name, state, started }] of statuses.entries()) {
    if (state?.terminated?.exitCode === 0 || (started && sidecars.has(name))) continue;
    const word = containerReason(state);
    if (word !== undefined && word !== 'PodInitializing') return `Init:${word}`;
    return `Init:${i}/${total}`;
  }
  return undefined;
}

function containerReason(state: ContainerState | undefined): string | undefined {
  if (state?.waiting?.reason) return state.waiting.reason;
  const ended = state?.terminated;
  if (ended === undefined) return undefined;
  if (ended.reason) return ended.reason;
  return ended.signal ? `Signal:${ended.signal}` : `ExitCode:${ended.exitCode}`;
}

/** Of what runs now: the init containers until they are through, and then the others and the sidecars. */
function formatRestarts(pod: Pod, nowMs: number): string {
  const { containerStatuses = [], initContainerStatuses = [] } = pod.status ?? {};
  const sidecars = sidecarsOf(pod);
  const statuses =
    initReason(pod) === undefined
      ? [...initContainerStatuses.filter(({ name }) => sidecars.has(name)), ...containerStatuses]
      : initContainerStatuses;
  const restarts = statuses.reduce((sum, status) => sum + (status.restartCount ?? 0), 0);
  const times = statuses.flatMap(({ lastState }) => lastState?.terminated?.finishedAt ?? []);
  const last = times.sort().at(-1);
  return restarts === 0 || last === undefined
    ? String(restarts)
    : `${restarts} (${formatAge(last, nowMs)} ago)`;
}

function formatReadinessGates(pod: Pod): string {
  const gates = pod.spec.readinessGates ?? [];
  if (gates.length === 0) return NONE;
  const open = gates.filter((gate) => hasCondition(pod, gate.conditionType));
  return `${open.length}/${gates.length}`;
}

function hasCondition(pod: Pod, type: string): boolean {
  return pod.status?.conditions?.some((c) => c.type === type && c.status === 'True') ?? false;
}
