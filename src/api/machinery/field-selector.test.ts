import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { POD, type Pod } from '../core/v1/pod.ts';
import {
  checkFieldSelector,
  formatFieldSelector,
  matchFields,
  parseFieldSelector,
  requiredValue,
} from './field-selector.ts';

const pod: Pod = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'a', namespace: 'default' },
  spec: { containers: [], nodeName: 'm1' },
  status: { phase: 'Running' },
};

function parsed(text: string) {
  const result = parseFieldSelector(text);
  assert.ok(result.ok, text);
  return result.selector;
}

test('matchFields() compares the fields', () => {
  const table: [string, boolean][] = [
    ['', true],
    ['metadata.name=a', true],
    ['metadata.name==a', true],
    ['metadata.name!=a', false],
    ['metadata.name=a,spec.nodeName=m1', true],
    ['metadata.name=a,spec.nodeName=m2', false],
    ['spec.nodeName!=m2', true],
    ['status.phase!=Succeeded,status.phase!=Failed', true],
    ['spec.hostNetwork=false', true],
    ['status.podIP=', true],
    ['metadata.name=a,', true],
  ];
  for (const [text, matches] of table)
    assert.equal(matchFields(parsed(text), pod, POD), matches, text);
});

test('parseFieldSelector() takes escapes and refuses the rest', () => {
  assert.deepEqual(parsed('a=b\\,c\\=d\\\\e'), [{ field: 'a', operator: '=', value: 'b,c=d\\e' }]);
  for (const text of ['a', 'a=b=c', 'a!b', 'a=b\\x', 'a=b\\'])
    assert.equal(parseFieldSelector(text).ok, false, text);
});

test('checkFieldSelector() says which fields the kind offers', () => {
  assert.equal(checkFieldSelector(parsed('metadata.name=a,status.phase=Running'), POD), undefined);
  assert.match(
    checkFieldSelector(parsed('spec.color=red'), POD) ?? '',
    /field label not supported: spec\.color; pods can be selected by metadata\.name, .*spec\.nodeName/,
  );
  assert.ok(checkFieldSelector(parsed('constructor=a'), POD));
});

test('requiredValue() finds what a field must be', () => {
  assert.equal(requiredValue(parsed('metadata.name=a,x=y'), 'metadata.name'), 'a');
  assert.equal(requiredValue(parsed('metadata.name!=a'), 'metadata.name'), undefined);
});

test('formatFieldSelector() is what parseFieldSelector() reads', () => {
  const value = fc.string().filter((text) => !text.includes('\0'));
  fc.assert(
    fc.property(fc.array(value, { minLength: 1, maxLength: 3 }), (values) => {
      const selector = values.map((text, i) => ({
        field: `f${i}`,
        operator: '=' as const,
        value: text,
      }));
      assert.deepEqual(parsed(formatFieldSelector(selector)), selector);
    }),
  );
});

test('parseFieldSelector() never throws', () => {
  const piece = fc.constantFrom('a', '=', '!=', '==', '!', ',', '\\', 'é', ' ', '\n');
  fc.assert(
    fc.property(
      fc.array(piece).map((parts) => parts.join('')),
      (text) => {
        assert.equal(typeof parseFieldSelector(text).ok, 'boolean');
      },
    ),
  );
});
