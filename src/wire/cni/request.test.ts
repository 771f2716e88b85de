import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { CniError } from './error.ts';
import { parseCniArgs, parseCniRequest } from './request.ts';

const ENV = {
  CNI_CONTAINERID: 'c1',
  CNI_NETNS: '/run/netns/c1',
  CNI_IFNAME: 'eth0',
  CNI_PATH: '/opt/cni/bin',
};
const config = (more: object = {}) =>
  JSON.stringify({ cniVersion: '1.1.0', name: 'tulle', type: 'tulle', ...more });
const PREV = { prevResult: { cniVersion: '1.1.0' } };

function failure(env: Record<string, string | undefined>, stdin: string): CniError {
  try {
    parseCniRequest(env, stdin);
  } catch (error) {
    assert.ok(error instanceof CniError, String(error));
    return error;
  }
  throw new assert.AssertionError({ message: 'the request was accepted' });
}

describe('parseCniRequest()', () => {
  const required: Record<string, string[]> = {
    ADD: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_PATH'],
    CHECK: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_PATH'],
    DEL: ['CNI_CONTAINERID', 'CNI_IFNAME', 'CNI_PATH'],
    STATUS: ['CNI_PATH'],
    GC: ['CNI_PATH'],
    VERSION: [],
  };
  for (const [command, names] of Object.entries(required))
    for (const name of Object.keys(ENV)) {
      const env = { ...ENV, CNI_COMMAND: command, [name]: undefined };
      if (names.includes(name))
        test(`${command} without ${name} is refused with code 4`, () => {
          const error = failure(env, config(PREV));
          assert.equal(error.cniCode, 4);
          assert.equal(error.message, `required env variables [${name}] missing`);
        });
      else
        test(`${command} does not need ${name}`, () => {
          assert.equal(parseCniRequest(env, config(PREV)).command, command);
        });
    }

  const cases: [string, Record<string, string>, string, number, RegExp][] = [
    ['an unknown command', { CNI_COMMAND: 'SING' }, config(), 4, /unknown CNI_COMMAND: SING/],
    ['no command', {}, config(), 4, /unknown CNI_COMMAND/],
    ['input that is not JSON', { CNI_COMMAND: 'ADD' }, '{', 6, /failed to decode/],
    ['input that is a list', { CNI_COMMAND: 'ADD' }, '[]', 6, /failed to decode/],
    ['a missing name', { CNI_COMMAND: 'ADD' }, '{"cniVersion":"1.0.0"}', 7, /missing network name/],
    ['a bad name', { CNI_COMMAND: 'ADD' }, config({ name: '-x' }), 7, /invalid characters/],
    [
      'an unknown version',
      { CNI_COMMAND: 'ADD' },
      config({ cniVersion: '9.9.9' }),
      1,
      /incompatible/,
    ],
    [
      'CHECK before 0.4.0',
      { CNI_COMMAND: 'CHECK' },
      config({ cniVersion: '0.3.1' }),
      1,
      /does not allow CHECK/,
    ],
    [
      'STATUS before 1.1.0',
      { CNI_COMMAND: 'STATUS' },
      config({ cniVersion: '1.0.0' }),
      1,
      /does not allow STATUS/,
    ],
    [
      'GC before 1.1.0',
      { CNI_COMMAND: 'GC' },
      config({ cniVersion: '1.0.0' }),
      1,
      /does not allow GC/,
    ],
    ['CHECK without prevResult', { CNI_COMMAND: 'CHECK' }, config(), 7, /prevResult/],
    [
      'a bad container id',
      { CNI_COMMAND: 'ADD', CNI_CONTAINERID: '../x' },
      config(),
      4,
      /containerID/,
    ],
    [
      'an interface with a slash',
      { CNI_COMMAND: 'ADD', CNI_IFNAME: 'a/b' },
      config(),
      4,
      /interface name/,
    ],
    [
      'an interface with a colon',
      { CNI_COMMAND: 'ADD', CNI_IFNAME: 'a:b' },
      config(),
      4,
      /interface name/,
    ],
    [
      'an interface with a blank',
      { CNI_COMMAND: 'ADD', CNI_IFNAME: 'a b' },
      config(),
      4,
      /interface name/,
    ],
    ['the interface ..', { CNI_COMMAND: 'DEL', CNI_IFNAME: '..' }, config(), 4, /interface name/],
    ['a long interface', { CNI_COMMAND: 'ADD', CNI_IFNAME: 'a'.repeat(16) }, config(), 4, /longer/],
    ['malformed CNI_ARGS', { CNI_COMMAND: 'ADD', CNI_ARGS: 'novalue' }, config(), 4, /CNI_ARGS/],
    [
      'ips that are no list',
      { CNI_COMMAND: 'ADD' },
      config({ runtimeConfig: { ips: 1 } }),
      6,
      /"runtimeConfig.ips"/,
    ],
    [
      'attachments of a wrong shape',
      { CNI_COMMAND: 'GC' },
      config({ 'cni.dev/valid-attachments': [{}] }),
      6,
      /valid-attachments/,
    ],
  ];
  for (const [what, env, stdin, code, message] of cases)
    test(`refuses ${what} with code ${code}`, () => {
      const error = failure({ ...ENV, ...env }, stdin);
      assert.equal(error.cniCode, code);
      assert.match(error.message, message);
    });

  test('an unknown version says which are known', () => {
    const error = failure({ ...ENV, CNI_COMMAND: 'ADD' }, config({ cniVersion: '9.9.9' }));
    assert.match(error.details ?? '', /"9\.9\.9".*"0\.1\.0".*"1\.1\.0"/);
  });

  test('a configuration without version is of 0.1.0', () => {
    const request = parseCniRequest({ ...ENV, CNI_COMMAND: 'ADD' }, '{"name":"n","type":"t"}');
    assert.equal(request.command === 'ADD' && request.config.cniVersion, '0.1.0');
  });

  test('reads arguments, capabilities and valid attachments', () => {
    const stdin = config({
      runtimeConfig: { ips: ['192.0.2.7'], mac: '02:00:00:00:00:07' },
      args: { cni: { ips: ['192.0.2.8/24'] } },
      'cni.dev/valid-attachments': [{ containerID: 'c1', ifname: 'eth0' }],
    });
    const request = parseCniRequest(
      { ...ENV, CNI_COMMAND: 'ADD', CNI_ARGS: 'K8S_POD_NAME=web;IP=192.0.2.9;;' },
      stdin,
    );
    assert.ok(request.command === 'ADD');
    assert.deepEqual(
      [...request.args],
      [
        ['K8S_POD_NAME', 'web'],
        ['IP', '192.0.2.9'],
      ],
    );
    assert.deepEqual(request.config.runtime.ips, ['192.0.2.7']);
    assert.equal(request.config.runtime.mac, '02:00:00:00:00:07');
    assert.deepEqual(request.config.argIps, ['192.0.2.8/24']);
    assert.deepEqual(request.config.validAttachments, [{ containerID: 'c1', ifname: 'eth0' }]);
  });

  test('throws nothing but CniError for any input', () => {
    const env = fc.record({
      CNI_COMMAND: fc.constantFrom('ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION', 'x'),
      CNI_CONTAINERID: fc.string(),
      CNI_NETNS: fc.string(),
      CNI_IFNAME: fc.string(),
      CNI_PATH: fc.string({ minLength: 1 }),
      CNI_ARGS: fc.string(),
    });
    const keys = [
      'cniVersion',
      'name',
      'runtimeConfig',
      'args',
      'prevResult',
      'cni.dev/valid-attachments',
    ];
    const json = fc
      .dictionary(fc.constantFrom(...keys), fc.jsonValue())
      .map((it) => JSON.stringify(it));
    fc.assert(
      fc.property(env, fc.oneof(json, fc.string()), (variables, stdin) => {
        try {
          parseCniRequest({ ...ENV, ...variables }, stdin);
        } catch (error) {
          assert.ok(error instanceof CniError, String(error));
        }
      }),
    );
  });
});

test('parseCniArgs() keeps the last value of a repeated key and values with =', () => {
  assert.deepEqual(
    [...parseCniArgs('a=1;b=x=y;a=2')],
    [
      ['a', '2'],
      ['b', 'x=y'],
    ],
  );
});
