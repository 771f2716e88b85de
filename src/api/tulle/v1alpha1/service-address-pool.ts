/** ServiceAddressPool: addresses for services of type LoadBalancer. `tulle.dev/v1alpha1`, cluster-scoped. */
import { type Ip, ipFromBigInt } from '#lib/ip.ts';
import { type IpRange, parseIpRange, rangeContains, rangesOverlap } from '#lib/ip-range.ts';
import type { FieldError, KindDefinition } from '../../kind.ts';
import { checkUsableEndpointAddress } from '../../machinery/addresses.ts';
import { AGE_COLUMN, column, NAME_COLUMN, wideColumn } from '../../machinery/columns.ts';
import { duplicate, invalid, notSupported, required } from '../../machinery/field-errors.ts';
import {
  formatSelector,
  selectorOf,
  validateLabelSelector,
} from '../../machinery/label-selector.ts';
import { checkDns1123Label } from '../../machinery/names.ts';
import {
  boolean,
  int32,
  kindSchema,
  LABEL_SELECTOR_SCHEMA,
  object,
  oneOf,
  strings,
} from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { KubeObject, LabelSelector } from '../../meta.ts';

export interface ServiceAddressPoolSpec {
  /** Prefixes (`192.0.2.0/28`), ranges (`192.0.2.10-192.0.2.20`) and single addresses. */
  addresses: string[];
  /** Whether services that ask for nothing get addresses of this pool. Default true. */
  autoAssign?: boolean;
  /** Pools with a lower number are used first; default 100. */
  priority?: number;
  /** Only services of these namespaces; missing or empty: of all. */
  namespaces?: string[];
  /** Only services with these labels; missing: all. */
  serviceSelector?: LabelSelector;
  /** What nodes do with packets to the address. Default VIP. */
  ipMode?: 'VIP' | 'Proxy';
}

export interface ServiceAddressPool extends KubeObject {
  apiVersion: 'tulle.dev/v1alpha1';
  kind: 'ServiceAddressPool';
  spec: ServiceAddressPoolSpec;
  status?: {
    /** Addresses in use. */
    allocated?: number;
  };
}

export const DEFAULT_POOL_PRIORITY = 100;
const IP_MODES = ['Proxy', 'VIP'];
/** Ranges of a pool are looked through for each allocation. */
const MAX_RANGES = 256;

/** The ranges of a valid pool; what cannot be read is left out. */
export function rangesOfPool(pool: Pick<ServiceAddressPool, 'spec'>): IpRange[] {
  return (pool.spec?.addresses ?? []).flatMap((text) => parseIpRange(text) ?? []);
}

export function poolContains(pool: Pick<ServiceAddressPool, 'spec'>, address: Ip): boolean {
  return rangesOfPool(pool).some((range) => rangeContains(range, address));
}

function setDefaults(pool: ServiceAddressPool): ServiceAddressPool {
  const spec = {
    autoAssign: true,
    priority: DEFAULT_POOL_PRIORITY,
    ipMode: 'VIP' as const,
    ...pool.spec,
  };
  return { ...pool, spec };
}

function validatePool(pool: ServiceAddressPool): FieldError[] {
  const errors = validateMeta(pool.metadata, { namespaced: false });
  const { spec } = pool;
  const addresses = spec?.addresses ?? [];
  if (addresses.length === 0) return [...errors, required('spec.addresses')];
  if (addresses.length > MAX_RANGES)
    return [
      ...errors,
      {
        type: 'TooMany',
        field: 'spec.addresses',
        detail: `${addresses.length}: must have at most ${MAX_RANGES} items`,
      },
    ];
  const seen: IpRange[] = [];
  addresses.forEach((text, i) => {
    const field = `spec.addresses[${i}]`;
    const range = parseIpRange(text);
    if (range === undefined) errors.push(invalid(field, text, WHAT_A_RANGE_IS));
    else {
      const wrong = [range.first, range.last]
        .map((end) => checkUsableEndpointAddress(ipFromBigInt(end, range.family)))
        .find((it) => it !== undefined);
      if (wrong !== undefined) errors.push(invalid(field, text, wrong));
      if (seen.some((other) => rangesOverlap(other, range))) errors.push(duplicate(field, text));
      seen.push(range);
    }
  });
  spec.namespaces?.forEach((name, i) => {
    const wrong = checkDns1123Label(name);
    if (wrong !== undefined) errors.push(invalid(`spec.namespaces[${i}]`, name, wrong));
  });
  if (spec.ipMode !== undefined && !IP_MODES.includes(spec.ipMode))
    errors.push(notSupported('spec.ipMode', spec.ipMode, IP_MODES));
  return [...errors, ...validateLabelSelector(spec.serviceSelector, 'spec.serviceSelector')];
}

const WHAT_A_RANGE_IS =
  'must be a prefix (192.0.2.0/28), a range (192.0.2.10-192.0.2.20) or an address';

export const SERVICE_ADDRESS_POOL: KindDefinition<ServiceAddressPool> = {
  group: 'tulle.dev',
  version: 'v1alpha1',
  kind: 'ServiceAddressPool',
  resource: 'serviceaddresspools',
  singular: 'serviceaddresspool',
  namespaced: false,
  shortNames: ['sap'],
  categories: [],
  subresources: ['status'],
  schema: kindSchema(
    'ServiceAddressPool',
    'Addresses for services of type LoadBalancer.',
    {
      spec: object(
        'ServiceAddressPoolSpec',
        {
          addresses: strings(
            'Prefixes (192.0.2.0/28), ranges (192.0.2.10-192.0.2.20) and single addresses, of either family.',
          ),
          autoAssign: boolean(
            'Whether services that ask for no address or pool get addresses of this one. Default true.',
          ),
          priority: int32('Pools with a lower number are used first. Default 100.'),
          namespaces: strings('Only services of these namespaces. Default: of all.'),
          serviceSelector: LABEL_SELECTOR_SCHEMA,
          ipMode: oneOf(
            IP_MODES,
            'VIP: nodes take packets to the address themselves. Proxy: they let them out to a load balancer. Default VIP.',
          ),
        },
        { required: ['addresses'] },
      ),
      status: object('ServiceAddressPoolStatus', { allocated: int32('Addresses in use.') }),
    },
    ['spec'],
  ),
  setDefaults,
  validate: validatePool,
  columns: [
    NAME_COLUMN,
    column('Addresses', 'The ranges.', ({ spec }) => spec.addresses.join(',')),
    column('Allocated', 'Addresses in use.', ({ status }) => status?.allocated ?? 0),
    column('Auto-Assign', 'Whether services that ask for nothing get them.', ({ spec }) =>
      String(spec.autoAssign ?? true),
    ),
    AGE_COLUMN,
    wideColumn(
      'Priority',
      'Lower is used first.',
      ({ spec }) => spec.priority ?? DEFAULT_POOL_PRIORITY,
    ),
    wideColumn(
      'Namespaces',
      'Of which services.',
      ({ spec }) => spec.namespaces?.join(',') || '<all>',
    ),
    wideColumn('Selector', 'Of which services.', ({ spec }) =>
      spec.serviceSelector === undefined
        ? '<all>'
        : formatSelector(selectorOf(spec.serviceSelector)),
    ),
  ],
  selectableFields: {},
};
