/** ServiceCIDR: a further range that services get their cluster IPs from. `k8s.io/api/networking/v1`, cluster-scoped. */
import { cidrOf, familyOf, parseCidr, splitCidr } from '#lib/ip.ts';
import type { FieldError, KindDefinition } from '../../kind.ts';
import { findSpecialPrefix, NOT_A_CIDR } from '../../machinery/addresses.ts';
import { AGE_COLUMN, column, NAME_COLUMN } from '../../machinery/columns.ts';
import { immutable, invalid, required } from '../../machinery/field-errors.ts';
import { sameJson } from '../../machinery/json.ts';
import { CONDITION_SCHEMA, kindSchema, list, object, strings } from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { Condition, KubeObject } from '../../meta.ts';

export interface ServiceCIDR extends KubeObject {
  apiVersion: 'networking.k8s.io/v1';
  kind: 'ServiceCIDR';
  spec: {
    /** One, or one of each family. Immutable. */
    cidrs?: string[];
  };
  status?: { conditions?: Condition[] };
}

/** Keeps a range that is to go until no service has an address of it. */
export const SERVICE_CIDR_FINALIZER = 'networking.k8s.io/service-cidr-finalizer';
/** One of each family. */
const MAX_CIDRS = 2;

function validateServiceCidr(it: ServiceCIDR, old: ServiceCIDR | undefined): FieldError[] {
  const errors = validateMeta(it.metadata, { namespaced: false });
  const cidrs = it.spec?.cidrs ?? [];
  if (cidrs.length === 0) return [...errors, required('spec.cidrs')];
  if (cidrs.length > MAX_CIDRS)
    errors.push(invalid('spec.cidrs', cidrs.join(','), 'may only hold up to 2 values'));
  const parsed = cidrs.map(parseCidr);
  parsed.forEach((prefix, i) => {
    const text = cidrs[i] ?? '';
    const field = `spec.cidrs[${i}]`;
    if (prefix === undefined) errors.push(invalid(field, text, whyNoCidr(text)));
    const special = prefix === undefined ? undefined : findSpecialPrefix(prefix);
    if (special !== undefined)
      errors.push(invalid(field, text, `must not overlap ${special.use} (${special.prefix})`));
  });
  const families = parsed.flatMap((prefix) => (prefix === undefined ? [] : [familyOf(prefix)]));
  if (new Set(families).size !== families.length)
    errors.push(
      invalid('spec.cidrs', cidrs.join(','), 'may specify no more than one IP for each IP family'),
    );
  if (old !== undefined && !sameJson(old.spec, it.spec))
    errors.push(immutable('spec.cidrs', cidrs.join(',')));
  return errors;
}

function whyNoCidr(text: string): string {
  const parts = splitCidr(text);
  return parts === undefined
    ? NOT_A_CIDR
    : `must be in canonical form ("${cidrOf(parts.address, parts.prefixLength)}")`;
}

export const SERVICE_CIDR: KindDefinition<ServiceCIDR> = {
  group: 'networking.k8s.io',
  version: 'v1',
  kind: 'ServiceCIDR',
  resource: 'servicecidrs',
  singular: 'servicecidr',
  namespaced: false,
  shortNames: [],
  categories: [],
  subresources: ['status'],
  schema: kindSchema(
    'ServiceCIDR',
    'A further range of cluster IPs.',
    {
      spec: object('ServiceCIDRSpec', {
        cidrs: strings('A prefix, or one of each address family. Cannot be changed.'),
      }),
      status: object('ServiceCIDRStatus', {
        conditions: list(CONDITION_SCHEMA, 'How the range is.', { mergeKey: 'type' }),
      }),
    },
    ['spec'],
  ),
  setDefaults: (it) => it,
  validate: validateServiceCidr,
  columns: [
    NAME_COLUMN,
    column('CIDRs', 'The prefixes.', ({ spec }) => (spec.cidrs ?? []).join(',')),
    AGE_COLUMN,
  ],
  selectableFields: {},
};
