/** The plugin file as a runtime starts it, against the agent's server. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { UserError } from '#lib/errors.ts';
import { silentLogger } from '#lib/log.ts';
import { type RunResult, run } from '#proc/run.ts';
import { CNI_VERSIONS } from '#wire/cni/version.ts';
import { installCniPlugin, shimText, uninstallCniPlugin } from './install.ts';
import type { PluginCall } from './protocol.ts';
import { type CallHandler, CniServer } from './server.ts';

class Host implements AsyncDisposable {
  readonly directory = mkdtempSync(join(tmpdir(), 'tulle-shim-'));
  readonly socketPath = join(this.directory, 'run', 'cni.sock');
  readonly paths = { binDir: join(this.directory, 'bin'), confDir: join(this.directory, 'net.d') };
  readonly servers: CniServer[] = [];

  constructor(shimWaitSeconds = 0) {
    installCniPlugin({ ...this.paths, socketPath: this.socketPath, shimWaitSeconds });
  }

  async listen(handler: CallHandler): Promise<CniServer> {
    const options = { path: this.socketPath, handler, log: silentLogger };
    const server = await CniServer.listen(options);
    this.servers.push(server);
    return server;
  }

  plugin(env: Record<string, string>, input = ''): Promise<RunResult> {
    return run([join(this.paths.binDir, 'tulle')], {
      input,
      env: { PATH: '/usr/bin:/bin', ...env },
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.servers) await server[Symbol.asyncDispose]();
    rmSync(this.directory, { recursive: true });
  }
}

const ADD = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: 'c1', CNI_ARGS: 'A=1;B=ü\n"x"' };
const answerOf = (result: RunResult) => JSON.parse(result.stdout) as Record<string, unknown>;

describe('the shim', () => {
  test('hands over CNI variables and input byte by byte, and prints the answer', async () => {
    await using host = new Host();
    const calls: PluginCall[] = [];
    await host.listen(async (call) => {
      calls.push(call);
      return { exitCode: 0, stdout: '{"ünïcode":"\u0001"}' };
    });
    const input = JSON.stringify({
      cniVersion: '1.0.0',
      text: 'ü€\u0000',
      long: 'x'.repeat(200_000),
    });
    const result = await host.plugin({ ...ADD, SECRET: 'not for the agent' }, input);
    assert.deepEqual(calls, [{ env: ADD, stdin: input }]);
    assert.equal(result.stdout, '{"ünïcode":"\u0001"}');
    assert.equal(result.exitCode, 0);
  });

  test('ends with the status of the answer', async () => {
    await using host = new Host();
    await host.listen(async () => ({ exitCode: 1, stdout: '{"code":7}' }));
    const result = await host.plugin(ADD);
    assert.deepEqual([result.exitCode, result.stdout], [1, '{"code":7}']);
  });

  test('answers VERSION without an agent, with or without input', async () => {
    await using host = new Host();
    const asked = await host.plugin({ CNI_COMMAND: 'VERSION' }, '{"cniVersion":"0.4.0"}');
    assert.deepEqual(answerOf(asked), {
      cniVersion: '0.4.0',
      supportedVersions: [...CNI_VERSIONS],
    });
    assert.equal((await host.plugin({ CNI_COMMAND: 'VERSION' })).exitCode, 0);
  });

  test('without a command says what it is, as the reference library does', async () => {
    await using host = new Host();
    const result = await host.plugin({});
    assert.deepEqual([result.exitCode, result.stdout], [0, '']);
    assert.match(result.stderr, /Tulle CNI plugin/);
  });

  test('answers code 11 when there is no agent', async () => {
    await using host = new Host();
    const result = await host.plugin(ADD, '{"cniVersion":"1.1.0"}');
    assert.equal(result.exitCode, 1);
    const { cniVersion, code, msg, details } = answerOf(result);
    assert.deepEqual([cniVersion, code, msg], ['1.1.0', 11, 'the Tulle agent is not running']);
    assert.match(String(details), /cannot connect to .*cni\.sock: No such file or directory/);
  });

  test('waits for an agent that is being restarted', async () => {
    await using host = new Host(30);
    const result = host.plugin(ADD);
    await host.listen(async () => ({ exitCode: 0, stdout: 'late' }));
    assert.equal((await result).stdout, 'late');
  });

  test('is right for "strict" and "warnings", which it does not load for their time', async () => {
    await using host = new Host();
    const file = join(host.paths.binDir, 'tulle');
    const strict = ['perl', '-Mstrict', '-Mwarnings=FATAL,all'];
    const checked = await run([...strict, '-c', file]);
    assert.match(checked.stderr, /syntax OK$/m);
    const loaded = await run(['perl', '-e', 'do shift; END { print STDERR join " ", %INC }', file]);
    assert.equal(loaded.stderr.includes('.pm'), false, loaded.stderr);
    const env = { PATH: '/usr/bin:/bin', ...ADD };
    // What is compiled only when it is needed.
    const alone = await run([...strict, file], { input: '{}', env });
    assert.deepEqual([answerOf(alone).code, alone.stderr, alone.exitCode], [11, '', 1]);
    await host.listen(async () => ({ exitCode: 0, stdout: 'answer' }));
    const result = await run([...strict, file], { input: '{}', env });
    assert.deepEqual([result.stdout, result.stderr, result.exitCode], ['answer', '', 0]);
  });

  test('asks again when the agent dies before it has answered', async () => {
    await using host = new Host(30);
    await using first = await dyingAgent(host.socketPath);
    const result = host.plugin(ADD, 'input');
    await first.asked;
    const calls: PluginCall[] = [];
    await first[Symbol.asyncDispose]();
    await host.listen(async (call) => {
      calls.push(call);
      return { exitCode: 0, stdout: 'second' };
    });
    assert.equal((await result).stdout, 'second');
    assert.deepEqual(calls, [{ env: ADD, stdin: 'input' }]);
  });
});

/** Accepts calls and hangs up without a word. */
async function dyingAgent(path: string): Promise<AsyncDisposable & { asked: Promise<void> }> {
  const asked = Promise.withResolvers<void>();
  mkdirSync(dirname(path), { recursive: true });
  const server = createServer((socket) => {
    socket.once('data', () => {
      socket.destroy();
      server.close();
      asked.resolve();
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    asked: asked.promise,
    async [Symbol.asyncDispose]() {
      server.close();
    },
  };
}

describe('CniServer', () => {
  test('makes a socket that only its owner can open, and takes over one that is stale', async () => {
    await using host = new Host();
    await host.listen(async () => ({ exitCode: 0, stdout: '' }));
    assert.equal(statSync(host.socketPath).mode & 0o777, 0o600);
    await host.servers[0]?.[Symbol.asyncDispose]();
    writeFileSync(host.socketPath, '');
    await host.listen(async () => ({ exitCode: 0, stdout: 'new' }));
    assert.equal((await host.plugin(ADD)).stdout, 'new');
  });

  test('refuses to take the socket from an agent that is alive', async () => {
    await using host = new Host();
    await host.listen(async () => ({ exitCode: 0, stdout: 'first' }));
    await assert.rejects(
      host.listen(async () => ({ exitCode: 0, stdout: 'second' })),
      (error) => error instanceof UserError && /another agent is listening/.test(error.message),
    );
    assert.equal((await host.plugin(ADD)).stdout, 'first');
  });

  test('lets calls end before it is disposed', async () => {
    await using host = new Host();
    const gate = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const server = await host.listen(async () => {
      begun.resolve();
      await gate.promise;
      return { exitCode: 0, stdout: 'done' };
    });
    const result = host.plugin(ADD);
    await begun.promise;
    const disposed = server[Symbol.asyncDispose]();
    gate.resolve();
    assert.equal((await result).stdout, 'done');
    await disposed;
  });

  test('hangs up on what is no call', async () => {
    await using host = new Host();
    await host.listen(async () => assert.fail('must not be called'));
    const socket = connect(host.socketPath);
    const closed = new Promise<void>((resolve) => socket.on('close', () => resolve()));
    socket.resume();
    socket.write(Buffer.from('0000000900000005', 'hex'));
    socket.write('PATH=........');
    await closed;
  });
});

describe('installCniPlugin()', () => {
  test('writes both files once, and again only what was changed', async () => {
    await using host = new Host();
    const options = { ...host.paths, socketPath: host.socketPath, shimWaitSeconds: 0 };
    assert.deepEqual(installCniPlugin(options), []);
    const conflist = join(host.paths.confDir, '10-tulle.conflist');
    writeFileSync(conflist, '{}');
    assert.deepEqual(installCniPlugin(options), [conflist]);
    assert.deepEqual(JSON.parse(readFileSync(conflist, 'utf8')), {
      cniVersion: '1.0.0',
      name: 'tulle',
      plugins: [
        {
          type: 'tulle',
          capabilities: {
            ipRanges: true,
            ips: true,
            mac: true,
            portMappings: true,
            bandwidth: true,
            dns: true,
            aliases: true,
          },
        },
      ],
    });
    assert.equal(statSync(join(host.paths.binDir, 'tulle')).mode & 0o777, 0o755);
    uninstallCniPlugin(host.paths);
    assert.equal(statSync(conflist, { throwIfNoEntry: false }), undefined);
  });

  test('says what is wrong with a folder it cannot write', async () => {
    await using host = new Host();
    const binDir = join(host.paths.binDir, 'tulle', 'below-a-file');
    assert.throws(
      () => installCniPlugin({ ...host.paths, binDir }),
      (error) =>
        error instanceof UserError &&
        /Cannot install ".*below-a-file.tulle": ENOTDIR/.test(error.message),
    );
  });

  test('refuses a socket path that does not fit into the script', () => {
    for (const socketPath of ["/run/'x'.sock", 'relative.sock', `/${'x'.repeat(108)}`])
      assert.throws(() => shimText({ socketPath }), UserError);
  });
});
