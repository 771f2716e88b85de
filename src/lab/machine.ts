/**
 * A machine made of namespaces: its own processes, mounts, network, host name and IPC, on the one kernel.
 * It lives as long as its first process (`machine-init.sh`) and ends with it, completely.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '#lib/errors.ts';
import { childrenOf, identify, isAlive, killHard, type ProcessIdentity } from '#proc/identity.ts';
import { type RunOptions, type RunResult, run, runOk } from '#proc/run.ts';

/** What is written down of a machine, to find it again from another process. */
export interface MachineRecord {
  readonly name: string;
  /** The first process, as seen from outside. */
  readonly init: ProcessIdentity;
  /** The machine's own files. */
  readonly directory: string;
  /** Address on the underlay; undefined for the lab's router. */
  readonly address: string | undefined;
}

const INIT_SCRIPT = join(import.meta.dirname, 'machine-init.sh');
const START_TIMEOUT_MS = 10_000;
/** Everything below the machine's directory that `machine-init.sh` mounts. */
const FOLDERS = ['etc', 'etc.work', 'opt', 'opt.work', 'lib', 'lib.work'] as const;
const OWN_FOLDERS = [
  'tulle',
  'containers',
  'cni',
  'rootfs',
  'log',
  'run',
  'etc-cni',
  'etc-containers',
] as const;

export class Machine {
  readonly record: MachineRecord;
  constructor(record: MachineRecord) {
    this.record = record;
  }
  get name(): string {
    return this.record.name;
  }
  get directory(): string {
    return this.record.directory;
  }
  /** Underlay address. @throws Error for the router */
  get address(): string {
    if (this.record.address === undefined)
      throw new Error(`machine "${this.name}" has no underlay address`);
    return this.record.address;
  }
  get netns(): string {
    return `/proc/${this.record.init.pid}/ns/net`;
  }
  get isUp(): boolean {
    return isAlive(this.record.init);
  }

  /** The command line that runs `argv` inside the machine. */
  enter(argv: readonly string[]): string[] {
    const target = ['nsenter', '--target', String(this.record.init.pid)];
    return [...target, '--mount', '--uts', '--ipc', '--net', '--pid', '--', ...argv];
  }

  /** Runs a program inside, to its end. */
  run(argv: readonly string[], options?: RunOptions): Promise<RunResult> {
    return run(this.enter(argv), options);
  }
  /** Like {@link run}; anything but exit status 0 is an error. @returns standard output */
  runOk(argv: readonly string[], options?: RunOptions): Promise<string> {
    return runOk(this.enter(argv), options);
  }

  /**
   * Starts a program inside that goes on by itself; its output is appended to `log/NAME.log`.
   * @param inherit descriptors it gets as 3, 4 …
   * @returns the process inside, so that it can be stopped and waited for
   */
  async start(
    name: string,
    argv: readonly string[],
    options: { env?: NodeJS.ProcessEnv; inherit?: readonly number[] } = {},
  ): Promise<ProcessIdentity> {
    const log = openSync(this.logFile(name), 'a');
    const [program = '', ...args] = this.enter(argv);
    const child = spawn(program, args, {
      detached: true,
      stdio: ['ignore', log, log, ...(options.inherit ?? [])],
      env: options.env ?? process.env,
    });
    await new Promise<void>((resolve, reject) => {
      child.once('spawn', resolve);
      child.once('error', reject);
    });
    child.unref();
    // nsenter forks for the PID namespace: the program itself is its child.
    for (let tries = 0; tries < 500; tries++) {
      const inside = childrenOf(child.pid ?? 0)[0];
      const identity = inside === undefined ? undefined : identify(inside);
      if (identity !== undefined) return identity;
      if (child.exitCode !== null) break;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    throw new Error(`"${argv.join(' ')}" ended at once on ${this.name}; see ${this.logFile(name)}`);
  }

  logFile(name: string): string {
    return join(this.directory, 'log', `${name}.log`);
  }

  /** Ends every process of the machine and removes the control groups of its containers. */
  async destroy(): Promise<void> {
    await end(this.record.init);
    await removeContainerCgroups(join(this.directory, 'containers/storage'));
  }
}

/**
 * Starts a machine. It has a loopback link, which is down, and no other.
 * @param directory is made; must not exist
 */
export async function startMachine(options: {
  name: string;
  directory: string;
  address: string | undefined;
}): Promise<Machine> {
  for (const folder of [...FOLDERS, ...OWN_FOLDERS])
    mkdirSync(join(options.directory, folder), { recursive: true });
  const argv = ['--fork', '--pid', '--mount-proc', '--mount', '--net', '--uts', '--ipc'];
  const child = spawn('unshare', [...argv, 'sh', INIT_SCRIPT, options.name, options.directory], {
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  await new Promise<void>((resolve, reject) => {
    const fail = (why: string) =>
      reject(
        new UserError(`Cannot start lab machine "${options.name}": ${why} ${said.trim()}`, {
          hint: 'The lab needs root, unshare(1), overlayfs and the pid, net, mount, uts and ipc namespaces.',
        }),
      );
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      fail('it was not ready in time.');
    }, START_TIMEOUT_MS);
    child.stdout.once('data', () => {
      clearTimeout(timer);
      resolve();
    });
    child.once('error', (error) => fail(error.message));
    child.once('exit', (code) => {
      clearTimeout(timer);
      fail(`it ended with status ${code}.`);
    });
  });
  const init = identify(childrenOf(child.pid ?? 0)[0] ?? 0);
  if (init === undefined) throw new Error(`lab machine "${options.name}" ended at once: ${said}`);
  child.removeAllListeners('exit');
  child.stdout.destroy();
  child.stderr.destroy();
  child.unref();
  return new Machine({
    name: options.name,
    init,
    directory: options.directory,
    address: options.address,
  });
}

/**
 * Ends machines whose files lie in `labDirectory`, also those that nobody wrote down because their maker was killed.
 * Every first process carries its directory as its last argument. One that was just being started when it was looked
 * for has a child by the next look, so it looks until there is none.
 */
export async function killMachinesIn(labDirectory: string): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    const found = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && isMachineIn(labDirectory, commandLine(name)))
      .map((name) => identify(Number(name)))
      .filter((identity) => identity !== undefined);
    if (found.length === 0) return;
    await Promise.all(found.map(end));
  }
}

function isMachineIn(labDirectory: string, argv: readonly string[]): boolean {
  const isInit = argv.some((arg) => arg === INIT_SCRIPT || arg === 'tulle-lab-machine');
  return isInit && argv.at(-1)?.startsWith(`${labDirectory}/`) === true;
}

/** Kills a process and waits until it holds nothing any more: its mounts would change what is being deleted. */
async function end(identity: ProcessIdentity): Promise<void> {
  killHard(identity);
  for (let tries = 0; isAlive(identity) && tries < 2000; tries++)
    await new Promise((resolve) => setTimeout(resolve, 2));
}

function commandLine(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ESRCH') return [];
    throw error;
  }
}

/** The container runtime leaves a container's control groups behind when everything is killed under it. */
async function removeContainerCgroups(storage: string): Promise<void> {
  if (!existsSync(storage)) return;
  const ids = readdirSync(storage)
    .filter((name) => name.endsWith('-containers'))
    .flatMap((name) => readdirSync(join(storage, name)))
    .filter((name) => /^[0-9a-f]{64}$/.test(name));
  if (ids.length === 0) return;
  const hierarchies = ['/sys/fs/cgroup', ...childFolders('/sys/fs/cgroup')];
  for (const hierarchy of hierarchies) {
    const parent = join(hierarchy, 'libpod_parent');
    for (const id of ids)
      for (const group of [`libpod-${id}`, `libpod-conmon-${id}`])
        removeCgroup(join(parent, group));
  }
}

function removeCgroup(path: string): void {
  if (!existsSync(path)) return;
  for (const child of childFolders(path)) removeCgroup(child);
  try {
    rmdirSync(path);
  } catch (error) {
    // Busy: a dying process is still accounted there; the kernel removes nothing by itself, but it holds nothing either.
    if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error;
  }
}

function childFolders(path: string): string[] {
  return readdirSync(path, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(path, entry.name));
}
