/**
 * What a container may say. Follows `validateContainerCommon` of `k8s.io/kubernetes/pkg/apis/core/validation`. What is not
 * looked at stands in `docs/api-machinery.md`.
 */
import type { FieldError } from '../../kind.ts';
import {
  duplicate,
  forbidden,
  invalid,
  notFound,
  notSupported,
  required,
} from '../../machinery/field-errors.ts';
import {
  checkConfigMapKey,
  checkDns1123Label,
  checkDns1123Subdomain,
  checkIanaServiceName,
  checkPortNumber,
  checkQualifiedName,
} from '../../machinery/names.ts';
import { NOT_A_QUANTITY, parseQuantity } from '../../machinery/quantity.ts';
import type {
  Container,
  ContainerPort,
  EnvFrom,
  EnvVar,
  KeyReference,
  Resources,
  VolumeMount,
} from './container.ts';
import { validateHandler, validateProbe } from './probe-validation.ts';
import { PROTOCOLS } from './protocol.ts';

export type ContainerRole = 'containers' | 'initContainers' | 'ephemeralContainers';

/** What a container is checked against. */
export interface ContainerContext {
  /** `spec.containers[0]` */
  readonly field: string;
  readonly role: ContainerRole;
  /** Names of the pod's volumes. */
  readonly volumes: ReadonlySet<string>;
}

const PULL_POLICIES = ['Always', 'IfNotPresent', 'Never'];
const MESSAGE_POLICIES = ['FallbackToLogsOnError', 'File'];
const PROBES = ['livenessProbe', 'readinessProbe', 'startupProbe'] as const;
/** A program that is only there to look into a running pod must not be relied on. */
const NOT_FOR_EPHEMERAL = ['ports', 'resources', 'lifecycle', ...PROBES] as const;

export function validateContainer(container: Container, context: ContainerContext): FieldError[] {
  const { field } = context;
  return [
    ...named(container.name, `${field}.name`, checkDns1123Label),
    ...validateImage(container, field),
    ...oneOf(
      container.terminationMessagePolicy,
      MESSAGE_POLICIES,
      `${field}.terminationMessagePolicy`,
    ),
    ...oneOf(container.imagePullPolicy, PULL_POLICIES, `${field}.imagePullPolicy`),
    ...validatePorts(container.ports ?? [], `${field}.ports`),
    ...(container.env ?? []).flatMap((it, i) => validateEnv(it, `${field}.env[${i}]`)),
    ...(container.envFrom ?? []).flatMap((it, i) => validateEnvFrom(it, `${field}.envFrom[${i}]`)),
    ...validateMounts(container, context),
    ...validateResources(container.resources, `${field}.resources`),
    ...validateRole(container, context),
  ];
}

/** What containers of the pod use of the node's ports, once each. */
export function validateHostPorts(
  containers: readonly Container[],
  field: (index: number) => string,
): FieldError[] {
  const taken = new Set<string>();
  return containers.flatMap((container, i) =>
    (container.ports ?? []).flatMap(({ protocol = 'TCP', hostIP = '', hostPort = 0 }, j) => {
      const key = `${protocol}/${hostIP}/${hostPort}`;
      if (hostPort === 0) return [];
      if (taken.has(key)) return [duplicate(`${field(i)}.ports[${j}].hostPort`, key)];
      taken.add(key);
      return [];
    }),
  );
}

function validateImage({ image = '' }: Container, field: string): FieldError[] {
  if (image === '') return [required(`${field}.image`)];
  return image === image.trim()
    ? []
    : [invalid(`${field}.image`, image, 'must not have leading or trailing whitespace')];
}

function validatePorts(ports: readonly ContainerPort[], list: string): FieldError[] {
  const names = new Set<string>();
  return ports.flatMap((port, i) => {
    const field = `${list}[${i}]`;
    const errors: FieldError[] = [];
    if (port.name) {
      errors.push(...checked(port.name, `${field}.name`, checkIanaServiceName));
      if (names.has(port.name)) errors.push(duplicate(`${field}.name`, port.name));
      names.add(port.name);
    }
    if (!port.containerPort) errors.push(required(`${field}.containerPort`));
    else errors.push(...checked(port.containerPort, `${field}.containerPort`, checkPortNumber));
    if (port.hostPort) errors.push(...checked(port.hostPort, `${field}.hostPort`, checkPortNumber));
    return [...errors, ...oneOf(port.protocol, PROTOCOLS, `${field}.protocol`)];
  });
}

/** Printable ASCII but for `=`. `IsRelaxedEnvVarName` */
const ENV_NAME_PATTERN = /^[ -<>-~]+$/;
const checkEnvName = (name: string) =>
  ENV_NAME_PATTERN.test(name)
    ? undefined
    : "a valid environment variable name must consist only of printable ASCII characters other than '='";

const SOURCES = [
  'fieldRef',
  'resourceFieldRef',
  'configMapKeyRef',
  'secretKeyRef',
  'fileKeyRef',
] as const;

function validateEnv({ name, value, valueFrom }: EnvVar, field: string): FieldError[] {
  const errors = named(name, `${field}.name`, checkEnvName);
  if (valueFrom === undefined) return errors;
  const at = `${field}.valueFrom`;
  const given = SOURCES.filter((source) => valueFrom[source] !== undefined);
  if (given.length === 0)
    errors.push(
      invalid(
        at,
        '',
        'must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`',
      ),
    );
  else if (value) errors.push(invalid(at, '', 'may not be specified when `value` is not empty'));
  else if (given.length > 1)
    errors.push(invalid(at, '', 'may not have more than one field specified at a time'));
  const { fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef } = valueFrom;
  if (fieldRef !== undefined)
    errors.push(...validateFieldPath(fieldRef.fieldPath ?? '', `${at}.fieldRef`));
  if (resourceFieldRef !== undefined)
    errors.push(
      ...validateResourceField(resourceFieldRef.resource ?? '', `${at}.resourceFieldRef.resource`),
    );
  if (configMapKeyRef !== undefined)
    errors.push(...validateKey(configMapKeyRef, `${at}.configMapKeyRef`));
  if (secretKeyRef !== undefined) errors.push(...validateKey(secretKeyRef, `${at}.secretKeyRef`));
  return errors;
}

const FIELD_PATHS = [
  'metadata.name',
  'metadata.namespace',
  'metadata.uid',
  'spec.nodeName',
  'spec.serviceAccountName',
  'status.hostIP',
  'status.hostIPs',
  'status.podIP',
  'status.podIPs',
];

function validateFieldPath(path: string, field: string): FieldError[] {
  if (path === '') return [required(`${field}.fieldPath`)];
  const [, of, key = ''] = /^metadata\.(labels|annotations)\['(.*)'\]$/.exec(path) ?? [];
  if (of !== undefined)
    return checked(of === 'annotations' ? key.toLowerCase() : key, field, checkQualifiedName);
  return FIELD_PATHS.includes(path) ? [] : [notSupported(`${field}.fieldPath`, path, FIELD_PATHS)];
}

const RESOURCE_FIELDS = ['limits', 'requests'].flatMap((list) =>
  ['cpu', 'ephemeral-storage', 'memory'].map((name) => `${list}.${name}`),
);

function validateResourceField(resource: string, field: string): FieldError[] {
  if (resource === '') return [required(field)];
  const isKnown =
    RESOURCE_FIELDS.includes(resource) || /^(limits|requests)\.hugepages-/.test(resource);
  return isKnown ? [] : [notSupported(field, resource, RESOURCE_FIELDS)];
}

function validateKey({ name = '', key = '' }: KeyReference, field: string): FieldError[] {
  return [
    ...checked(name, `${field}.name`, checkDns1123Subdomain),
    ...named(key, `${field}.key`, checkConfigMapKey),
  ];
}

function validateEnvFrom(from: EnvFrom, field: string): FieldError[] {
  const { prefix, configMapRef, secretRef } = from;
  const errors = prefix ? checked(prefix, `${field}.prefix`, checkEnvName) : [];
  if (configMapRef === undefined && secretRef === undefined)
    return [...errors, invalid(field, '', 'must specify one of: `configMapRef` or `secretRef`')];
  if (configMapRef !== undefined && secretRef !== undefined)
    errors.push(invalid(field, '', 'may not have more than one field specified at a time'));
  for (const name of ['configMapRef', 'secretRef'] as const)
    if (from[name] !== undefined)
      errors.push(...named(from[name].name, `${field}.${name}.name`, checkDns1123Subdomain));
  return errors;
}

function validateMounts(container: Container, context: ContainerContext): FieldError[] {
  const { field, volumes, role } = context;
  const paths = new Set((container.volumeDevices ?? []).map(({ devicePath }) => devicePath));
  const devices = (container.volumeDevices ?? []).flatMap(({ name }, i) =>
    volumes.has(name) ? [] : [notFound(`${field}.volumeDevices[${i}].name`, name)],
  );
  const mounts = (container.volumeMounts ?? []).flatMap((mount, i) => {
    const at = `${field}.volumeMounts[${i}]`;
    const errors = validateMount(mount, at);
    if (mount.name && !volumes.has(mount.name)) errors.push(notFound(`${at}.name`, mount.name));
    if (paths.has(mount.mountPath))
      errors.push(invalid(`${at}.mountPath`, mount.mountPath, 'must be unique'));
    if (role === 'ephemeralContainers')
      for (const name of ['subPath', 'subPathExpr'] as const)
        if (mount[name])
          errors.push(forbidden(`${at}.${name}`, 'cannot be set for an Ephemeral Container'));
    paths.add(mount.mountPath);
    return errors;
  });
  return [...devices, ...mounts];
}

function validateMount(mount: VolumeMount, at: string): FieldError[] {
  const errors: FieldError[] = [];
  if (!mount.name) errors.push(required(`${at}.name`));
  if (!mount.mountPath) errors.push(required(`${at}.mountPath`));
  if (mount.subPath && mount.subPathExpr)
    errors.push(
      invalid(
        `${at}.subPathExpr`,
        mount.subPathExpr,
        'subPathExpr and subPath are mutually exclusive',
      ),
    );
  for (const name of ['subPath', 'subPathExpr'] as const) {
    const path = mount[name] ?? '';
    if (path.startsWith('/'))
      errors.push(invalid(`${at}.${name}`, path, 'must be a relative path'));
    if (path.split('/').includes('..'))
      errors.push(invalid(`${at}.${name}`, path, "must not contain '..'"));
  }
  return errors;
}

const STANDARD_RESOURCES = ['cpu', 'ephemeral-storage', 'memory'];
const HUGE_PAGES = 'hugepages-';

/** Amounts of each resource, and that no more is asked for than allowed. */
export function validateResources(resources: Resources | undefined, field: string): FieldError[] {
  const errors: FieldError[] = [];
  for (const list of ['limits', 'requests'] as const)
    for (const [name, amount] of Object.entries(resources?.[list] ?? {})) {
      // What is asked for by default is the limit, of which enough was said.
      if (list === 'requests' && amount === resources?.limits?.[name]) continue;
      errors.push(...validateResourceName(name, `${field}.${list}`));
      errors.push(...validateAmount(amount, `${field}.${list}[${name}]`));
    }
  for (const [name, amount] of Object.entries(resources?.requests ?? {})) {
    const limit = parseQuantity(resources?.limits?.[name]);
    const request = parseQuantity(amount);
    const limitText = String(resources?.limits?.[name]);
    const isExact = !STANDARD_RESOURCES.includes(name);
    if (request === undefined || (limit === undefined && !isExact)) continue;
    if (limit === undefined)
      errors.push(
        required(`${field}.limits`, `Limit must be set for non overcommitable resources (${name})`),
      );
    else if (isExact && request.nano !== limit.nano)
      errors.push(
        invalid(`${field}.requests`, amount, `must be equal to ${name} limit of ${limitText}`),
      );
    else if (request.nano > limit.nano)
      errors.push(
        invalid(
          `${field}.requests`,
          amount,
          `must be less than or equal to ${name} limit of ${limitText}`,
        ),
      );
  }
  return errors;
}

function validateResourceName(name: string, field: string): FieldError[] {
  const wrong = checkQualifiedName(name);
  if (wrong !== undefined) return [invalid(field, name, wrong)];
  if (name.includes('/') || STANDARD_RESOURCES.includes(name) || name.startsWith(HUGE_PAGES))
    return [];
  return [invalid(field, name, 'must be a standard resource for containers, or fully qualified')];
}

/** An amount is a quantity and not below zero. */
export function validateAmount(amount: unknown, field: string): FieldError[] {
  const quantity = parseQuantity(amount);
  if (quantity === undefined) return [invalid(field, amount, NOT_A_QUANTITY)];
  return quantity.nano < 0n ? [invalid(field, amount, 'must be greater than or equal to 0')] : [];
}

function validateRole(container: Container, { field, role }: ContainerContext): FieldError[] {
  const { restartPolicy } = container;
  if (role === 'ephemeralContainers')
    return NOT_FOR_EPHEMERAL.flatMap((name) =>
      container[name] === undefined
        ? []
        : [forbidden(`${field}.${name}`, 'cannot be set for an Ephemeral Container')],
    );
  const isSidecar = role === 'initContainers' && restartPolicy === 'Always';
  if (role === 'initContainers' && !isSidecar)
    return [
      ...(restartPolicy === undefined
        ? []
        : [notSupported(`${field}.restartPolicy`, restartPolicy, ['Always'])]),
      ...(['lifecycle', ...PROBES] as const).flatMap((name) =>
        container[name] === undefined
          ? []
          : [
              forbidden(
                `${field}.${name}`,
                'may not be set for init containers without restartPolicy=Always',
              ),
            ],
      ),
    ];
  const { postStart, preStop } = container.lifecycle ?? {};
  return [
    ...(role === 'containers' && restartPolicy !== undefined
      ? [forbidden(`${field}.restartPolicy`, 'may not be set for non-init containers')]
      : []),
    ...PROBES.flatMap((name) => validateProbe(container[name], name, `${field}.${name}`)),
    ...(postStart ? validateHandler(postStart, `${field}.lifecycle.postStart`) : []),
    ...(preStop ? validateHandler(preStop, `${field}.lifecycle.preStop`) : []),
  ];
}

function named(
  text: string | undefined,
  field: string,
  check: (text: string) => string | undefined,
): FieldError[] {
  return text ? checked(text, field, check) : [required(field)];
}

function checked<T>(
  value: T,
  field: string,
  check: (value: T) => string | undefined,
): FieldError[] {
  const wrong = check(value);
  return wrong === undefined ? [] : [invalid(field, value, wrong)];
}

function oneOf(value: string | undefined, allowed: readonly string[], field: string): FieldError[] {
  return value === undefined || allowed.includes(value)
    ? []
    : [notSupported(field, value, allowed)];
}
