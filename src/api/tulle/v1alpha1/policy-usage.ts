/**
 * PolicyUsage: which rules of network policies a node has in its kernel, and how often each decided. One for each node,
 * named like it, written by its agent now and then. `tulle.dev/v1alpha1`, cluster-scoped.
 */
import type { FieldError, KindDefinition } from '../../kind.ts';
import { AGE_COLUMN, column, NAME_COLUMN } from '../../machinery/columns.ts';
import { invalid } from '../../machinery/field-errors.ts';
import { int32, int64, kindSchema, list, object, string, time } from '../../machinery/schema.ts';
import { validateMeta } from '../../machinery/validate-meta.ts';
import type { KubeObject } from '../../meta.ts';

/** How often a rule decided, summed over the families and alternatives of its match. */
export interface RuleUsage {
  /** `NetworkPolicy default/web ingress[0]`, or `isolated, ingress: default/web`. */
  rule: string;
  /** First packets of connections, since the rule was last written into the kernel. */
  packets: number;
  bytes: number;
}

export interface PolicyUsageStatus {
  /** RFC 3339: when the kernel was asked. */
  countedAt?: string;
  /** Rules in the kernel, those included that are left out of `rules`. */
  total?: number;
  /** At most {@link MAX_USED_RULES}, those that decided most. */
  rules?: RuleUsage[];
}

export interface PolicyUsage extends KubeObject {
  apiVersion: 'tulle.dev/v1alpha1';
  kind: 'PolicyUsage';
  status?: PolicyUsageStatus;
}

/** An object of some hundred kilobytes at most: it is written again and again. */
export const MAX_USED_RULES = 1_000;

const SCHEMA = kindSchema(
  'PolicyUsage',
  'Which rules of network policies a node has in its kernel, and how often each decided.',
  {
    status: object('PolicyUsageStatus', {
      countedAt: time('When the kernel was asked.'),
      total: int32('Rules in the kernel, those included that are left out of rules.'),
      rules: list(
        object(
          'RuleUsage',
          {
            rule: string('The policy and the rule.'),
            packets: int64('First packets of connections that it decided about.'),
            bytes: int64('Their bytes.'),
          },
          { required: ['rule', 'packets', 'bytes'] },
        ),
        `The rules that decided most, at most ${MAX_USED_RULES}.`,
      ),
    }),
  },
);

function validateUsage(usage: PolicyUsage): FieldError[] {
  const errors = validateMeta(usage.metadata, { namespaced: false });
  const count = usage.status?.rules?.length ?? 0;
  if (count > MAX_USED_RULES)
    errors.push(invalid('status.rules', count, `must have at most ${MAX_USED_RULES} entries`));
  return errors;
}

export const POLICY_USAGE: KindDefinition<PolicyUsage> = {
  group: 'tulle.dev',
  version: 'v1alpha1',
  kind: 'PolicyUsage',
  resource: 'policyusages',
  singular: 'policyusage',
  namespaced: false,
  shortNames: [],
  categories: [],
  // There is nothing that a person would set: the whole is written by one program.
  subresources: [],
  schema: SCHEMA,
  setDefaults: (usage) => usage,
  validate: validateUsage,
  columns: [
    NAME_COLUMN,
    column(
      'Rules',
      'Rules of policies in the kernel of the node.',
      ({ status }) => status?.total ?? 0,
    ),
    column('Decided', 'First packets of connections that they decided about.', ({ status }) =>
      (status?.rules ?? []).reduce((sum, { packets }) => sum + packets, 0),
    ),
    AGE_COLUMN,
  ],
  selectableFields: {},
};
