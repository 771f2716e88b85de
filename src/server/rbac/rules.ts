/** RBAC's rules: whether one allows a request, and whether some cover others. Pure. `k8s.io/kubernetes/pkg/registry/rbac`. */
import type { PolicyRule } from '#api/rbac/v1/rules.ts';

/** What is asked for, as far as rules look at it. */
export type AccessRequest =
  | {
      readonly type: 'resource';
      readonly verb: string;
      readonly group: string;
      readonly resource: string;
      readonly subresource: string;
      /** Empty at the cluster scope. */
      readonly namespace: string;
      readonly name: string;
    }
  | { readonly type: 'plain'; readonly verb: string; readonly path: string };

const ALL = '*';

export function ruleAllows(rule: PolicyRule, request: AccessRequest): boolean {
  if (!has(rule.verbs, request.verb)) return false;
  if (request.type === 'plain')
    return (rule.nonResourceURLs ?? []).some((pattern) => pathMatches(pattern, request.path));
  const { group, resource, subresource, name } = request;
  return (
    has(rule.apiGroups, group) &&
    resourceMatches(rule.resources, resource, subresource) &&
    ((rule.resourceNames?.length ?? 0) === 0 || (rule.resourceNames ?? []).includes(name))
  );
}

function has(values: readonly string[] | undefined, value: string): boolean {
  return values?.includes(ALL) === true || values?.includes(value) === true;
}

/** `pods`, `pods/status`, `*` for everything, `*` and `/status` for the status of everything. */
function resourceMatches(
  resources: readonly string[] | undefined,
  resource: string,
  subresource: string,
): boolean {
  if (resources === undefined) return false;
  const whole = subresource === '' ? resource : `${resource}/${subresource}`;
  return resources.some(
    (known) =>
      known === ALL || known === whole || (subresource !== '' && known === `*/${subresource}`),
  );
}

/** `*` at the end stands for any rest. */
function pathMatches(pattern: string, path: string): boolean {
  if (pattern === ALL || pattern === path) return true;
  return pattern.endsWith(ALL) && path.startsWith(pattern.slice(0, -1));
}

/** Rules broken down into single grants; a role of a person has tens, a hostile one is cut off. */
export const MAX_SINGLE_RULES = 10_000;

/**
 * The single grants in `wanted` that none of the `owned` rules contains.
 * @returns empty if everything is covered; `undefined` if the rules multiply to more than {@link MAX_SINGLE_RULES}
 */
export function uncoveredRules(
  owned: readonly PolicyRule[],
  wanted: readonly PolicyRule[],
): PolicyRule[] | undefined {
  const single: PolicyRule[] = [];
  for (const rule of wanted) {
    if (countSingle(rule) > MAX_SINGLE_RULES - single.length) return undefined;
    single.push(...breakDown(rule));
  }
  return single.filter((rule) => !owned.some((other) => covers(other, rule)));
}

function countSingle(rule: PolicyRule): number {
  const verbs = rule.verbs?.length ?? 0;
  const paths = rule.nonResourceURLs?.length ?? 0;
  const names = Math.max(1, rule.resourceNames?.length ?? 0);
  return verbs * (paths + (rule.apiGroups?.length ?? 0) * (rule.resources?.length ?? 0) * names);
}

function* breakDown(rule: PolicyRule): Generator<PolicyRule> {
  for (const verb of rule.verbs ?? []) {
    for (const path of rule.nonResourceURLs ?? []) yield { verbs: [verb], nonResourceURLs: [path] };
    for (const group of rule.apiGroups ?? [])
      for (const resource of rule.resources ?? []) {
        const base = { verbs: [verb], apiGroups: [group], resources: [resource] };
        if ((rule.resourceNames?.length ?? 0) === 0) yield base;
        for (const name of rule.resourceNames ?? []) yield { ...base, resourceNames: [name] };
      }
  }
}

/** @param rule a single grant */
function covers(owner: PolicyRule, rule: PolicyRule): boolean {
  if (!has(owner.verbs, rule.verbs[0] ?? '')) return false;
  const [path] = rule.nonResourceURLs ?? [];
  if (path !== undefined)
    return (owner.nonResourceURLs ?? []).some((pattern) => pathMatches(pattern, path));
  const [resource = '', subresource = ''] = splitOnce(rule.resources?.[0] ?? '');
  const [name] = rule.resourceNames ?? [];
  const ownNames = owner.resourceNames ?? [];
  return (
    has(owner.apiGroups, rule.apiGroups?.[0] ?? '') &&
    resourceMatches(owner.resources, resource, subresource) &&
    (ownNames.length === 0 || (name !== undefined && ownNames.includes(name)))
  );
}

function splitOnce(text: string): [string, string] {
  const at = text.indexOf('/');
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
}

/** As upstream prints a rule in a refusal. */
export function formatRule(rule: PolicyRule): string {
  const words = (values: readonly string[]) =>
    `[${values.map((value) => JSON.stringify(value)).join(', ')}]`;
  if (rule.nonResourceURLs !== undefined)
    return `{NonResourceURLs:${words(rule.nonResourceURLs)}, Verbs:${words(rule.verbs)}}`;
  const names =
    rule.resourceNames === undefined ? '' : `, ResourceNames:${words(rule.resourceNames)}`;
  return `{APIGroups:${words(rule.apiGroups ?? [])}, Resources:${words(rule.resources ?? [])}${names}, Verbs:${words(rule.verbs)}}`;
}
