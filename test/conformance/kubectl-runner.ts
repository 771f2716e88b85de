/** For tests: a server of its own and the real kubectl, set up to be its administrator. */
import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ServerFixture, startServerFixture } from '#server/test-server.ts';

/** A kubectl that hangs is a failure of its test, not of the run. */
const MAX_RUN_MS = 30_000;

const hasKubectl = spawnSync('kubectl', ['version', '--client'], { stdio: 'ignore' }).status === 0;
export const skip = hasKubectl ? false : 'there is no kubectl on the PATH';

export interface Run {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Kubectl extends AsyncDisposable {
  readonly fixture: ServerFixture;
  readonly home: string;
  run(...args: readonly string[]): Promise<Run>;
  /** Runs what must succeed. @returns standard output */
  ok(...args: readonly string[]): Promise<string>;
  /** @returns the path of a file with this text */
  file(name: string, text: string): string;
}

/** Runs kubectl in a home of its own, by the configuration file that stands there. */
export function runKubectl(
  args: readonly string[],
  options: {
    readonly home: string;
    /** Its name; default `config`. */
    readonly config?: string;
    /** Default: what asks gets no answer. */
    readonly stdin?: string;
    readonly env?: Readonly<Record<string, string>>;
    readonly maxOutputBytes?: number;
  },
): Promise<Run> {
  const { home, config = 'config', stdin = '', env = {}, maxOutputBytes } = options;
  return new Promise((resolve) => {
    const child = execFile(
      'kubectl',
      args,
      {
        timeout: MAX_RUN_MS,
        ...(maxOutputBytes === undefined ? {} : { maxBuffer: maxOutputBytes }),
        cwd: home,
        env: { PATH: process.env.PATH, HOME: home, KUBECONFIG: join(home, config), ...env },
      },
      (error, stdout, stderr) => {
        const status = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
        resolve({ status, stdout, stderr });
      },
    );
    child.stdin?.end(stdin);
  });
}

export async function startKubectl(name: string): Promise<Kubectl> {
  const fixture = await startServerFixture();
  const home = mkdtempSync(join(tmpdir(), `tulle-${name}-`));
  writeFileSync(join(home, 'config'), JSON.stringify(kubeconfig(fixture)));
  const run = (...args: readonly string[]) => runKubectl(args, { home });
  return {
    fixture,
    home,
    run,
    async ok(...args) {
      const { status, stdout, stderr } = await run(...args);
      assert.equal(status, 0, `kubectl ${args.join(' ')}: ${stderr}`);
      return stdout;
    },
    file(fileName, text) {
      const path = join(home, fileName);
      writeFileSync(path, text);
      return path;
    },
    async [Symbol.asyncDispose]() {
      await fixture[Symbol.asyncDispose]();
      rmSync(home, { recursive: true, force: true });
    },
  };
}

function kubeconfig({ server, ca, admin }: ServerFixture): object {
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  return {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'test',
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'admin' } }],
    clusters: [
      {
        name: 'test',
        cluster: { server: server.url, 'certificate-authority-data': base64(ca.certificatePem) },
      },
    ],
    users: [
      {
        name: 'admin',
        user: {
          'client-certificate-data': base64(admin.cert),
          'client-key-data': base64(admin.key),
        },
      },
    ],
  };
}
