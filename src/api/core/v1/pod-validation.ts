/**
 * What a pod may say. Follows `ValidatePodCreate`, `ValidatePodUpdate` and `ValidatePodStatusUpdate` of
 * `k8s.io/kubernetes/pkg/apis/core/validation`. What is not looked at stands in `docs/api-machinery.md`.
 */
import { parseIp } from '#lib/ip.ts';
import type { FieldError } from '../../kind.ts';
import { NOT_AN_IP } from '../../machinery/addresses.ts';
import {
  duplicate,
  forbidden,
  immutable,
  invalid,
  notFound,
  notSupported,
  required,
} from '../../machinery/field-errors.ts';
import { isObject, sameJson } from '../../machinery/json.ts';
import {
  checkDns1123Label,
  checkDns1123Subdomain,
  checkQualifiedName,
} from '../../machinery/names.ts';
import { validateLabels, validateMeta } from '../../machinery/validate-meta.ts';
import { CONTAINER_LISTS } from './container.ts';
import {
  type ContainerRole,
  validateAmount,
  validateContainer,
  validateHostPorts,
  validateResources,
} from './container-validation.ts';
import type { Pod, PodSpec, PodStatus, Volume } from './pod.ts';
import { validateDnsConfig, validateHostAliases } from './pod-dns-validation.ts';
import { VOLUME_SOURCES } from './pod-schema.ts';
import { validatePodChange } from './pod-update-validation.ts';
import { validateTolerations } from './tolerations.ts';

const RESTART_POLICIES = ['Always', 'Never', 'OnFailure'];
const DNS_POLICIES = ['ClusterFirst', 'ClusterFirstWithHostNet', 'Default', 'None'];
const PREEMPTION_POLICIES = ['Never', 'PreemptLowerPriority'];
/** `HOST_NAME_MAX` of Linux. */
const MAX_HOSTNAME_LENGTH = 64;
const MAX_DEADLINE_SECONDS = 2 ** 31 - 1;

/**
 * The spec is looked at when it is new or changed: rules that came later must not keep a pod that is there from having
 * its status written, or from being deleted.
 */
export function validatePod(pod: Pod, old: Pod | undefined): FieldError[] {
  const { spec, status } = pod;
  if (spec === undefined) return [required('spec')];
  const errors = [...validateMeta(pod.metadata, { namespaced: true }), ...validateAnnotations(pod)];
  if (old === undefined) errors.push(...validateSpec(spec), ...validateNew(spec));
  else if (!sameJson(spec, old.spec))
    errors.push(...validateSpec(spec), ...validatePodChange(spec, old.spec));
  if (status !== undefined && !sameJson(status, old?.status))
    errors.push(...validateStatus(status, old?.status));
  return errors;
}

const DELETION_COST = 'controller.kubernetes.io/pod-deletion-cost';

function validateAnnotations({ metadata }: Pod): FieldError[] {
  const cost = metadata.annotations?.[DELETION_COST];
  if (cost === undefined || /^(0|[-+]?[1-9]\d{0,9})$/.test(cost)) return [];
  return [invalid(`metadata.annotations[${DELETION_COST}]`, cost, 'must be a 32bit integer')];
}

function validateNew(spec: PodSpec): FieldError[] {
  return [
    ...(spec.ephemeralContainers?.length
      ? [forbidden('spec.ephemeralContainers', 'cannot be set on create')]
      : []),
    ...(spec.nodeName && spec.schedulingGates?.length
      ? [forbidden('spec.nodeName', 'cannot be set until all schedulingGates have been cleared')]
      : []),
  ];
}

function validateSpec(spec: PodSpec): FieldError[] {
  return [
    ...validateVolumes(spec.volumes ?? []),
    ...validateContainers(spec),
    ...validateWords(spec),
    ...validateNames(spec),
    ...validateHostNetwork(spec),
    ...validateLabels(spec.nodeSelector, 'spec.nodeSelector'),
    ...validateDnsConfig(spec.dnsConfig, spec.dnsPolicy),
    ...validateHostAliases(spec.hostAliases ?? []),
    ...validateTolerations(spec.tolerations ?? [], 'spec.tolerations'),
    ...validateGates(spec),
    ...validateSysctls(spec),
    ...validateResources(spec.resources, 'spec.resources'),
    ...Object.entries(spec.overhead ?? {}).flatMap(([name, amount]) =>
      validateAmount(amount, `spec.overhead[${name}]`),
    ),
  ];
}

function validateContainers(spec: PodSpec): FieldError[] {
  const errors: FieldError[] = [];
  if (!spec.containers?.length) errors.push(required('spec.containers'));
  const volumes = new Set((spec.volumes ?? []).map(({ name }) => name));
  const names = new Set<string>();
  const lasting = new Set<string>();
  for (const role of CONTAINER_LISTS)
    (spec[role] ?? []).forEach((container, i) => {
      const field = `spec.${role}[${i}]`;
      errors.push(...validateContainer(container, { field, role, volumes }));
      if (names.has(container.name)) errors.push(duplicate(`${field}.name`, container.name));
      if (container.name) names.add(container.name);
      if (role !== 'ephemeralContainers') lasting.add(container.name);
      const target = container.targetContainerName;
      if (target && !lasting.has(target))
        errors.push(notFound(`${field}.targetContainerName`, target));
    });
  const fieldIn = (role: ContainerRole) => (i: number) => `spec.${role}[${i}]`;
  errors.push(...validateHostPorts(spec.containers ?? [], fieldIn('containers')));
  // These run one after the other.
  (spec.initContainers ?? []).forEach((container, i) => {
    errors.push(...validateHostPorts([container], () => fieldIn('initContainers')(i)));
  });
  return errors;
}

function validateWords(spec: PodSpec): FieldError[] {
  const words = [
    ['restartPolicy', RESTART_POLICIES],
    ['dnsPolicy', DNS_POLICIES],
    ['preemptionPolicy', PREEMPTION_POLICIES],
  ] as const;
  const errors = words.flatMap(([name, allowed]) => {
    const word = spec[name];
    return word === undefined || allowed.includes(word)
      ? []
      : [notSupported(`spec.${name}`, word, allowed)];
  });
  const deadline = spec.activeDeadlineSeconds;
  if (deadline !== undefined && (deadline < 1 || deadline > MAX_DEADLINE_SECONDS))
    errors.push(
      invalid(
        'spec.activeDeadlineSeconds',
        deadline,
        `must be between 1 and ${MAX_DEADLINE_SECONDS}, inclusive`,
      ),
    );
  return errors;
}

function validateNames(spec: PodSpec): FieldError[] {
  const names = [
    ['hostname', checkDns1123Label],
    ['subdomain', checkDns1123Label],
    ['hostnameOverride', checkDns1123Subdomain],
    ['nodeName', checkDns1123Subdomain],
    ['serviceAccountName', checkDns1123Subdomain],
    ['priorityClassName', checkDns1123Subdomain],
    ['runtimeClassName', checkDns1123Subdomain],
  ] as const;
  const errors = names.flatMap(([name, check]) => {
    const text = spec[name];
    const wrong = text ? check(text) : undefined;
    return wrong === undefined ? [] : [invalid(`spec.${name}`, text, wrong)];
  });
  const { hostnameOverride } = spec;
  if (!hostnameOverride) return errors;
  const field = 'spec.hostnameOverride';
  if (hostnameOverride.length > MAX_HOSTNAME_LENGTH)
    errors.push({
      type: 'TooLong',
      field,
      detail: `may not be more than ${MAX_HOSTNAME_LENGTH} bytes`,
    });
  for (const name of ['hostNetwork', 'setHostnameAsFQDN'] as const)
    if (spec[name] === true)
      errors.push(forbidden(field, `may not be set when \`${name}\` is true`));
  return errors;
}

/** In the network of its node a pod's port is the node's port. */
function validateHostNetwork(spec: PodSpec): FieldError[] {
  if (spec.hostNetwork !== true) return [];
  const errors = (spec.containers ?? []).flatMap((container, i) =>
    (container.ports ?? []).flatMap(({ hostPort = 0, containerPort }, j) =>
      hostPort === containerPort
        ? []
        : [
            invalid(
              `spec.containers[${i}].ports[${j}].hostPort`,
              hostPort,
              'must match `containerPort` when `hostNetwork` is true',
            ),
          ],
    ),
  );
  if (spec.hostUsers === false)
    errors.push(forbidden('spec.hostNetwork', 'when `hostUsers` is false'));
  return errors;
}

function validateGates({ readinessGates = [], schedulingGates = [] }: PodSpec): FieldError[] {
  const seen = new Set<string>();
  return [
    ...readinessGates.flatMap(({ conditionType = '' }, i) => {
      const wrong = checkQualifiedName(conditionType);
      const field = `spec.readinessGates[${i}].conditionType`;
      return wrong === undefined ? [] : [invalid(field, conditionType, wrong)];
    }),
    ...schedulingGates.flatMap(({ name = '' }, i) => {
      const field = `spec.schedulingGates[${i}]`;
      const wrong = checkQualifiedName(name);
      if (wrong !== undefined) return [invalid(field, name, wrong)];
      if (seen.has(name)) return [duplicate(field, name)];
      seen.add(name);
      return [];
    }),
  ];
}

const SYSCTL_PATTERN = /^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$/;
const MAX_SYSCTL_LENGTH = 253;

function validateSysctls({ securityContext, hostNetwork }: PodSpec): FieldError[] {
  const names = new Set<string>();
  return (securityContext?.sysctls ?? []).flatMap(({ name = '' }, i) => {
    const field = `spec.securityContext.sysctls[${i}].name`;
    if (name === '') return [required(field)];
    if (name.length > MAX_SYSCTL_LENGTH || !SYSCTL_PATTERN.test(name))
      return [
        invalid(
          field,
          name,
          `must have at most ${MAX_SYSCTL_LENGTH} characters and match regex ${SYSCTL_PATTERN.source}`,
        ),
      ];
    if (names.has(name)) return [duplicate(field, name)];
    names.add(name);
    return hostNetwork === true && /^net[./]/.test(name)
      ? [invalid(field, name, "may not be specified when 'hostNetwork' is true")]
      : [];
  });
}

/** What must stand in a source that it means something. */
const SOURCE_NAMES: Readonly<Record<string, string>> = {
  configMap: 'name',
  secret: 'secretName',
  hostPath: 'path',
  persistentVolumeClaim: 'claimName',
};

function validateVolumes(volumes: readonly Volume[]): FieldError[] {
  const names = new Set<string>();
  return volumes.flatMap((volume, i) => {
    const field = `spec.volumes[${i}]`;
    const errors: FieldError[] = [];
    const wrong = volume.name ? checkDns1123Label(volume.name) : undefined;
    if (!volume.name) errors.push(required(`${field}.name`));
    else if (wrong !== undefined) errors.push(invalid(`${field}.name`, volume.name, wrong));
    else if (names.has(volume.name)) errors.push(duplicate(`${field}.name`, volume.name));
    names.add(volume.name);
    const [source, ...more] = VOLUME_SOURCES.filter((name) => volume[name] !== undefined);
    if (source === undefined) return [...errors, required(field, 'must specify a volume type')];
    const key = SOURCE_NAMES[source];
    const of = volume[source];
    if (key !== undefined && !(isObject(of) && of[key]))
      errors.push(required(`${field}.${source}.${key}`));
    for (const other of more)
      errors.push(forbidden(`${field}.${other}`, 'may not specify more than 1 volume type'));
    return errors;
  });
}

function validateStatus(status: PodStatus, old: PodStatus | undefined): FieldError[] {
  const errors = [
    ...validateIps(status.podIPs, { first: status.podIP, list: 'podIPs', single: 'podIP' }),
    ...validateIps(status.hostIPs, { first: status.hostIP, list: 'hostIPs', single: 'hostIP' }),
  ];
  (status.conditions ?? []).forEach(({ type }, i) => {
    const wrong = checkQualifiedName(type ?? '');
    if (wrong !== undefined) errors.push(invalid(`status.conditions[${i}].type`, type, wrong));
  });
  const nominated = status.nominatedNodeName;
  const wrong = nominated ? checkDns1123Subdomain(nominated) : undefined;
  if (wrong !== undefined) errors.push(invalid('status.nominatedNodeName', nominated, wrong));
  if (old?.qosClass !== undefined && status.qosClass !== old.qosClass)
    errors.push(immutable('status.qosClass', status.qosClass));
  return errors;
}

function validateIps(
  list: readonly { ip?: string }[] | undefined,
  of: { first: string | undefined; list: string; single: string },
): FieldError[] {
  const field = `status.${of.list}`;
  const ips = (list ?? []).map(({ ip }) => ip ?? '');
  const errors = ips.flatMap((ip, i) => {
    if (parseIp(ip) === undefined) return [invalid(`${field}[${i}]`, ip, NOT_AN_IP)];
    return ips.indexOf(ip) < i ? [duplicate(`${field}[${i}]`, ip)] : [];
  });
  const isIpv6 = ips.map((ip) => ip.includes(':'));
  if (new Set(isIpv6).size < ips.length)
    errors.push(invalid(field, ips, 'may specify no more than one IP for each IP family'));
  const first = of.first ?? '';
  if (first !== '' && parseIp(first) === undefined)
    errors.push(invalid(`status.${of.single}`, first, NOT_AN_IP));
  else if (ips[0] !== undefined && first !== '' && ips[0] !== first)
    errors.push(invalid(`${field}[0].ip`, ips[0], `must be equal to \`${of.single}\``));
  return errors;
}
