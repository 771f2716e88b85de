/**
 * Where the addresses of this node's pods lead: to the chain of their rule set, out, or into a closed chain. Pure.
 *
 * Two pods may have one address for a moment, the old one and the next; then the one that came last has it.
 */
import { ipToBytes } from '#lib/ip.ts';
import { DIRECTIONS, type Direction, type PolicyPod } from '#policy/model.ts';
import { goTo, jumpTo, type Verdict } from '#wire/nftables/expressions.ts';
import type { SetElement } from '#wire/nftables/objects.ts';
import { concat, tableFamilyOf } from '#wire/nftables/values.ts';
import { type RuleSet, ruleSetChainName } from './chains.ts';
import { CLOSED_CHAIN, CLOSED_INGRESS_CHAIN, EGRESS_PODS, INGRESS_PODS, SELF } from './names.ts';
import type { NftFamilyName } from './rules.ts';

/** What must change in a set. */
export interface SetChange {
  readonly set: string;
  readonly add: readonly SetElement[];
  readonly remove: readonly SetElement[];
}

/** What a pod has in one direction. */
export interface Choice {
  readonly isClosed: boolean;
  /** Of a closed pod: those of its policies that are not left out. Undefined: they are not known. */
  readonly ruleSet: RuleSet | undefined;
}
export type Selection = Readonly<Record<Direction, Choice>>;

export interface DispatchElement {
  readonly set: string;
  readonly family: NftFamilyName;
  readonly element: SetElement;
  /** Set and address. */
  readonly place: string;
  /** The same text, the same element. */
  readonly target: string;
  /**
   * The rule set to whose chain it leads, or would lead if the pod were not closed: the kernel is asked for that too, so that
   * who is left out is not blamed for the others.
   */
  readonly ruleSet: RuleSet | undefined;
}

/** An address leads to its rule set, is open, or is closed. */
export function dispatchOf(pod: PolicyPod, selection: Selection): DispatchElement[] {
  return pod.ips.flatMap((address) => {
    const family = tableFamilyOf(address);
    const key = ipToBytes(address);
    const self = { key: concat([key, key]) };
    return [
      {
        set: SELF,
        family,
        element: self,
        place: `${SELF} ${address}`,
        target: '',
        ruleSet: undefined,
      },
      ...DIRECTIONS.map((direction): DispatchElement => {
        const { ruleSet } = selection[direction];
        const set = direction === 'egress' ? EGRESS_PODS : INGRESS_PODS;
        const verdict = verdictOf(selection[direction], direction);
        const target = 'chain' in verdict ? `${verdict.kind} ${verdict.chain}` : verdict.kind;
        return {
          set,
          family,
          element: { key, verdict },
          place: `${set} ${address}`,
          target,
          ruleSet,
        };
      }),
    ];
  });
}

const OPEN: Verdict = { kind: 'accept' };

function verdictOf({ isClosed, ruleSet }: Choice, direction: Direction): Verdict {
  if (isClosed || ruleSet === undefined)
    return goTo(direction === 'egress' ? CLOSED_CHAIN : CLOSED_INGRESS_CHAIN);
  return ruleSet.policies.length === 0 ? OPEN : jumpTo(ruleSetChainName(ruleSet));
}

/** The elements of all pods, and what has changed of them since the last look. */
export class Dispatch {
  /** By place, those that want it in the order in which they came. */
  readonly #wanted = new Map<string, DispatchElement[]>();
  readonly #inForce = new Map<string, DispatchElement>();
  readonly #touched = new Set<string>();

  /** Takes elements of a pod in the place of those that it had. */
  exchange(old: readonly DispatchElement[], elements: readonly DispatchElement[]): void {
    for (const element of old) {
      const others = this.#wanted.get(element.place)?.filter((other) => other !== element) ?? [];
      if (others.length > 0) this.#wanted.set(element.place, others);
      else this.#wanted.delete(element.place);
      this.#touched.add(element.place);
    }
    for (const element of elements) {
      this.#wanted.set(element.place, [...(this.#wanted.get(element.place) ?? []), element]);
      this.#touched.add(element.place);
    }
  }

  take(): Record<NftFamilyName, SetChange[]> {
    const add: DispatchElement[] = [];
    const remove: DispatchElement[] = [];
    for (const place of this.#touched) {
      const was = this.#inForce.get(place);
      const is = this.#wanted.get(place)?.at(-1);
      if (is === undefined) this.#inForce.delete(place);
      else this.#inForce.set(place, is);
      if (is !== undefined && is.target !== was?.target) add.push(is);
      if (is === undefined && was !== undefined) remove.push(was);
    }
    this.#touched.clear();
    return { ip: changesOf(add, remove, 'ip'), ip6: changesOf(add, remove, 'ip6') };
  }
}

function changesOf(
  add: readonly DispatchElement[],
  remove: readonly DispatchElement[],
  family: NftFamilyName,
): SetChange[] {
  return [EGRESS_PODS, INGRESS_PODS, SELF].flatMap((set) => {
    const of = (list: readonly DispatchElement[]) =>
      list.filter((it) => it.set === set && it.family === family).map(({ element }) => element);
    const change = { set, add: of(add), remove: of(remove) };
    return change.add.length > 0 || change.remove.length > 0 ? [change] : [];
  });
}
