/**
 * IPBlock: a part of a pool that one node gives addresses out of. It is the unit of compare-and-swap of the
 * address management: whoever changes an allocation writes the whole block, and loses if it changed meanwhile.
 * `tulle.dev/v1alpha1`, cluster-scoped.
 */
import { cidrSize, parseCidr } from '#lib/ip.ts';
import type { FieldError, KindDefinition } from '../../kind.ts';
import { AGE_COLUMN, column, NAME_COLUMN, NONE, wideColumn } from '../../machinery/columns.ts';
import {
  duplicate,
  immutable,
  invalid,
  notSupported,
  required,
} from '../../machinery/field-errors.ts';
import { checkDns1123Subdomain } from '../../machinery/names.ts';
import {
  int32,
  int64,
  kindSchema,
  list,
  map,
  object,
  oneOf,
  string,
  time,
} from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { KubeObject } from '../../meta.ts';
import { BLOCK_SIZES } from './ip-pool.ts';

export interface IPAllocation {
  /** Who asked: releasing by handle finds all addresses of one attachment. */
  handle: string;
  /** The block's sequence when this was given out. A release that names another one is of an earlier life of the address. */
  sequence: number;
  /** RFC 3339. */
  since: string;
  node: string;
  containerID?: string;
  ifName?: string;
  namespace?: string;
  pod?: string;
  /** `Warm`: of a pool, kept by the node for a pod that is still to come. */
  purpose: 'Pod' | 'Tunnel' | 'Warm';
}

export interface IPBlockSpec {
  cidr: string;
  /** Name of the IPPool. */
  pool: string;
  /** The node that may give out addresses of this block; '' if none. */
  node: string;
  /** `Pending` is as good as absent for routing and ownership. */
  affinity: 'Pending' | 'Confirmed';
  /** Raised with every allocation. Never goes back. */
  sequence: number;
  /** By ordinal in the block (decimal text). */
  allocations: Record<string, IPAllocation>;
  /** Ordinals that are free, the one free for longest first. */
  free: number[];
  /** When a free ordinal was last in use (RFC 3339): it cools down before it is given out again. */
  releasedAt: Record<string, string>;
}

export interface IPBlock extends KubeObject {
  apiVersion: 'tulle.dev/v1alpha1';
  kind: 'IPBlock';
  spec: IPBlockSpec;
}

/** The name of the block of a prefix: `10.244.0.0/26` is `10-244-0-0-26`, `fd00::/122` is `fd00---122`. */
export function ipBlockName(cidr: string): string {
  return cidr.replace(/[.:/]/g, '-');
}

const AFFINITIES = ['Confirmed', 'Pending'];
const PURPOSES = ['Pod', 'Tunnel', 'Warm'];
/** 2^12: the largest block that a pool may ask for. */
const MAX_ORDINALS = 2 ** (32 - BLOCK_SIZES[4].min);
const ORDINAL_PATTERN = /^(0|[1-9]\d{0,4})$/;

const SCHEMA = kindSchema(
  'IPBlock',
  'A part of a pool that one node gives addresses out of.',
  {
    spec: object(
      'IPBlockSpec',
      {
        cidr: string('The prefix of the block. Cannot be changed.'),
        pool: string('The pool it is of. Cannot be changed.'),
        node: string('The node that gives addresses out of it; empty if none.'),
        affinity: oneOf(
          AFFINITIES,
          'Pending while the node is claiming the block: others must not route to it yet.',
        ),
        sequence: int64('Raised with every allocation.'),
        allocations: map(
          object(
            'IPAllocation',
            {
              handle: string('Who asked for the address.'),
              sequence: int64('Sequence of the block when the address was given out.'),
              since: time('When it was given out.'),
              node: string('The node it is used on.'),
              containerID: string('The container.'),
              ifName: string('The interface in the container.'),
              namespace: string('Namespace of the pod.'),
              pod: string('Name of the pod.'),
              purpose: oneOf(PURPOSES, 'What the address is for.'),
            },
            { required: ['handle', 'sequence', 'since', 'node', 'purpose'] },
          ),
          'Addresses in use, by ordinal in the block.',
        ),
        free: list(int32('An ordinal.'), 'Ordinals that are free, the one free for longest first.'),
        releasedAt: map(time('When it was released.'), 'Ordinals that were in use lately.'),
      },
      { required: ['cidr', 'pool'] },
    ),
  },
  ['spec'],
);

function setDefaults(block: IPBlock): IPBlock {
  // Without a spec there is nothing to fill in; validation refuses it.
  if (block.spec === undefined) return block;
  const unset = {
    node: '',
    affinity: 'Pending' as const,
    sequence: 0,
    allocations: {},
    free: [],
    releasedAt: {},
  };
  return { ...block, spec: { ...unset, ...block.spec } };
}

function validateBlock(block: IPBlock, old: IPBlock | undefined): FieldError[] {
  const errors = validateMeta(block.metadata, { namespaced: false });
  const { spec } = block;
  if (!spec?.cidr) return [...errors, required('spec.cidr')];
  const cidr = parseCidr(spec.cidr);
  if (cidr === undefined)
    return [
      ...errors,
      invalid('spec.cidr', spec.cidr, 'must be a network prefix in canonical form'),
    ];
  if (block.metadata.name && block.metadata.name !== ipBlockName(cidr))
    errors.push(
      invalid(
        'metadata.name',
        block.metadata.name,
        `must be "${ipBlockName(cidr)}", after the prefix`,
      ),
    );
  if (!spec.pool) errors.push(required('spec.pool'));
  const wrongNode = spec.node ? checkDns1123Subdomain(spec.node) : undefined;
  if (wrongNode !== undefined) errors.push(invalid('spec.node', spec.node, wrongNode));
  if (!AFFINITIES.includes(spec.affinity))
    errors.push(notSupported('spec.affinity', spec.affinity, AFFINITIES));
  const size = cidrSize(cidr);
  if (size > BigInt(MAX_ORDINALS))
    return [...errors, invalid('spec.cidr', cidr, `must have at most ${MAX_ORDINALS} addresses`)];
  errors.push(...validateOrdinals(spec, Number(size)), ...validateAllocations(spec));
  if (old !== undefined) errors.push(...validateChange(spec, old.spec));
  return errors;
}

/** Each ordinal of the block is in use or free, never both and never neither: no address is lost or given twice. */
function validateOrdinals(spec: IPBlockSpec, size: number): FieldError[] {
  const errors: FieldError[] = [];
  const seen = new Set<number>();
  const range = `must be an ordinal between 0 and ${size - 1}, inclusive`;
  for (const key of Object.keys(spec.allocations)) {
    if (!isOrdinal(key, size)) errors.push(invalid(`spec.allocations[${key}]`, key, range));
    seen.add(Number(key));
  }
  spec.free.forEach((ordinal, i) => {
    if (!isOrdinal(String(ordinal), size)) errors.push(invalid(`spec.free[${i}]`, ordinal, range));
    else if (seen.has(ordinal)) errors.push(duplicate(`spec.free[${i}]`, ordinal));
    seen.add(ordinal);
  });
  for (const key of Object.keys(spec.releasedAt)) {
    const field = `spec.releasedAt[${key}]`;
    if (!isOrdinal(key, size)) errors.push(invalid(field, key, range));
    else if (!isTime(spec.releasedAt[key]))
      errors.push(invalid(field, spec.releasedAt[key], NOT_A_TIME));
  }
  if (errors.length > 0 || seen.size === size) return errors;
  const missing = Array.from({ length: size }, (_, ordinal) => ordinal).find((o) => !seen.has(o));
  return [
    invalid(
      'spec.free',
      spec.free.length,
      `ordinal ${missing} is neither in \`allocations\` nor in \`free\``,
    ),
  ];
}

function validateAllocations(spec: IPBlockSpec): FieldError[] {
  return Object.entries(spec.allocations).flatMap(([key, allocation]) => {
    const field = `spec.allocations[${key}]`;
    const errors: FieldError[] = [];
    if (!allocation.handle) errors.push(required(`${field}.handle`));
    if (!isTime(allocation.since))
      errors.push(invalid(`${field}.since`, allocation.since, NOT_A_TIME));
    if (!PURPOSES.includes(allocation.purpose))
      errors.push(notSupported(`${field}.purpose`, allocation.purpose, PURPOSES));
    if (!(allocation.sequence <= spec.sequence))
      errors.push(
        invalid(
          `${field}.sequence`,
          allocation.sequence,
          `must not be greater than the sequence of the block, ${spec.sequence}`,
        ),
      );
    return errors;
  });
}

function validateChange(spec: IPBlockSpec, old: IPBlockSpec): FieldError[] {
  const errors: FieldError[] = [];
  for (const field of ['cidr', 'pool'] as const)
    if (spec[field] !== old[field]) errors.push(immutable(`spec.${field}`, spec[field]));
  if (!(spec.sequence >= old.sequence))
    errors.push(
      invalid('spec.sequence', spec.sequence, `must not go back: it was ${old.sequence}`),
    );
  return errors;
}

const NOT_A_TIME = 'must be a time, (e.g. "2006-01-02T15:04:05Z")';

function isTime(text: unknown): boolean {
  return (
    typeof text === 'string' && /^\d{4}-\d\d-\d\dT/.test(text) && !Number.isNaN(Date.parse(text))
  );
}

function isOrdinal(text: string, size: number): boolean {
  return ORDINAL_PATTERN.test(text) && Number(text) < size;
}

function formatUse({ spec }: IPBlock): string {
  const used = Object.keys(spec.allocations ?? {}).length;
  return `${used}/${used + (spec.free ?? []).length}`;
}

export const IP_BLOCK: KindDefinition<IPBlock> = {
  group: 'tulle.dev',
  version: 'v1alpha1',
  kind: 'IPBlock',
  resource: 'ipblocks',
  singular: 'ipblock',
  namespaced: false,
  shortNames: [],
  categories: [],
  subresources: [],
  schema: SCHEMA,
  setDefaults,
  validate: validateBlock,
  columns: [
    NAME_COLUMN,
    column('CIDR', 'The prefix.', ({ spec }) => spec.cidr),
    column('Node', 'The node that gives addresses out of it.', ({ spec }) => spec.node || NONE),
    column('Used', 'Addresses in use, of all.', formatUse),
    column('Affinity', 'Whether the claim is confirmed.', ({ spec }) => spec.affinity ?? ''),
    AGE_COLUMN,
    wideColumn('Pool', 'The pool it is of.', ({ spec }) => spec.pool),
    wideColumn('Sequence', 'How often addresses were given out.', ({ spec }) => spec.sequence ?? 0),
  ],
  selectableFields: {
    'spec.node': ({ spec }) => spec.node ?? '',
    'spec.pool': ({ spec }) => spec.pool ?? '',
  },
};
