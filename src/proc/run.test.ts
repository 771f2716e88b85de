import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { until } from '#lib/testing/until.ts';
import { identify, isAlive, killHard } from './identity.ts';
import { RunError, run, runOk } from './run.ts';

test('run() returns output and exit status, and passes the input on', async () => {
  const result = await run(['/bin/sh', '-c', 'cat; echo err >&2; exit 3'], { input: 'hello' });
  assert.deepEqual(result, { exitCode: 3, signal: undefined, stdout: 'hello', stderr: 'err\n' });
});

test('run() rejects for a program that does not exist', async () => {
  await assert.rejects(run(['/no/such/program']), RunError);
});

test('run() ends a program that takes too long', async () => {
  await assert.rejects(run(['/bin/sleep', '60'], { timeoutMs: 50 }), RunError);
});

test('run() ends what the program has started too, and does not wait for who keeps the pipes', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'tulle-run-'));
  try {
    // One child stays in the group, the other one leaves it; both hold the pipes.
    const script = 'sleep 61 & echo $! >a; setsid sh -c "echo \\$\\$ >b; exec sleep 62" & wait';
    const controller = new AbortController();
    const running = run(['/bin/sh', '-c', script], { cwd: directory, signal: controller.signal });
    const written = (name: string) => {
      const path = join(directory, name);
      return existsSync(path) ? Number(readFileSync(path, 'utf8')) : 0;
    };
    await until(() => written('a') > 0 && written('b') > 0);
    const [inside, outside] = [identify(written('a')), identify(written('b'))];
    controller.abort(new Error('enough'));
    await assert.rejects(running, /enough/);
    assert.ok(inside !== undefined && outside !== undefined);
    await until(() => !isAlive(inside));
    assert.ok(isAlive(outside));
    killHard(outside);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test('run() cuts the output of a program that writes too much', async () => {
  const { stdout } = await run(['/bin/sh', '-c', 'echo 0123456789'], { maxOutputBytes: 4 });
  assert.equal(stdout, '0123');
});

test('run() ends a program when the signal is aborted', async () => {
  const controller = new AbortController();
  const running = run(['/bin/sleep', '60'], { signal: controller.signal });
  controller.abort(new Error('enough'));
  await assert.rejects(running, /enough/);
});

test('runOk() rejects with what a failing program said', async () => {
  await assert.rejects(runOk(['/bin/sh', '-c', 'echo sorry >&2; exit 2']), /failed \(2\): sorry/);
});
