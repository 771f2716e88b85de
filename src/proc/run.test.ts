import assert from 'node:assert/strict';
import { test } from 'node:test';
import { identify, isAlive } from './identity.ts';
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
  const started = run(['/bin/sh', '-c', 'sleep 61 & echo $!; setsid sleep 62 & wait'], {
    timeoutMs: 300,
  });
  const error = await started.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof RunError);
  const child = identify(Number(error.result?.stdout.trim()));
  assert.ok(child === undefined || !isAlive(child));
  await runOk(['pkill', '-f', '^sleep 62$']);
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
