/** Processes by id, told apart from later ones that got the same id. */
import { readdirSync, readFileSync } from 'node:fs';

/** A process that is certain to be the one meant: start time in clock ticks since boot, `/proc/PID/stat` field 22. */
export interface ProcessIdentity {
  readonly pid: number;
  readonly startTicks: number;
}

/** @returns undefined if there is no such process */
export function identify(pid: number): ProcessIdentity | undefined {
  const fields = statFields(pid);
  return fields === undefined ? undefined : { pid, startTicks: Number(fields[19]) };
}

/** Whether the process still runs. A zombie does not. */
export function isAlive(identity: ProcessIdentity): boolean {
  const fields = statFields(identity.pid);
  return fields !== undefined && fields[0] !== 'Z' && Number(fields[19]) === identity.startTicks;
}

/** Sends SIGKILL if it is still that process. */
export function killHard(identity: ProcessIdentity): void {
  if (!isAlive(identity)) return;
  try {
    process.kill(identity.pid, 'SIGKILL');
  } catch (error) {
    // It ended between the look and the kill.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Ids of the direct children of a process. */
export function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((candidate) => Number(statFields(candidate)?.[1]) === pid);
}

/** The fields of `/proc/PID/stat` after the command's name, which may hold anything; [0] is the state. */
function statFields(pid: number): string[] | undefined {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ESRCH') return undefined;
    throw error;
  }
  return text.slice(text.lastIndexOf(')') + 2).split(' ');
}
