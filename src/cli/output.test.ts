import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UserError } from '#lib/errors.ts';
import { answering, describeFailure } from './output.ts';

const cause = new Error('no such file');
const CASES: readonly [string, UserError, string][] = [
  ['a message alone', new UserError('Wrong'), 'tulle: Wrong'],
  [
    'the cause behind it',
    new UserError('Cannot read x', { cause }),
    'tulle: Cannot read x (no such file)',
  ],
  [
    'a cause that the message ends with once',
    new UserError('Cannot read x: no such file', { cause }),
    'tulle: Cannot read x: no such file',
  ],
  [
    'what to do on a line of its own',
    new UserError('Wrong', { hint: 'Mend it.' }),
    'tulle: Wrong\n  Mend it.',
  ],
];
for (const [name, error, text] of CASES)
  test(`describeFailure() tells ${name}`, () =>
    assert.deepEqual(describeFailure(error), { text, exitCode: 1 }));

test('a command whose status 1 is an answer fails with 2, in the same words', async () => {
  await answering(Promise.resolve());
  for (const error of [new UserError('Wrong', { hint: 'Mend it.' }), new Error('broken')]) {
    const failure = await answering(Promise.reject(error)).catch((reason: unknown) => reason);
    assert.deepEqual(describeFailure(failure), { ...describeFailure(error), exitCode: 2 });
  }
});
