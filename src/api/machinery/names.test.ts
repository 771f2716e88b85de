import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  checkConfigMapKey,
  checkDns1035Label,
  checkDns1123Label,
  checkDns1123Subdomain,
  checkIanaServiceName,
  checkLabelValue,
  checkPortNumber,
  checkQualifiedName,
} from './names.ts';

const x = (length: number) => 'x'.repeat(length);

const TABLE: {
  check: (text: string) => string | undefined;
  good: string[];
  bad: string[];
}[] = [
  {
    check: checkDns1123Label,
    good: ['a', 'ab', 'a1', 'a-1', 'a--1', '0', '01', '1a', '1-a', x(63)],
    bad: ['', 'A', 'a.b', '-a', 'a-', ' a', 'a ', 'a_b', 'ä', 'a\n', x(64)],
  },
  {
    check: checkDns1123Subdomain,
    good: ['a', '0', 'a.b', 'a.b.c-d.0', 'example.com', `${x(63)}.${x(100)}`, x(253)],
    bad: ['', 'A.b', 'a.', '.a', 'a..b', 'a.-b', 'a-.b', 'a_b', 'a b', x(254)],
  },
  {
    check: checkDns1035Label,
    good: ['a', 'a1', 'a-1', 'my-service-a', x(63)],
    bad: ['', '0', '1a', 'A', 'a.b', '-a', 'a-', x(64)],
  },
  {
    check: checkQualifiedName,
    good: [
      'a',
      'A',
      '1',
      'a.b_c-d',
      'app.kubernetes.io/name',
      'example.com/MyName',
      `${x(253)}/${x(63)}`,
    ],
    bad: ['', '/a', 'a/', 'a/b/c', 'A.com/a', '-a', 'a-', '.a', 'a b', 'a=b', x(64), `${x(254)}/a`],
  },
  {
    check: checkLabelValue,
    good: ['', 'a', 'A', '1.2.3', 'a_b-c.d', x(63)],
    bad: ['-a', 'a-', '.', 'a b', 'a/b', 'a=b', 'ü', x(64)],
  },
  {
    check: checkIanaServiceName,
    good: ['http', 'a', '8080-tcp', 'x11', 'my-port-1', x(15)],
    bad: ['', '80', 'a--b', '-a', 'a-', 'HTTP', 'a_b', x(16)],
  },
  {
    check: checkConfigMapKey,
    good: ['a', 'a.conf', '.hidden', 'A_b-c', 'a..b'],
    bad: ['', '.', '..', '..a', 'a/b', 'a b', x(254)],
  },
];

for (const { check, good, bad } of TABLE) {
  test(`${check.name}() takes what is allowed`, () => {
    for (const text of good) assert.equal(check(text), undefined, JSON.stringify(text));
  });
  test(`${check.name}() says what is wrong with the rest`, () => {
    for (const text of bad) assert.match(check(text) ?? '', /./, JSON.stringify(text));
  });
}

test('checkPortNumber() takes 1 to 65535', () => {
  for (const port of [1, 80, 65535]) assert.equal(checkPortNumber(port), undefined);
  for (const port of [0, -1, 65536, 1.5, Number.NaN, '80', undefined])
    assert.equal(checkPortNumber(port), 'must be between 1 and 65535, inclusive');
});
