/**
 * The first load of a node is many transactions, and the agent may die between any two of them: packets then see nothing
 * of it, or all. TULLE_TEST_SERVICES is how many services there are.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, test } from 'node:test';
import { FakeNftables } from '#linux/nftables/fake.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { ScratchNetns } from '#linux/testing/scratch-netns.ts';
import { inTable } from '#wire/nftables/objects.ts';
import { startBalancer } from './testing/balancer-process.ts';
import { sameState } from './testing/kernel-state.ts';

const SERVICES = Number(process.env.TULLE_TEST_SERVICES ?? 4000);
const BALANCER = new URL('testing/balancer-process.ts', import.meta.url).pathname;
const KILLS = 5;
/** At least so many commits make a load: one transaction has four thousand elements, a service six. */
const COMMITS = Math.floor((6 * SERVICES) / 4000);
const START = `${JSON.stringify({ id: 1, start: true })}\n`;
const table = inTable('ip', 'tulle');

const namespace = new ScratchNetns();
const nftables = openNftables({ netns: namespace.path });
after(() => {
  nftables[Symbol.dispose]();
  namespace[Symbol.dispose]();
});

test('an agent that is killed inside its first load leaves no part of it to packets', async () => {
  const wanted = await fromScratch();
  let killedInside = 0;
  for (let part = 1; part <= KILLS; part++) {
    await using agent = start();
    await commits(Math.ceil((part * COMMITS) / KILLS));
    await agent.kill();
    if (hasBaseChain()) sameState(nftables, wanted);
    else killedInside++;
    nftables.commit([table.table.destroy()]);
  }
  assert.ok(killedInside > 0, 'no kill was inside a load');
});

test('an agent that finds what a killed one left makes it whole', async () => {
  {
    await using killed = start();
    await commits(COMMITS / 2);
    await killed.kill();
  }
  await using agent = start();
  await agent.done();
  sameState(nftables, await fromScratch());
});

async function fromScratch(): Promise<FakeNftables> {
  await using stack = new AsyncDisposableStack();
  const fake = new FakeNftables();
  const tell = await startBalancer(stack, fake, { more: SERVICES });
  await tell({ id: 1, start: true });
  return fake;
}

function start() {
  const argv = ['--disable-warning=ExperimentalWarning', BALANCER, namespace.path];
  const child: ChildProcess = spawn(process.execPath, [...argv, String(SERVICES)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.stdin?.write(START);
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  };
  return {
    kill,
    done: () => once(child.stdout ?? child, 'data'),
    [Symbol.asyncDispose]: kill,
  };
}

function hasBaseChain(): boolean {
  const found = nftables.dumpTable('ip', 'tulle', { elements: false });
  return found?.chains.some(({ base }) => base !== undefined) ?? false;
}

/** Waits for so many commits. The test runner's own time limit ends a wait in vain. */
async function commits(count: number): Promise<void> {
  const before = nftables.generation();
  while ((nftables.generation() - before) >>> 0 < count)
    await new Promise((resolve) => setImmediate(resolve));
}
