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
  /** Whether anybody wants to know of the name's addresses. */
  wants(name: string): boolean;
  /** Upstreams are being asked; until they answer, a client may get an answer whose time is over. */
  asked(name: string, family: Family): void;
  /** @param addresses undefined: upstreams gave no answer, and clients may go on getting the old one */
  answered(name: string, family: Family, addresses: readonly ToldAddress[] | undefined): void;
}

/** Names kept until somebody listens: an agent's start takes a second or two, a pod asks some names in it. */
const MAX_EARLY_NAMES = 1000;

/** Passes answers on; those that came before anybody listened are kept for the one that will. */
export class AnswerRelay implements AnswerWatch {
  #target: AnswerWatch | undefined;
  readonly #early = new Map<string, readonly [string, Family, readonly ToldAddress[]]>();

  wants(name: string): boolean {
    return this.#target?.wants(name) ?? true;
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
      if (target.wants(name)) target.answered(name, family, addresses);
    this.#early.clear();
  }
}
