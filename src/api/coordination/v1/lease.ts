/** Lease: who holds something, and until when. `k8s.io/api/coordination/v1`. */
import type { FieldError, KindDefinition } from '../../kind.ts';
import { AGE_COLUMN, column, NAME_COLUMN } from '../../machinery/columns.ts';
import { forbidden, invalid, notSupported } from '../../machinery/field-errors.ts';
import { checkQualifiedName } from '../../machinery/names.ts';
import { int32, kindSchema, object, string, time } from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { KubeObject } from '../../meta.ts';

export interface LeaseSpec {
  holderIdentity?: string;
  leaseDurationSeconds?: number;
  /** RFC 3339 with microseconds, as of `renewTime`. */
  acquireTime?: string;
  renewTime?: string;
  leaseTransitions?: number;
  strategy?: string;
  preferredHolder?: string;
}

export interface Lease extends KubeObject {
  apiVersion: 'coordination.k8s.io/v1';
  kind: 'Lease';
  spec: LeaseSpec;
}

const SCHEMA = kindSchema('Lease', 'Who holds something, and until when.', {
  spec: object('LeaseSpec', {
    holderIdentity: string('Who holds it. Empty: nobody.'),
    leaseDurationSeconds: int32('How long others wait after the last renewal.'),
    acquireTime: time('When the holder got it.'),
    renewTime: time('When the holder last renewed it.'),
    leaseTransitions: int32('How often it changed hands.'),
    strategy: string('How a holder is chosen.'),
    preferredHolder: string('Who should hold it next.'),
  }),
});

function validateLease(lease: Lease): FieldError[] {
  const errors = validateMeta(lease.metadata, { namespaced: true, anyFinalizer: true });
  const { leaseDurationSeconds, leaseTransitions } = lease.spec ?? {};
  if (leaseDurationSeconds !== undefined && leaseDurationSeconds <= 0)
    errors.push(
      invalid('spec.leaseDurationSeconds', leaseDurationSeconds, 'must be greater than 0'),
    );
  if (leaseTransitions !== undefined && leaseTransitions < 0)
    errors.push(
      invalid('spec.leaseTransitions', leaseTransitions, 'must be greater than or equal to 0'),
    );
  return [...errors, ...validateStrategy(lease.spec ?? {})];
}

const STRATEGIES = ['OldestEmulationVersion'];

/** How a coordinated election chooses: a word that is known, or somebody's own under his domain. */
function validateStrategy({ strategy = '', preferredHolder = '' }: LeaseSpec): FieldError[] {
  const field = 'spec.strategy';
  if (strategy === '')
    return preferredHolder === ''
      ? []
      : [forbidden('spec.preferredHolder', 'may only be specified if `strategy` is defined')];
  if (!strategy.includes('/'))
    return STRATEGIES.includes(strategy) ? [] : [notSupported(field, strategy, STRATEGIES)];
  const wrong = checkQualifiedName(strategy);
  return wrong === undefined ? [] : [invalid(field, strategy, wrong)];
}

export const LEASE: KindDefinition<Lease> = {
  group: 'coordination.k8s.io',
  version: 'v1',
  kind: 'Lease',
  resource: 'leases',
  singular: 'lease',
  namespaced: true,
  shortNames: [],
  categories: [],
  subresources: [],
  schema: SCHEMA,
  setDefaults: (lease) => ({ ...lease, spec: lease.spec ?? {} }),
  validate: validateLease,
  columns: [
    NAME_COLUMN,
    column('Holder', 'Who holds it.', (lease) => lease.spec?.holderIdentity ?? ''),
    AGE_COLUMN,
  ],
  selectableFields: {},
};
