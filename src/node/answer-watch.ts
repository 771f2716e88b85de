/**
 * What the DNS server tells of answers from outside the cluster, before the pod that asked has them. Policies that name
 * domain names live on it; the two features do not know each other, the agent joins them by an {@link AnswerRelay}.
 */
import type { Family, Ip } from '#lib/ip.ts';

export interface ToldAddress {
  readonly address: Ip;
  /** How long the client may use it, in seconds. */
  readonly ttlS: number;
}

/** Names are in lower case without their final dot. */
export interface AnswerWatch {
  /** The names that somebody wants to know of, as policies say them: see {@link isWanted}. */
  wanted(): ReadonlySet<string>;
  /** Upstreams are being asked; until they answer, a client may get an answer whose time is over. */
  asked(name: string, family: Family): void;
  /** @param addresses undefined: upstreams gave no answer, and clients may go on getting the old one */
  answered(name: string, family: Family, addresses: readonly ToldAddress[] | undefined): void;
}

/** What a policy may call a name: `a.b.c` → itself, `*.b.c`, `*.c`. */
export function patternsOf(name: string): string[] {
  const patterns = [name];
  for (let at = name.indexOf('.'); at >= 0; at = name.indexOf('.', at + 1))
    patterns.push(`*${name.slice(at)}`);
  return patterns;
}

/** @param wanted names and patterns; undefined: it is not known yet, so all of them */
export function isWanted(name: string, wanted: ReadonlySet<string> | undefined): boolean {
  if (wanted === undefined) return true;
  return wanted.size > 0 && patternsOf(name).some((it) => wanted.has(it));
}

/** Names kept until somebody listens: an agent's start takes a second or two, a pod asks some names in it. */
const MAX_EARLY_NAMES = 1000;

/** Passes answers on; those that came before anybody listened are kept for the one that will. */
export class AnswerRelay {
  #target: AnswerWatch | undefined;
  readonly #listeners = new Set<() => void>();
  readonly #early = new Map<string, readonly [string, Family, readonly ToldAddress[]]>();

  /** Undefined until somebody listens. */
  wanted(): ReadonlySet<string> | undefined {
    return this.#target?.wanted();
  }

  /** Calls back when somebody begins to listen. @returns a function that ends it */
  onAttach(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  asked(name: string, family: Family): void {
    this.#target?.asked(name, family);
  }

  answered(name: string, family: Family, addresses: readonly ToldAddress[] | undefined): void {
    if (this.#target !== undefined) this.#target.answered(name, family, addresses);
    else if (addresses !== undefined && this.#early.size < MAX_EARLY_NAMES)
      this.#early.set(`${name} ${family}`, [name, family, addresses]);
  }

  /** From now on this one is told, of the early answers too. */
  attach(target: AnswerWatch): void {
    this.#target = target;
    for (const [name, family, addresses] of this.#early.values())
      if (isWanted(name, target.wanted())) target.answered(name, family, addresses);
    this.#early.clear();
    for (const listener of this.#listeners) listener();
  }
}
