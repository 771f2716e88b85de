import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { UserError } from '#lib/errors.ts';
import { parseManifest } from './manifest.ts';

const file = 'app.yaml';
const TWO_SERVICES = `apiVersion: v1
kind: Service
metadata:
  name: my-service-a
spec:
  selector:
    app: my-app-a
  ports:
  - protocol: TCP
    port: 80
    targetPort: 8080
---
# the second one
apiVersion: v1
kind: Service
metadata:
  name: my-service-b
  annotations:
    my.key: x
`;

test('parseManifest() reads every document, with the line it begins at', () => {
  const objects = parseManifest(TWO_SERVICES, { file });
  assert.deepEqual(
    objects.map(({ object, line }) => [object.kind, object.metadata.name, line]),
    [
      ['Service', 'my-service-a', 1],
      ['Service', 'my-service-b', 14],
    ],
  );
});

test('parseManifest() knows the line of a field, or of the nearest one around it', () => {
  const [first, second] = parseManifest(TWO_SERVICES, { file });
  const table: [string, number][] = [
    ['metadata.name', 4],
    ['spec', 5],
    ['spec.selector', 6],
    ['spec.ports[0].port', 10],
    ['spec.ports[0].nodePort', 9],
    ['spec.ports[7].port', 8],
    ['spec.type', 5],
    ['', 1],
  ];
  for (const [field, line] of table) assert.equal(first?.lineOf(field), line, field);
  assert.equal(second?.lineOf('metadata.name'), 17);
  assert.equal(second?.lineOf('metadata.annotations[my.key]'), 19);
});

test('parseManifest() unwraps a List', () => {
  const text = `apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata: {name: a}
- apiVersion: v1
  kind: Namespace
  metadata:
    name: b
`;
  const objects = parseManifest(text, { file });
  assert.deepEqual(
    objects.map(({ object, line, lineOf }) => [
      object.metadata.name,
      line,
      lineOf('metadata.name'),
    ]),
    [
      ['a', 4, 6],
      ['b', 7, 10],
    ],
  );
});

test('parseManifest() reads JSON, with tabs too', () => {
  const text = '{\n\t"apiVersion": "v1",\n\t"kind": "Namespace",\n\t"metadata": {"name": "a"}\n}';
  const [object] = parseManifest(text, { file: 'a.json' });
  assert.equal(object?.object.metadata.name, 'a');
  assert.equal(object?.lineOf('metadata.name'), 4);
});

test('parseManifest() finds nothing in nothing', () => {
  for (const text of ['', '\n', '---\n', '---\n---\n', '# only a comment\n', 'null\n', '~'])
    assert.deepEqual(parseManifest(text, { file }), [], JSON.stringify(text));
});

test('parseManifest() takes generateName, merge keys and anchors', () => {
  const text = `apiVersion: v1
kind: ConfigMap
metadata: {generateName: web-}
data: &d {a: b}
binaryData:
  <<: *d
`;
  assert.deepEqual(parseManifest(text, { file })[0]?.object, {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { generateName: 'web-' },
    data: { a: 'b' },
    binaryData: { a: 'b' },
  });
});

const HEAD = 'apiVersion: v1\nkind: A\nmetadata: {name: x}\n';

test('parseManifest() says where a mistake is, and what to do', () => {
  const table: [string, RegExp][] = [
    ['a: 1\nb: 2\na: 3\n', /app\.yaml:3:1: Map keys must be unique/],
    ['{"a": 1,\n"a": 2}', /app\.yaml:2:1: Map keys must be unique/],
    ['metadata:\n\tname: x\n', /app\.yaml:2:1: Tabs are not allowed as indentation/],
    ['a: [1,\nb: 2', /app\.yaml:2/],
    ['a: b: c\n', /app\.yaml:1:4: Nested mappings/],
    ['a: "unterminated\n', /app\.yaml:\d/],
    ['a: *nope\n', /app\.yaml:1: Unresolved alias/],
    ['a: !secret x\n', /app\.yaml:1:4: Unresolved tag: !secret/],
    [`${HEAD}b: !!binary aGVsbG8=\n`, /app\.yaml:4: the tag .*binary/],
    ['!!set {a, b}\n', /app\.yaml:1: the tag .*set/],
    [`${HEAD}b: .inf\n`, /app\.yaml:4: \.inf is not a number/],
    [`${HEAD}? [a]\n: b\n`, /app\.yaml:4: the key of a field is not a text/],
    ['hello\n', /app\.yaml:1: found "hello", not an API object/],
    ['- a\n- b\n', /app\.yaml:1: found a list/],
    ['kind: A\n', /app\.yaml:1: apiVersion is not set/],
    ['apiVersion: 1\nkind: A\n', /app\.yaml:1: apiVersion is 1/],
    ['apiVersion: v1\n', /app\.yaml:1: kind is not set/],
    ['apiVersion: v1\nkind: A\n', /app\.yaml:1: metadata\.name is not set/],
    ['apiVersion: v1\nkind: A\nmetadata: {name: 5}\n', /app\.yaml:1: metadata\.name is 5/],
    [`${TWO_SERVICES}---\nkind: A\n`, /app\.yaml:21: apiVersion is not set/],
    ['apiVersion: v1\nkind: List\nitems:\n- 5\n', /app\.yaml:4: found 5/],
  ];
  for (const [text, message] of table)
    assert.throws(
      () => parseManifest(text, { file }),
      (error) => {
        assert.ok(error instanceof UserError, String(error));
        assert.match(error.message, message);
        assert.match(error.message, /^Cannot (read|use) app\.yaml:\d/);
        assert.ok(error.hint, 'says what to do');
        return true;
      },
      JSON.stringify(text),
    );
});

test('parseManifest() withstands bombs', () => {
  const laughs = ['a: &a [x,x,x,x,x,x,x,x,x]'];
  for (let i = 0; i < 9; i++) {
    const [from, to] = ['abcdefghij'[i], 'abcdefghij'[i + 1]];
    laughs.push(`${to}: &${to} [${Array(9).fill(`*${from}`).join(',')}]`);
  }
  const indented = Array.from({ length: 2000 }, (_, i) => `${' '.repeat(i)}a:`).join('\n');
  const bombs: [string, RegExp][] = [
    [laughs.join('\n'), /Excessive alias count/],
    ['a: &a [*a]\n', /nested deeper than 200/],
    ['['.repeat(50_000), /nested too deep/],
    ['{a: '.repeat(50_000), /nested too deep/],
    ['- '.repeat(50_000), /nested too deep/],
    [indented, /nested (too deep|deeper)/],
  ];
  for (const [text, message] of bombs)
    assert.throws(
      () => parseManifest(text, { file }),
      (error) => error instanceof UserError && message.test(error.message),
      text.slice(0, 40),
    );
});

test('parseManifest() throws nothing but UserError', () => {
  const line = fc.constantFrom(
    'apiVersion: v1',
    'kind: A',
    'metadata:',
    '  name: x',
    '  - a',
    '- b',
    '---',
    '...',
    '\t',
    '{',
    '}',
    '[',
    ']',
    '&a',
    '*a',
    '<<: *a',
    '? x',
    ': y',
    '|',
    '>-',
    '"',
    "'",
    '# c',
    '%YAML 1.1',
    '!!set',
    '!!omap',
    '!!timestamp 2001-01-01',
    '\u0000',
    '\ufeff',
    ': :',
    'a: b',
    '__proto__: 1',
  );
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.array(line, { maxLength: 12 }).map((lines) => lines.join('\n')),
  );
  fc.assert(
    fc.property(text, (input) => {
      try {
        for (const { object } of parseManifest(input, { file }))
          assert.equal(typeof object.kind, 'string');
      } catch (error) {
        assert.ok(error instanceof UserError, `${JSON.stringify(input)}: ${error}`);
      }
    }),
    { numRuns: 3000 },
  );
});
