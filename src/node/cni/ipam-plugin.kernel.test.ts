/** What an address plugin is asked, beside ADD and DEL, by the plugin that delegates to it (CNI specification, section 4). */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { Machine } from '../pod-machine.ts';
import { createCniHandler } from './handler.ts';

/** Notes each call, and refuses where there is a file with the command's name. */
const PLUGIN = `#!/bin/sh
cd "$(dirname "$0")"
cat >input.$CNI_COMMAND
echo "$CNI_COMMAND \${CNI_IFNAME-}" >>calls
if [ -e no.$CNI_COMMAND ]; then echo '{"code":150,"msg":"no '$CNI_COMMAND'"}'; exit 1; fi
[ $CNI_COMMAND = ADD ] || exit 0
echo '{"cniVersion":"1.1.0","ips":[{"address":"10.88.0.2/16"}]}'
`;

test('CHECK, STATUS and GC are handed on to the address plugin, and what it says to the runtime', async () => {
  await using machine = new Machine();
  mkdirSync(machine.scratch);
  const file = (name: string) => join(machine.scratch, name);
  writeFileSync(file('addresses'), PLUGIN, { mode: 0o755 });
  const pod = machine.addNamespace('a');
  const handle = createCniHandler(machine.attacher, silentLogger);
  const call = async (command: string, more: object = {}) => {
    const config = { mode: 'bridge', isGateway: true, ipam: { type: 'addresses' } };
    const stdin = { cniVersion: '1.1.0', name: 'net', type: 'tulle', ...config, ...more };
    const target = {
      CNI_CONTAINERID: pod,
      CNI_NETNS: machine.path(pod),
      CNI_IFNAME: 'eth0',
    };
    const isOfNetwork = command === 'STATUS' || command === 'GC';
    const { stdout } = await handle({
      env: { CNI_COMMAND: command, CNI_PATH: machine.scratch, ...(isOfNetwork ? {} : target) },
      stdin: JSON.stringify(stdin),
    });
    return stdout === '' ? undefined : (JSON.parse(stdout) as Record<string, unknown>);
  };
  const prevResult = await call('ADD');
  const valid = { 'cni.dev/valid-attachments': [{ containerID: pod, ifname: 'eth0' }] };
  for (const [command, more] of [
    ['CHECK', { prevResult }],
    ['STATUS', {}],
    ['GC', valid],
  ] as const) {
    assert.equal(await call(command, more), undefined, command);
    const input = JSON.parse(readFileSync(file(`input.${command}`), 'utf8')) as object;
    assert.partialDeepStrictEqual(input, { name: 'net', ...more });
    writeFileSync(file(`no.${command}`), '');
    assert.partialDeepStrictEqual(await call(command, more), { code: 150, msg: `no ${command}` });
  }
  assert.equal(await call('DEL'), undefined);
  // Which is answered before the address is back.
  const calls = () => readFileSync(file('calls'), 'utf8');
  await until(() => calls().endsWith('DEL eth0\n'));
  assert.deepEqual(calls().trim().split('\n'), [
    ...['ADD eth0', 'CHECK eth0', 'CHECK eth0', 'STATUS ', 'STATUS ', 'GC ', 'GC ', 'DEL eth0'],
  ]);
});
