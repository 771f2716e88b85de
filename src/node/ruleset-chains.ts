/** Chains of a ruleset, before they become operations. Pure. */
import type { inTable, Operation } from '#wire/nftables/objects.ts';
import type { ChainContent, RulesetPart } from './ruleset.ts';

type Table = ReturnType<typeof inTable>;

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

/** The chain without its rules. */
export function addChain({ chain }: Table, { name, base }: ChainContent): Operation {
  return chain.add(name, base === undefined ? {} : { base });
}

/** Puts their rules into chains that are there and empty. */
export function rulesOf({ rule }: Table, chains: readonly ChainContent[]): Operation[] {
  return chains.flatMap(({ name, rules }) =>
    rules.map(({ expressions, comment }) =>
      rule.add(name, expressions, comment === undefined ? {} : { comment }),
    ),
  );
}

/** What makes some chains the others: first chains, then their rules, and last, what must not be in use any more. */
export function chainChange(
  table: Table,
  old: readonly ChainContent[],
  wanted: readonly ChainContent[],
): { first: Operation[]; rules: Operation[]; last: Operation[] } {
  const { chain } = table;
  const gone = new Map(old.map((content) => [content.name, content]));
  const first: Operation[] = [];
  const rules: Operation[] = [];
  for (const content of wanted) {
    const was = gone.get(content.name);
    gone.delete(content.name);
    if (was !== undefined && sameChain(was, content)) continue;
    if (was === undefined) first.push(addChain(table, content));
    else rules.push(chain.flush(content.name));
    rules.push(...rulesOf(table, [content]));
  }
  // One that goes may be jumped to from another that goes.
  for (const name of gone.keys()) rules.push(chain.flush(name));
  return { first, rules, last: [...gone.keys()].map((name) => chain.delete(name)) };
}

/** True if nothing has to be written to make one the other. */
function sameChain(a: ChainContent, b: ChainContent): boolean {
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
