/** Ingress: HTTP from outside to services. `k8s.io/api/networking/v1`. */

import { parseIp } from '#lib/ip.ts';
import type { FieldError, KindDefinition } from '../../kind.ts';
import { AGE_COLUMN, column, joinForCell, NAME_COLUMN, NONE } from '../../machinery/columns.ts';
import { invalid, notSupported, required } from '../../machinery/field-errors.ts';
import { sameJson } from '../../machinery/json.ts';
import {
  checkDns1035Label,
  checkDns1123Subdomain,
  checkIanaServiceName,
  checkPortNumber,
  checkWildcardDns1123Subdomain,
} from '../../machinery/names.ts';
import { int32, kindSchema, list, object, oneOf, string, strings } from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { KubeObject } from '../../meta.ts';
import { validateIngressPoint } from './ingress-point.ts';
import { validateTypedReference } from './typed-reference.ts';

export interface IngressBackend {
  service?: { name: string; port?: { name?: string; number?: number } };
  resource?: { apiGroup?: string; kind: string; name: string };
}

export interface IngressPath {
  path?: string;
  pathType: 'Exact' | 'Prefix' | 'ImplementationSpecific';
  backend: IngressBackend;
}

export interface IngressRule {
  /** Missing: all hosts. `*.` at the begin stands for one label. */
  host?: string;
  http?: { paths: IngressPath[] };
}

export interface IngressTls {
  hosts?: string[];
  secretName?: string;
}

export interface Ingress extends KubeObject {
  apiVersion: 'networking.k8s.io/v1';
  kind: 'Ingress';
  spec: {
    ingressClassName?: string;
    defaultBackend?: IngressBackend;
    tls?: IngressTls[];
    rules?: IngressRule[];
  };
  status?: { loadBalancer?: { ingress?: { ip?: string; hostname?: string }[] } };
}

const PATH_TYPES = ['Exact', 'ImplementationSpecific', 'Prefix'];

const BACKEND_SCHEMA = object('IngressBackend', {
  service: object(
    'IngressServiceBackend',
    {
      name: string('A service of the same namespace.'),
      port: object('ServiceBackendPort', {
        name: string('Name of a port of the service.'),
        number: int32('Number of a port of the service.'),
      }),
    },
    { required: ['name'], description: 'A service. Either this or resource.' },
  ),
  resource: object(
    'TypedLocalObjectReference',
    {
      apiGroup: string('Group of the object.'),
      kind: string('Kind of the object.'),
      name: string('Name of the object.'),
    },
    { required: ['kind', 'name'], description: 'Another object of the namespace.' },
  ),
});

const SCHEMA = kindSchema('Ingress', 'HTTP from outside to services.', {
  spec: object('IngressSpec', {
    ingressClassName: string('The IngressClass that takes this Ingress.'),
    defaultBackend: { ...BACKEND_SCHEMA, description: 'For what no rule matches.' },
    tls: list(
      object('IngressTLS', {
        hosts: strings('Hosts in the certificate.'),
        secretName: string('The secret that holds the certificate and its key.'),
      }),
      'Certificates for port 443.',
    ),
    rules: list(
      object('IngressRule', {
        host: string('Name of the host; "*." at the begin stands for one label. Missing: all.'),
        http: object(
          'HTTPIngressRuleValue',
          {
            paths: list(
              object(
                'HTTPIngressPath',
                {
                  path: string('The path, from "/".'),
                  pathType: oneOf(PATH_TYPES, 'How the path is compared.'),
                  backend: BACKEND_SCHEMA,
                },
                { required: ['pathType', 'backend'] },
              ),
              'Paths and where they lead.',
            ),
          },
          { required: ['paths'] },
        ),
      }),
      'Hosts and where they lead.',
    ),
  }),
  status: object('IngressStatus', {
    loadBalancer: object('IngressLoadBalancerStatus', {
      ingress: list(
        object('IngressLoadBalancerIngress', {
          ip: string('Address.'),
          hostname: string('Name.'),
          ports: list(
            object('IngressPortStatus', {
              port: int32('The port.'),
              protocol: string('The protocol.'),
              error: string('What is wrong with it.'),
            }),
            'State of the ports.',
          ),
        }),
        'Where the ingress is reached.',
      ),
    }),
  }),
});

const CLASS_ANNOTATION = 'kubernetes.io/ingress.class';

function validateIngress(ingress: Ingress, old: Ingress | undefined): FieldError[] {
  const errors = [
    ...validateMeta(ingress.metadata, { namespaced: true }),
    ...validateStatus(ingress.status, old?.status),
  ];
  const { spec } = ingress;
  if (spec === undefined) return [...errors, required('spec')];
  if ((spec.rules?.length ?? 0) === 0 && spec.defaultBackend === undefined)
    errors.push(
      invalid('spec', spec.rules ?? [], 'either `defaultBackend` or `rules` must be specified'),
    );
  if (spec.defaultBackend !== undefined)
    errors.push(...validateBackend(spec.defaultBackend, 'spec.defaultBackend'));
  spec.tls?.forEach((tls, i) => {
    tls.hosts?.forEach((host, j) => {
      const wrong = checkHost(host);
      if (wrong !== undefined) errors.push(invalid(`spec.tls[${i}].hosts[${j}]`, host, wrong));
    });
    const wrong = tls.secretName ? checkDns1123Subdomain(tls.secretName) : undefined;
    if (wrong !== undefined)
      errors.push(invalid(`spec.tls[${i}].secretName`, tls.secretName, wrong));
  });
  spec.rules?.forEach((rule, i) => {
    errors.push(...validateRule(rule, `spec.rules[${i}]`));
  });
  const wrong = spec.ingressClassName ? checkDns1123Subdomain(spec.ingressClassName) : undefined;
  if (wrong !== undefined)
    errors.push(invalid('spec.ingressClassName', spec.ingressClassName, wrong));
  const said = ingress.metadata.annotations?.[CLASS_ANNOTATION];
  if (old === undefined && said && spec.ingressClassName && said !== spec.ingressClassName)
    errors.push(
      invalid(
        `annotations.${CLASS_ANNOTATION}`,
        said,
        'must match `ingressClassName` when both are specified',
      ),
    );
  return errors;
}

function validateStatus(status: Ingress['status'], old: Ingress['status']): FieldError[] {
  if (status === undefined || sameJson(status, old)) return [];
  return (status.loadBalancer?.ingress ?? []).flatMap((at, i) =>
    validateIngressPoint(at, `status.loadBalancer.ingress[${i}]`),
  );
}

function validateRule(rule: IngressRule, field: string): FieldError[] {
  const errors = rule.host ? validateHost(rule.host, `${field}.host`) : [];
  if (rule.http === undefined) return errors;
  const paths = rule.http.paths ?? [];
  if (paths.length === 0) errors.push(required(`${field}.http.paths`));
  paths.forEach((path, i) => {
    errors.push(...validatePath(path, `${field}.http.paths[${i}]`));
  });
  return errors;
}

function validateHost(host: string, field: string): FieldError[] {
  if (parseIp(host) !== undefined)
    return [invalid(field, host, 'must be a DNS name, not an IP address')];
  const wrong = checkHost(host);
  return wrong === undefined ? [] : [invalid(field, host, wrong)];
}

function checkHost(host: string): string | undefined {
  return host.includes('*') ? checkWildcardDns1123Subdomain(host) : checkDns1123Subdomain(host);
}

/** Sequences that another server could read as another path. */
const BAD_SEQUENCES = ['//', '/./', '/../', '%2f', '%2F'];
const BAD_ENDINGS = ['/..', '/.'];

function validatePath(path: IngressPath, field: string): FieldError[] {
  const errors: FieldError[] = [];
  const { pathType } = path;
  const text = path.path ?? '';
  if (pathType === undefined)
    errors.push(required(`${field}.pathType`, 'pathType must be specified'));
  else if (!PATH_TYPES.includes(pathType))
    errors.push(notSupported(`${field}.pathType`, pathType, PATH_TYPES));
  if (pathType === 'Exact' || pathType === 'Prefix') {
    if (!text.startsWith('/'))
      errors.push(invalid(`${field}.path`, text, 'must be an absolute path'));
    else {
      for (const bad of BAD_SEQUENCES)
        if (text.includes(bad))
          errors.push(invalid(`${field}.path`, text, `must not contain '${bad}'`));
      for (const bad of BAD_ENDINGS)
        if (text.endsWith(bad))
          errors.push(invalid(`${field}.path`, text, `cannot end with '${bad}'`));
    }
  } else if (text !== '' && !text.startsWith('/'))
    errors.push(invalid(`${field}.path`, text, 'must be an absolute path'));
  if (path.backend === undefined) return [...errors, required(`${field}.backend`)];
  return [...errors, ...validateBackend(path.backend, `${field}.backend`)];
}

function validateBackend({ service, resource }: IngressBackend, field: string): FieldError[] {
  if (resource !== undefined)
    return service === undefined
      ? validateTypedReference(resource, `${field}.resource`)
      : [invalid(field, '', 'cannot set both resource and service backends')];
  if (service === undefined) return [invalid(field, '', 'resource or service backend is required')];
  const at = `${field}.service`;
  const errors: FieldError[] = [];
  const wrong = service.name ? checkDns1035Label(service.name) : undefined;
  if (!service.name) errors.push(required(`${at}.name`));
  if (wrong !== undefined) errors.push(invalid(`${at}.name`, service.name, wrong));
  return [...errors, ...validateBackendPort(service.port, field)];
}

function validateBackendPort(
  port: { name?: string; number?: number } | undefined,
  field: string,
): FieldError[] {
  const { name = '', number = 0 } = port ?? {};
  if (name !== '' && number !== 0)
    return [invalid(field, '', 'cannot set both port name & port number')];
  if (name === '' && number === 0) return [required(field, 'port name or number is required')];
  const wrong = name === '' ? checkPortNumber(number) : checkIanaServiceName(name);
  const at = `${field}.service.port`;
  const [where, value] = name === '' ? [`${at}.number`, number] : [`${at}.name`, name];
  return wrong === undefined ? [] : [invalid(where, value, wrong)];
}

function formatAddresses({ status }: Ingress): string {
  return (status?.loadBalancer?.ingress ?? [])
    .map(({ ip, hostname }) => ip || hostname || '')
    .filter((address) => address !== '')
    .join(',');
}

function formatHosts({ spec }: Ingress): string {
  const hosts = [...new Set((spec.rules ?? []).flatMap(({ host }) => host || []))];
  return hosts.length === 0 ? '*' : joinForCell(hosts);
}

export const INGRESS: KindDefinition<Ingress> = {
  group: 'networking.k8s.io',
  version: 'v1',
  kind: 'Ingress',
  resource: 'ingresses',
  singular: 'ingress',
  namespaced: true,
  shortNames: ['ing'],
  categories: [],
  subresources: ['status'],
  schema: SCHEMA,
  setDefaults: (ingress) => ingress,
  validate: validateIngress,
  columns: [
    NAME_COLUMN,
    column('Class', 'Who takes it.', ({ spec }) => spec.ingressClassName || NONE),
    column('Hosts', 'Hosts of its rules.', formatHosts),
    column('Address', 'Where it is reached.', formatAddresses),
    column('Ports', 'Ports it is served on.', ({ spec }) =>
      (spec.tls?.length ?? 0) > 0 ? '80, 443' : '80',
    ),
    AGE_COLUMN,
  ],
  selectableFields: {},
};
