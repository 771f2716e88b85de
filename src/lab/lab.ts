/**
 * A lab: machines joined by an underlay network, on one computer, apart from the computer's own network.
 *
 * ```text
 *    m1         m2         m3                      outside
 *   eth0       eth0       eth0                      eth0
 *  .11 |      .12 |      .13 |   192.0.2.0/24        | .10   198.51.100.0/24
 *  ────┴──────────┴──────────┴──── br0 ─ router ─────┘        (knows nothing of pods)
 *                                 .1        .1
 * ```
 * A lab is found again by its name: everything needed to reach or to remove it is in `lab.json`.
 */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { UserError } from '#lib/errors.ts';
import { identify, isAlive, type ProcessIdentity } from '#proc/identity.ts';
import { killMachinesIn, Machine, type MachineRecord, startMachine } from './machine.ts';
import {
  connectMachine,
  connectOutside,
  healAll,
  partitionPair,
  prepareRouter,
} from './underlay.ts';

/** Volatile on purpose: namespaces do not survive a reboot, so neither should what describes them. */
const LABS_DIRECTORY = '/run/tulle-lab';
const MAX_MACHINES = 64;
const NAME_PATTERN = /^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$/;
export const ROUTER = 'router';
export const OUTSIDE = 'outside';
export const OUTSIDE_ADDRESS = '198.51.100.10';

const ADDRESSES = {
  IPv4: { outside: OUTSIDE_ADDRESS, host: (n: number) => `192.0.2.${n}` },
  IPv6: { outside: '2001:db8:51::10', host: (n: number) => `2001:db8::${n}` },
} as const;

interface LabRecord {
  readonly name: string;
  /** The process that draws it; once that is dead, anyone may take the lab down. */
  readonly owner: ProcessIdentity;
  readonly machines: readonly MachineRecord[];
  /** Facts that commands need later: the API's address, the kubeconfig. */
  readonly notes: Readonly<Record<string, string>>;
}

export class Lab {
  readonly name: string;
  readonly directory: string;
  #machines: Machine[];
  #notes: Record<string, string>;
  readonly #owner: ProcessIdentity;

  private constructor(record: LabRecord) {
    this.name = record.name;
    this.directory = join(LABS_DIRECTORY, record.name);
    this.#machines = record.machines.map((machine) => new Machine(machine));
    this.#notes = { ...record.notes };
    this.#owner = record.owner;
  }

  /**
   * Draws a lab with machines `m1` … `mN`, an outside host and the router between them.
   * What a dead owner left under this name is removed first.
   * @throws UserError if a lab of that name is in use, or the machine cannot do it
   */
  static async create(options: {
    name: string;
    machines: number;
    /** What the machines' addresses are: the second is without any IPv4. */
    underlay?: 'IPv4' | 'IPv6';
    onProgress?: (message: string) => void;
  }): Promise<Lab> {
    const { name, machines } = options;
    if (!NAME_PATTERN.test(name))
      throw new UserError(`"${name}" is no name for a lab`, {
        hint: 'Use up to 20 lower-case letters, digits and dashes.',
      });
    if (!Number.isInteger(machines) || machines < 1 || machines > MAX_MACHINES)
      throw new UserError(`A lab has 1 to ${MAX_MACHINES} machines, not ${machines}`);
    if (process.getuid?.() !== 0)
      throw new UserError('A lab is made of namespaces, which needs root', {
        hint: 'Run the command with sudo.',
      });
    if (existsSync(join(LABS_DIRECTORY, name))) {
      const old = Lab.find(name);
      if (old?.isOwned)
        throw new UserError(`Lab "${name}" is being used by process ${old.#owner.pid}`, {
          hint: `Choose another name, or end that process, or run 'tulle lab down ${name}'.`,
        });
      options.onProgress?.(`removing what is left of an earlier lab "${name}"`);
      await Lab.remove(name);
    }
    const owner = identify(process.pid);
    if (owner === undefined) throw new Error('cannot read /proc/self/stat');
    const lab = new Lab({ name, owner, machines: [], notes: {} });
    mkdirSync(lab.directory, { recursive: true, mode: 0o700 });
    lab.#save();
    try {
      await lab.#draw(machines, options.underlay ?? 'IPv4');
    } catch (error) {
      await Lab.remove(name);
      throw error;
    }
    return lab;
  }

  /** @returns undefined if there is no lab of that name */
  static find(name: string): Lab | undefined {
    const file = join(LABS_DIRECTORY, name, 'lab.json');
    return existsSync(file)
      ? new Lab(JSON.parse(readFileSync(file, 'utf8')) as LabRecord)
      : undefined;
  }

  /** Names of all labs on this computer. */
  static names(): string[] {
    return existsSync(LABS_DIRECTORY) ? readdirSync(LABS_DIRECTORY).sort() : [];
  }

  /** Ends all processes of the lab and removes all that it made. Succeeds if there is nothing. */
  static async remove(name: string): Promise<void> {
    const lab = Lab.find(name);
    if (lab !== undefined) await Promise.all(lab.#machines.map((machine) => machine.destroy()));
    const directory = join(LABS_DIRECTORY, name);
    await killMachinesIn(directory);
    rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
    removeIfEmpty(LABS_DIRECTORY);
  }

  /** Whether the process that drew the lab still runs, and is not this one. */
  get isOwned(): boolean {
    return this.#owner.pid !== process.pid && isAlive(this.#owner);
  }
  /** The machines that are hosts, without router and outside. */
  get hosts(): readonly Machine[] {
    return this.#machines.filter((m) => m.name !== ROUTER && m.name !== OUTSIDE);
  }
  get machines(): readonly Machine[] {
    return this.#machines;
  }
  /** @throws UserError naming the machines there are */
  machine(name: string): Machine {
    const found = this.#machines.find((machine) => machine.name === name);
    if (found === undefined)
      throw new UserError(`Lab "${this.name}" has no machine "${name}"`, {
        hint: `There are ${this.#machines.map((machine) => machine.name).join(', ')}.`,
      });
    return found;
  }
  get notes(): Readonly<Record<string, string>> {
    return this.#notes;
  }
  note(key: string, value: string): void {
    this.#notes[key] = value;
    this.#save();
  }

  /** Cuts the underlay between two machines, both ways; other pairs are not touched. */
  partition(a: string, b: string): void {
    partitionPair(this.machine(ROUTER), this.machine(a), this.machine(b));
  }
  /** Takes all cuts back. */
  heal(): void {
    healAll(this.machine(ROUTER));
  }

  async #draw(count: number, underlay: 'IPv4' | 'IPv6'): Promise<void> {
    const { outside: outsideAddress, host: hostAddress } = ADDRESSES[underlay];
    const add = async (name: string, address: string | undefined) => {
      const directory = join(this.directory, name);
      const machine = await startMachine({ name, directory, address });
      this.#machines = [...this.#machines, machine];
      this.#save();
      return machine;
    };
    const [router, outside, ...hosts] = await Promise.all([
      add(ROUTER, undefined),
      add(OUTSIDE, outsideAddress),
      ...Array.from({ length: count }, (_, i) => add(`m${i + 1}`, hostAddress(11 + i))),
    ]);
    prepareRouter(router);
    connectOutside(router, outside);
    for (const host of hosts) connectMachine(router, host);
    this.#machines.sort((a, b) => a.name.localeCompare(b.name, 'en', { numeric: true }));
    this.#save();
  }

  #save(): void {
    const record: LabRecord = {
      name: this.name,
      owner: this.#owner,
      machines: this.#machines.map((machine) => machine.record),
      notes: this.#notes,
    };
    const file = join(this.directory, 'lab.json');
    writeFileSync(`${file}.new`, JSON.stringify(record, null, 2), { mode: 0o600 });
    renameSync(`${file}.new`, file);
  }
}

/** Another lab may just be beginning in it. */
function removeIfEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOTEMPTY' && code !== 'ENOENT') throw error;
  }
}
