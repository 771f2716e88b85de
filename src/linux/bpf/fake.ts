/** eBPF in memory, for tests: keeps what is loaded, attached and set; runs nothing. */
import { ENODEV, KernelError } from '#lib/errors.ts';
import type { Line } from '#wire/bpf/instructions.ts';
import type { IfIndex } from '../network/port.ts';
import type { Bpf, BpfMap, BpfMapOptions, BpfProgram, KernelTypes } from './port.ts';

export interface FakeProgram extends BpfProgram {
  readonly lines: readonly Line[];
}

export class FakeBpf implements Bpf {
  /** Entries by map and key, in hexadecimal digits. */
  readonly maps = new Map<string, Map<string, string>>();
  /** Names of the programs attached to each link, in the order in which they run. */
  readonly attached = new Map<IfIndex, string[]>();
  /** Open file descriptors. */
  readonly open = new Set<number>();
  readonly loaded: FakeProgram[] = [];
  /** Links that are gone. */
  readonly gone = new Set<IfIndex>();
  /** While set, programs are refused with it. */
  failure: Error | undefined;
  readonly readKernelTypes = (): KernelTypes => ({
    function: () => ({ typeId: 1, module: 0 }),
    memberOffset: () => 0,
  });
  #nextFd = 3;

  createMap({ name, keyBytes, valueBytes, maxEntries }: BpfMapOptions): BpfMap {
    const entries = new Map<string, string>();
    this.maps.set(name, entries);
    const check = (bytes: Uint8Array, wanted: number) => {
      if (bytes.length !== wanted) throw new Error(`map "${name}" wants ${wanted} bytes`);
      return Buffer.from(bytes).toString('hex');
    };
    return {
      ...this.#owned(),
      set: (key, value) => {
        entries.set(check(key, keyBytes), check(value, valueBytes));
        if (entries.size > maxEntries) throw new Error(`map "${name}" is full`);
      },
      delete: (key) => void entries.delete(check(key, keyBytes)),
      get: (key) => {
        const value = entries.get(check(key, keyBytes));
        return value === undefined ? undefined : Buffer.from(value, 'hex');
      },
    };
  }

  createCounters(): ReturnType<Bpf['createCounters']> {
    return { ...this.#owned(), read: () => 0 };
  }

  loadClassifier(name: string, _license: string, lines: readonly Line[]): BpfProgram {
    if (this.failure !== undefined) throw this.failure;
    const program = { ...this.#owned(), name, lines };
    this.loaded.push(program);
    return program;
  }

  attach(program: BpfProgram, link: IfIndex): Disposable {
    const op = `attach an eBPF program to link ${link}`;
    if (this.gone.has(link)) throw new KernelError(op, ENODEV);
    const { name } = program;
    const here = this.attached.get(link) ?? [];
    here.push(name);
    this.attached.set(link, here);
    const { [Symbol.dispose]: close } = this.#owned();
    return {
      [Symbol.dispose]: () => {
        close();
        here.splice(here.indexOf(name), 1);
        if (here.length === 0) this.attached.delete(link);
      },
    };
  }

  #owned(): Omit<BpfProgram, 'name'> {
    const fd = this.#nextFd++;
    this.open.add(fd);
    return { fd, [Symbol.dispose]: () => void this.open.delete(fd) };
  }
}
