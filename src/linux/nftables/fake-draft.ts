/** What a transaction makes of the ruleset of the fake: the kernel's rules of what may be added, changed and deleted. */
import { EBUSY, EEXIST, EINVAL, ENOENT } from '#lib/errors.ts';
import { readMessages } from '#wire/netlink/reader.ts';
import { keyBytes } from '#wire/nftables/data-types.ts';
import type { Expression, Verdict } from '#wire/nftables/expressions.ts';
import type { DecodedRule, DecodedSet } from '#wire/nftables/object-decoder.ts';
import { decodeChain, decodeRule, decodeSet, decodeTable } from '#wire/nftables/object-decoder.ts';
import type {
  Chain,
  ChainRef,
  Operation,
  SetElement,
  SetRef,
  Table,
  TableRef,
} from '#wire/nftables/objects.ts';
import { encodeTransaction } from '#wire/nftables/transaction-encoder.ts';
import type { RuleState, RulesetChange } from './port.ts';

/** "Too many open files": what the kernel says of a full set. */
const ENFILE = 23;

interface FakeChain {
  readonly chain: Chain;
  readonly handle: number;
  rules: readonly RuleState[];
}
interface FakeSet {
  readonly set: DecodedSet;
  readonly handle: number;
  readonly elements: Map<string, SetElement>;
}
export interface FakeTable {
  table: Table;
  readonly handle: number;
  nextHandle: number;
  readonly chains: Map<string, FakeChain>;
  readonly sets: Map<string, FakeSet>;
}

/** A copy of the ruleset that a transaction works on; each table is copied when it is first touched. */
export class Draft {
  readonly tables: Map<string, FakeTable>;
  nextTableHandle: number;
  readonly changes = new Map<string, RulesetChange>();
  readonly #owned = new Set<string>();

  constructor(tables: ReadonlyMap<string, FakeTable>, nextTableHandle: number) {
    this.tables = new Map(tables);
    this.nextTableHandle = nextTableHandle;
  }

  /** @returns an errno, or 0 */
  apply(operation: Operation): number {
    switch (operation.kind) {
      case 'table':
        return 'object' in operation
          ? this.#addTable(operation.object, operation.verb, operation)
          : this.#removeTable(operation.ref, operation.verb);
      case 'chain':
        return 'object' in operation
          ? this.#addChain(operation.object, operation.verb, operation)
          : this.#removeChain(operation.ref, operation.verb);
      case 'set':
        return 'object' in operation
          ? this.#addSet(operation.object, operation.verb, operation)
          : this.#removeSet(operation.ref, operation.verb);
      case 'rule':
        return 'object' in operation
          ? this.#putRule(operation)
          : this.#removeRule(operation.ref, operation.handle, operation.verb);
      case 'elements':
        return operation.verb === 'add' || operation.verb === 'create'
          ? this.#addElements(operation.ref, operation.elements, operation.verb)
          : this.#removeElements(operation.ref, operation.elements, operation.verb);
    }
  }

  #addTable(table: Table, verb: 'add' | 'create', operation: Operation): number {
    const existing = this.#table(table);
    if (existing !== undefined) {
      if (verb === 'create') return EEXIST;
      if ((existing.table.dormant ?? false) !== (table.dormant ?? false)) {
        const { dormant: _, ...rest } = existing.table;
        existing.table = table.dormant === true ? { ...rest, dormant: true } : rest;
        this.#note('add', 'table', table, undefined);
      }
      return 0;
    }
    const { handle: _, ...decoded } = decodeTable(payloadOf(operation));
    const name = nameOf(table);
    this.tables.set(name, {
      table: decoded,
      handle: this.nextTableHandle++,
      nextHandle: 1,
      chains: new Map(),
      sets: new Map(),
    });
    this.#owned.add(name);
    this.#note('add', 'table', table, undefined);
    return 0;
  }

  #removeTable(ref: TableRef, verb: 'delete' | 'destroy' | 'flush'): number {
    const table = this.#table(ref);
    if (table === undefined) return verb === 'destroy' ? 0 : ENOENT;
    if (verb === 'flush') {
      for (const name of table.chains.keys()) this.#flushChain(table, name);
      return 0;
    }
    this.tables.delete(nameOf(ref));
    this.#note('delete', 'table', ref, undefined);
    return 0;
  }

  #addChain(chain: Chain, verb: 'add' | 'create', operation: Operation): number {
    const table = this.#table(chain);
    if (table === undefined) return ENOENT;
    const existing = table.chains.get(chain.chain);
    const { handle: _, ...decoded } = decodeChain(payloadOf(operation));
    if (existing === undefined) {
      const handle = table.nextHandle++;
      table.chains.set(chain.chain, { chain: decoded, handle, rules: [] });
      this.#note('add', 'chain', chain, chain.chain);
      return 0;
    }
    if (verb === 'create') return EEXIST;
    // The kernel makes a generation of it even if nothing changes.
    this.#note('add', 'chain', chain, chain.chain);
    // Only the policy can be changed; how a chain is attached cannot.
    const was = existing.chain.base;
    const wanted = decoded.base;
    if (wanted === undefined) return 0;
    if (was === undefined) return EEXIST;
    if (was.type !== wanted.type || was.hook !== wanted.hook || was.priority !== wanted.priority)
      return EEXIST;
    if (was.policy === wanted.policy) return 0;
    table.chains.set(chain.chain, { ...existing, chain: { ...existing.chain, base: wanted } });
    return 0;
  }

  #removeChain(ref: ChainRef, verb: 'delete' | 'destroy' | 'flush'): number {
    const table = this.#table(ref);
    if (table === undefined) return ENOENT;
    const chain = table.chains.get(ref.chain);
    if (chain === undefined) return verb === 'destroy' ? 0 : ENOENT;
    if (verb === 'flush') {
      this.#flushChain(table, ref.chain);
      return 0;
    }
    if (isChainUsed(table, ref.chain)) return EBUSY;
    table.chains.delete(ref.chain);
    this.#note('delete', 'chain', ref, ref.chain);
    return 0;
  }

  #flushChain(table: FakeTable, name: string): void {
    const chain = table.chains.get(name);
    if (chain === undefined || chain.rules.length === 0) return;
    table.chains.set(name, { ...chain, rules: [] });
    this.#note('delete', 'rule', table.table, name);
  }

  #putRule(operation: Extract<Operation, { kind: 'rule'; object: unknown }>): number {
    const table = this.#table(operation.object);
    const chain = table?.chains.get(operation.object.chain);
    if (table === undefined || chain === undefined) return ENOENT;
    const decoded = decodeRule(payloadOf(withoutHandle(operation)));
    for (const expression of decoded.expressions) {
      const errno = referenceErrno(table, expression);
      if (errno !== 0) return errno;
    }
    const beside = operation.verb === 'replace' ? operation.handle : operation.at;
    const position = chain.rules.findIndex((rule) => rule.handle === beside);
    if (beside !== undefined && position < 0) return ENOENT;
    const rules = [...chain.rules];
    const rule = stateOf(decoded, table.nextHandle++);
    if (operation.verb === 'replace') rules.splice(position, 1, rule);
    else if (operation.verb === 'insert') rules.splice(Math.max(position, 0), 0, rule);
    else rules.splice(beside === undefined ? rules.length : position + 1, 0, rule);
    table.chains.set(operation.object.chain, { ...chain, rules });
    this.#note('add', 'rule', operation.object, operation.object.chain);
    if (operation.verb === 'replace')
      this.#note('delete', 'rule', operation.object, operation.object.chain);
    return 0;
  }

  #removeRule(ref: ChainRef, handle: number, verb: 'delete' | 'destroy'): number {
    const table = this.#table(ref);
    if (table === undefined) return ENOENT;
    const chain = table.chains.get(ref.chain);
    const missing = verb === 'destroy' ? 0 : ENOENT;
    if (chain === undefined) return missing;
    const rules = chain.rules.filter((rule) => rule.handle !== handle);
    if (rules.length === chain.rules.length) return missing;
    table.chains.set(ref.chain, { ...chain, rules });
    this.#note('delete', 'rule', ref, ref.chain);
    return 0;
  }

  #addSet(ref: SetRef, verb: 'add' | 'create', operation: Operation): number {
    const table = this.#table(ref);
    if (table === undefined) return ENOENT;
    const set = decodeSet(payloadOf(operation));
    const existing = table.sets.get(ref.set);
    if (existing !== undefined) {
      if (verb === 'create' || !isSameSet(existing.set, set)) return EEXIST;
      return 0;
    }
    table.sets.set(ref.set, { set, handle: table.nextHandle++, elements: new Map() });
    this.#note('add', 'set', ref, ref.set);
    return 0;
  }

  #removeSet(ref: SetRef, verb: 'delete' | 'destroy' | 'flush'): number {
    const table = this.#table(ref);
    if (table === undefined) return ENOENT;
    const set = table.sets.get(ref.set);
    if (set === undefined) return verb === 'destroy' ? 0 : ENOENT;
    if (verb === 'flush') {
      if (set.elements.size > 0) this.#note('delete', 'elements', ref, ref.set);
      set.elements.clear();
      return 0;
    }
    if (isSetUsed(table, ref.set)) return EBUSY;
    table.sets.delete(ref.set);
    this.#note('delete', 'set', ref, ref.set);
    return 0;
  }

  #addElements(ref: SetRef, elements: Iterable<SetElement>, verb: 'add' | 'create'): number {
    const table = this.#table(ref);
    const found = table?.sets.get(ref.set);
    for (const element of elements) {
      if (table === undefined || found === undefined) return ENOENT;
      const errno = elementErrno(table, found.set, element);
      if (errno !== 0) return errno;
      const name = nameOfElement(element);
      const existing = found.elements.get(name);
      if (existing !== undefined) {
        if (verb === 'create' || !isSameData(existing, element)) return EEXIST;
        continue;
      }
      if (found.set.size !== undefined && found.elements.size >= found.set.size) return ENFILE;
      found.elements.set(name, element);
      this.#note('add', 'elements', ref, ref.set);
    }
    return 0;
  }

  #removeElements(ref: SetRef, elements: Iterable<SetElement>, verb: 'delete' | 'destroy'): number {
    const found = this.#table(ref)?.sets.get(ref.set);
    for (const element of elements) {
      if (found === undefined) return ENOENT;
      if (found.elements.delete(nameOfElement(element)))
        this.#note('delete', 'elements', ref, ref.set);
      else if (verb === 'delete') return ENOENT;
    }
    return 0;
  }

  #table(ref: TableRef): FakeTable | undefined {
    const name = nameOf(ref);
    const table = this.tables.get(name);
    if (table === undefined || this.#owned.has(name)) return table;
    const copy: FakeTable = {
      ...table,
      chains: new Map(table.chains),
      sets: new Map(
        [...table.sets].map(([key, set]) => [key, { ...set, elements: new Map(set.elements) }]),
      ),
    };
    this.tables.set(name, copy);
    this.#owned.add(name);
    return copy;
  }

  #note(
    verb: RulesetChange['verb'],
    kind: RulesetChange['kind'],
    { family, table }: TableRef,
    name: string | undefined,
  ): void {
    this.changes.set(`${verb} ${kind} ${family} ${table} ${name ?? ''}`, {
      verb,
      kind,
      family,
      table,
      name,
    });
  }
}

export const nameOf = ({ family, table }: TableRef) => `${family} ${table}`;
const nameOfElement = (element: SetElement) =>
  element.catchAll === true
    ? '*'
    : `${element.intervalEnd === true ? 'end ' : ''}${hexOf(element.key)}-${hexOf(element.keyEnd)}`;
const hexOf = (bytes: Uint8Array | undefined) =>
  bytes === undefined ? '' : Buffer.from(bytes).toString('hex');

/** An object as the codec would give it back: defaults filled in, the same as in a dump of the kernel. */
function payloadOf(operation: Operation): Buffer {
  const [, message] = readMessages(encodeTransaction([operation]).bytes);
  if (message === undefined) throw new TypeError('the operation has no message');
  return message.payload;
}

/** The message that adds a rule has no handle; one is needed only to decode it. */
function withoutHandle(
  operation: Extract<Operation, { kind: 'rule'; object: unknown }>,
): Operation {
  return { verb: 'replace', kind: 'rule', object: operation.object, handle: 0 };
}

function stateOf(rule: DecodedRule, handle: number): RuleState {
  const { expressions, comment } = rule;
  return { handle, expressions, ...(comment === undefined ? {} : { comment }) };
}

function verdictsOf(table: FakeTable): Verdict[] {
  const inRules = [...table.chains.values()]
    .flatMap((chain) => chain.rules)
    .flatMap((rule) => rule.expressions)
    .flatMap((expression) => (expression.kind === 'verdict' ? [expression.verdict] : []));
  const inMaps = [...table.sets.values()]
    .filter((set) => set.set.data === 'verdict')
    .flatMap((set) => [...set.elements.values()])
    .flatMap((element) => (element.verdict === undefined ? [] : [element.verdict]));
  return [...inRules, ...inMaps];
}

function isChainUsed(table: FakeTable, chain: string): boolean {
  return verdictsOf(table).some((verdict) => 'chain' in verdict && verdict.chain === chain);
}

function isSetUsed(table: FakeTable, set: string): boolean {
  return [...table.chains.values()].some((chain) =>
    chain.rules.some((rule) => rule.expressions.some((e) => 'set' in e && e.set === set)),
  );
}

/** What an expression names must be there, and fit. */
function referenceErrno(table: FakeTable, expression: Expression): number {
  if (expression.kind === 'verdict') return verdictErrno(table, expression.verdict);
  if (expression.kind !== 'lookup' && expression.kind !== 'dynset') return 0;
  const set = table.sets.get(expression.set)?.set;
  if (set === undefined) return ENOENT;
  if (expression.kind === 'dynset') return set.dynamic === true ? 0 : EINVAL;
  // A set gives no data, and a verdict goes nowhere else than to the verdict register.
  if (expression.to === undefined) return 0;
  if (set.data === undefined) return EINVAL;
  return (set.data === 'verdict') === (expression.to === 'verdict') ? 0 : EINVAL;
}

function verdictErrno(table: FakeTable, verdict: Verdict): number {
  if (!('chain' in verdict)) return 0;
  const target = table.chains.get(verdict.chain)?.chain;
  if (target === undefined) return ENOENT;
  // EOPNOTSUPP: base chains are entered from the packet path only.
  return target.base === undefined ? 0 : 95;
}

function elementErrno(table: FakeTable, set: DecodedSet, element: SetElement): number {
  if (element.catchAll !== true && element.key.length !== keyBytes(set.key)) return EINVAL;
  if (element.timeoutMs !== undefined && set.timeout !== true) return EINVAL;
  if (element.intervalEnd === true) return set.interval === true ? 0 : EINVAL;
  if (set.data === undefined)
    return element.data === undefined && element.verdict === undefined ? 0 : EINVAL;
  if (set.data !== 'verdict') return element.data?.length === keyBytes(set.data) ? 0 : EINVAL;
  return element.verdict === undefined ? EINVAL : verdictErrno(table, element.verdict);
}

function isSameSet(a: DecodedSet, b: DecodedSet): boolean {
  const shape = (set: DecodedSet) =>
    JSON.stringify([
      keyBytes(set.key),
      set.data === undefined || set.data === 'verdict' ? set.data : keyBytes(set.data),
      set.interval,
      set.constant,
      set.dynamic,
      set.timeout,
      set.timeoutMs,
      set.size,
    ]);
  return shape(a) === shape(b);
}

function isSameData(a: SetElement, b: SetElement): boolean {
  return hexOf(a.data) === hexOf(b.data) && JSON.stringify(a.verdict) === JSON.stringify(b.verdict);
}
