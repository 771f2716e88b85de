/** `destroy` for kernels before 6.3: delete what exists, and nothing else. Pure, but for the question what exists. */
import type {
  ChainRef,
  Operation,
  SetElement,
  SetRef,
  TableRef,
  Transaction,
} from '#wire/nftables/objects.ts';

/** Asks the kernel. The answers must be of the generation that the transaction is then committed against. */
export interface Existence {
  table(ref: TableRef): boolean;
  chain(ref: ChainRef): boolean;
  rule(ref: ChainRef, handle: number): boolean;
  set(ref: SetRef): boolean;
  element(ref: SetRef, element: SetElement): boolean;
}

/**
 * Replaces each `destroy` by `delete`, or by nothing where the object does not exist at that point of the transaction:
 * what earlier operations add or remove is taken into account.
 */
export function replaceDestroys(transaction: Transaction, existence: Existence): Transaction {
  const overlay = new Overlay(existence);
  return transaction.flatMap((operation) => {
    const replaced =
      operation.verb === 'destroy' && 'ref' in operation ? overlay.deletion(operation) : operation;
    if (replaced === undefined) return [];
    overlay.note(replaced);
    return [replaced];
  });
}

/** Operations that name what is there rather than bring it. */
type Removal = Extract<Operation, { readonly ref: unknown }>;

/** Names nest as the objects do: an object's name begins with that of what holds it. */
const nameOfTable = ({ family, table }: TableRef) => `${family} ${table}/`;
const nameOfChain = (ref: ChainRef) => `${nameOfTable(ref)}chain ${ref.chain}/`;
const nameOfRule = (ref: ChainRef, handle: number) => `${nameOfChain(ref)}${handle}`;
const nameOfSet = (ref: SetRef) => `${nameOfTable(ref)}set ${ref.set}/`;
const nameOfElement = (ref: SetRef, element: SetElement) =>
  `${nameOfSet(ref)}${element.intervalEnd === true ? 'end ' : ''}${Buffer.from(element.key).toString('hex')}`;

/** What the transaction so far has made and removed, over what was there before. */
class Overlay {
  readonly #existence: Existence;
  readonly #changed = new Map<string, boolean>();
  /** Objects whose content of before is gone. */
  readonly #emptied = new Set<string>();

  constructor(existence: Existence) {
    this.#existence = existence;
  }

  /**
   * The operation that does the same without `destroy`; undefined if there is nothing to do.
   * A table that is not there is an error for all that is in it, as it is to the kernel: the deletion will say so.
   */
  deletion(operation: Removal): Operation | undefined {
    const deletion: Operation = { ...operation, verb: 'delete' };
    const hasTable = this.#known(nameOfTable(operation.ref), () =>
      this.#existence.table(operation.ref),
    );
    if (operation.kind === 'table') return hasTable ? deletion : undefined;
    if (!hasTable) return deletion;
    if (operation.kind === 'elements') return this.#elementsDeletion(operation);
    return this.#exists(operation) ? deletion : undefined;
  }

  note(operation: Operation): void {
    const { kind, verb } = operation;
    if (kind === 'elements') {
      for (const element of operation.elements)
        this.#changed.set(nameOfElement(operation.ref, element), verb !== 'delete');
      return;
    }
    if (kind === 'rule') {
      if ('ref' in operation) this.#changed.set(nameOfRule(operation.ref, operation.handle), false);
      return;
    }
    const name = nameOfObject(operation);
    if ('object' in operation) {
      this.#changed.set(name, true);
      return;
    }
    for (const inside of this.#changed.keys())
      if (inside.startsWith(name)) this.#changed.delete(inside);
    this.#emptied.add(name);
    if (verb === 'delete') this.#changed.set(name, false);
  }

  #exists(operation: Exclude<Removal, { kind: 'table' } | { kind: 'elements' }>): boolean {
    switch (operation.kind) {
      case 'chain': {
        const { ref } = operation;
        return this.#known(nameOfChain(ref), () => this.#existence.chain(ref));
      }
      case 'rule': {
        const { ref, handle } = operation;
        return this.#known(nameOfRule(ref, handle), () => this.#existence.rule(ref, handle));
      }
      case 'set': {
        const { ref } = operation;
        return this.#known(nameOfSet(ref), () => this.#existence.set(ref));
      }
    }
  }

  #elementsDeletion(operation: Extract<Removal, { kind: 'elements' }>): Operation {
    const { ref } = operation;
    const deletion: Operation = { ...operation, verb: 'delete' };
    if (!this.#known(nameOfSet(ref), () => this.#existence.set(ref))) return deletion;
    const elements = [...operation.elements].filter((element) =>
      this.#known(nameOfElement(ref, element), () => this.#existence.element(ref, element)),
    );
    return { ...deletion, elements };
  }

  #known(name: string, ask: () => boolean): boolean {
    const changed = this.#changed.get(name);
    if (changed !== undefined) return changed;
    for (const emptied of this.#emptied)
      if (name !== emptied && name.startsWith(emptied)) return false;
    return ask();
  }
}

function nameOfObject(operation: Extract<Operation, { kind: 'table' | 'chain' | 'set' }>): string {
  switch (operation.kind) {
    case 'table':
      return nameOfTable('object' in operation ? operation.object : operation.ref);
    case 'chain':
      return nameOfChain('object' in operation ? operation.object : operation.ref);
    case 'set':
      return nameOfSet('object' in operation ? operation.object : operation.ref);
  }
}
