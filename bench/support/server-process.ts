/** `tulle server` as a process of its own, started as `./tulle server` does it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { sleep } from '#lib/clock.ts';
import { DAEMON_NODE_FLAGS } from '#proc/node-flags.ts';
import { COMPILED_ENV } from './compiled-env.ts';

const START_TIMEOUT_MS = 30_000;
export const HOST = '127.0.0.1';

export interface ServerProcess extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly directory: string;
  readonly child: ChildProcess;
}

/** @param flags more options of `tulle server` */
export async function startServerProcess(
  directory: string,
  flags: readonly string[] = [],
): Promise<ServerProcess> {
  const port = await freePort();
  const program = join(import.meta.dirname, '../../src/bin/tulle.ts');
  const child = spawn(
    process.execPath,
    [
      ...['--disable-warning=ExperimentalWarning', ...DAEMON_NODE_FLAGS, program, 'server'],
      ...['--data-dir', directory, '--listen', `${HOST}:${port}`, '--log-level', 'warn'],
      ...['--service-cidr', '10.96.0.0/12', ...flags],
    ],
    { stdio: ['ignore', 'ignore', 'inherit'], env: COMPILED_ENV },
  );
  await ready(child, directory);
  return {
    url: `https://${HOST}:${port}`,
    port,
    directory,
    child,
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null) return;
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      await ended;
    },
  };
}

async function ready(child: ChildProcess, directory: string): Promise<void> {
  const deadlineMs = performance.now() + START_TIMEOUT_MS;
  while (!existsSync(join(directory, 'admin.kubeconfig'))) {
    if (child.exitCode !== null) throw new Error(`the server ended with status ${child.exitCode}`);
    if (performance.now() > deadlineMs) throw new Error('the server did not become ready');
    await sleep(50);
  }
}

async function freePort(): Promise<number> {
  const probe = createServer();
  probe.listen(0, HOST);
  await once(probe, 'listening');
  const address = probe.address();
  probe.close();
  await once(probe, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}
