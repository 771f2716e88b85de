/**
 * nftables in memory: transactions apply atomically, with the kernel's errors and the kernel's dumps.
 *
 * Not modelled: overlapping intervals, expiry of elements, loops of jumps, and packets.
 */
import { ERESTART, KernelError } from '#lib/errors.ts';
import { describeOperation } from '#wire/nftables/format.ts';
import type {
  ChainRef,
  NftFamily,
  SetElement,
  SetRef,
  TableRef,
  Transaction,
} from '#wire/nftables/objects.ts';
import type { RuleCount } from '#wire/nftables/rule-count.ts';
import { Draft, type FakeTable, nameOf } from './fake-draft.ts';
import type { Nftables, RulesetEvent, TableState } from './port.ts';
import { elementsWanted } from './port.ts';

const OWN = { pid: process.pid, processName: 'own' };
const FOREIGN = { pid: 1, processName: 'other' };

export class FakeNftables implements Nftables {
  #tables = new Map<string, FakeTable>();
  #generation = 1;
  #nextTableHandle = 1;
  readonly #listeners = new Set<(event: RulesetEvent) => void>();
  /** Transactions that were committed, in order: for tests of what was done. */
  readonly committed: Transaction[] = [];

  commit(transaction: Transaction, options: { readonly generation?: number } = {}): void {
    if (options.generation !== undefined && options.generation !== this.#generation)
      throw new KernelError('commit an nftables transaction', ERESTART);
    this.#apply(transaction, true);
    this.committed.push(transaction);
  }

  commitSeries(
    transactions: Iterable<Transaction>,
    onAnswer: (transaction: Transaction) => void = () => {},
  ): void {
    for (const transaction of transactions) {
      onAnswer(transaction);
      this.commit(transaction);
    }
  }

  /** Commits as another program would. */
  commitAsOther(transaction: Transaction): void {
    this.#apply(transaction, false);
  }

  generation(): number {
    return this.#generation;
  }

  dumpTable(
    family: NftFamily,
    table: string,
    options: { readonly elements?: boolean | readonly string[] } = {},
  ): TableState | undefined {
    const found = this.#tables.get(nameOf({ family, table }));
    if (found === undefined) return undefined;
    return {
      ...found.table,
      handle: found.handle,
      chains: [...found.chains.values()].map(({ chain, handle, rules }) => ({
        ...chain,
        handle,
        rules: [...rules],
      })),
      sets: [...found.sets.values()].map(({ set, handle, elements }) => ({
        ...set,
        handle,
        elements: elementsWanted(options.elements)(set.set) ? [...elements.values()] : [],
      })),
    };
  }

  elementsOf(ref: SetRef): SetElement[] {
    return [...(this.#tables.get(nameOf(ref))?.sets.get(ref.set)?.elements.values() ?? [])];
  }

  listChains(family: NftFamily, table: string): string[] {
    return [...(this.#tables.get(nameOf({ family, table }))?.chains.keys() ?? [])];
  }

  countsOf(ref: ChainRef): RuleCount[] {
    const rules = this.#tables.get(nameOf(ref))?.chains.get(ref.chain)?.rules ?? [];
    return rules.flatMap(({ comment, expressions }) => {
      const counter = expressions.find((expression) => expression.kind === 'counter');
      if (comment === undefined || counter === undefined) return [];
      return [{ comment, packets: counter.packets, bytes: counter.bytes }];
    });
  }

  listTables(family?: NftFamily): TableRef[] {
    return [...this.#tables.values()]
      .map(({ table }) => ({ family: table.family, table: table.table }))
      .filter((ref) => family === undefined || ref.family === family);
  }

  watch(listener: (event: RulesetEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  [Symbol.dispose](): void {
    this.#listeners.clear();
  }

  #apply(transaction: Transaction, own: boolean): void {
    const draft = new Draft(this.#tables, this.#nextTableHandle);
    transaction.forEach((operation, index) => {
      const errno = draft.apply(operation);
      if (errno !== 0)
        throw new KernelError(
          `${describeOperation(operation)} (operation ${index} of ${transaction.length})`,
          errno,
          { index },
        );
    });
    if (draft.changes.size === 0) return;
    this.#tables = draft.tables;
    this.#nextTableHandle = draft.nextTableHandle;
    this.#generation++;
    const event: RulesetEvent = {
      kind: 'commit',
      generation: this.#generation,
      own,
      ...(own ? OWN : FOREIGN),
      changes: own ? [] : [...draft.changes.values()],
    };
    // As from the kernel: later, and not inside the commit.
    const listeners = [...this.#listeners];
    setImmediate(() => {
      for (const listener of listeners) if (this.#listeners.has(listener)) listener(event);
    });
  }
}
