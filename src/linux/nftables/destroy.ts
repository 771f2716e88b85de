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

const nameOfTable = ({ family, table }: TableRef) => `${family} ${table}`;
const nameOfChain = (ref: ChainRef) => `chain ${nameOfTable(ref)} ${ref.chain}`;
const nameOfSet = (ref: SetRef) => `set ${nameOfTable(ref)} ${ref.set}`;
const nameOfElement = (ref: SetRef, element: SetElement) =>
  `${nameOfSet(ref)} ${element.intervalEnd === true ? 'end ' : ''}${Buffer.from(element.key).toString('hex')}`;

/** What the transaction so far has made and removed, over what was there before. */
class Overlay {
  readonly #existence: Existence;
  readonly #changed = new Map<string, boolean>();

  constructor(existence: Existence) {
    this.#existence = existence;
  }

  /** The operation that does the same without `destroy`; undefined if there is nothing to do. */
  deletion(operation: Removal): Operation | undefined {
    switch (operation.kind) {
      case 'table':
        return this.#table(operation.ref) ? { ...operation, verb: 'delete' } : undefined;
      case 'chain':
        return this.#within(operation.ref, nameOfChain(operation.ref), () =>
          this.#existence.chain(operation.ref),
        )
          ? { ...operation, verb: 'delete' }
          : undefined;
      case 'rule':
        return this.#within(operation.ref, nameOfChain(operation.ref), () =>
          this.#existence.rule(operation.ref, operation.handle),
        )
          ? { ...operation, verb: 'delete' }
          : undefined;
      case 'set':
        return this.#set(operation.ref) ? { ...operation, verb: 'delete' } : undefined;
      case 'elements': {
        if (!this.#set(operation.ref)) return undefined;
        const present = [...operation.elements].filter((element) =>
          this.#within(operation.ref, nameOfElement(operation.ref, element), () =>
            this.#existence.element(operation.ref, element),
          ),
        );
        return { ...operation, verb: 'delete', elements: present };
      }
    }
  }

  note(operation: Operation): void {
    const adds = operation.verb === 'add' || operation.verb === 'create';
    if (!adds && operation.verb !== 'delete') return;
    switch (operation.kind) {
      case 'table':
        this.#changed.set(
          nameOfTable('object' in operation ? operation.object : operation.ref),
          adds,
        );
        break;
      case 'chain':
        this.#changed.set(
          nameOfChain('object' in operation ? operation.object : operation.ref),
          adds,
        );
        break;
      case 'set':
        this.#changed.set(
          nameOfSet('object' in operation ? operation.object : operation.ref),
          adds,
        );
        break;
      case 'elements':
        for (const element of operation.elements)
          this.#changed.set(nameOfElement(operation.ref, element), adds);
        break;
      case 'rule':
        break;
    }
  }

  #table(ref: TableRef): boolean {
    return this.#changed.get(nameOfTable(ref)) ?? this.#existence.table(ref);
  }
  #set(ref: SetRef): boolean {
    return this.#within(ref, nameOfSet(ref), () => this.#existence.set(ref));
  }
  /** An object in a table: gone with it, and not in a table that this transaction made. */
  #within(ref: TableRef, name: string, ask: () => boolean): boolean {
    if (!this.#table(ref)) return false;
    return this.#changed.get(name) ?? ask();
  }
}
