import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { EINVAL, ENOENT, isErrno } from '#lib/errors.ts';
import { hasProcessIn, inNetns, Netns } from './netns.ts';
import { ScratchNetns } from './testing/scratch-netns.ts';

const current = () => readlinkSync('/proc/thread-self/ns/net');

test('inNetns() runs the action inside and comes back', () => {
  using scratch = new ScratchNetns();
  const own = current();
  const inside = inNetns(scratch.path, current);
  assert.equal(inside, scratch.run('readlink', '/proc/self/ns/net').trim());
  assert.notEqual(inside, own);
  assert.equal(current(), own);
});

test('inNetns() comes back when the action throws', () => {
  using scratch = new ScratchNetns();
  const own = current();
  assert.throws(
    () =>
      inNetns(scratch.path, () => {
        throw new RangeError(current());
      }),
    (error) => error instanceof RangeError && error.message !== own,
  );
  assert.equal(current(), own);
});

test('inNetns() nested comes back to the enclosing namespace, also on error', () => {
  using outer = new ScratchNetns();
  using inner = new ScratchNetns();
  const own = current();
  inNetns(outer.path, () => {
    const inOuter = current();
    assert.notEqual(inNetns(inner.path, current), inOuter);
    assert.equal(current(), inOuter);
    assert.throws(() => inNetns('/dev/null', () => 0));
    assert.throws(() =>
      inNetns(inner.path, () => {
        throw new RangeError();
      }),
    );
    assert.equal(current(), inOuter);
  });
  assert.equal(current(), own);
});

test('inNetns() without a namespace stays where it is', () => {
  const own = current();
  assert.equal(inNetns(undefined, current), own);
});

test('Netns holds a namespace whose name is gone', () => {
  const own = current();
  const scratch = new ScratchNetns();
  using netns = new Netns(scratch.path);
  const inside = inNetns(netns, current);
  scratch[Symbol.dispose]();
  assert.equal(inNetns(netns, current), inside);
  assert.equal(current(), own);
});

test('a path that is no namespace is refused by name', () => {
  assert.throws(
    () => new Netns('/run/netns/no-such'),
    (error) => isErrno(error, ENOENT) && error.op.includes('"/run/netns/no-such"'),
  );
  assert.throws(
    () => inNetns('/dev/null', () => 0),
    (error) => isErrno(error, EINVAL) && error.op.includes('"/dev/null"'),
  );
});

test('hasProcessIn() sees a process of the namespace while it is there', async () => {
  using scratch = new ScratchNetns();
  assert.equal(hasProcessIn(scratch.path), false);
  const child = inNetns(scratch.path, () => spawn('sleep', ['60']));
  assert.equal(hasProcessIn(scratch.path), true);
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.equal(hasProcessIn(scratch.path), false);
  assert.equal(hasProcessIn('/run/netns/there-is-none'), false);
});
