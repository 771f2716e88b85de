import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { LabelSelector } from '../meta.ts';
import {
  formatLabels,
  formatSelector,
  matchLabelSelector,
  matchLabels,
  parseLabelSelector,
  type Selector,
  selectorOf,
  validateLabelSelector,
} from './label-selector.ts';

function parsed(text: string): Selector {
  const result = parseLabelSelector(text);
  assert.ok(result.ok, `${text}: ${result.ok ? '' : result.message}`);
  return result.selector;
}

test('parseLabelSelector() understands every form', () => {
  const table: [string, string][] = [
    ['', '<none>'],
    ['  ', '<none>'],
    ['a=b', 'a=b'],
    ['a==b', 'a=b'],
    ['a = b', 'a=b'],
    ['a!=b', 'a!=b'],
    ['a=', 'a='],
    ['a=,b=c', 'a=,b=c'],
    ['a', 'a'],
    ['!a', '!a'],
    ['! a', '!a'],
    ['a in (b)', 'a=b'],
    ['a in (c,b)', 'a in (b,c)'],
    ['a in ( c , b )', 'a in (b,c)'],
    ['a notin (b,c)', 'a notin (b,c)'],
    ['a in (,b)', 'a in (,b)'],
    ['a>1', 'a>1'],
    ['a<1,b', 'a<1,b'],
    ['in in (notin)', 'in=notin'],
    ['x.io/a=b,c!=d,e in (x,y),!f,g', '!f,c!=d,e in (x,y),g,x.io/a=b'],
  ];
  for (const [text, shown] of table) {
    const result = formatSelector(parsed(text));
    assert.deepEqual(result.split(/,(?![^(]*\))/).sort(), shown.split(/,(?![^(]*\))/).sort(), text);
  }
});

test('parseLabelSelector() refuses what is no selector, and says why', () => {
  const table: [string, RegExp][] = [
    ['a=b,', /found '', expected: !, identifier/],
    [',a', /found ','/],
    ['a b', /found 'b', expected: in, notin, =, ==, !=/],
    ['a in', /expected: '\('/],
    ['a in (', /expected: ',' or '\)'/],
    ['a in ()', /values set can't be empty/],
    ['a in (b', /found '', expected: ',' or '\)'/],
    ['a=b=c', /found '='/],
    ['=b', /found '='/],
    ['!', /expected: identifier/],
    ['!a=b', /found '='/],
    ['a=!b', /found '!'/],
    ['a>b', /must be an integer/],
    ['a>', /must be an integer/],
    ['a/b/c=d', /qualified name/],
    ['-a=b', /name part must consist/],
    ['a=-b', /a valid label must be/],
    [`a=${'x'.repeat(64)}`, /no more than 63/],
  ];
  for (const [text, message] of table) {
    const result = parseLabelSelector(text);
    assert.ok(!result.ok, text);
    assert.match(result.message, message, text);
  }
});

test('matchLabels() holds every requirement against the labels', () => {
  const labels = { app: 'web', tier: '', version: '12' };
  const table: [string, boolean][] = [
    ['', true],
    ['app', true],
    ['app=web', true],
    ['app=db', false],
    ['app!=web', false],
    ['app!=db', true],
    ['none!=db', true],
    ['none', false],
    ['!none', true],
    ['!app', false],
    ['tier', true],
    ['tier=', true],
    ['none=', false],
    ['app in (db,web)', true],
    ['app in (db)', false],
    ['none in (db)', false],
    ['app notin (db)', true],
    ['none notin (db)', true],
    ['app notin (web)', false],
    ['version>11', true],
    ['version>12', false],
    ['version<13', true],
    ['version<12', false],
    ['app>1', false],
    ['none<1', false],
    ['app=web,version=12', true],
    ['app=web,version=13', false],
    ['constructor', false],
    ['!constructor', true],
  ];
  for (const [text, matches] of table)
    assert.equal(matchLabels(parsed(text), labels), matches, text);
});

test('matchLabelSelector() follows the object form', () => {
  const labels = { app: 'web' };
  const table: [LabelSelector | undefined, boolean][] = [
    [undefined, false],
    [{}, true],
    [{ matchLabels: { app: 'web' } }, true],
    [{ matchLabels: { app: 'db' } }, false],
    [{ matchExpressions: [{ key: 'app', operator: 'In', values: ['web', 'db'] }] }, true],
    [{ matchExpressions: [{ key: 'app', operator: 'NotIn', values: ['web'] }] }, false],
    [{ matchExpressions: [{ key: 'app', operator: 'Exists' }] }, true],
    [{ matchExpressions: [{ key: 'app', operator: 'DoesNotExist' }] }, false],
    [
      {
        matchLabels: { app: 'web' },
        matchExpressions: [{ key: 'tier', operator: 'DoesNotExist' }],
      },
      true,
    ],
  ];
  for (const [selector, matches] of table)
    assert.equal(matchLabelSelector(selector, labels), matches, JSON.stringify(selector));
});

test('validateLabelSelector() names the wrong part', () => {
  const fieldsOf = (selector: unknown) =>
    validateLabelSelector(selector as LabelSelector, 's').map(({ type, field }) => [type, field]);
  assert.deepEqual(fieldsOf(undefined), []);
  assert.deepEqual(fieldsOf({ matchLabels: { app: 'web' } }), []);
  assert.deepEqual(fieldsOf({ matchLabels: { 'a b': 'c' } }), [['Invalid', 's.matchLabels']]);
  const expression = (value: object) => ({ matchExpressions: [{ key: 'a', ...value }] });
  const at = 's.matchExpressions[0]';
  assert.deepEqual(fieldsOf(expression({ operator: 'In', values: ['b'] })), []);
  assert.deepEqual(fieldsOf(expression({ operator: 'In' })), [['Required', `${at}.values`]]);
  assert.deepEqual(fieldsOf(expression({ operator: 'Exists', values: ['b'] })), [
    ['Forbidden', `${at}.values`],
  ]);
  assert.deepEqual(fieldsOf(expression({ operator: 'Gt', values: ['b'] })), [
    ['NotSupported', `${at}.operator`],
  ]);
});

test('formatLabels() lists the labels in order', () => {
  assert.equal(formatLabels(undefined), '<none>');
  assert.equal(formatLabels({}), '<none>');
  assert.equal(formatLabels({ b: '2', a: '1' }), 'a=1,b=2');
});

test('parseLabelSelector() never throws', () => {
  const piece = fc.constantFrom(
    'a',
    'b',
    'in',
    'notin',
    '=',
    '==',
    '!=',
    '!',
    '(',
    ')',
    ',',
    '<',
    '>',
    ' ',
    '"',
    '\\',
    'é',
    'x.io/a',
  );
  const text = fc.oneof(
    fc.string(),
    fc.array(piece, { maxLength: 20 }).map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(text, (selector) => {
      const result = parseLabelSelector(selector);
      if (!result.ok) assert.match(result.message, /^unable to parse requirement: ./);
    }),
    { numRuns: 2000 },
  );
});

test('formatSelector() of a parsed selector parses to the same', () => {
  const key = fc.constantFrom('a', 'b', 'x.io/c', 'in', 'notin');
  const value = fc.constantFrom('', 'x', 'y', '1', 'in');
  const values = fc.uniqueArray(value, { minLength: 2, maxLength: 3 });
  const operator = fc.constantFrom(
    'In' as const,
    'NotIn' as const,
    'Exists' as const,
    'DoesNotExist' as const,
  );
  const requirement = fc
    .record({ key, operator, values })
    .map((r) => (r.operator === 'In' || r.operator === 'NotIn' ? r : { ...r, values: [] }));
  const sorted = (selector: Selector) =>
    JSON.stringify(
      selector
        .map((r) => ({ ...r, values: [...r.values].sort() }))
        .sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1)),
    );
  fc.assert(
    fc.property(fc.array(requirement, { minLength: 1, maxLength: 5 }), (selector) => {
      assert.equal(sorted(parsed(formatSelector(selector))), sorted(selector));
    }),
  );
});

test('selectorOf() keeps an operator it does not know, and it chooses nothing', () => {
  const object = { matchExpressions: [{ key: 'app', operator: 'Near' }] } as unknown;
  assert.equal(matchLabels(selectorOf(object as LabelSelector), { app: 'web' }), false);
});
