/**
 * The names as the server looks them up: by the bytes of the question, case ignored, with what follows the question
 * prepared per type at its first use.
 */
import { CLASS_IN, HEADER_BYTES, TYPE_A, TYPE_AAAA, TYPE_SOA } from '#wire/dns/constants.ts';
import { encodeMessage, makeQuery, type ResourceRecord, scanRecords } from '#wire/dns/message.ts';
import { canonicalName, type Name, nameFromWire, nameToWire } from '#wire/dns/name.ts';
import { MessageTooLongError } from '#wire/dns/writer.ts';
import type { PodMode } from './config.ts';
import { hashName, lowerOctet } from './query.ts';
import { decodeSets, encodeSets, type RecordSet, soaOf } from './records.ts';
import type { NameChange } from './zone.ts';

/** Everything of a response after the question; the same for every client that asks for this name and type. */
export interface PreparedAnswer {
  readonly tail: Uint8Array;
  readonly answers: number;
  readonly additionals: number;
  /** Offsets in the tail after each answer. */
  readonly answerEnds: readonly number[];
  /** Length of each answer if they may be put in any order (addresses), otherwise 0. */
  readonly strideBytes: number;
}

/** A name and what it has. There may be hundreds of thousands: it holds strings, and objects of what was asked for. */
export class TableEntry {
  /** The name uncompressed, in lower case, an octet a character. */
  readonly wire: string;
  /** Of `encodeSets`. */
  #text: string;
  /** Known once something was asked for. */
  #types: readonly number[] | undefined;
  #prepared: Map<number, PreparedAnswer> | undefined;
  /** Whether it is an ExternalName. */
  isAlias: boolean;
  /** The next entry with the same hash. */
  next: TableEntry | undefined;

  constructor(wire: string, text: string, next: TableEntry | undefined) {
    this.wire = wire;
    this.#text = text;
    this.isAlias = isAliasText(text);
    this.next = next;
  }

  get name(): Name {
    return nameFromWire(Buffer.from(this.wire, 'latin1'));
  }

  get sets(): RecordSet[] {
    return decodeSets(this.#text);
  }

  setText(text: string): void {
    this.#text = text;
    this.isAlias = isAliasText(text);
    this.#types = undefined;
    this.#prepared = undefined;
  }

  /** @returns the answer for a type, made at its first use; `undefined` if it has no such records */
  prepared(type: number): PreparedAnswer | undefined {
    const known = this.#prepared?.get(type);
    if (known !== undefined) return known;
    this.#types ??= this.sets.map((set) => set.type);
    if (!this.#types.includes(type)) return undefined;
    const set = this.sets.find((candidate) => candidate.type === type);
    if (set === undefined) return undefined;
    const made = prepare(this.name, set);
    this.#prepared ??= new Map();
    this.#prepared.set(type, made);
    return made;
  }
}

function isAliasText(text: string): boolean {
  return text.includes('"kind":"CNAME"');
}

export class NameTable {
  readonly zone: Name;
  readonly #zoneWire: Uint8Array;
  readonly #byHash = new Map<number, TableEntry>();
  /** Start of the hash: unknown to who chooses names, so that nobody can make them collide on purpose. */
  readonly seed: number;
  /** Whether all services are in. Before that, what is not here is not known not to exist. */
  synced = false;
  /** What `<dashed address>.<namespace>.pod.<zone>` is. Verified names stand in the table. */
  podMode: PodMode = 'disabled';
  /** Whether a pod's search list is walked for it. */
  searchPath = true;
  #serial = 0;
  #size = 0;

  constructor(options: { zone: Name; seed: number }) {
    this.zone = canonicalName(options.zone);
    this.#zoneWire = nameToWire(this.zone);
    this.seed = options.seed;
  }

  get size(): number {
    return this.#size;
  }

  /** The zone's name, uncompressed, in lower case. */
  get zoneWire(): Uint8Array {
    return this.#zoneWire;
  }

  /** The SOA's serial. */
  get serial(): number {
    return this.#serial;
  }
  set serial(serial: number) {
    this.#serial = serial;
    const apex = this.findName(this.zone);
    if (apex === undefined) return;
    const soa = { kind: 'SOA', ...soaOf(this.zone, serial) } as const;
    const sets = apex.sets.map((set) => (set.type === TYPE_SOA ? { ...set, data: [soa] } : set));
    apex.setText(encodeSets(sets));
  }

  apply(changes: Iterable<NameChange>): void {
    for (const { name, sets } of changes) {
      const wire = nameToWire(canonicalName(name));
      const hash = hashName(wire, 0, wire.length, this.seed);
      const entry = this.find(wire, 0, wire.length, hash);
      if (sets === undefined) {
        if (entry !== undefined) this.#remove(hash, entry);
      } else if (entry === undefined) {
        const text = Buffer.from(wire).toString('latin1');
        this.#byHash.set(hash, new TableEntry(text, sets, this.#byHash.get(hash)));
        this.#size++;
      } else entry.setText(sets);
    }
  }

  /** The entry of the name that stands in `bytes` from `start` to `end`, in any case of letters. */
  find(bytes: Uint8Array, start: number, end: number, hash: number): TableEntry | undefined {
    for (let entry = this.#byHash.get(hash); entry !== undefined; entry = entry.next)
      if (sameText(entry.wire, bytes, start, end)) return entry;
    return undefined;
  }

  findName(name: Name): TableEntry | undefined {
    const wire = nameToWire(name);
    return this.find(wire, 0, wire.length, hashName(wire, 0, wire.length, this.seed));
  }

  /** Where in a name the zone begins; -1 if the name is outside the zone. */
  zoneOffset(bytes: Uint8Array, start: number, end: number): number {
    const zoneAt = end - this.#zoneWire.length;
    let at = start;
    while (at < zoneAt) at += (bytes[at] ?? 0) + 1;
    return at === zoneAt && sameName(this.#zoneWire, bytes, zoneAt, end) ? zoneAt : -1;
  }

  #remove(hash: number, entry: TableEntry): void {
    const first = this.#byHash.get(hash);
    if (first === entry) {
      if (entry.next === undefined) this.#byHash.delete(hash);
      else this.#byHash.set(hash, entry.next);
    } else {
      let before = first;
      while (before !== undefined && before.next !== entry) before = before.next;
      if (before !== undefined) before.next = entry.next;
    }
    this.#size--;
  }
}

/** The records of a set, with their owner. */
export function recordsOfSet(owner: Name, set: RecordSet): ResourceRecord[] {
  return set.data.map((data) => ({
    name: owner,
    type: set.type,
    class: CLASS_IN,
    ttlS: set.ttlS,
    data,
  }));
}

function prepare(owner: Name, set: RecordSet): PreparedAnswer {
  const message = encodeFitting(owner, recordsOfSet(owner, set), set.additionals ?? []);
  const { questionEnd, records } = scanRecords(message);
  const answers = records.filter((record) => record.section === 'answer');
  const strideBytes =
    set.type === TYPE_A || set.type === TYPE_AAAA ? (answers[0]?.end ?? 0) - questionEnd : 0;
  return {
    tail: message.slice(questionEnd),
    answers: answers.length,
    additionals: records.length - answers.length,
    answerEnds: answers.map((record) => record.end - questionEnd),
    strideBytes,
  };
}

/** Leaves out what a message cannot hold: first the additional records, then answers from the end. */
function encodeFitting(
  owner: Name,
  answers: readonly ResourceRecord[],
  additionals: readonly ResourceRecord[],
): Uint8Array {
  const question = makeQuery(0, { name: owner, type: answers[0]?.type ?? 0 });
  for (let kept = answers, extra = additionals; ; ) {
    try {
      // The EDNS record that is added later needs its room too; so encode with it and cut it off.
      const bytes = encodeMessage({
        ...question,
        answers: kept,
        additionals: extra,
        edns: { udpPayloadBytes: 0, version: 0, dnssecOk: false, options: [] },
      });
      bytes[11] = extra.length;
      bytes[10] = extra.length >> 8;
      return bytes.slice(0, -11);
    } catch (error) {
      if (!(error instanceof MessageTooLongError)) throw error;
      if (extra.length > 0) extra = [];
      else kept = kept.slice(0, Math.floor(kept.length * 0.9));
    }
  }
}

/** Whether a name in lower case is the one that stands in `bytes`. */
export function sameName(wire: Uint8Array, bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start !== wire.length) return false;
  for (let i = 0; i < wire.length; i++)
    if (wire[i] !== lowerOctet(bytes[start + i] ?? 0)) return false;
  return true;
}

function sameText(wire: string, bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start !== wire.length) return false;
  for (let i = 0; i < wire.length; i++)
    if (wire.charCodeAt(i) !== lowerOctet(bytes[start + i] ?? 0)) return false;
  return true;
}

/** Where the name of a question starts in its message. */
export const QUESTION_AT = HEADER_BYTES;
