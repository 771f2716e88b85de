/**
 * The names as the server looks them up: by the octets of the question, case ignored, with what follows the question
 * ready to be copied. Names and answers stand in an arena and their hashes in one array, so that neither a query nor the
 * garbage collector ever meets an object for a name.
 *
 * ```text
 *   slots      | hash | place + 1 |  …      open addressing; place + 1 is 0 in an empty slot
 *   an entry   | octets u32 | alias u8 | name's octets u8 | name … | sets of `sets.ts` … |
 * ```
 */
import { HEADER_BYTES, TYPE_CNAME, TYPE_SOA } from '#wire/dns/constants.ts';
import { canonicalName, type Name, nameFromWire, nameToWire } from '#wire/dns/name.ts';
import { Arena } from './arena.ts';
import type { PodMode } from './config.ts';
import { hashName, lowerOctet } from './query.ts';
import type { RecordSet } from './records.ts';
import { put32 } from './reply.ts';
import { decodeSets, SET_HEAD_BYTES } from './sets.ts';
import type { NameChange } from './zone.ts';

/** Everything of a response after the question; the same for every client that asks for this name and type. */
export interface PreparedAnswer {
  /** Holds the octets, from `start` to `end`. */
  bytes: Uint8Array;
  start: number;
  end: number;
  answers: number;
  additionals: number;
  /** Length of each answer if they may be put in any order (addresses), otherwise 0. */
  strideBytes: number;
  /** Octets of all answers. */
  answersBytes: number;
}

/** No entry: what {@link NameTable.find} returns for a name that is not there. */
export const NO_ENTRY = -1;

const ENTRY_HEAD_BYTES = 6;
const ALIAS_AT = 4;
const NAME_BYTES_AT = 5;
const MIN_SLOTS = 1024;
/** The last four of the SOA's numbers stand behind its serial. */
const SERIAL_FROM_END = 20;

export class NameTable {
  readonly zone: Name;
  readonly #zoneWire: Uint8Array;
  readonly #arena = new Arena();
  #slots = new Int32Array(MIN_SLOTS * 2);
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
  /** What {@link prepared} returns; overwritten by the next call. */
  readonly #prepared: PreparedAnswer = {
    bytes: new Uint8Array(0),
    start: 0,
    end: 0,
    answers: 0,
    additionals: 0,
    strideBytes: 0,
    answersBytes: 0,
  };

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
    const soa = apex === NO_ENTRY ? undefined : this.prepared(apex, TYPE_SOA);
    if (soa !== undefined) put32(soa.bytes, soa.end - SERIAL_FROM_END, serial);
  }

  apply(changes: Iterable<NameChange>): void {
    for (const { name, sets } of changes) {
      const wire = nameToWire(canonicalName(name));
      const hash = hashName(wire, 0, wire.length, this.seed);
      const slot = this.#slotOf(wire, 0, wire.length, hash);
      const isKnown = this.#placeAt(slot) !== NO_ENTRY;
      if (isKnown) this.#freeEntry(this.#placeAt(slot));
      if (sets !== undefined) {
        this.#slots[slot] = hash;
        this.#slots[slot + 1] = this.#writeEntry(wire, sets) + 1;
        if (!isKnown) this.#grow();
      } else if (isKnown) this.#removeSlot(slot);
    }
  }

  /**
   * The entry of the name that stands in `bytes` from `start` to `end`, in any case of letters; valid until the next
   * {@link apply}.
   */
  find(bytes: Uint8Array, start: number, end: number, hash: number): number {
    return this.#placeAt(this.#slotOf(bytes, start, end, hash));
  }

  findName(name: Name): number {
    const wire = nameToWire(name);
    return this.find(wire, 0, wire.length, hashName(wire, 0, wire.length, this.seed));
  }

  /** @returns the answer for a type, valid until the next call; `undefined` if the name has no such records */
  prepared(entry: number, type: number): PreparedAnswer | undefined {
    const bytes = this.#arena.chunk(entry);
    const offset = this.#arena.offset(entry);
    const end = offset + u32(bytes, offset);
    for (let at = setsAt(bytes, offset); at < end; ) {
      const start = at + SET_HEAD_BYTES;
      const setEnd = start + u16(bytes, at + 10);
      if (u16(bytes, at) !== type) {
        at = setEnd;
        continue;
      }
      const found = this.#prepared;
      found.bytes = bytes;
      found.start = start;
      found.end = setEnd;
      found.answers = u16(bytes, at + 2);
      found.additionals = u16(bytes, at + 4);
      found.strideBytes = u16(bytes, at + 6);
      found.answersBytes = u16(bytes, at + 8);
      return found;
    }
    return undefined;
  }

  /** Whether it is an ExternalName. */
  isAlias(entry: number): boolean {
    return this.#arena.chunk(entry)[this.#arena.offset(entry) + ALIAS_AT] === 1;
  }

  /** The type of the first records there are. */
  firstType(entry: number): number | undefined {
    const bytes = this.#arena.chunk(entry);
    const offset = this.#arena.offset(entry);
    const at = setsAt(bytes, offset);
    return at < offset + u32(bytes, offset) ? u16(bytes, at) : undefined;
  }

  nameOf(entry: number): Name {
    const bytes = this.#arena.chunk(entry);
    const offset = this.#arena.offset(entry);
    return nameFromWire(bytes.slice(offset + ENTRY_HEAD_BYTES, setsAt(bytes, offset)));
  }

  setsOf(entry: number): RecordSet[] {
    const bytes = this.#arena.chunk(entry);
    const offset = this.#arena.offset(entry);
    const sets = bytes.subarray(setsAt(bytes, offset), offset + u32(bytes, offset));
    return decodeSets(this.nameOf(entry), Buffer.from(sets).toString('latin1'));
  }

  /** Where in a name the zone begins; -1 if the name is outside the zone. */
  zoneOffset(bytes: Uint8Array, start: number, end: number): number {
    const zoneAt = end - this.#zoneWire.length;
    let at = start;
    while (at < zoneAt) at += (bytes[at] ?? 0) + 1;
    return at === zoneAt && sameName(this.#zoneWire, bytes, zoneAt, end) ? zoneAt : -1;
  }

  #placeAt(slot: number): number {
    return (this.#slots[slot + 1] ?? 0) - 1;
  }

  /** @returns where in {@link #slots} a name stands, or the empty place where it belongs */
  #slotOf(bytes: Uint8Array, start: number, end: number, hash: number): number {
    const slots = this.#slots;
    const mask = slots.length - 1;
    for (let slot = (hash * 2) & mask; ; slot = (slot + 2) & mask) {
      const place = (slots[slot + 1] ?? 0) - 1;
      if (place < 0) return slot;
      if (slots[slot] === hash && this.#isNamed(place, bytes, start, end)) return slot;
    }
  }

  #isNamed(place: number, bytes: Uint8Array, start: number, end: number): boolean {
    const own = this.#arena.chunk(place);
    const offset = this.#arena.offset(place);
    const length = end - start;
    if (own[offset + NAME_BYTES_AT] !== length) return false;
    const nameAt = offset + ENTRY_HEAD_BYTES;
    for (let i = 0; i < length; i++)
      if (own[nameAt + i] !== lowerOctet(bytes[start + i] ?? 0)) return false;
    return true;
  }

  #writeEntry(wire: Uint8Array, sets: string): number {
    const length = ENTRY_HEAD_BYTES + wire.length + sets.length;
    const place = this.#arena.allocate(length);
    const bytes = this.#arena.chunk(place);
    const offset = this.#arena.offset(place);
    put32(bytes, offset, length);
    bytes[offset + NAME_BYTES_AT] = wire.length;
    bytes.set(wire, offset + ENTRY_HEAD_BYTES);
    const from = setsAt(bytes, offset);
    for (let i = 0; i < sets.length; i++) bytes[from + i] = sets.charCodeAt(i);
    bytes[offset + ALIAS_AT] = this.prepared(place, TYPE_CNAME) === undefined ? 0 : 1;
    return place;
  }

  #freeEntry(place: number): void {
    this.#arena.free(place, u32(this.#arena.chunk(place), this.#arena.offset(place)));
  }

  /** Takes a slot out; those after it that it had pushed away move up. */
  #removeSlot(removed: number): void {
    const slots = this.#slots;
    const mask = slots.length - 1;
    this.#size--;
    let hole = removed;
    for (let at = (hole + 2) & mask; slots[at + 1] !== 0; at = (at + 2) & mask) {
      const home = ((slots[at] ?? 0) * 2) & mask;
      // It may move to the hole unless its home lies between the hole and where it is.
      if (((at - home) & mask) < ((at - hole) & mask)) continue;
      slots[hole] = slots[at] ?? 0;
      slots[hole + 1] = slots[at + 1] ?? 0;
      hole = at;
    }
    slots[hole + 1] = 0;
  }

  /** Counts a new name, and keeps at most half of the slots in use. */
  #grow(): void {
    this.#size++;
    const old = this.#slots;
    if (this.#size * 4 <= old.length) return;
    const slots = new Int32Array(old.length * 2);
    const mask = slots.length - 1;
    for (let i = 0; i < old.length; i += 2) {
      if (old[i + 1] === 0) continue;
      let slot = ((old[i] ?? 0) * 2) & mask;
      while (slots[slot + 1] !== 0) slot = (slot + 2) & mask;
      slots[slot] = old[i] ?? 0;
      slots[slot + 1] = old[i + 1] ?? 0;
    }
    this.#slots = slots;
  }
}

/** Where an entry's sets begin. */
function setsAt(bytes: Uint8Array, offset: number): number {
  return offset + ENTRY_HEAD_BYTES + (bytes[offset + NAME_BYTES_AT] ?? 0);
}

/** Whether a name in lower case is the one that stands in `bytes`. */
export function sameName(wire: Uint8Array, bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start !== wire.length) return false;
  for (let i = 0; i < wire.length; i++)
    if (wire[i] !== lowerOctet(bytes[start + i] ?? 0)) return false;
  return true;
}

function u16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
}

function u32(bytes: Uint8Array, at: number): number {
  return u16(bytes, at) * 0x10000 + u16(bytes, at + 2);
}

/** Where the name of a question starts in its message. */
export const QUESTION_AT = HEADER_BYTES;
