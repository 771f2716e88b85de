import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { UserError } from '#lib/errors.ts';
import { parseMasqueradeConfig } from './config.ts';

test('parseMasqueradeConfig() reads the fields of ip-masq-agent, as YAML and as JSON', () => {
  const yaml =
    'nonMasqueradeCIDRs:\n- 10.0.0.0/8\n- fd00::/8\nmasqLinkLocal: true\nresyncInterval: 60s\n';
  assert.deepEqual(parseMasqueradeConfig(yaml, 'x').exempt, [
    '10.0.0.0/8',
    'fd00::/8',
    'fe80::/10',
  ]);
  const json = '{"nonMasqueradeCIDRs": ["192.0.2.0/24"], "masqLinkLocalIPv6": true}';
  assert.deepEqual(parseMasqueradeConfig(json, 'x').exempt, ['192.0.2.0/24', '169.254.0.0/16']);
});

test('parseMasqueradeConfig() takes an empty file for the defaults of ip-masq-agent', () => {
  assert.deepEqual(parseMasqueradeConfig('', 'x').exempt, ['169.254.0.0/16', 'fe80::/10']);
});

for (const [name, text, message] of [
  [
    'a prefix with host bits',
    'nonMasqueradeCIDRs: [10.1.2.3/8]',
    /"10\.1\.2\.3\/8" is no network prefix/,
  ],
  [
    'an unknown field',
    'nonMasqueradeCIDR: []',
    /unknown field "nonMasqueradeCIDR"; there are nonMasq/,
  ],
  ['a word for a switch', 'masqLinkLocal: maybe', /masqLinkLocal must be true or false/],
  ['no list', 'nonMasqueradeCIDRs: 10.0.0.0/8', /must be a list/],
  [
    'too many',
    `nonMasqueradeCIDRs: [${Array(65).fill('10.0.0.0/8').join(',')}]`,
    /65 entries, at most 64/,
  ],
  ['no YAML', '{a: [', /neither YAML nor JSON/],
  ['a list', '- a', /expected fields/],
] as const)
  test(`parseMasqueradeConfig() refuses ${name} and names the file`, () => {
    assert.throws(
      () => parseMasqueradeConfig(text, '/etc/config/ip-masq-agent'),
      (error: unknown) =>
        error instanceof UserError &&
        message.test(error.message) &&
        error.message.includes('/etc/config/ip-masq-agent'),
    );
  });

test('parseMasqueradeConfig() throws nothing but UserError for any text', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
      try {
        parseMasqueradeConfig(text, 'x');
      } catch (error) {
        assert.ok(error instanceof UserError);
      }
    }),
  );
});
