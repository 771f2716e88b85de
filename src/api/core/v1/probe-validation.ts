/** What a probe or a hook of a container may say. `validateProbe`, `validateHandler` of `pkg/apis/core/validation`. */
import type { FieldError } from '../../kind.ts';
import { forbidden, invalid, notSupported, required } from '../../machinery/field-errors.ts';
import { checkPortNumberOrName } from '../../machinery/names.ts';
import type { Handler, Probe } from './container.ts';

const HANDLERS = ['exec', 'httpGet', 'tcpSocket', 'grpc', 'sleep'] as const;
const SCHEMES = ['HTTP', 'HTTPS'];
const HEADER_PATTERN = /^[-A-Za-z0-9]+$/;
const COUNTS = [
  'initialDelaySeconds',
  'timeoutSeconds',
  'periodSeconds',
  'successThreshold',
  'failureThreshold',
] as const;

export function validateProbe(
  probe: Probe | undefined,
  name: 'livenessProbe' | 'readinessProbe' | 'startupProbe',
  field: string,
): FieldError[] {
  if (probe === undefined) return [];
  const errors = validateHandler(probe, field);
  for (const count of COUNTS)
    if ((probe[count] ?? 0) < 0)
      errors.push(invalid(`${field}.${count}`, probe[count], 'must be greater than or equal to 0'));
  const grace = probe.terminationGracePeriodSeconds;
  const graceField = `${field}.terminationGracePeriodSeconds`;
  if (grace !== undefined && grace <= 0)
    errors.push(invalid(graceField, grace, 'must be greater than 0'));
  if (name !== 'readinessProbe') {
    if ((probe.successThreshold ?? 1) !== 1)
      errors.push(invalid(`${field}.successThreshold`, probe.successThreshold, 'must be 1'));
  } else if (grace !== undefined)
    errors.push(invalid(graceField, grace, 'must not be set for readinessProbes'));
  return errors;
}

/** Exactly one thing is done. */
export function validateHandler(handler: Handler, field: string): FieldError[] {
  const [first, ...more] = HANDLERS.filter((name) => handler[name] !== undefined);
  if (first === undefined) return [required(field, 'must specify a handler type')];
  const { exec, httpGet, tcpSocket, grpc } = handler;
  const errors = more.map((name) =>
    forbidden(`${field}.${name}`, 'may not specify more than 1 handler type'),
  );
  if (exec !== undefined && !exec.command?.length) errors.push(required(`${field}.exec.command`));
  if (httpGet !== undefined) errors.push(...validateHttpGet(httpGet, `${field}.httpGet`));
  if (tcpSocket !== undefined)
    errors.push(...validatePort(tcpSocket.port, `${field}.tcpSocket.port`));
  if (grpc !== undefined) errors.push(...validatePort(grpc.port, `${field}.grpc.port`));
  return errors;
}

function validateHttpGet(get: NonNullable<Handler['httpGet']>, field: string): FieldError[] {
  const errors = validatePort(get.port, `${field}.port`);
  if (!get.path) errors.push(required(`${field}.path`));
  if (get.scheme !== undefined && !SCHEMES.includes(get.scheme))
    errors.push(notSupported(`${field}.scheme`, get.scheme, SCHEMES));
  for (const { name = '' } of get.httpHeaders ?? [])
    if (!HEADER_PATTERN.test(name))
      errors.push(
        invalid(
          `${field}.httpHeaders`,
          name,
          "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name')",
        ),
      );
  return errors;
}

function validatePort(port: number | string | undefined, field: string): FieldError[] {
  const wrong = checkPortNumberOrName(port ?? 0);
  return wrong === undefined ? [] : [invalid(field, port ?? 0, wrong)];
}
