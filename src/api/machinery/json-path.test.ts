import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { findByPath, formatFound, parseJsonPath } from './json-path.ts';

const OBJECT = {
  metadata: { annotations: { 'a.b/c': 'x' } },
  spec: { hosts: ['a', 'b'], n: 3, on: false },
  status: {
    conditions: [
      { type: 'Ready', status: 'True', n: 1 },
      { type: 'Old', status: 'False', n: 5 },
    ],
  },
};

test('findByPath() finds what paths lead to', () => {
  const table: [string, string][] = [
    ['.spec.n', '3'],
    ['.spec.on', 'false'],
    ['{.spec.n}', '3'],
    ['$.spec.n', '3'],
    ['.spec.hosts', '["a","b"]'],
    ['.spec.hosts[0]', 'a'],
    ['.spec.hosts[-1]', 'b'],
    ['.spec.hosts[9]', ''],
    ['.spec.hosts[*]', 'a b'],
    ['.spec.missing.more', ''],
    ['.metadata.annotations.a\\.b/c', 'x'],
    [`.metadata.annotations['a.b/c']`, 'x'],
    ['.status.conditions[?(@.type=="Ready")].status', 'True'],
    [`.status.conditions[?(@.type=='Ready')].status`, 'True'],
    ['.status.conditions[?(@.type == "None")].status', ''],
    ['.status.conditions[?(@.type!="Ready")].status', 'False'],
    ['.status.conditions[?(@.n>1)].type', 'Old'],
    ['.status.conditions[?(@.n<=1)].type', 'Ready'],
    ['.status.conditions[?(@.n)].type', 'Ready Old'],
    ['.status.conditions[*].type', 'Ready Old'],
    ['.constructor', ''],
    ['', JSON.stringify(OBJECT)],
  ];
  for (const [text, expected] of table) {
    const path = parseJsonPath(text);
    assert.ok(typeof path !== 'string', `${text}: ${String(path)}`);
    assert.equal(formatFound(findByPath(path, OBJECT)), expected, text);
  }
});

test('parseJsonPath() says what it cannot read', () => {
  for (const text of ['spec', '.a[', '.a[?(x)]', '.a[b]', '.a b', '.a..'])
    assert.equal(typeof parseJsonPath(text), 'string', text);
  fc.assert(
    fc.property(
      fc.string({
        unit: fc.constantFrom(
          '.',
          '[',
          ']',
          'a',
          '*',
          '?',
          '(',
          '@',
          '=',
          '"',
          "'",
          '\\',
          ')',
          '1',
        ),
      }),
      (text) => {
        const path = parseJsonPath(text);
        if (typeof path !== 'string') findByPath(path, OBJECT);
      },
    ),
  );
});
