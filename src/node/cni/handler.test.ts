import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { EPERM, KernelError } from '#lib/errors.ts';
import { silentLogger } from '#lib/log.ts';
import { CNI_ERROR, CniError } from '#wire/cni/error.ts';
import type { CniResult } from '#wire/cni/result.ts';
import type { Attacher } from './attacher.ts';
import { createCniHandler } from './handler.ts';

const ENV = {
  CNI_CONTAINERID: 'c1',
  CNI_NETNS: '/run/netns/c1',
  CNI_IFNAME: 'eth0',
  CNI_PATH: '/opt/cni/bin',
};
const ips = ['192.0.2.1/32', '192.0.2.2/32'].map((address) => ({ address }));
const RESULT: CniResult = { interfaces: [], ips, routes: [], dns: {} };

function setup(more: Partial<Attacher> = {}) {
  const deleted: string[] = [];
  const handler = createCniHandler(
    {
      add: async () => RESULT,
      delete: async (request) => void deleted.push(request.containerId),
      check: async () => {},
      collect: async () => {},
      status: async () => {},
      ...more,
    },
    silentLogger,
  );
  const call = async (command: string, cniVersion: string, config: object = {}) => {
    const stdin = JSON.stringify({ cniVersion, name: 'n', type: 't', ...config });
    const { exitCode, stdout } = await handler({ env: { ...ENV, CNI_COMMAND: command }, stdin });
    return {
      exitCode,
      output: stdout === '' ? '' : (JSON.parse(stdout) as Record<string, unknown>),
    };
  };
  return { call, deleted };
}

describe('createCniHandler()', () => {
  test('answers in the version of the configuration', async () => {
    const { output } = await setup().call('ADD', '0.4.0');
    assert.ok(typeof output === 'object');
    assert.equal(output.cniVersion, '0.4.0');
    assert.deepEqual(
      output.ips,
      ips.map((ip) => ({ version: '4', ...ip })),
    );
  });

  test('prints nothing for commands without result', async () => {
    const { call } = setup();
    const prevResult = { cniVersion: '1.1.0' };
    for (const command of ['DEL', 'CHECK', 'STATUS', 'GC'])
      assert.deepEqual(await call(command, '1.1.0', { prevResult }), { exitCode: 0, output: '' });
  });

  test('detaches again if the old version cannot express the result', async () => {
    const { call, deleted } = setup();
    const { exitCode, output } = await call('ADD', '0.2.0');
    assert.equal(exitCode, 1);
    assert.ok(typeof output === 'object' && output.code === CNI_ERROR.incompatibleVersion);
    assert.deepEqual(deleted, ['c1']);
  });

  for (const [what, error, expected] of [
    [
      'its own code',
      new CniError(11, 'later', { details: 'why' }),
      { code: 11, msg: 'later', details: 'why' },
    ],
    [
      'code 5 for the kernel',
      new KernelError('create link', EPERM),
      { code: 5, msg: 'Cannot create link: EPERM (operation not permitted)' },
    ],
    ['code 999 for anything else', new Error('boom'), { code: 999, msg: 'boom' }],
  ] as const)
    test(`tells an error with ${what}`, async () => {
      const { call } = setup({
        add: async () => {
          throw error;
        },
      });
      const { exitCode, output } = await call('ADD', '1.0.0');
      assert.deepEqual([exitCode, output], [1, { cniVersion: '1.0.0', ...expected }]);
    });
});
