/**
 * eBPF of the running kernel, by bpf(2).
 *
 * ```text
 *  union bpf_attr, the parts that are used, offsets in bytes:
 *   MAP_CREATE       0 type u32 | 4 key u32 | 8 value u32 | 12 entries u32 | 16 flags u32 | 28 name[16]
 *   MAP_*_ELEM       0 map fd u32 | 8 key u64 | 16 value u64 | 24 flags u64
 *   PROG_LOAD        0 type u32 | 4 instructions u32 | 8 instructions u64 | 16 license u64 | 24 log level u32
 *                    28 log bytes u32 | 32 log u64 | 48 name[16] | 68 attach type u32 | 120 fds of BTF u64
 *   LINK_CREATE      0 program fd u32 | 4 ifindex u32 | 8 attach type u32
 *   BTF_*_ID         0 id u32 | 4 next u32
 *   OBJ_GET_INFO     0 fd u32 | 4 length u32 | 8 info u64
 * ```
 * Source: include/uapi/linux/bpf.h.
 */
import { existsSync, readFileSync } from 'node:fs';
import { ENOENT, isErrno, KernelError } from '#lib/errors.ts';
import { Btf } from '#wire/bpf/btf.ts';
import { assemble, INSTRUCTION_BYTES } from '#wire/bpf/instructions.ts';
import { addressOf, close, errno, libc } from '../ffi/libc.ts';
import { inNetns, type Netns, type NetnsPath } from '../netns.ts';
import type { Bpf, BpfMap, BpfMapOptions, KernelTypes } from './port.ts';

const SYS_BPF = { x64: 321, arm64: 280, riscv64: 280 } as Readonly<Record<string, number>>;
const COMMAND = {
  mapCreate: 0,
  mapLookup: 1,
  mapUpdate: 2,
  mapDelete: 3,
  programLoad: 5,
  objectInfo: 15,
  btfFdById: 19,
  btfNextId: 23,
  linkCreate: 28,
};
const ATTR_BYTES = 152;
const BPF_MAP_TYPE_HASH = 1;
const BPF_MAP_TYPE_ARRAY = 2;
const BPF_MAP_TYPE_PERCPU_ARRAY = 6;
const BPF_F_NO_PREALLOC = 1;
const BPF_PROG_TYPE_SCHED_CLS = 3;
const BPF_TCX_INGRESS = 46;
const NAME_BYTES = 15;
/** What the kernel's verifier says of a program that it refuses; only the end tells why. */
const LOG_BYTES = 1024 * 1024;
const LOG_LINES_TOLD = 12;
const BTF_FOLDER = '/sys/kernel/btf';
/** The modules whose functions programs use; part of the kernel where it was built so. */
const MODULES = ['nf_conntrack'];

const syscall = libc.func('syscall', 'int64', ['int64', 'int64', 'void *', 'int64']) as (
  number: number,
  command: number,
  attributes: Uint8Array,
  bytes: number,
) => number | bigint;

/** @param options.netns whose links programs are attached to; by default this process's own */
export function openBpf(options: { readonly netns?: Netns | NetnsPath } = {}): Bpf {
  let fds: Uint8Array | undefined;
  return {
    readKernelTypes,
    createMap: ({ name, isArray, keyBytes, valueBytes, maxEntries }) => {
      const options =
        isArray === true
          ? { type: BPF_MAP_TYPE_ARRAY, flags: 0 }
          : { type: BPF_MAP_TYPE_HASH, flags: BPF_F_NO_PREALLOC };
      return mapOf(createMap(name, { keyBytes, valueBytes, maxEntries, ...options }), name, {
        valueBytes,
      });
    },
    createCounters(name, count) {
      const options = { type: BPF_MAP_TYPE_PERCPU_ARRAY, flags: 0 };
      const fd = createMap(name, { keyBytes: 4, valueBytes: 8, maxEntries: count, ...options });
      const map = mapOf(fd, name, { valueBytes: 8 * possibleProcessors() });
      return {
        ...map,
        read(index) {
          const key = Buffer.alloc(4);
          key.writeUInt32LE(index);
          const values = new BigUint64Array((map.get(key) ?? new Uint8Array()).buffer);
          return Number(values.reduce((sum, value) => sum + value, 0n));
        },
      };
    },
    loadClassifier(name, license, program) {
      const instructions = assemble(program);
      const log = Buffer.alloc(LOG_BYTES);
      fds ??= fdsOfModules();
      const btfs = fds;
      const attributes = (logLevel: number) =>
        new Attributes()
          .u32(0, BPF_PROG_TYPE_SCHED_CLS)
          .u32(4, instructions.length / INSTRUCTION_BYTES)
          .pointer(8, instructions)
          .pointer(16, Buffer.from(`${license}\0`))
          .u32(24, logLevel)
          .u32(28, logLevel === 0 ? 0 : LOG_BYTES)
          .pointer(32, logLevel === 0 ? undefined : log)
          .text(48, name)
          .u32(68, BPF_TCX_INGRESS)
          .pointer(120, btfs);
      const op = `load eBPF program "${name}"`;
      try {
        return { name, ...owned(attributes(0).call(COMMAND.programLoad, op)) };
      } catch (error) {
        if (!(error instanceof KernelError)) throw error;
        // Once more, for what the verifier has to say.
        const fd = attributes(1).call(COMMAND.programLoad, op, () => endOf(log));
        return { name, ...owned(fd) };
      }
    },
    attach(program, link) {
      const attributes = new Attributes().u32(0, program.fd).u32(4, link).u32(8, BPF_TCX_INGRESS);
      return inNetns(options.netns, () =>
        owned(attributes.call(COMMAND.linkCreate, `attach an eBPF program to link ${link}`)),
      );
    },
  };
}

/** The argument of one call. */
class Attributes {
  readonly #bytes = Buffer.alloc(ATTR_BYTES);
  /** What pointers point to must outlive the call. */
  readonly #pointed: Uint8Array[] = [];

  u32(offset: number, value: number): this {
    this.#bytes.writeUInt32LE(value, offset);
    return this;
  }

  pointer(offset: number, to: Uint8Array | undefined): this {
    if (to === undefined) return this;
    this.#pointed.push(to);
    this.#bytes.writeBigUInt64LE(addressOf(to), offset);
    return this;
  }

  text(offset: number, text: string): this {
    this.#bytes.write(text.slice(0, NAME_BYTES), offset, 'latin1');
    return this;
  }

  read(offset: number): number {
    return this.#bytes.readUInt32LE(offset);
  }

  /** @returns what the call returned @throws KernelError */
  call(command: number, op: string, explain: () => string | undefined = () => undefined): number {
    const number = SYS_BPF[process.arch];
    if (number === undefined)
      throw new Error(`Cannot ${op}: bpf(2) is not known on ${process.arch}`);
    const result = Number(syscall(number, command, this.#bytes, ATTR_BYTES));
    if (result < 0) throw new KernelError(op, errno(), { extack: explain() });
    return result;
  }
}

function createMap(
  name: string,
  options: Omit<BpfMapOptions, 'name'> & { readonly type: number; readonly flags: number },
): number {
  return new Attributes()
    .u32(0, options.type)
    .u32(4, options.keyBytes)
    .u32(8, options.valueBytes)
    .u32(12, options.maxEntries)
    .u32(16, options.flags)
    .text(28, name)
    .call(COMMAND.mapCreate, `create eBPF map "${name}"`);
}

/** A map of one value for each processor has as many as the kernel could ever have. */
function possibleProcessors(): number {
  const text = readFileSync('/sys/devices/system/cpu/possible', 'latin1');
  return Math.max(...text.split(/[-,]/).map(Number)) + 1;
}

function owned(fd: number): Disposable & { readonly fd: number } {
  let isOpen = true;
  return {
    fd,
    [Symbol.dispose]() {
      if (isOpen) close(fd);
      isOpen = false;
    },
  };
}

function mapOf(fd: number, name: string, { valueBytes }: { readonly valueBytes: number }): BpfMap {
  const call = (command: number, what: string, key: Uint8Array, value?: Uint8Array) =>
    new Attributes()
      .u32(0, fd)
      .pointer(8, key)
      .pointer(16, value)
      .call(command, `${what} an entry of eBPF map "${name}"`);
  return {
    ...owned(fd),
    set: (key, value) => void call(COMMAND.mapUpdate, 'set', key, value),
    delete(key) {
      try {
        call(COMMAND.mapDelete, 'delete', key);
      } catch (error) {
        if (!isErrno(error, ENOENT)) throw error;
      }
    },
    get(key) {
      const value = new Uint8Array(valueBytes);
      try {
        call(COMMAND.mapLookup, 'read', key, value);
        return value;
      } catch (error) {
        if (isErrno(error, ENOENT)) return undefined;
        throw error;
      }
    },
  };
}

function readKernelTypes(): KernelTypes {
  const kernel = new Btf(readFileSync(`${BTF_FOLDER}/vmlinux`));
  const modules = modulesThere().map(
    (name) => new Btf(readFileSync(`${BTF_FOLDER}/${name}`), kernel),
  );
  return {
    function(name) {
      for (const [module, btf] of [kernel, ...modules].entries()) {
        const typeId = btf.functionId(name);
        if (typeId !== undefined) return { typeId, module };
      }
      return undefined;
    },
    memberOffset: (struct, ...path) => kernel.memberOffset(struct, ...path),
  };
}

function modulesThere(): string[] {
  return MODULES.filter((name) => existsSync(`${BTF_FOLDER}/${name}`));
}

/** The BTFs that functions are in, as a program is loaded with them: an array of i32, the first being nobody's. */
function fdsOfModules(): Uint8Array | undefined {
  const modules = modulesThere();
  if (modules.length === 0) return undefined;
  const fds = Buffer.alloc(4 * (modules.length + 1));
  for (const [i, name] of modules.entries()) fds.writeInt32LE(moduleFd(name), 4 * (i + 1));
  return fds;
}

/**
 * ```text
 *  struct bpf_btf_info   0 btf u64 | 8 size u32 | 12 id u32 | 16 name u64 | 24 name length u32 | 28 of kernel u32
 * ```
 * @returns a file descriptor of the BTF of a module, which stays open as long as this process
 */
function moduleFd(module: string): number {
  const op = `find the BTF of kernel module "${module}"`;
  const name = Buffer.alloc(64);
  for (let id = 0; ; ) {
    // Ends with ENOENT after the last.
    const next = new Attributes().u32(0, id);
    next.call(COMMAND.btfNextId, op);
    id = next.read(4);
    const fd = new Attributes().u32(0, id).call(COMMAND.btfFdById, op);
    const info = Buffer.alloc(32);
    info.writeBigUInt64LE(addressOf(name), 16);
    info.writeUInt32LE(name.length, 24);
    new Attributes().u32(0, fd).u32(4, info.length).pointer(8, info).call(COMMAND.objectInfo, op);
    if (name.toString('latin1', 0, name.indexOf(0)) === module) return fd;
    close(fd);
  }
}

function endOf(log: Buffer): string | undefined {
  const length = log.indexOf(0);
  const lines = log
    .toString('latin1', 0, length < 0 ? log.length : length)
    .trim()
    .split('\n');
  return lines.slice(-LOG_LINES_TOLD).join('; ') || undefined;
}
