import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UserError } from '#lib/errors.ts';
import { formatBearer, formatJoinToken, parseBearer, parseJoinToken } from './join-token.ts';

const text = `8f3k2a.q0w9e8r7t6y5u4i3@sha256:${'0f'.repeat(32)}`;

test('parseJoinToken() reads what formatJoinToken() writes', () => {
  const token = parseJoinToken(` ${text}\n`);
  assert.deepEqual(token, {
    id: '8f3k2a',
    secret: 'q0w9e8r7t6y5u4i3',
    caFingerprint: `sha256:${'0f'.repeat(32)}`,
  });
  assert.equal(formatJoinToken(token), text);
  assert.deepEqual(parseBearer(formatBearer(token)), { id: token.id, secret: token.secret });
});

test('parseJoinToken() refuses other forms, and does not repeat them', () => {
  for (const bad of [
    '',
    '8f3k2a.q0w9e8r7t6y5u4i3',
    text.slice(0, -1),
    text.toUpperCase(),
    `x${text}`,
    text.replace('sha256', 'sha1'),
  ])
    assert.throws(
      () => parseJoinToken(bad),
      (error) => {
        assert.ok(error instanceof UserError && error.hint !== undefined);
        assert.ok(!error.message.includes('q0w9'));
        return true;
      },
    );
});
