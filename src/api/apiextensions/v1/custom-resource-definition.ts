/** CustomResourceDefinition: `k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1`. */
import type { FieldError, KindDefinition } from '../../kind.ts';
import { column } from '../../machinery/columns.ts';
import {
  duplicate,
  immutable,
  invalid,
  notSupported,
  required,
} from '../../machinery/field-errors.ts';
import { parseJsonPath } from '../../machinery/json-path.ts';
import { checkDns1035Label, checkDns1123Subdomain } from '../../machinery/names.ts';
import {
  any,
  boolean,
  CONDITION_SCHEMA,
  int32,
  kindSchema,
  list,
  object,
  oneOf,
  string,
  strings,
} from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { Condition, KubeObject } from '../../meta.ts';
import type { JsonSchema } from './json-schema.ts';
import { checkStructural } from './structural.ts';

export interface CustomNames {
  plural: string;
  singular?: string;
  shortNames?: string[];
  kind: string;
  listKind?: string;
  categories?: string[];
}

export interface PrinterColumn {
  name: string;
  type: string;
  format?: string;
  description?: string;
  priority?: number;
  jsonPath: string;
}

export interface ScaleSubresource {
  specReplicasPath: string;
  statusReplicasPath: string;
  labelSelectorPath?: string;
}

export interface CustomVersion {
  name: string;
  served: boolean;
  storage: boolean;
  deprecated?: boolean;
  deprecationWarning?: string;
  schema?: { openAPIV3Schema?: JsonSchema };
  subresources?: { status?: Record<string, never>; scale?: ScaleSubresource };
  additionalPrinterColumns?: PrinterColumn[];
  selectableFields?: { jsonPath: string }[];
}

export interface CustomResourceDefinition extends KubeObject {
  apiVersion: 'apiextensions.k8s.io/v1';
  kind: 'CustomResourceDefinition';
  spec: {
    group: string;
    names: CustomNames;
    scope: 'Namespaced' | 'Cluster';
    versions: CustomVersion[];
    conversion?: { strategy?: string };
    preserveUnknownFields?: boolean;
  };
  status?: { conditions?: Condition[]; acceptedNames?: CustomNames; storedVersions?: string[] };
}

/** Instances are deleted before their definition goes. */
export const CLEANUP_FINALIZER = 'customresourcecleanup.apiextensions.k8s.io';
const APPROVAL = 'api-approved.kubernetes.io';
const COLUMN_TYPES = ['integer', 'number', 'string', 'boolean', 'date'];
const SCOPES = ['Cluster', 'Namespaced'];
/** As upstream. */
const MAX_SELECTABLE_FIELDS = 8;
/** Versions a kind goes through in its life; bounds the work of one definition. */
const MAX_VERSIONS = 20;

const NAMES_SCHEMA = object(
  'CustomResourceDefinitionNames',
  {
    plural: string('The name in URLs, in lower case.'),
    singular: string('The name for one, in lower case. Default: the kind in lower case.'),
    shortNames: strings('Short names for kubectl.'),
    kind: string('The kind, in CamelCase.'),
    listKind: string('The kind of lists. Default: the kind and "List".'),
    categories: strings('Groups of kinds for kubectl, such as all.'),
  },
  { required: ['plural', 'kind'] },
);

const VERSION_SCHEMA = object(
  'CustomResourceDefinitionVersion',
  {
    name: string('The version: v1, v1beta1.'),
    served: boolean('Whether the version is served.'),
    storage: boolean('Whether objects are stored in this version; true for exactly one.'),
    deprecated: boolean('Whether clients are warned of the version.'),
    deprecationWarning: string('What they are told.'),
    schema: object('CustomResourceValidation', {
      openAPIV3Schema: any('The structural schema of the objects.'),
    }),
    subresources: object('CustomResourceSubresources', {
      status: object(
        'CustomResourceSubresourceStatus',
        {},
        { description: 'The status is written apart from the rest.' },
      ),
      scale: object(
        'CustomResourceSubresourceScale',
        {
          specReplicasPath: string('Where the wanted number stands: .spec.replicas.'),
          statusReplicasPath: string('Where the actual number stands: .status.replicas.'),
          labelSelectorPath: string('Where the selector stands, as text.'),
        },
        { required: ['specReplicasPath', 'statusReplicasPath'] },
      ),
    }),
    additionalPrinterColumns: list(
      object(
        'CustomResourceColumnDefinition',
        {
          name: string('Heading of the column.'),
          type: oneOf(COLUMN_TYPES, 'What the cells hold.'),
          format: string('A hint for clients.'),
          description: string('For people.'),
          priority: int32('Above 0: only with -o wide.'),
          jsonPath: string('Where the value stands in the object.'),
        },
        { required: ['name', 'type', 'jsonPath'] },
      ),
      'Columns of kubectl get.',
    ),
    selectableFields: list(
      object(
        'SelectableField',
        { jsonPath: string('Where the field stands.') },
        { required: ['jsonPath'] },
      ),
      'Fields that field selectors may name.',
    ),
  },
  { required: ['name', 'served', 'storage'] },
);

const SCHEMA = kindSchema(
  'CustomResourceDefinition',
  'A kind that was added to the API.',
  {
    spec: object(
      'CustomResourceDefinitionSpec',
      {
        group: string('The API group. Cannot be changed.'),
        names: { ...NAMES_SCHEMA, description: 'How the kind is called.' },
        scope: oneOf(SCOPES, 'Whether the objects are in namespaces. Cannot be changed.'),
        versions: list(VERSION_SCHEMA, 'The versions of the kind.'),
        conversion: object('CustomResourceConversion', {
          strategy: oneOf(
            ['None'],
            'How versions are made of each other: only apiVersion differs.',
          ),
        }),
        preserveUnknownFields: boolean(
          'Must be false: fields that the schema does not name are dropped.',
        ),
      },
      { required: ['group', 'names', 'scope', 'versions'] },
    ),
    status: object('CustomResourceDefinitionStatus', {
      conditions: list(CONDITION_SCHEMA, 'How the definition is.', { mergeKey: 'type' }),
      acceptedNames: { ...NAMES_SCHEMA, description: 'The names under which it is served.' },
      storedVersions: strings('Versions in which objects may be stored.'),
    }),
  },
  ['spec'],
);

function setDefaults(definition: CustomResourceDefinition): CustomResourceDefinition {
  // What is missing is found by validation: here only what is there is completed.
  const { spec } = definition;
  if (spec?.names === undefined) return definition;
  const { names } = spec;
  const kind = names.kind ?? '';
  return {
    ...definition,
    spec: {
      ...spec,
      names: {
        ...names,
        singular: names.singular || kind.toLowerCase(),
        listKind: names.listKind || `${kind}List`,
      },
      conversion: { strategy: 'None', ...spec.conversion },
    },
  };
}

function validate(
  definition: CustomResourceDefinition,
  old: CustomResourceDefinition | undefined,
): FieldError[] {
  const { metadata, spec } = definition;
  const errors: FieldError[] = [
    ...validateMeta(metadata, { namespaced: false, anyFinalizer: true }),
  ];
  if (spec === undefined) return [...errors, required('spec')];
  errors.push(...validateGroup(definition), ...validateNames(spec.names));
  const wanted = `${spec.names?.plural ?? ''}.${spec.group ?? ''}`;
  if (metadata.name !== wanted)
    errors.push(
      invalid('metadata.name', metadata.name, `must be spec.names.plural+"."+spec.group`),
    );
  if (!spec.scope) errors.push(required('spec.scope'));
  else if (!SCOPES.includes(spec.scope))
    errors.push(notSupported('spec.scope', spec.scope, SCOPES));
  if (spec.preserveUnknownFields === true)
    errors.push(
      invalid(
        'spec.preserveUnknownFields',
        true,
        'cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead',
      ),
    );
  const strategy = spec.conversion?.strategy ?? 'None';
  if (strategy !== 'None')
    errors.push(notSupported('spec.conversion.strategy', strategy, ['None']));
  errors.push(...validateVersions(spec.versions ?? []));
  if (old !== undefined) errors.push(...validateUpdate(definition, old));
  return errors;
}

function validateGroup({ spec, metadata }: CustomResourceDefinition): FieldError[] {
  const field = 'spec.group';
  const group = spec.group ?? '';
  if (group === '') return [required(field)];
  const wrong = checkDns1123Subdomain(group);
  if (wrong !== undefined) return [invalid(field, group, wrong)];
  if (!group.includes('.'))
    return [invalid(field, group, 'should be a domain with at least one dot')];
  const isProtected = /(^|\.)(k8s|kubernetes)\.io$/.test(group);
  if (isProtected && !metadata.annotations?.[APPROVAL])
    return [
      required(
        `metadata.annotations[${APPROVAL}]`,
        'protected groups must have approval annotation "api-approved.kubernetes.io", see https://github.com/kubernetes/enhancements/pull/1111',
      ),
    ];
  return [];
}

function validateNames(names: CustomNames | undefined): FieldError[] {
  const field = 'spec.names';
  if (names === undefined) return [required(field)];
  const errors: FieldError[] = [];
  const label = (name: string, text: string) => {
    const wrong = checkDns1035Label(text);
    if (wrong !== undefined) errors.push(invalid(`${field}.${name}`, text, wrong));
  };
  for (const name of ['plural', 'singular', 'kind', 'listKind'] as const) {
    const text = names[name] ?? '';
    const hasCase = name === 'kind' || name === 'listKind';
    const wrong = checkDns1035Label(hasCase ? text.toLowerCase() : text);
    const but = hasCase ? 'may have mixed case, but should otherwise match: ' : '';
    if (text === '') errors.push(required(`${field}.${name}`));
    else if (wrong !== undefined) errors.push(invalid(`${field}.${name}`, text, but + wrong));
  }
  for (const [i, name] of (names.shortNames ?? []).entries()) label(`shortNames[${i}]`, name);
  for (const [i, name] of (names.categories ?? []).entries()) label(`categories[${i}]`, name);
  if (names.kind && names.kind === names.listKind)
    errors.push(
      invalid(`${field}.listKind`, names.listKind, 'kind and listKind may not be the same'),
    );
  return errors;
}

function validateVersions(versions: readonly CustomVersion[]): FieldError[] {
  const field = 'spec.versions';
  const errors: FieldError[] = [];
  if (versions.length === 0) return [required(field, 'must have at least one version')];
  if (versions.length > MAX_VERSIONS)
    return [
      {
        type: 'TooMany',
        field,
        value: versions.length,
        detail: `must have at most ${MAX_VERSIONS} items`,
      },
    ];
  const seen = new Set<string>();
  versions.forEach((version, i) => {
    if (seen.has(version.name)) errors.push(duplicate(`${field}[${i}].name`, version.name));
    seen.add(version.name);
    errors.push(...validateVersion(version, `${field}[${i}]`));
  });
  const stored = versions.filter((version) => version.storage).length;
  if (stored !== 1)
    errors.push(
      invalid(
        field,
        versions.map((version) => version.name),
        'must have exactly one version marked as storage version',
      ),
    );
  return errors;
}

function validateVersion(version: CustomVersion, field: string): FieldError[] {
  const errors: FieldError[] = [];
  const wrong = checkDns1035Label(version.name ?? '');
  if (wrong !== undefined) errors.push(invalid(`${field}.name`, version.name, wrong));
  errors.push(
    ...checkStructural(version.schema?.openAPIV3Schema, `${field}.schema.openAPIV3Schema`),
  );
  (version.additionalPrinterColumns ?? []).forEach((printed, i) => {
    const at = `${field}.additionalPrinterColumns[${i}]`;
    if (!printed.name) errors.push(required(`${at}.name`));
    if (!COLUMN_TYPES.includes(printed.type))
      errors.push(notSupported(`${at}.type`, printed.type, COLUMN_TYPES));
    errors.push(...checkPath(printed.jsonPath, `${at}.jsonPath`));
  });
  (version.selectableFields ?? []).forEach((selectable, i) => {
    errors.push(...checkPath(selectable.jsonPath, `${field}.selectableFields[${i}].jsonPath`));
  });
  if ((version.selectableFields?.length ?? 0) > MAX_SELECTABLE_FIELDS)
    errors.push({
      type: 'TooMany',
      field: `${field}.selectableFields`,
      detail: `must have at most ${MAX_SELECTABLE_FIELDS} items`,
    });
  const scale = version.subresources?.scale;
  if (scale === undefined) return errors;
  const at = `${field}.subresources.scale`;
  const paths = [
    ['specReplicasPath', '.spec.'],
    ['statusReplicasPath', '.status.'],
    ['labelSelectorPath', '.'],
  ] as const;
  for (const [name, prefix] of paths) {
    const path = scale[name];
    if (path === undefined || path === '') {
      if (name !== 'labelSelectorPath') errors.push(required(`${at}.${name}`));
    } else if (!path.startsWith(prefix) || !/^(\.[A-Za-z0-9_-]+)+$/.test(path))
      errors.push(
        invalid(
          `${at}.${name}`,
          path,
          `should be a json path under ${prefix === '.' ? '.spec or .status' : prefix.slice(0, -1)}`,
        ),
      );
  }
  return errors;
}

function checkPath(path: string | undefined, field: string): FieldError[] {
  if (!path) return [required(field)];
  const parsed = parseJsonPath(path);
  return typeof parsed === 'string'
    ? [invalid(field, path, `is an invalid JSON path: ${parsed}`)]
    : [];
}

function validateUpdate(
  { spec, metadata, status }: CustomResourceDefinition,
  old: CustomResourceDefinition,
): FieldError[] {
  const errors: FieldError[] = [];
  if (spec.group !== old.spec.group) errors.push(immutable('spec.group', spec.group));
  if (spec.scope !== old.spec.scope) errors.push(immutable('spec.scope', spec.scope));
  const isEstablished = old.status?.conditions?.some(
    ({ type, status }) => type === 'Established' && status === 'True',
  );
  for (const name of ['plural', 'kind'] as const)
    if (isEstablished && spec.names?.[name] !== old.spec.names[name])
      errors.push(immutable(`spec.names.${name}`, spec.names?.[name]));
  const has = new Set((spec.versions ?? []).map((version) => version.name));
  const stored = (status ?? old.status)?.storedVersions ?? [];
  stored.forEach((version, i) => {
    if (!has.has(version) && metadata.deletionTimestamp === undefined)
      errors.push(
        invalid(
          `status.storedVersions[${i}]`,
          version,
          'must appear in spec.versions: objects may be stored in it',
        ),
      );
  });
  return errors;
}

export const CUSTOM_RESOURCE_DEFINITION: KindDefinition<CustomResourceDefinition> = {
  group: 'apiextensions.k8s.io',
  version: 'v1',
  kind: 'CustomResourceDefinition',
  resource: 'customresourcedefinitions',
  singular: 'customresourcedefinition',
  namespaced: false,
  shortNames: ['crd', 'crds'],
  categories: ['api-extensions'],
  subresources: ['status'],
  schema: SCHEMA,
  setDefaults,
  validate,
  columns: [
    {
      name: 'Name',
      type: 'string',
      format: 'name',
      description: 'Name of the object: the plural and the group.',
      priority: 0,
      value: (object) => object.metadata.name,
    },
    column(
      'Created At',
      'When the object was created.',
      (object) => object.metadata.creationTimestamp ?? '',
    ),
  ],
  selectableFields: {},
};
