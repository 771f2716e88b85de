/**
 * The objects of nftables and the operations on them, as plain values.
 *
 * A transaction is a list of operations that the kernel carries out all or not at all. It is made by pure planners
 * (with {@link inTable}), printed by `formatTransaction()` and committed by the port in `src/linux/nftables`.
 *
 * Inside one transaction an object must be added before it is named, and unreferenced before it is deleted.
 */
import type { KeyField } from './data-types.ts';
import type { Expression, Verdict } from './expressions.ts';

/** Address families of tables. `inet` sees IPv4 and IPv6. */
export type NftFamily = 'ip' | 'ip6' | 'inet' | 'arp' | 'bridge' | 'netdev';

export type Hook =
  | 'prerouting'
  | 'input'
  | 'forward'
  | 'output'
  | 'postrouting'
  | 'ingress'
  | 'egress';

/** The named priorities of the families ip, ip6 and inet; lower runs earlier. */
export const PRIORITY = {
  raw: -300,
  conntrack: -200,
  mangle: -150,
  dstnat: -100,
  filter: 0,
  security: 50,
  srcnat: 100,
} as const;

export interface TableRef {
  readonly family: NftFamily;
  readonly table: string;
}
export interface Table extends TableRef {
  readonly comment?: string;
  /** The table's hooks are not registered: its rules see no packet. */
  readonly dormant?: boolean;
}

/** How a base chain is attached to the packet path. */
export interface BaseChain {
  readonly type: 'filter' | 'nat' | 'route';
  readonly hook: Hook;
  /** See {@link PRIORITY}. */
  readonly priority: number;
  /** Default `accept`. */
  readonly policy?: 'accept' | 'drop';
  /** For the hooks `ingress` and `egress`. */
  readonly device?: string;
}
export interface ChainRef extends TableRef {
  readonly chain: string;
}
export interface Chain extends ChainRef {
  /** Absent for a chain that is only jumped to. */
  readonly base?: BaseChain;
  readonly comment?: string;
}

export interface Rule extends ChainRef {
  readonly expressions: readonly Expression[];
  readonly comment?: string;
}

export interface SetRef extends TableRef {
  readonly set: string;
}
/** A set, or with `data` a map. */
export interface NftSet extends SetRef {
  /** One field, or the fields of a concatenation. */
  readonly key: readonly KeyField[];
  /** Makes it a map: to verdicts, or to a value of these fields. */
  readonly data?: 'verdict' | readonly KeyField[];
  /** Elements are intervals. In a concatenation each field is one (`keyEnd`); else see `intervalElements()`. */
  readonly interval?: boolean;
  /** Elements may expire. Implied by `timeoutMs`. */
  readonly timeout?: boolean;
  /** Rules may add elements (`dynset`). Needs a `size`. */
  readonly dynamic?: boolean;
  /** Content is fixed once a rule uses it. */
  readonly constant?: boolean;
  /**
   * Most elements that it can hold. A large set should have one: the kernel then makes its hash table at once instead
   * of growing it, which loads three times as fast, and a dump never sees it in the middle of growing.
   */
  readonly size?: number;
  /** Default life of an element. */
  readonly timeoutMs?: number;
  readonly gcIntervalMs?: number;
  readonly comment?: string;
}

/** An element. A map to verdicts needs `verdict`, another map `data`. Keys are made by `concat()` and its kin. */
export interface SetElement {
  /** Each field in its byte order, padded to 4 bytes if there are several. Ignored by a catch-all. */
  readonly key: Uint8Array;
  /** Interval in a concatenation: the last value of each field, included. */
  readonly keyEnd?: Uint8Array;
  /** Plain interval set: this element is the first value after the interval. */
  readonly intervalEnd?: boolean;
  /** Matches what no other element matches (`*`). */
  readonly catchAll?: boolean;
  readonly data?: Uint8Array;
  readonly verdict?: Verdict;
  readonly timeoutMs?: number;
  /** Time left. On adding it defaults to the timeout. */
  readonly expiresMs?: number;
  readonly comment?: string;
}

export type Operation =
  | { readonly verb: 'add' | 'create'; readonly kind: 'table'; readonly object: Table }
  | { readonly verb: 'add' | 'create'; readonly kind: 'chain'; readonly object: Chain }
  | { readonly verb: 'add' | 'create'; readonly kind: 'set'; readonly object: NftSet }
  /** `flush` removes all rules of all chains of the table. */
  | {
      readonly verb: 'delete' | 'destroy' | 'flush';
      readonly kind: 'table';
      readonly ref: TableRef;
    }
  /** `flush` removes all rules. */
  | {
      readonly verb: 'delete' | 'destroy' | 'flush';
      readonly kind: 'chain';
      readonly ref: ChainRef;
    }
  /** `flush` removes all elements. */
  | { readonly verb: 'delete' | 'destroy' | 'flush'; readonly kind: 'set'; readonly ref: SetRef }
  /** `add` puts the rule at the end, or after the rule `at`; `insert` at the start, or before it. */
  | {
      readonly verb: 'add' | 'insert';
      readonly kind: 'rule';
      readonly object: Rule;
      readonly at?: number;
    }
  | {
      readonly verb: 'replace';
      readonly kind: 'rule';
      readonly object: Rule;
      readonly handle: number;
    }
  | {
      readonly verb: 'delete' | 'destroy';
      readonly kind: 'rule';
      readonly ref: ChainRef;
      readonly handle: number;
    }
  /**
   * `add` accepts an element that is there already if its data is the same, `create` does not.
   * `elements` is walked when the transaction is encoded, and again when it is printed or applied by the fake,
   * so it must be iterable more than once: an array, or an object whose iterator is a generator.
   */
  | {
      readonly verb: 'add' | 'create' | 'delete' | 'destroy';
      readonly kind: 'elements';
      readonly ref: SetRef;
      readonly elements: Iterable<SetElement>;
    };

/** Carried out all or not at all, in this order. */
export type Transaction = readonly Operation[];

/**
 * Operations on one table and its content, so that a planner names the table once.
 *
 * ```ts
 * const { table, chain, rule } = inTable('ip', 'tulle');
 * const transaction = [table.add(), chain.add('n5'), rule.add('n5', [counter()])];
 * ```
 */
export function inTable(family: NftFamily, table: string) {
  const ref: TableRef = { family, table };
  return {
    ref,
    table: {
      add: (options: Omit<Table, keyof TableRef> = {}) => addOf('table', { ...ref, ...options }),
      delete: (): Operation => ({ verb: 'delete', kind: 'table', ref }),
      destroy: (): Operation => ({ verb: 'destroy', kind: 'table', ref }),
      flush: (): Operation => ({ verb: 'flush', kind: 'table', ref }),
    },
    chain: {
      add: (chain: string, options: Omit<Chain, keyof ChainRef> = {}) =>
        addOf('chain', { ...ref, chain, ...options }),
      create: (chain: string, options: Omit<Chain, keyof ChainRef> = {}): Operation => ({
        verb: 'create',
        kind: 'chain',
        object: { ...ref, chain, ...options },
      }),
      delete: (chain: string): Operation => ({
        verb: 'delete',
        kind: 'chain',
        ref: { ...ref, chain },
      }),
      destroy: (chain: string): Operation => ({
        verb: 'destroy',
        kind: 'chain',
        ref: { ...ref, chain },
      }),
      flush: (chain: string): Operation => ({
        verb: 'flush',
        kind: 'chain',
        ref: { ...ref, chain },
      }),
    },
    rule: {
      add: (chain: string, expressions: readonly Expression[], options: RuleOptions = {}) =>
        ruleOf('add', { ...ref, chain, expressions }, options),
      insert: (chain: string, expressions: readonly Expression[], options: RuleOptions = {}) =>
        ruleOf('insert', { ...ref, chain, expressions }, options),
      replace: (
        chain: string,
        handle: number,
        expressions: readonly Expression[],
        comment?: string,
      ): Operation => ({
        verb: 'replace',
        kind: 'rule',
        object: { ...ref, chain, expressions, ...(comment === undefined ? {} : { comment }) },
        handle,
      }),
      delete: (chain: string, handle: number): Operation => ({
        verb: 'delete',
        kind: 'rule',
        ref: { ...ref, chain },
        handle,
      }),
      destroy: (chain: string, handle: number): Operation => ({
        verb: 'destroy',
        kind: 'rule',
        ref: { ...ref, chain },
        handle,
      }),
    },
    set: {
      add: (set: string, options: Omit<NftSet, keyof SetRef>) =>
        addOf('set', { ...ref, set, ...options }),
      create: (set: string, options: Omit<NftSet, keyof SetRef>): Operation => ({
        verb: 'create',
        kind: 'set',
        object: { ...ref, set, ...options },
      }),
      delete: (set: string): Operation => ({ verb: 'delete', kind: 'set', ref: { ...ref, set } }),
      destroy: (set: string): Operation => ({ verb: 'destroy', kind: 'set', ref: { ...ref, set } }),
      flush: (set: string): Operation => ({ verb: 'flush', kind: 'set', ref: { ...ref, set } }),
    },
    elements: {
      add: (set: string, elements: Iterable<SetElement>) => elementsOf('add', set, elements),
      create: (set: string, elements: Iterable<SetElement>) => elementsOf('create', set, elements),
      delete: (set: string, elements: Iterable<SetElement>) => elementsOf('delete', set, elements),
      destroy: (set: string, elements: Iterable<SetElement>) =>
        elementsOf('destroy', set, elements),
    },
  } as const;

  function elementsOf(
    verb: 'add' | 'create' | 'delete' | 'destroy',
    set: string,
    elements: Iterable<SetElement>,
  ): Operation {
    return { verb, kind: 'elements', ref: { ...ref, set }, elements };
  }
}

interface RuleOptions {
  readonly comment?: string;
  /** Handle of the rule beside which this one is put. */
  readonly at?: number;
}

function ruleOf(verb: 'add' | 'insert', rule: Rule, options: RuleOptions): Operation {
  const { comment, at } = options;
  return {
    verb,
    kind: 'rule',
    object: comment === undefined ? rule : { ...rule, comment },
    ...(at === undefined ? {} : { at }),
  };
}

function addOf(kind: 'table', object: Table): Operation;
function addOf(kind: 'chain', object: Chain): Operation;
function addOf(kind: 'set', object: NftSet): Operation;
function addOf(kind: 'table' | 'chain' | 'set', object: Table | Chain | NftSet): Operation {
  return { verb: 'add', kind, object } as Operation;
}
