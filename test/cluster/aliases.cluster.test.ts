/** Podman's network aliases as names: on the container's own machine, on another one, and until it is gone. */
import { after, before, test } from 'node:test';
import { type LabCluster, until } from '#lab/cluster.ts';
import { execInContainer, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import { startCluster } from './start-cluster.ts';

const WAIT_MS = 20_000;
const NAME = 'test-aliases';

let lab: Lab;
let cluster: LabCluster;
before(async () => {
  ({ lab, cluster } = await startCluster({ name: NAME, machines: 2 }));
});
after(() => Lab.remove(NAME));

test('containers find another by each of its aliases, on every machine, and not when it is gone', async () => {
  const [m1, m2] = [lab.machine('m1'), lab.machine('m2')];
  await runContainer(m1, { name: 'pg-1', role: 'server', aliases: ['db', 'Store_1'] });
  for (const machine of [m1, m2])
    await runContainer(machine, { name: `client-${machine.name}`, role: 'client' });
  const ask = async (machine: typeof m1, name: string) =>
    (
      await execInContainer(
        machine,
        `client-${machine.name}`,
        `timeout 3 wget -q -O - http://${name}:8080`,
      )
    ).stdout;
  for (const machine of [m1, m2])
    for (const name of ['db', 'store_1', 'db.default.svc.cluster.local'])
      await until(`${machine.name} finds ${name}`, WAIT_MS, async () =>
        (await ask(machine, name)).startsWith('pg-1'),
      );
  await cluster.killAgent(m2);
  await cluster.startAgent(m2);
  await cluster.nodesReady();
  // The Node says Ready of the agent before.
  await until('a new agent knows it too', WAIT_MS, async () =>
    (await ask(m2, 'db')).startsWith('pg-1'),
  );
  await m1.runOk(['podman', 'rm', '-f', '-t', '0', 'pg-1'], { timeoutMs: WAIT_MS });
  for (const machine of [m1, m2])
    await until(`${machine.name} finds it no more`, WAIT_MS, async () => {
      const { exitCode } = await execInContainer(
        machine,
        `client-${machine.name}`,
        'nslookup db.default.svc.cluster.local',
      );
      return exitCode !== 0;
    });
});
