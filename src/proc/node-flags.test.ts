import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { SERVER_NODE_FLAGS } from './node-flags.ts';

test('the script ./tulle starts the server with the same options', () => {
  const script = readFileSync(new URL('../../tulle', import.meta.url), 'utf8');
  assert.ok(script.includes(`flags="${SERVER_NODE_FLAGS.join(' ')}"`));
});
