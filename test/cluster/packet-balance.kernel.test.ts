import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ScratchNetns } from '#linux/testing/scratch-netns.ts';
import { runOk } from '#proc/run.ts';
import { type PodNetwork, startBalance } from './packet-balance.ts';

const SERVER = '192.0.2.2';
const PORT = '5390';

function networkOf({ name }: ScratchNetns): PodNetwork {
  return { machine: { runOk }, enter: ['ip', 'netns', 'exec', name] };
}

function startTraffic({ name }: ScratchNetns, ...args: readonly string[]): ChildProcess {
  const program = [process.execPath, join(import.meta.dirname, 'traffic.ts'), ...args];
  return spawn('ip', ['netns', 'exec', name, ...program], { stdio: 'ignore' });
}

for (const [what, rule, isLost] of [
  ['nothing that is late', undefined, false],
  ['packets that are dropped on their way', 'numgen random mod 20 == 0 drop', true],
] as const)
  test(`startBalance() misses ${what}`, async () => {
    using client = new ScratchNetns();
    using server = new ScratchNetns();
    client.run(
      'ip',
      'link',
      'add',
      'near',
      'type',
      'veth',
      'peer',
      'name',
      'far',
      'netns',
      server.name,
    );
    client.run('ip', 'addr', 'add', '192.0.2.1/24', 'dev', 'near');
    server.run('ip', 'addr', 'add', `${SERVER}/24`, 'dev', 'far');
    client.run('ip', 'link', 'set', 'near', 'up');
    server.run('ip', 'link', 'set', 'far', 'up');
    if (rule !== undefined)
      server.run(
        'nft',
        `table ip t { chain c { type filter hook prerouting priority -300; ${rule}; }; }`,
      );
    const echo = startTraffic(server, 'server', PORT);
    await sleep(300);
    const end = await startBalance(networkOf(client), networkOf(server), 2_000);
    const stream = startTraffic(client, 'client', SERVER, PORT);
    await sleep(700);
    // A process that does not run answers nothing, so that segments are sent again; the kernel takes them all.
    if (!isLost) {
      echo.kill('SIGSTOP');
      await sleep(500);
      echo.kill('SIGCONT');
    }
    stream.kill('SIGTERM');
    await once(stream, 'exit');
    const done = end();
    if (isLost) await assert.rejects(done, /packets have not/);
    else await done;
    echo.kill('SIGTERM');
    await once(echo, 'exit');
  });
