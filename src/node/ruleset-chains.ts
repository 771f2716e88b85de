/** Chains of a ruleset, before they become operations. Pure. */
import type { ChainContent, RulesetPart } from './ruleset.ts';

export function isNoBase(content: ChainContent): boolean {
  return content.base === undefined;
}

/** The base chains of all parts. One that several parts name has the rules of all: packets enter it once, not once a part. */
export function baseChains(parts: Iterable<RulesetPart>): ChainContent[] {
  const joined = new Map<string, ChainContent>();
  for (const { chains } of parts)
    for (const content of chains) {
      if (content.base === undefined) continue;
      const rules = [...(joined.get(content.name)?.rules ?? []), ...content.rules];
      joined.set(content.name, {
        ...content,
        rules: rules.sort((a, b) => (a.order ?? 0) - (b.order ?? 0)),
      });
    }
  return [...joined.values()];
}

/** True if nothing has to be written to make one the other. */
export function sameChain(a: ChainContent, b: ChainContent): boolean {
  return a === b || hasSameRules(a, b) || describe(a) === describe(b);
}

/** The same objects: what most comparisons find, without looking into them. */
function hasSameRules(a: ChainContent, b: ChainContent): boolean {
  return (
    a.name === b.name &&
    a.base === b.base &&
    a.rules.length === b.rules.length &&
    a.rules.every((rule, i) => rule === b.rules[i])
  );
}

/** Text that two values have in common if they say the same. */
export function describe(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === 'bigint'
      ? `${inner}n`
      : inner instanceof Uint8Array
        ? Buffer.from(inner).toString('hex')
        : inner,
  );
}
