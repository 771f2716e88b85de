/**
 * Programs that the kernel runs on packets (eBPF), as far as Tulle uses them: classifiers where packets come in by a link,
 * and maps that they read. Calls are synchronous and throw `KernelError`. All of it is gone when it is disposed of or this
 * process ends, but a program that is a filter of a link (`TrafficControl`) stays with that.
 */
import type { Line } from '#wire/bpf/instructions.ts';
import type { IfIndex } from '../network/port.ts';

export interface Bpf {
  /** The kernel's functions and types, some megabytes; keep what was found. @throws Error if this kernel does not tell of them */
  readKernelTypes(): KernelTypes;
  createMap(options: BpfMapOptions): BpfMap;
  /** An array of counters, u64, one of each for every processor. @param name at most 15 characters */
  createCounters(name: string, count: number): BpfCounters;
  /** Has the kernel check and compile a program. @param license as in `linux/module.h`; functions of the kernel want the GPL's */
  loadClassifier(name: string, license: string, program: readonly Line[]): BpfProgram;
  /**
   * Runs the program on what comes in by a link, before others' filters. The kernel waits some milliseconds with it, and
   * whoever changes links waits along: for a few links only.
   */
  attach(program: BpfProgram, link: IfIndex): Disposable;
}

export interface KernelTypes {
  /** @returns what a program needs to call it, or undefined if this kernel has no such function for programs */
  function(name: string): KernelFunction | undefined;
  /** @returns offset in bytes of a struct's member, or of a member's member, or undefined */
  memberOffset(struct: string, ...path: readonly string[]): number | undefined;
}

export interface KernelFunction {
  readonly typeId: number;
  /** Which BTF of those that a program is loaded with: 0 is the kernel's own. */
  readonly module: number;
}

export interface BpfMapOptions {
  /** At most 15 characters. */
  readonly name: string;
  /** Missing: a hash table. An array has all its entries from the beginning, zero; its keys are u32. */
  readonly isArray?: true;
  readonly keyBytes: number;
  readonly valueBytes: number;
  readonly maxEntries: number;
}

export interface BpfMap extends Disposable {
  /** For programs. */
  readonly fd: number;
  set(key: Uint8Array, value: Uint8Array): void;
  /** Deleting what is gone succeeds. */
  delete(key: Uint8Array): void;
  /** @returns undefined if there is none */
  get(key: Uint8Array): Uint8Array | undefined;
}

export interface BpfCounters extends Disposable {
  /** For programs. */
  readonly fd: number;
  /** @returns what the processors have counted together */
  read(index: number): number;
}

export interface BpfProgram extends Disposable {
  readonly name: string;
  readonly fd: number;
}
