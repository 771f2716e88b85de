/** For tests: a program in a pod's namespace that serves, and asks others when it is told to. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import type { ScratchNetns } from '#linux/testing/scratch-netns.ts';

/** A namespace, or a command that runs what follows it in one. */
export type Place = ScratchNetns | readonly string[];

/** The command line that runs this one there. */
export function inPlace(place: Place, argv: readonly string[]): string[] {
  return 'name' in place ? ['ip', 'netns', 'exec', place.name, ...argv] : [...place, ...argv];
}

/** The program of one pod, asked over pipes. */
export class PodProgram {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, (result: string) => void>();
  #next = 1;

  private constructor(child: ChildProcess, lines: Interface) {
    this.#child = child;
    lines.on('line', (line) => {
      const { id, result } = JSON.parse(line) as { id: number; result: string };
      this.#waiting.get(id)?.(result);
    });
  }

  /** @param place a namespace, or the command that enters one */
  static async start(place: Place, ports: readonly number[]): Promise<PodProgram> {
    const script = join(import.meta.dirname, 'pod-program.fixture.mjs');
    const [program = '', ...argv] = inPlace(place, [
      process.execPath,
      script,
      ...ports.map(String),
    ]);
    const child = spawn(program, argv, { stdio: ['pipe', 'pipe', 'inherit'] });
    const lines = createInterface({ input: child.stdout });
    await once(lines, 'line');
    return new PodProgram(child, lines);
  }

  ask(op: string, rest: object): Promise<string> {
    const id = this.#next++;
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      this.#child.stdin?.write(`${JSON.stringify({ id, op, ...rest })}\n`);
    });
  }

  async stop(): Promise<void> {
    this.#child.kill('SIGKILL');
    if (this.#child.exitCode === null && this.#child.signalCode === null)
      await once(this.#child, 'exit');
  }
}
