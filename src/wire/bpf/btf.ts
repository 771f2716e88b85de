/**
 * The kernel's own types (BTF, `linux/btf.h`), as in `/sys/kernel/btf`: what is needed to call its functions from eBPF and
 * to read its structs where this kernel has their members. Pure.
 */

const MAGIC = 0xeb9f;
const KIND = { struct: 4, union: 5, function: 12 } as const;
/** Words that follow a type's three, by kind: [always, per member]. */
const WORDS_AFTER: readonly (readonly [always: number, each: number])[] = [
  [0, 0], // void
  [1, 0], // integer
  [0, 0], // pointer
  [3, 0], // array
  [0, 3], // struct
  [0, 3], // union
  [0, 2], // enumeration
  [0, 0], // forward declaration
  [0, 0], // typedef
  [0, 0], // volatile
  [0, 0], // const
  [0, 0], // restrict
  [0, 0], // function
  [0, 2], // function's prototype
  [1, 0], // variable
  [0, 3], // section
  [0, 0], // floating point
  [1, 0], // declaration tag
  [0, 0], // type tag
  [0, 3], // enumeration of 64 bits
];
const WORDS_OF_TYPE = 3;
const WORDS_OF_MEMBER = 3;

const HEADER_BYTES = 24;

export class Btf {
  readonly #base: Btf | undefined;
  readonly #strings: Buffer;
  readonly #words: Uint32Array;
  /** Where each type of this one begins in the words. */
  readonly #starts: Uint32Array;
  /** Number of the first type of this one. */
  readonly #firstId: number;

  /**
   * @param base the kernel's, if this is a module's: its numbers of types and places of strings count on from there
   * @throws Error if it is no BTF
   */
  constructor(bytes: Uint8Array, base?: Btf) {
    const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length < HEADER_BYTES || buffer.readUInt16LE(0) !== MAGIC)
      throw new Error('not BTF: it does not begin as BTF does');
    const section = (at: number) => {
      const begin = buffer.readUInt32LE(4) + buffer.readUInt32LE(at);
      return buffer.subarray(begin, begin + buffer.readUInt32LE(at + 4));
    };
    this.#base = base;
    // A copy, because words must begin at a multiple of 4.
    this.#words = new Uint32Array(new Uint8Array(section(8)).buffer);
    this.#strings = section(16);
    this.#starts = startsOf(this.#words);
    this.#firstId = base === undefined ? 1 : base.#firstId + base.#starts.length;
  }

  /** @returns the function's number, or undefined if there is none of this name here */
  functionId(name: string): number | undefined {
    return this.#find(KIND.function, name);
  }

  /**
   * @param path names of members, each in the struct or union that the one before is
   * @returns where the member begins in the struct, in bytes, or undefined if there is none
   */
  memberOffset(struct: string, ...path: readonly string[]): number | undefined {
    let id = this.#find(KIND.struct, struct);
    let offset = 0;
    for (const name of path) {
      const member = id === undefined ? undefined : this.#member(id, name);
      if (member === undefined) return undefined;
      id = member.id;
      offset += member.offset;
    }
    return id === undefined ? undefined : offset;
  }

  #find(kind: number, name: string): number | undefined {
    const at = this.#placeOf(name);
    if (at === undefined) return undefined;
    const words = this.#words;
    const index = this.#starts.findIndex(
      (start) => words[start] === at && kindOf(words[start + 1] ?? 0) === kind,
    );
    return index < 0 ? undefined : this.#firstId + index;
  }

  #member(id: number, name: string): { id: number; offset: number } | undefined {
    const words = this.#words;
    const start = this.#starts[id - this.#firstId];
    if (start === undefined)
      return this.#base === undefined ? undefined : this.#base.#member(id, name);
    const info = words[start + 1] ?? 0;
    if (kindOf(info) !== KIND.struct && kindOf(info) !== KIND.union) return undefined;
    const at = this.#placeOf(name);
    for (let i = 0; i < countOf(info); i++) {
      const member = start + WORDS_OF_TYPE + i * WORDS_OF_MEMBER;
      if (words[member] !== at) continue;
      // Where members may be bit fields, the upper 8 bits are the width.
      const bits = info >>> 31 === 0 ? words[member + 2] : (words[member + 2] ?? 0) & 0xffffff;
      return { id: words[member + 1] ?? 0, offset: (bits ?? 0) / 8 };
    }
    return undefined;
  }

  /** Where a name stands in the strings, as types refer to it. */
  #placeOf(name: string): number | undefined {
    const base = this.#base;
    const before = base === undefined ? undefined : base.#placeOf(name);
    if (before !== undefined) return before;
    const offset = base === undefined ? 0 : base.#strings.length;
    // A module's strings begin with one, the kernel's with an empty one.
    if (this.#strings.indexOf(`${name}\0`, 0, 'latin1') === 0) return offset;
    const at = this.#strings.indexOf(`\0${name}\0`, 0, 'latin1');
    return at < 0 ? undefined : offset + at + 1;
  }
}

function startsOf(words: Uint32Array): Uint32Array {
  const starts: number[] = [];
  for (let at = 0; at < words.length; ) {
    const info = words[at + 1] ?? 0;
    const after = WORDS_AFTER[kindOf(info)];
    if (after === undefined) throw new Error(`BTF has a type of an unknown kind, ${kindOf(info)}`);
    starts.push(at);
    at += WORDS_OF_TYPE + after[0] + after[1] * countOf(info);
  }
  return Uint32Array.from(starts);
}

const kindOf = (info: number) => (info >>> 24) & 0x1f;
const countOf = (info: number) => info & 0xffff;
