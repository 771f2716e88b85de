/** `tulle lab …` */
import { spawn } from 'node:child_process';
import { LabCluster } from '#lab/cluster.ts';
import { preparePodman } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import { UserError } from '#lib/errors.ts';
import { formatColumns } from '../output.ts';
import type { CommandContext } from '../program.ts';

export async function labUp(
  name: string,
  flags: { machines: string; bare: boolean },
  { print }: CommandContext,
): Promise<void> {
  const machines = Number(flags.machines);
  const start = performance.now();
  const say = (text: string) =>
    print(`${((performance.now() - start) / 1000).toFixed(2).padStart(6)} s  ${text}`);
  const lab = await Lab.create({ name, machines, onProgress: say });
  say(`lab "${name}": ${lab.hosts.map((m) => `${m.name} ${m.address}`).join(', ')}`);
  for (const machine of lab.hosts) preparePodman(machine);
  if (flags.bare) return;
  try {
    const cluster = new LabCluster(lab);
    await cluster.startServer();
    say(`tulle server runs on ${cluster.serverMachine.name}`);
    for (const machine of lab.hosts) await cluster.startAgent(machine);
    await cluster.nodesReady();
    say('all nodes are ready');
    print(`\nexport KUBECONFIG=${cluster.kubeconfig}`);
    print(`./tulle lab exec m1 -- podman run --rm --rootfs /var/lib/rootfs ip addr`);
  } catch (error) {
    await Lab.remove(name);
    throw error;
  }
}

/** Ends with the command's own exit status. */
export async function labExec(
  machineName: string,
  command: readonly string[],
  flags: { lab?: string },
): Promise<void> {
  const machine = theLab(flags.lab).machine(machineName);
  const argv = command[0] === '--' ? command.slice(1) : command;
  const [program = '', ...args] = machine.enter(argv);
  process.exitCode = await new Promise<number>((resolve, reject) => {
    const child = spawn(program, args, { stdio: 'inherit' });
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
}

export async function labPartition(
  machine: string,
  others: readonly string[],
  flags: { lab?: string },
  { print }: CommandContext,
): Promise<void> {
  const lab = theLab(flags.lab);
  for (const other of others) lab.partition(machine, other);
  print(`cut ${machine} from ${others.join(', ')}; 'tulle lab heal' takes it back`);
}

export async function labHeal(flags: { lab?: string }, { print }: CommandContext): Promise<void> {
  const lab = theLab(flags.lab);
  lab.heal();
  print(`lab "${lab.name}": all cuts taken back`);
}

export async function labList({ print }: CommandContext): Promise<void> {
  const rows = Lab.names().map((name) => {
    const lab = Lab.find(name);
    const machines = lab?.hosts.map((m) => `${m.name}${m.isUp ? '' : ' (down)'}`) ?? [];
    return [name, machines.join(' '), lab?.isOwned ? 'in use' : ''];
  });
  print(rows.length === 0 ? 'no labs' : formatColumns([['NAME', 'MACHINES', ''], ...rows]));
}

export async function labDown(
  name: string | undefined,
  flags: { all: boolean },
  { print }: CommandContext,
): Promise<void> {
  const names = flags.all ? Lab.names() : [name ?? onlyName()].filter((n) => n !== undefined);
  for (const one of names) await Lab.remove(one);
  print(names.length === 0 ? 'no labs' : `removed ${names.join(', ')}`);
}

function onlyName(): string | undefined {
  const names = Lab.names();
  if (names.length > 1)
    throw new UserError(`There are several labs: ${names.join(', ')}`, {
      hint: 'Name the one you mean, or give --all.',
    });
  return names[0];
}

function theLab(name: string | undefined): Lab {
  const names = Lab.names();
  const wanted = name ?? (names.length === 1 ? names[0] : undefined);
  const lab = wanted === undefined ? undefined : Lab.find(wanted);
  if (lab !== undefined) return lab;
  if (names.length === 0)
    throw new UserError('There is no lab', { hint: "Draw one with 'tulle lab up'." });
  throw new UserError(name === undefined ? 'There are several labs' : `There is no lab "${name}"`, {
    hint: `Choose with --lab: ${names.join(', ')}.`,
  });
}
