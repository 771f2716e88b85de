/** IngressClass: which controller takes an Ingress. `k8s.io/api/networking/v1`. */
import type { FieldError, KindDefinition } from '../../kind.ts';
import { AGE_COLUMN, column, NAME_COLUMN, NONE } from '../../machinery/columns.ts';
import {
  forbidden,
  immutable,
  invalid,
  notSupported,
  required,
} from '../../machinery/field-errors.ts';
import { checkDns1123Label, checkDns1123Subdomain } from '../../machinery/names.ts';
import { kindSchema, object, oneOf, string } from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { KubeObject } from '../../meta.ts';
import { validateTypedReference } from './typed-reference.ts';

export interface IngressClassParameters {
  apiGroup?: string;
  kind: string;
  name: string;
  scope?: 'Cluster' | 'Namespace';
  namespace?: string;
}

export interface IngressClass extends KubeObject {
  apiVersion: 'networking.k8s.io/v1';
  kind: 'IngressClass';
  spec: { controller: string; parameters?: IngressClassParameters };
}

/** As upstream. */
const MAX_CONTROLLER_LENGTH = 250;
const SCOPES = ['Cluster', 'Namespace'];

const SCHEMA = kindSchema('IngressClass', 'Which controller takes an Ingress.', {
  spec: object('IngressClassSpec', {
    controller: string('The controller: a domain, "/" and a path. It cannot be changed.'),
    parameters: object(
      'IngressClassParametersReference',
      {
        apiGroup: string('Group of the object.'),
        kind: string('Kind of the object.'),
        name: string('Name of the object.'),
        scope: oneOf(SCOPES, 'Whether the object is in a namespace. Default Cluster.'),
        namespace: string('Namespace of the object.'),
      },
      { required: ['kind', 'name'], description: 'More configuration for the controller.' },
    ),
  }),
});

function setDefaults(object: IngressClass): IngressClass {
  const parameters = object.spec?.parameters;
  if (parameters === undefined || parameters.scope !== undefined) return object;
  return { ...object, spec: { ...object.spec, parameters: { ...parameters, scope: 'Cluster' } } };
}

function validateClass(object: IngressClass, old: IngressClass | undefined): FieldError[] {
  const errors = validateMeta(object.metadata, { namespaced: false });
  const { spec } = object;
  if (spec === undefined) return [...errors, required('spec')];
  const controller = spec.controller ?? '';
  if (old !== undefined) {
    if (old.spec.controller !== controller) errors.push(immutable('spec.controller', controller));
  } else errors.push(...validateController(controller));
  const { parameters } = spec;
  if (parameters === undefined) return errors;
  const field = 'spec.parameters';
  errors.push(...validateTypedReference(parameters, field));
  if (parameters.scope !== undefined && !SCOPES.includes(parameters.scope))
    errors.push(notSupported(`${field}.scope`, parameters.scope, SCOPES));
  if (parameters.scope === 'Namespace' && !parameters.namespace)
    errors.push(required(`${field}.namespace`, "`parameters.scope` is set to 'Namespace'"));
  const wrong = parameters.namespace ? checkDns1123Label(parameters.namespace) : undefined;
  if (parameters.scope === 'Namespace' && wrong !== undefined)
    errors.push(invalid(`${field}.namespace`, parameters.namespace, wrong));
  if (parameters.scope === 'Cluster' && parameters.namespace)
    errors.push(forbidden(`${field}.namespace`, "`parameters.scope` is set to 'Cluster'"));
  return errors;
}

function validateController(controller: string): FieldError[] {
  const field = 'spec.controller';
  if (controller === '') return [required(field)];
  if (controller.length > MAX_CONTROLLER_LENGTH)
    return [
      { type: 'TooLong', field, detail: `may not be more than ${MAX_CONTROLLER_LENGTH} bytes` },
    ];
  const slash = controller.indexOf('/');
  const domain = slash < 0 ? controller : controller.slice(0, slash);
  if (slash < 0 || slash === controller.length - 1)
    return [invalid(field, controller, 'must be a domain-prefixed path (such as "acme.io/foo")')];
  const wrong = checkDns1123Subdomain(domain);
  return wrong === undefined ? [] : [invalid(field, controller, wrong)];
}

function formatParameters({ spec }: IngressClass): string {
  const { parameters } = spec;
  if (parameters === undefined) return NONE;
  const group = parameters.apiGroup ? `.${parameters.apiGroup}` : '';
  return `${parameters.kind}${group}/${parameters.name}`;
}

export const INGRESS_CLASS: KindDefinition<IngressClass> = {
  group: 'networking.k8s.io',
  version: 'v1',
  kind: 'IngressClass',
  resource: 'ingressclasses',
  singular: 'ingressclass',
  namespaced: false,
  shortNames: [],
  categories: [],
  subresources: [],
  schema: SCHEMA,
  setDefaults,
  validate: validateClass,
  columns: [
    NAME_COLUMN,
    column('Controller', 'The controller.', ({ spec }) => spec.controller),
    column('Parameters', 'More configuration.', formatParameters),
    AGE_COLUMN,
  ],
  selectableFields: {},
};
