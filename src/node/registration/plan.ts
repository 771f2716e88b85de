/** The Node object of this machine: what it says of itself, and whether containers can be attached here. Pure. */
import { type Node, ZONE_LABEL } from '#api/core/v1/node.ts';
import { AGENT_VERSION_PREFIX } from '#api/core/v1/pod-deletion.ts';
import type { Condition } from '#api/meta.ts';
import type { Ip } from '#lib/ip.ts';

/** What does not change while the agent runs. */
export interface NodeFacts {
  readonly name: string;
  readonly addresses: readonly Ip[];
  readonly zone: string | undefined;
  readonly version: string;
  readonly machineId: string;
  readonly bootId: string;
  readonly kernelVersion: string;
  readonly osImage: string;
  /** As Kubernetes says it: `amd64`, `arm64`. */
  readonly architecture: string;
  readonly containerRuntime: string;
  /** CPUs and memory, as Kubernetes quantities. */
  readonly capacity: Readonly<Record<string, string>>;
}

/** How one part of the agent is. */
export interface ComponentHealth {
  /** Condition type: `FabricReady`. */
  readonly type: string;
  readonly ready: boolean;
  readonly message: string;
}

export function nodeLabels(facts: NodeFacts): Record<string, string> {
  return {
    'kubernetes.io/hostname': facts.name,
    'kubernetes.io/os': 'linux',
    'kubernetes.io/arch': facts.architecture,
    ...(facts.zone === undefined ? {} : { [ZONE_LABEL]: facts.zone }),
  };
}

export function nodeStatus(
  facts: NodeFacts,
  health: readonly ComponentHealth[],
  previous: readonly Condition[],
  now: string,
): NonNullable<Node['status']> {
  return {
    addresses: [
      ...facts.addresses.map((address) => ({ type: 'InternalIP' as const, address })),
      { type: 'Hostname' as const, address: facts.name },
    ],
    capacity: { ...facts.capacity },
    allocatable: { ...facts.capacity },
    nodeInfo: {
      machineID: facts.machineId,
      systemUUID: facts.machineId,
      bootID: facts.bootId,
      kernelVersion: facts.kernelVersion,
      osImage: facts.osImage,
      containerRuntimeVersion: facts.containerRuntime,
      kubeletVersion: `${AGENT_VERSION_PREFIX}${facts.version}`,
      kubeProxyVersion: `${AGENT_VERSION_PREFIX}${facts.version}`,
      operatingSystem: 'linux',
      architecture: facts.architecture,
    },
    conditions: planConditions(health, previous, now),
  };
}

/**
 * One condition per part, and what Kubernetes expects of a node made of them.
 * `lastTransitionTime` moves only when the status does.
 */
export function planConditions(
  health: readonly ComponentHealth[],
  previous: readonly Condition[],
  now: string,
): Condition[] {
  const failing = health.filter((part) => !part.ready);
  const why = failing.map((part) => `${part.type}: ${part.message}`).join('; ');
  const ready = failing.length === 0;
  const conditions: Condition[] = [
    {
      type: 'Ready',
      status: ready ? 'True' : 'False',
      reason: ready ? 'AgentReady' : 'AgentNotReady',
      message: ready ? 'pods can be attached' : why,
    },
    {
      type: 'NetworkUnavailable',
      status: ready ? 'False' : 'True',
      reason: ready ? 'TulleIsUp' : 'TulleIsNotReady',
      message: ready ? 'the pod network is programmed' : why,
    },
    ...health.map(
      (part): Condition => ({
        type: part.type,
        status: part.ready ? 'True' : 'False',
        reason: part.ready ? 'AsPlanned' : 'Failing',
        message: part.message,
      }),
    ),
  ];
  return conditions.map((condition) => {
    const old = previous.find((candidate) => candidate.type === condition.type);
    const since = old?.status === condition.status ? old.lastTransitionTime : undefined;
    return { ...condition, lastHeartbeatTime: now, lastTransitionTime: since ?? now };
  });
}

/** What we say of a Node that a kubelet keeps: all of our conditions but `Ready`, beside those of others. */
export function conditionsBeside(
  health: readonly ComponentHealth[],
  previous: readonly Condition[],
  now: string,
): Condition[] {
  const ours = planConditions(health, previous, now).filter(({ type }) => type !== 'Ready');
  const types = new Set(ours.map(({ type }) => type));
  return [...previous.filter(({ type }) => !types.has(type)), ...ours];
}

/** Whether two lists of conditions say the same, times aside. */
export function sameConditions(a: readonly Condition[], b: readonly Condition[]): boolean {
  const essence = (list: readonly Condition[]) =>
    JSON.stringify(
      list
        .map(({ type, status, reason, message }) => [type, status, reason, message])
        .sort(([x], [y]) => String(x).localeCompare(String(y))),
    );
  return essence(a) === essence(b);
}
