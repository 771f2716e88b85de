/**
 * The nftables of one network namespace: transactions in, state and changes out.
 *
 * A {@link Transaction} is a value made by a pure planner (`#wire/nftables/objects.ts`). Calls are synchronous, because
 * netlink is: when `commit` returns the kernel's rules are the new ones, and when it throws they are the old ones.
 */
import type { Expression } from '#wire/nftables/expressions.ts';
import type {
  Chain,
  ChainRef,
  NftFamily,
  NftSet,
  SetElement,
  SetRef,
  Table,
  TableRef,
  Transaction,
} from '#wire/nftables/objects.ts';
import type { ElementList } from '#wire/nftables/packed-elements.ts';
import type { RuleCount } from '#wire/nftables/rule-count.ts';

export interface Nftables extends Disposable {
  /**
   * Carries out all operations or none.
   * @param options `generation`: commit only if the ruleset has not changed since this {@link generation}
   * @throws KernelError: `op` says which operation failed in words and `index` is its place in the transaction.
   *   ENOENT, EEXIST and EBUSY (in use) mean what they say; ERESTART means that `options.generation` is not the current one
   */
  commit(transaction: Transaction, options?: { readonly generation?: number }): void;

  /**
   * Carries out many transactions one after another, each while the next is made: that is, asked of the iterable.
   * @param onAnswer called before each answer of the kernel is looked at: what is thrown then is of this transaction
   * @throws KernelError at the first that is refused, as {@link commit}; those before it stay, none after it is carried out
   */
  commitSeries(
    transactions: Iterable<Transaction>,
    onAnswer?: (transaction: Transaction) => void,
  ): void;

  /** Number of the current ruleset: changes with every commit of anybody in this namespace. */
  generation(): number;

  /**
   * Reads a table, consistently: all of one generation.
   * @param options `elements: false` leaves out the elements of sets; a list of names, those of other sets
   * @returns undefined if there is no such table
   * @throws KernelError (EINTR) if the ruleset changes during each of many tries
   */
  dumpTable(
    family: NftFamily,
    table: string,
    options?: { readonly elements?: boolean | readonly string[] },
  ): TableState | undefined;

  /**
   * The elements of one set: for a large one, of which a dump would make too many objects.
   * @returns none if there is no such set
   * @throws KernelError as {@link dumpTable}
   */
  elementsOf(set: SetRef): ElementList;

  /** Names of a table's chains, in order of creation; none if there is no such table. */
  listChains(family: NftFamily, table: string): string[];

  /**
   * What the rules of a chain have counted, in order: of those that have a comment and a counter. Costs a fraction of a
   * dump.
   * @returns nothing if there is no such chain
   */
  countsOf(chain: ChainRef): RuleCount[];

  /** All tables, or those of one family. */
  listTables(family?: NftFamily): TableRef[];

  /**
   * Tells of every commit in this namespace, ours and others'.
   * @returns a function that ends the watch
   */
  watch(listener: (event: RulesetEvent) => void): () => void;
}

export interface TableState extends Table {
  readonly handle: number;
  /** In order of creation. */
  readonly chains: readonly ChainState[];
  readonly sets: readonly SetState[];
}
export interface ChainState extends Chain {
  readonly handle: number;
  /** In order of evaluation. */
  readonly rules: readonly RuleState[];
}
export interface RuleState {
  /** Names the rule for `replace` and `delete`; unique in the table. */
  readonly handle: number;
  readonly expressions: readonly Expression[];
  readonly comment?: string;
}
export interface SetState extends NftSet {
  readonly handle: number;
  /** Made for one rule (`tcp dport { 80, 443 }`), and gone with it. */
  readonly anonymous?: boolean;
  /** In no particular order. Empty if the dump left them out. */
  readonly elements: readonly SetElement[];
}

/** One object of the ruleset that a commit added or removed. */
export interface RulesetChange {
  readonly verb: 'add' | 'delete';
  readonly kind: 'table' | 'chain' | 'rule' | 'set' | 'elements';
  readonly family: NftFamily;
  readonly table: string;
  /** Name of the chain or set; undefined for a table. */
  readonly name: string | undefined;
}

export type RulesetEvent =
  | {
      readonly kind: 'commit';
      readonly generation: number;
      /** Made by `commit` of this very object. */
      readonly own: boolean;
      /** Who did it: a process of the machine's first pid namespace, and its command name. */
      readonly pid: number;
      readonly processName: string;
      /** What changed, each object once. */
      readonly changes: readonly RulesetChange[];
    }
  /** Events were lost, and not only own ones: dump what matters. */
  | { readonly kind: 'lost'; readonly generation: number };

/** Reads the option `elements` of {@link Nftables.dumpTable}: whether a set's elements are wanted. */
export function elementsWanted(
  option: boolean | readonly string[] | undefined,
): (set: string) => boolean {
  if (option === undefined || typeof option === 'boolean') return () => option ?? true;
  return (set) => option.includes(set);
}
