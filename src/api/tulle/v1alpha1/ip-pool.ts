/** IPPool: addresses for pods, cut into blocks that nodes claim. `tulle.dev/v1alpha1`, cluster-scoped. */
import {
  type Cidr,
  cidrContains,
  cidrOf,
  familyOf,
  hostCidr,
  networkAddress,
  parseCidr,
  parseIp,
  prefixLengthOf,
  splitCidr,
} from '#lib/ip.ts';
import type { FieldError, KindDefinition } from '../../kind.ts';
import { findSpecialPrefix } from '../../machinery/addresses.ts';
import { AGE_COLUMN, column, NAME_COLUMN, wideColumn } from '../../machinery/columns.ts';
import { immutable, invalid, notSupported, required } from '../../machinery/field-errors.ts';
import { validateLabelSelector } from '../../machinery/label-selector.ts';
import {
  boolean,
  CONDITION_SCHEMA,
  int32,
  kindSchema,
  LABEL_SELECTOR_SCHEMA,
  list,
  object,
  oneOf,
  string,
  strings,
} from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { Condition, KubeObject, LabelSelector } from '../../meta.ts';

export type Encapsulation = 'Always' | 'CrossSubnet' | 'Never';

export interface IPPoolSpec {
  /** Canonical prefix. Immutable. */
  cidr: string;
  /** Prefix length of a block: IPv4 20 to 32 (default 26), IPv6 116 to 128 (default 122). Immutable. */
  blockSize?: number;
  /** No new addresses are given out of a disabled pool. Default false. */
  disabled?: boolean;
  /** Masquerade what leaves the pod network. Default true. */
  natOutgoing?: boolean;
  /** Default `Always`. */
  encapsulation?: Encapsulation;
  /** Nodes that may give out addresses of the pool. Default: all. */
  nodeSelector?: LabelSelector;
  /** Namespaces whose pods the pool is for: they get addresses of it and of no other. Default: those no pool selects. */
  namespaceSelector?: LabelSelector;
  /**
   * A node uses addresses of its own blocks only. Else a node without a free one, when no block is left to claim, borrows
   * single addresses of other nodes' blocks. Default false.
   */
  strictAffinity?: boolean;
  /** Addresses and prefixes that only those get who ask for them by name. */
  reserved?: string[];
}

export interface IPPoolStatus {
  /** Addresses in use. */
  allocated?: number;
  /** Blocks claimed by nodes. */
  blocks?: number;
  conditions?: Condition[];
}

export interface IPPool extends KubeObject {
  apiVersion: 'tulle.dev/v1alpha1';
  kind: 'IPPool';
  spec: IPPoolSpec;
  status?: IPPoolStatus;
}

const ENCAPSULATIONS = ['Always', 'CrossSubnet', 'Never'];

/** Prefix lengths of blocks. The largest block has 4096 addresses, so that one write of it stays small. */
export const BLOCK_SIZES = {
  4: { min: 20, max: 32, default: 26 },
  6: { min: 116, max: 128, default: 122 },
} as const;

/** Every allocation looks through them. */
const MAX_RESERVED = 256;

const SCHEMA = kindSchema(
  'IPPool',
  'Addresses for pods, cut into blocks that nodes claim.',
  {
    spec: object(
      'IPPoolSpec',
      {
        cidr: string('The prefix, without host bits. Cannot be changed.'),
        blockSize: int32(
          'Prefix length of a block: IPv4 20 to 32, default 26; IPv6 116 to 128, default 122. Cannot be changed.',
        ),
        disabled: boolean('No new addresses are given out. Default false.'),
        natOutgoing: boolean(
          'What leaves the pod network gets the address of its node. Default true.',
        ),
        encapsulation: oneOf(
          ENCAPSULATIONS,
          'Whether traffic between nodes is put into tunnels; CrossSubnet: only between nodes of different subnets. Default Always.',
        ),
        nodeSelector: LABEL_SELECTOR_SCHEMA,
        namespaceSelector: LABEL_SELECTOR_SCHEMA,
        strictAffinity: boolean(
          "A node uses addresses of its own blocks only, and never borrows one of another node's block when its own are full and no block is left. Default false.",
        ),
        reserved: strings(
          'Addresses and prefixes of the pool that only those get who ask for them by name.',
        ),
      },
      { required: ['cidr'] },
    ),
    status: object('IPPoolStatus', {
      allocated: int32('Addresses in use.'),
      blocks: int32('Blocks that nodes have claimed.'),
      conditions: list(CONDITION_SCHEMA, 'How the pool is.', { mergeKey: 'type' }),
    }),
  },
  ['spec'],
);

function setDefaults(pool: IPPool): IPPool {
  const cidr = parseCidr(pool.spec?.cidr ?? '');
  const spec: IPPoolSpec = {
    disabled: false,
    natOutgoing: true,
    encapsulation: 'Always',
    strictAffinity: false,
    ...pool.spec,
  };
  // Without a readable prefix there is no family to choose by; validation refuses it.
  if (cidr !== undefined) spec.blockSize ??= defaultBlockSize(cidr);
  return { ...pool, spec };
}

/** A pool smaller than a default block is one block. */
function defaultBlockSize(cidr: Cidr): number {
  return Math.max(BLOCK_SIZES[familyOf(cidr)].default, prefixLengthOf(cidr));
}

function validatePool(pool: IPPool, old: IPPool | undefined): FieldError[] {
  const errors = validateMeta(pool.metadata, { namespaced: false });
  const { spec } = pool;
  if (!spec?.cidr) return [...errors, required('spec.cidr')];
  const cidr = parseCidr(spec.cidr);
  if (cidr === undefined) errors.push(invalid('spec.cidr', spec.cidr, whyNoCidr(spec.cidr)));
  else {
    const special = findSpecialPrefix(cidr);
    if (special !== undefined)
      errors.push(
        invalid('spec.cidr', cidr, `must not overlap ${special.use} (${special.prefix})`),
      );
    errors.push(...validateBlockSize(spec.blockSize, cidr), ...validateReserved(spec, cidr));
  }
  errors.push(
    ...validateLabelSelector(spec.nodeSelector, 'spec.nodeSelector'),
    ...validateLabelSelector(spec.namespaceSelector, 'spec.namespaceSelector'),
  );
  if (spec.encapsulation !== undefined && !ENCAPSULATIONS.includes(spec.encapsulation))
    errors.push(notSupported('spec.encapsulation', spec.encapsulation, ENCAPSULATIONS));
  if (old !== undefined && spec.cidr !== old.spec.cidr)
    errors.push(immutable('spec.cidr', spec.cidr));
  if (old !== undefined && spec.blockSize !== old.spec.blockSize)
    errors.push(immutable('spec.blockSize', spec.blockSize));
  return errors;
}

/** A reserved address or prefix. @returns undefined for text that is neither */
export function parseReserved(text: string): Cidr | undefined {
  const address = parseIp(text);
  return address === undefined ? parseCidr(text) : hostCidr(address);
}

function validateReserved({ reserved = [] }: IPPoolSpec, cidr: Cidr): FieldError[] {
  if (reserved.length > MAX_RESERVED)
    return [invalid('spec.reserved', reserved.length, `must have at most ${MAX_RESERVED} entries`)];
  return reserved.flatMap((text, i) => {
    const prefix = parseReserved(text);
    const field = `spec.reserved[${i}]`;
    if (prefix === undefined)
      return [invalid(field, text, 'must be an address or a prefix in canonical form')];
    const isInside =
      prefixLengthOf(prefix) >= prefixLengthOf(cidr) && cidrContains(cidr, networkAddress(prefix));
    return isInside ? [] : [invalid(field, text, `must be inside the pool ${cidr}`)];
  });
}

function whyNoCidr(text: string): string {
  const parts = splitCidr(text);
  return parts === undefined
    ? 'must be a network prefix in canonical form, (e.g. 10.244.0.0/16 or fd00:10:244::/56)'
    : `must be in canonical form ("${cidrOf(parts.address, parts.prefixLength)}")`;
}

function validateBlockSize(blockSize: number | undefined, cidr: Cidr): FieldError[] {
  if (blockSize === undefined) return [];
  const { min, max } = BLOCK_SIZES[familyOf(cidr)];
  if (!Number.isInteger(blockSize) || blockSize < min || blockSize > max)
    return [
      invalid(
        'spec.blockSize',
        blockSize,
        `must be between ${min} and ${max}, inclusive, for an IPv${familyOf(cidr)} pool`,
      ),
    ];
  return blockSize < prefixLengthOf(cidr)
    ? [
        invalid(
          'spec.blockSize',
          blockSize,
          `must be at least ${prefixLengthOf(cidr)}: a block cannot be larger than the pool ${cidr}`,
        ),
      ]
    : [];
}

export const IP_POOL: KindDefinition<IPPool> = {
  group: 'tulle.dev',
  version: 'v1alpha1',
  kind: 'IPPool',
  resource: 'ippools',
  singular: 'ippool',
  namespaced: false,
  shortNames: [],
  categories: [],
  subresources: ['status'],
  schema: SCHEMA,
  setDefaults,
  validate: validatePool,
  columns: [
    NAME_COLUMN,
    column('CIDR', 'The prefix.', ({ spec }) => spec.cidr),
    column('Allocated', 'Addresses in use.', ({ status }) => status?.allocated ?? 0),
    column(
      'Encapsulation',
      'Whether traffic between nodes goes through tunnels.',
      ({ spec }) => spec.encapsulation ?? 'Always',
    ),
    column('Disabled', 'Whether no new addresses are given out.', ({ spec }) =>
      String(spec.disabled ?? false),
    ),
    AGE_COLUMN,
    wideColumn('Block-Size', 'Prefix length of a block.', ({ spec }) => spec.blockSize ?? ''),
    wideColumn('Blocks', 'Blocks that nodes have claimed.', ({ status }) => status?.blocks ?? 0),
    wideColumn('NAT', 'Whether what leaves the pod network is masqueraded.', ({ spec }) =>
      String(spec.natOutgoing ?? true),
    ),
  ],
  selectableFields: {},
};
