import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ApiError, EEXIST, explainError, isErrno, isNotFound, KernelError } from './errors.ts';

const CASES: readonly [string, unknown, string][] = [
  ['a plain error', new Error('no'), 'no'],
  ['what is no error', 'text', 'text'],
  ['the chain of causes', new Error('a', { cause: new Error('b', { cause: 'c' }) }), 'a: b: c'],
  ['a cause that says the same once', new Error('a', { cause: new Error('a') }), 'a'],
  [
    'a cause that the message ends with once',
    new Error('cannot: no', { cause: new Error('no') }),
    'cannot: no',
  ],
  ['an error without words by its name', new TypeError(), 'TypeError'],
  [
    'an aggregate without words by its members',
    new Error('x', {
      cause: new AggregateError([new Error('v6'), new Error('v4'), new Error('v4')]),
    }),
    'x: v6, v4',
  ],
  ['an aggregate with words by them', new AggregateError([new Error('v6')], 'both'), 'both'],
];
for (const [name, error, expected] of CASES)
  test(`explainError() tells ${name}`, () => assert.equal(explainError(error), expected));

test('explainError() ends a chain that bites its tail', () => {
  const error: { cause?: unknown } & Error = new Error('a');
  error.cause = error;
  assert.equal(explainError(error), 'a');
});

test('KernelError says what failed, why, and the kernel’s own words', () => {
  const error = new KernelError('create link "x"', EEXIST, { extack: 'name in use' });
  assert.equal(
    error.message,
    'Cannot create link "x": EEXIST (exists already) (kernel: name in use)',
  );
  assert.ok(isErrno(error, EEXIST));
  assert.ok(!isErrno(new Error('EEXIST'), EEXIST));
});

test('predicates go by status, not by words', () => {
  assert.ok(isNotFound(new ApiError(404, 'NotFound', '')));
  assert.ok(!isNotFound(new Error('404 not found')));
});
