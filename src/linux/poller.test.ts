import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import * as libc from './ffi/libc.ts';
import { Poller } from './poller.ts';
import { watchProcessExit } from './process-watch.ts';

const write = libc.libc.func('int64 write(int fd, const void *bytes, size_t length)');
const read = libc.libc.func('int64 read(int fd, void *bytes, size_t length)');

/** A descriptor that becomes readable when told. */
class Bell implements Disposable {
  readonly fd = libc.eventfd();
  ring(): void {
    write(this.fd, Buffer.from(new BigUint64Array([1n]).buffer), 8);
  }
  silence(): void {
    read(this.fd, Buffer.alloc(8), 8);
  }
  [Symbol.dispose](): void {
    libc.close(this.fd);
  }
}

test('Poller tells each time a descriptor becomes readable', async () => {
  using poller = new Poller();
  using bell = new Bell();
  for (let round = 0; round < 3; round++) {
    const { promise, resolve } = Promise.withResolvers<void>();
    const remove = poller.add(bell.fd, () => {
      bell.silence();
      resolve();
    });
    bell.ring();
    await promise;
    remove();
  }
});

test('Poller tells of a descriptor added while it waits for another', async () => {
  using poller = new Poller();
  using silent = new Bell();
  using bell = new Bell();
  poller.add(silent.fd, () => assert.fail('it was never rung'));
  const { promise, resolve } = Promise.withResolvers<void>();
  bell.ring();
  poller.add(bell.fd, () => {
    bell.silence();
    resolve();
  });
  await promise;
});

test('Poller does not tell after the watch was removed', async () => {
  using poller = new Poller();
  using removed = new Bell();
  using bell = new Bell();
  const remove = poller.add(removed.fd, () => assert.fail('it was removed'));
  const { promise, resolve } = Promise.withResolvers<void>();
  poller.add(bell.fd, () => {
    bell.silence();
    resolve();
  });
  remove();
  remove();
  removed.ring();
  bell.ring();
  await promise;
});

test('Poller tells a listener as long as it leaves something unread', async () => {
  using poller = new Poller();
  using bell = new Bell();
  const { promise, resolve } = Promise.withResolvers<void>();
  let calls = 0;
  poller.add(bell.fd, () => {
    if (++calls < 3) return;
    bell.silence();
    resolve();
  });
  bell.ring();
  await promise;
  assert.equal(calls, 3);
});

test('Poller disposed tells nothing more', async () => {
  const poller = new Poller();
  using other = new Poller();
  using bell = new Bell();
  poller.add(bell.fd, () => assert.fail('the poller was disposed'));
  poller[Symbol.dispose]();
  poller[Symbol.dispose]();
  bell.ring();
  const { promise, resolve } = Promise.withResolvers<void>();
  other.add(bell.fd, () => {
    bell.silence();
    resolve();
  });
  await promise;
});

test('watchProcessExit() calls back when the process ends', async () => {
  using poller = new Poller();
  const child = spawn('sleep', ['1000']);
  const { promise, resolve } = Promise.withResolvers<void>();
  watchProcessExit(poller, child.pid ?? 0, resolve);
  child.kill('SIGKILL');
  await promise;
});

test('watchProcessExit() calls back, later, if the process is gone already', async () => {
  using poller = new Poller();
  const child = spawn('true');
  await once(child, 'exit');
  const { promise, resolve } = Promise.withResolvers<void>();
  let inside = true;
  watchProcessExit(poller, child.pid ?? 0, () => {
    assert.equal(inside, false);
    resolve();
  });
  inside = false;
  await promise;
});

test('watchProcessExit() stopped does not call back', async () => {
  using poller = new Poller();
  const child = spawn('sleep', ['1000']);
  const gone = once(child, 'exit');
  const stop = watchProcessExit(poller, child.pid ?? 0, () => assert.fail('it was stopped'));
  const { promise, resolve } = Promise.withResolvers<void>();
  watchProcessExit(poller, child.pid ?? 0, resolve);
  stop();
  stop();
  child.kill('SIGKILL');
  await Promise.all([gone, promise]);
});

test('watchProcessExit() refuses a number that cannot be a process', () => {
  using poller = new Poller();
  assert.throws(() => watchProcessExit(poller, -1, () => undefined), /watch process -1.*EINVAL/);
});
