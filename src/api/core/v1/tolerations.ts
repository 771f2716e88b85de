/** Tolerations: which taints of nodes a pod can bear. `ValidateTolerations` of `pkg/apis/core/validation`. */
import type { FieldError } from '../../kind.ts';
import { invalid, notSupported } from '../../machinery/field-errors.ts';
import { checkLabelValue, checkQualifiedName } from '../../machinery/names.ts';

export interface Toleration {
  key?: string;
  operator?: string;
  value?: string;
  effect?: string;
  tolerationSeconds?: number;
}

export const TAINT_EFFECTS = ['NoSchedule', 'PreferNoSchedule', 'NoExecute'];
const OPERATORS = ['Equal', 'Exists'];

export function validateTolerations(list: readonly Toleration[], field: string): FieldError[] {
  return list.flatMap((toleration, i) => validateToleration(toleration, `${field}[${i}]`));
}

function validateToleration(toleration: Toleration, field: string): FieldError[] {
  const { key = '', operator = '', value = '', effect = '', tolerationSeconds } = toleration;
  const errors: FieldError[] = [];
  const wrongKey = key === '' ? undefined : checkQualifiedName(key);
  if (wrongKey !== undefined) errors.push(invalid(`${field}.key`, key, wrongKey));
  if (key === '' && operator !== 'Exists')
    errors.push(
      invalid(
        `${field}.operator`,
        operator,
        'operator must be Exists when `key` is empty, which means "match all values and all keys"',
      ),
    );
  if (tolerationSeconds !== undefined && effect !== 'NoExecute')
    errors.push(
      invalid(
        `${field}.effect`,
        effect,
        "effect must be 'NoExecute' when `tolerationSeconds` is set",
      ),
    );
  if (operator !== '' && !OPERATORS.includes(operator))
    errors.push(notSupported(`${field}.operator`, operator, OPERATORS));
  const wrongValue =
    operator !== 'Exists'
      ? checkLabelValue(value)
      : value === ''
        ? undefined
        : "value must be empty when `operator` is 'Exists'";
  if (wrongValue !== undefined) errors.push(invalid(`${field}.operator`, value, wrongValue));
  if (effect !== '' && !TAINT_EFFECTS.includes(effect))
    errors.push(notSupported(`${field}.effect`, effect, TAINT_EFFECTS));
  return errors;
}
