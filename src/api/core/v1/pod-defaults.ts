/** What a missing field of a pod means. `k8s.io/kubernetes/pkg/apis/core/v1.SetDefaults_Pod` and those below it. */
import {
  CONTAINER_LISTS,
  type Container,
  canonicalAmounts,
  type EnvVar,
  type Handler,
  type Probe,
  type Resources,
} from './container.ts';
import type { Pod, PodSpec, Volume } from './pod.ts';

const DEFAULT_GRACE_SECONDS = 30;
const PROBES = ['livenessProbe', 'readinessProbe', 'startupProbe'] as const;

export function setPodDefaults(pod: Pod): Pod {
  const spec: PodSpec = { ...pod.spec };
  for (const list of CONTAINER_LISTS) {
    const containers = spec[list];
    if (containers !== undefined)
      spec[list] = containers.map((container) =>
        setContainerDefaults(
          container,
          spec.hostNetwork === true && list !== 'ephemeralContainers',
        ),
      );
  }
  if (spec.volumes !== undefined) spec.volumes = spec.volumes.map(setVolumeDefaults);
  spec.restartPolicy ??= 'Always';
  spec.dnsPolicy ??= 'ClusterFirst';
  spec.terminationGracePeriodSeconds ??= DEFAULT_GRACE_SECONDS;
  spec.schedulerName ??= 'default-scheduler';
  spec.enableServiceLinks ??= true;
  spec.securityContext ??= {};
  const { serviceAccountName, serviceAccount } = spec;
  // Two names of one field: the older one is still read.
  const account = serviceAccountName || serviceAccount;
  if (account) {
    spec.serviceAccountName = account;
    spec.serviceAccount = account;
  }
  return {
    ...pod,
    spec,
    status: { phase: 'Pending', qosClass: qosClassOf(spec), ...pod.status },
  };
}

function setContainerDefaults(container: Container, onHost: boolean): Container {
  const full: Container = {
    ...container,
    terminationMessagePath: container.terminationMessagePath || '/dev/termination-log',
    terminationMessagePolicy: container.terminationMessagePolicy || 'File',
    imagePullPolicy: container.imagePullPolicy || pullPolicyOf(container.image ?? ''),
  };
  if (container.ports !== undefined)
    full.ports = container.ports.map((port) => ({
      ...port,
      protocol: port.protocol || 'TCP',
      // In the node's own network both are one port.
      ...(onHost && !port.hostPort ? { hostPort: port.containerPort } : {}),
    }));
  if (container.env !== undefined) full.env = container.env.map(setEnvDefaults);
  if (container.resources !== undefined) full.resources = setResourceDefaults(container.resources);
  for (const name of PROBES) {
    const probe = container[name];
    if (probe !== undefined) full[name] = setProbeDefaults(probe);
  }
  const { lifecycle } = container;
  if (lifecycle !== undefined)
    full.lifecycle = {
      ...lifecycle,
      ...(lifecycle.postStart && { postStart: setHandlerDefaults(lifecycle.postStart) }),
      ...(lifecycle.preStop && { preStop: setHandlerDefaults(lifecycle.preStop) }),
    };
  return full;
}

/** An image without a tag or with `latest` may be another one tomorrow. A digest never is. */
function pullPolicyOf(image: string): 'Always' | 'IfNotPresent' {
  if (image.includes('@')) return 'IfNotPresent';
  const tag = /:([^/:]*)$/.exec(image)?.[1] ?? 'latest';
  return tag === 'latest' ? 'Always' : 'IfNotPresent';
}

function setEnvDefaults(variable: EnvVar): EnvVar {
  const { valueFrom } = variable;
  if (valueFrom?.fieldRef === undefined || valueFrom.fieldRef.apiVersion) return variable;
  return {
    ...variable,
    valueFrom: { ...valueFrom, fieldRef: { ...valueFrom.fieldRef, apiVersion: 'v1' } },
  };
}

/** What is limited is also asked for. */
function setResourceDefaults(resources: Resources): Resources {
  const { limits, requests } = resources;
  return {
    ...resources,
    ...(limits === undefined ? {} : { limits: canonicalAmounts(limits) }),
    ...(limits === undefined && requests === undefined
      ? {}
      : { requests: canonicalAmounts({ ...limits, ...requests }) }),
  };
}

function setProbeDefaults(probe: Probe): Probe {
  return {
    ...probe,
    ...setHandlerDefaults(probe),
    timeoutSeconds: probe.timeoutSeconds || 1,
    periodSeconds: probe.periodSeconds || 10,
    successThreshold: probe.successThreshold || 1,
    failureThreshold: probe.failureThreshold || 3,
  };
}

function setHandlerDefaults(handler: Handler): Handler {
  const { httpGet, grpc } = handler;
  return {
    ...handler,
    ...(httpGet === undefined
      ? {}
      : { httpGet: { ...httpGet, path: httpGet.path || '/', scheme: httpGet.scheme || 'HTTP' } }),
    ...(grpc === undefined ? {} : { grpc: { ...grpc, service: grpc.service ?? '' } }),
  };
}

function setVolumeDefaults(volume: Volume): Volume {
  return Object.keys(volume).some((key) => key !== 'name') ? volume : { ...volume, emptyDir: {} };
}

const QOS_RESOURCES = ['cpu', 'memory'] as const;

/** How early the pod is ended when its node runs short. `pkg/apis/core/helper/qos`. */
function qosClassOf(spec: PodSpec): 'Guaranteed' | 'Burstable' | 'BestEffort' {
  const containers = [...(spec.containers ?? []), ...(spec.initContainers ?? [])];
  const isSet = (amount: unknown) => amount !== undefined && amount !== '0';
  const asksForNone = containers.every(({ resources }) =>
    QOS_RESOURCES.every(
      (name) => !isSet(resources?.limits?.[name]) && !isSet(resources?.requests?.[name]),
    ),
  );
  if (asksForNone) return 'BestEffort';
  const isFixed = containers.every(({ resources }) =>
    QOS_RESOURCES.every((name) => {
      const limit = resources?.limits?.[name];
      return isSet(limit) && resources?.requests?.[name] === limit;
    }),
  );
  return isFixed ? 'Guaranteed' : 'Burstable';
}
