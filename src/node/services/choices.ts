/**
 * The numbers by which frontends name the chains that balance them.
 *
 * ```text
 *  frontends  daddr . proto . dport : number          choices  number : goto chain
 * ```
 * A map that leads straight to chains would do with one lookup; but the kernel walks all elements of such a map, for
 * every chain that uses it, whenever one is added (it looks for loops): 5 ms for 44,000 services. Numbers are not
 * walked, and only a chain that is new adds to the small map.
 */
import type { Choice, Frontend } from './plan.ts';
import { MAX_SLOTS } from './slots.ts';

/** What tells one balancing chain from another. */
export interface ChainSpec {
  readonly pick: Frontend['pick'];
  readonly isOutside: boolean;
  readonly count: number;
  readonly affinitySeconds?: number;
}

export const REJECT_NUMBER = 0;
export const DROP_NUMBER = 0xffff_ffff;
/** Chains that are not named by their count alone are numbered from here, in the order of their coming. */
const FIRST_OTHER_NUMBER = 0x10_0000;

export class ChoiceNumbers {
  readonly #others = new Map<string, number>();
  readonly #onNew: (spec: ChainSpec, number: number) => void;
  /** Plain chains by their count: those that there are, and those of them that a frontend had. */
  readonly #known = new Set<number>();
  readonly #used = new Set<number>();

  /** @param onNew called once for each chain, when its number is first asked for */
  constructor(onNew: (spec: ChainSpec, number: number) => void) {
    this.#onNew = onNew;
  }

  /** The number in the map of frontends; `isOutside`: for clients outside, if they have a choice of their own. */
  of(frontend: Frontend, isOutside: boolean): number {
    const choice = isOutside ? frontend.outside : frontend.inside;
    if (choice.action !== 'balance') return numberWithout(choice);
    const { pick, affinitySeconds } = frontend;
    const count = choice.slots.length;
    // A person who reads the map sees how many slots there are.
    if (pick === 'random' && !isOutside && affinitySeconds === undefined) {
      this.#used.add(count);
      return this.#plain(count);
    }
    const spec = { pick, isOutside, count };
    return this.#other(affinitySeconds === undefined ? spec : { ...spec, affinitySeconds });
  }

  /**
   * Makes chains for one slot more and one fewer than there are now: that is what comes next, and a chain that begins
   * to use the map of endpoints makes the kernel walk it.
   */
  prepare(): void {
    for (const count of this.#used)
      for (const next of [count - 1, count + 1])
        if (next > 0 && next <= MAX_SLOTS) this.#plain(next);
  }

  #plain(count: number): number {
    if (!this.#known.has(count)) {
      this.#known.add(count);
      this.#onNew({ pick: 'random', isOutside: false, count }, count);
    }
    return count;
  }

  #other(spec: ChainSpec): number {
    const name = chainName(spec);
    const known = this.#others.get(name);
    if (known !== undefined) return known;
    const number = FIRST_OTHER_NUMBER + this.#others.size;
    this.#others.set(name, number);
    this.#onNew(spec, number);
    return number;
  }
}

export function chainName({ pick, isOutside, count, affinitySeconds }: ChainSpec): string {
  const where = isOutside ? '-outside' : '';
  const affinity = affinitySeconds === undefined ? '' : `-for-${affinitySeconds}s`;
  return `${pick === 'random' ? 'n' : 'h'}${count}${where}${affinity}`;
}

function numberWithout({ action }: Choice): number {
  return action === 'drop' ? DROP_NUMBER : REJECT_NUMBER;
}
