/**
 * Instructions of eBPF as the kernel reads them (RFC 9669, `linux/bpf.h`), little-endian machines. Pure.
 *
 * A program is a list of {@link Line}s: instructions, and labels that jumps name. {@link assemble} makes bytes of it.
 */

export type Register = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10;
/** What a call returns; the program's own result. */
export const R0 = 0;
/** R1 to R5 are arguments, gone after a call. */
export const R1 = 1;
export const R2 = 2;
export const R3 = 3;
export const R4 = 4;
export const R5 = 5;
/** R6 to R9 are kept over calls. */
export const R6 = 6;
export const R7 = 7;
export const R8 = 8;
export const R9 = 9;
/** The end of the stack, which grows down and has 512 bytes. */
export const FP = 10;

/** Width of a load or store, in bits. */
export type Width = 8 | 16 | 32 | 64;

export type Line =
  | { readonly label: string }
  | {
      readonly opcode: number;
      readonly dst?: Register;
      readonly src?: number;
      readonly offset?: number | { readonly to: string };
      readonly immediate?: number;
      /** The second half of an instruction of 16 bytes. */
      readonly upper?: number;
    };

export const INSTRUCTION_BYTES = 8;

const CLASS = { ldx: 0x01, st: 0x02, stx: 0x03, alu32: 0x04, jmp: 0x05, jmp32: 0x06, alu64: 0x07 };
const FROM_REGISTER = 0x08;
const MODE_MEM = 0x60;
const WIDTHS: Readonly<Record<Width, number>> = { 32: 0x00, 16: 0x08, 8: 0x10, 64: 0x18 };
const ALU = { add: 0x00, sub: 0x10, or: 0x40, and: 0x50, mov: 0xb0 };
const JUMP = { eq: 0x10, gt: 0x20, ge: 0x30, set: 0x40, ne: 0x50, lt: 0xa0, le: 0xb0 };
const JUMP_ALWAYS = 0x00;
const CALL = 0x80;
const EXIT = 0x90;
const LOAD_64 = 0x18;
const PSEUDO_MAP_FD = 1;
const PSEUDO_KFUNC_CALL = 2;

export type Operation = keyof typeof ALU;
export type Condition = keyof typeof JUMP;
/** A register, or a number that fits into 32 bits. */
export type Operand = { readonly register: Register } | number;

/** Names a place for jumps. */
export const label = (name: string): Line => ({ label: name });
/** `dst = dst OPERATION operand` on 64 bits; the number is sign-extended. */
export const alu = (operation: Operation, dst: Register, operand: Operand): Line =>
  withOperand(CLASS.alu64 | ALU[operation], dst, operand);
/** The same on the lower 32 bits; the upper become zero. */
export const alu32 = (operation: Operation, dst: Register, operand: Operand): Line =>
  withOperand(CLASS.alu32 | ALU[operation], dst, operand);
/** `dst = src` */
export const move = (dst: Register, src: Register): Line => alu('mov', dst, { register: src });
/** `dst = number` */
export const set = (dst: Register, number: number): Line => alu('mov', dst, number);
/** `dst = *(base + offset)` */
export const load = (width: Width, dst: Register, base: Register, offset: number): Line => ({
  opcode: CLASS.ldx | MODE_MEM | WIDTHS[width],
  dst,
  src: base,
  offset,
});
/** `*(base + offset) = src` */
export const store = (width: Width, base: Register, offset: number, src: Register): Line => ({
  opcode: CLASS.stx | MODE_MEM | WIDTHS[width],
  dst: base,
  src,
  offset,
});
/** `*(base + offset) = number` */
export const storeNumber = (
  width: Width,
  base: Register,
  offset: number,
  number: number,
): Line => ({
  opcode: CLASS.st | MODE_MEM | WIDTHS[width],
  dst: base,
  offset,
  immediate: number,
});
/** Jumps to a label if `left CONDITION right`, unsigned, on 64 bits; `set` is true if they have a bit in common. */
export const jumpIf = (condition: Condition, left: Register, right: Operand, to: string): Line => ({
  ...withOperand(CLASS.jmp | JUMP[condition], left, right),
  offset: { to },
});
/** The same on the lower 32 bits. */
export const jump32If = (
  condition: Condition,
  left: Register,
  right: Operand,
  to: string,
): Line => ({
  ...withOperand(CLASS.jmp32 | JUMP[condition], left, right),
  offset: { to },
});
export const jump = (to: string): Line => ({
  opcode: CLASS.jmp | JUMP_ALWAYS,
  offset: { to },
});
/** Calls one of the kernel's helpers by its number. */
export const callHelper = (helper: number): Line => ({
  opcode: CLASS.jmp | CALL,
  immediate: helper,
});
/**
 * Calls a function of the kernel (kfunc).
 * @param typeId of the function in the BTF that it is in
 * @param module which of the BTFs that are given with the program: 0 is the kernel itself
 */
export const callKernel = (typeId: number, module: number): Line => ({
  opcode: CLASS.jmp | CALL,
  src: PSEUDO_KFUNC_CALL,
  offset: module,
  immediate: typeId,
});
/** `dst = the map`, for helpers that take one. */
export const loadMap = (dst: Register, fd: number): Line => ({
  opcode: LOAD_64,
  dst,
  src: PSEUDO_MAP_FD,
  immediate: fd,
  upper: 0,
});
export const exit = (): Line => ({ opcode: CLASS.jmp | EXIT });

/** @throws Error if a label is missing, there twice, or too far away */
export function assemble(lines: readonly Line[]): Uint8Array {
  const labels = new Map<string, number>();
  let count = 0;
  for (const line of lines) {
    if (!('label' in line)) count += line.upper === undefined ? 1 : 2;
    else if (labels.has(line.label)) throw new Error(`label "${line.label}" is there twice`);
    else labels.set(line.label, count);
  }
  const bytes = new Uint8Array(count * INSTRUCTION_BYTES);
  const view = new DataView(bytes.buffer);
  let index = 0;
  for (const line of lines) {
    if ('label' in line) continue;
    const { opcode, dst = 0, src = 0, offset = 0, immediate = 0, upper } = line;
    const at = index * INSTRUCTION_BYTES;
    view.setUint8(at, opcode);
    view.setUint8(at + 1, dst | (src << 4));
    view.setInt16(at + 2, typeof offset === 'number' ? offset : distance(offset.to, index), true);
    view.setInt32(at + 4, immediate, true);
    index++;
    if (upper !== undefined) view.setInt32(index++ * INSTRUCTION_BYTES + 4, upper, true);
  }
  return bytes;

  function distance(to: string, from: number): number {
    const target = labels.get(to);
    if (target === undefined) throw new Error(`no label "${to}"`);
    const jumped = target - from - 1;
    if (jumped !== (jumped << 16) >> 16) throw new Error(`label "${to}" is too far away`);
    return jumped;
  }
}

function withOperand(opcode: number, dst: Register, operand: Operand) {
  return typeof operand === 'number'
    ? { opcode, dst, immediate: operand }
    : { opcode: opcode | FROM_REGISTER, dst, src: operand.register };
}
