/** The demo, as a newcomer runs it: every step holds, and nothing is left. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runDemo } from '#lab/demo/demo.ts';
import { traces } from './traces.ts';

test('tulle demo shows every step, and leaves nothing behind', async () => {
  const before = traces('test-demo');
  const lines: string[] = [];
  const held = await runDemo({
    keep: false,
    name: 'test-demo',
    print: (line) => lines.push(line),
    signal: new AbortController().signal,
  });
  assert.ok(held, lines.join('\n'));
  assert.deepEqual(traces('test-demo'), before);
});

test('tulle demo that is interrupted cleans up', async () => {
  const before = traces('test-break');
  const interrupt = new AbortController();
  const running = runDemo({
    keep: false,
    name: 'test-break',
    print: (line) => {
      if (line.includes('server')) interrupt.abort(new Error('Ctrl-C'));
    },
    signal: interrupt.signal,
  });
  await assert.rejects(running, /Ctrl-C/);
  assert.deepEqual(traces('test-break'), before);
});
