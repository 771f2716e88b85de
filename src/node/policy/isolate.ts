/**
 * Which policies the kernel refuses, so that the others need not wait for them. Pure.
 *
 * The kernel says which operation of a transaction it refused, and mostly that belongs to a policy: its rule, its set.
 * Where it does not say, or what it names belongs to nobody, the policies that changed last are tried without each
 * other, by halves.
 */
import { explainError } from '#lib/errors.ts';
import type { CompiledPolicy } from '#policy/model.ts';
import { DIRECTIONS } from '#policy/model.ts';
import type { Operation, Rule } from '#wire/nftables/objects.ts';
import type { Refusal } from '../ruleset.ts';
import { ruleComment } from './chains.ts';
import { parseLogPrefix, shortHash } from './names.ts';
import { matchOf } from './rules.ts';

/** Each try writes the whole table; a policy that is not reached stays refused, which closes its pods. */
const MAX_TRIES = 40;
/** However long they take: each time that is given must end nearer to the culprits. */
const MIN_TRIES = 6;

export interface Attempts {
  /** Programs everything but these policies. @returns what the kernel refused of it, if it did */
  readonly tryWithout: (refused: ReadonlySet<string>) => Refusal | undefined;
  /** Policies without which the operation would not be. */
  readonly ownersOf: (operation: Operation) => readonly string[];
  /** Who is to be asked where nobody owns what was refused. */
  readonly suspects: readonly string[];
  /** Others wait: what is not known by now is to be found another time. */
  readonly isTimeUp: () => boolean;
}

/** Policies that are not in the kernel, with what it said of each in words; or the refusal, if it is none of theirs. */
export type Isolation =
  | { readonly kind: 'isolated'; readonly refused: ReadonlyMap<string, string> }
  | { readonly kind: 'failed'; readonly error: unknown };

/**
 * Finds the policies without which the kernel takes the rest, and leaves it with that.
 * @param first what was refused of all but `known`, written from scratch
 * @param known policies that are left out already, with the reason
 */
export function isolate(
  first: Refusal,
  known: ReadonlyMap<string, string>,
  { tryWithout, ownersOf, suspects, isTimeUp }: Attempts,
): Isolation {
  const refused = new Map(known);
  let tries = 0;
  const attempt = (without: Iterable<string>) => {
    tries++;
    return tryWithout(new Set(without));
  };
  const mayTry = () => tries < MIN_TRIES || (tries < MAX_TRIES && !isTimeUp());
  let refusal: Refusal | undefined = first;
  while (refusal !== undefined && mayTry()) {
    const { operation, error }: Refusal = refusal;
    const owners = operation === undefined ? [] : ownersOf(operation);
    const found = owners.filter((id) => !refused.has(id));
    if (found.length === 0) break;
    for (const id of found) refused.set(id, explainError(error));
    refusal = attempt(refused.keys());
  }
  if (refusal === undefined) return { kind: 'isolated', refused };

  const suspected = suspects.filter((id) => !refused.has(id));
  const without = attempt([...refused.keys(), ...suspected]);
  if (suspected.length === 0 || without !== undefined) {
    attempt(known.keys());
    return { kind: 'failed', error: (without ?? refusal).error };
  }
  const { error } = refusal;
  for (const id of suspected) refused.set(id, explainError(error));
  let isCurrent = true;
  /** @returns why the kernel does not take these beside all that it has taken; undefined: it has */
  const bringBack = (some: readonly string[]): string | undefined => {
    const again = attempt([...refused.keys()].filter((id) => !some.includes(id)));
    isCurrent = again === undefined;
    if (again === undefined) for (const id of some) refused.delete(id);
    return again === undefined ? undefined : explainError(again.error);
  };
  /** @param why the kernel does not take all of these */
  const divide = (some: readonly string[], why: string): void => {
    if (some.length === 1) for (const id of some) refused.set(id, why);
    if (some.length === 1 || !mayTry()) return;
    const middle = some.length >> 1;
    const [first, second] = [some.slice(0, middle), some.slice(middle)];
    const whyFirst = bringBack(first);
    // If it takes the first whole, then it is the second that it has just refused.
    const isSecondKnown = whyFirst === undefined || !mayTry();
    const whySecond = isSecondKnown ? why : bringBack(second);
    // Both are tried before either is divided: who is innocent waits no longer than needed.
    if (whyFirst !== undefined) divide(first, whyFirst);
    if (whySecond !== undefined) divide(second, whySecond);
  };
  divide(suspected, explainError(error));
  // What was tried last may have been refused: the plan must be again what the kernel has.
  if (!isCurrent) attempt(refused.keys());
  return { kind: 'isolated', refused };
}

/** The policies that want what the operation is about; none for what is there whatever policies say. */
export function ownersOf(operation: Operation, policies: Iterable<CompiledPolicy>): string[] {
  const isOwner = ownership(operation);
  return [...policies].filter(isOwner).map(({ id }) => id);
}

function ownership(operation: Operation): (policy: CompiledPolicy) => boolean {
  switch (operation.kind) {
    case 'rule':
      return 'object' in operation ? ownsRule(operation.object) : nobody;
    case 'set': {
      const { set } = 'object' in operation ? operation.object : operation.ref;
      return (policy) => looksInto(policy, set);
    }
    case 'elements':
      return (policy) => looksInto(policy, operation.ref.set);
    case 'chain':
    case 'table':
      return nobody;
  }
}

const nobody = () => false;

function ownsRule({ comment, expressions }: Rule): (policy: CompiledPolicy) => boolean {
  const prefix = expressions.find((expression) => expression.kind === 'log')?.prefix;
  const source = parseLogPrefix(prefix ?? '')?.source;
  return (policy) =>
    source === shortHash(policy.id) ||
    rulesOf(policy).some(({ direction, rule }) => ruleComment(policy, direction, rule) === comment);
}

function looksInto(policy: CompiledPolicy, set: string): boolean {
  return rulesOf(policy).some(({ direction, rule }) =>
    (['ip', 'ip6'] as const).some((family) =>
      matchOf(rule, direction, family).sets.some(({ name }) => name === set),
    ),
  );
}

function rulesOf(policy: CompiledPolicy) {
  return DIRECTIONS.flatMap((direction) =>
    (policy[direction] ?? []).map((rule) => ({ direction, rule })),
  );
}
