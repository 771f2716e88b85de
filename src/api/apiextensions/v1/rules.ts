/** The CEL rules of a definition: this server does not evaluate them, and says which. Pure. */
import { isObject } from '../../machinery/json.ts';
import type { CustomResourceDefinition } from './custom-resource-definition.ts';
import { MAX_SCHEMA_DEPTH } from './structural.ts';

export interface Rule {
  readonly version: string;
  /** `spec.rules[*].name`; empty for the whole object. */
  readonly field: string;
  readonly rule: string;
}

export function rulesOf(definition: CustomResourceDefinition): Rule[] {
  return (definition.spec?.versions ?? []).flatMap((version) => {
    const rules: Rule[] = [];
    collect(version.schema?.openAPIV3Schema, '', 0, (field, rule) =>
      rules.push({ version: version.name, field, rule }),
    );
    return rules;
  });
}

function collect(
  schema: unknown,
  field: string,
  depth: number,
  add: (field: string, rule: string) => void,
): void {
  if (!isObject(schema) || depth > MAX_SCHEMA_DEPTH) return;
  const rules = schema['x-kubernetes-validations'];
  if (Array.isArray(rules))
    for (const rule of rules) if (isObject(rule)) add(field, String(rule.rule ?? ''));
  const below = (inner: unknown, step: string) => collect(inner, field + step, depth + 1, add);
  for (const [name, property] of Object.entries(
    isObject(schema.properties) ? schema.properties : {},
  ))
    below(property, field === '' ? name : `.${name}`);
  below(schema.items, '[*]');
  below(schema.additionalProperties, '[*]');
  for (const word of ['allOf', 'anyOf', 'oneOf'])
    for (const branch of Array.isArray(schema[word]) ? schema[word] : []) below(branch, '');
  below(schema.not, '');
}

/** Rules that are named one by one; a large set of kinds has hundreds. */
const MAX_NAMED = 60;
const MAX_RULE_LENGTH = 120;

/** What a person is told who brings a definition with rules. */
export function ruleWarnings(rules: readonly Rule[]): string[] {
  const warnings = rules.slice(0, MAX_NAMED).map(({ version, field, rule }) => {
    const short = rule.length > MAX_RULE_LENGTH ? `${rule.slice(0, MAX_RULE_LENGTH)}...` : rule;
    return `this CEL rule is not evaluated: ${version} ${field || '(the whole object)'}: ${short.replaceAll(/\s+/g, ' ')}`;
  });
  const more = rules.length - MAX_NAMED;
  return more > 0 ? [...warnings, `and ${more} more CEL rules are not evaluated`] : warnings;
}
