/** Starts CNI plugins for a benchmark, by a process that is as quick at that as a runtime is. */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const STARTER = join(import.meta.dirname, 'start-plugins.pl');
/** `__NR_clock_gettime` */
const CLOCK_GETTIME = process.arch === 'arm64' ? '113' : '228';

export interface Plugin {
  readonly name: string;
  readonly path: string;
  readonly config: object;
}

export class PluginRuntime implements Disposable {
  readonly #directory = mkdtempSync(join(tmpdir(), 'tulle-bench-cni-'));
  readonly #child = spawn('perl', [STARTER, CLOCK_GETTIME], { stdio: ['pipe', 'pipe', 'inherit'] });
  readonly #lines = createInterface(this.#child.stdout)[Symbol.asyncIterator]();

  constructor(plugins: readonly Plugin[]) {
    for (const plugin of plugins)
      writeFileSync(this.#configOf(plugin), JSON.stringify(plugin.config));
  }

  /** Calls the plugin once for each container, all at the same time. @returns how long each took, ms */
  async call(plugin: Plugin, command: string, containers: readonly string[]): Promise<number[]> {
    const { path } = plugin;
    this.#child.stdin.write(
      `${[command, path, this.#configOf(plugin), ...containers].join(' ')}\n`,
    );
    const { value } = await this.#lines.next();
    if (typeof value !== 'string' || value.startsWith('error'))
      throw new Error(`${path}: ${value ?? 'the starter of plugins has ended'}`);
    return value.split(' ').map(Number);
  }

  [Symbol.dispose](): void {
    this.#child.stdin.end();
    rmSync(this.#directory, { recursive: true });
  }

  #configOf({ name }: Plugin): string {
    return join(this.#directory, `${name}.json`);
  }
}
