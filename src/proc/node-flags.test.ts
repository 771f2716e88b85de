import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { DAEMON_NODE_FLAGS } from './node-flags.ts';

test('the script ./tulle starts server and agent with the same options', () => {
  const script = readFileSync(new URL('../../tulle', import.meta.url), 'utf8');
  assert.ok(script.includes(`server | agent) flags="${DAEMON_NODE_FLAGS.join(' ')}" ;;`));
});
