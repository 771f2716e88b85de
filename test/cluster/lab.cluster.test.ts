/** The lab itself: several at once, cuts, and nothing left behind, whatever happens to its maker. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { Lab } from '#lab/lab.ts';
import { UserError } from '#lib/errors.ts';
import { traces } from './traces.ts';

const TULLE = join(import.meta.dirname, '../../src/bin/tulle.ts');
const NODE = [process.execPath, '--disable-warning=ExperimentalWarning'];

async function pings(lab: Lab, from: string, to: string): Promise<boolean> {
  const { address } = lab.machine(to);
  const { exitCode } = await lab.machine(from).run(['ping', '-c', '1', '-W', '1', address]);
  return exitCode === 0;
}

test('two labs live side by side, apart from each other and from the computer, and leave nothing', async () => {
  const before = traces('test-one', 'test-two');
  const [one, two] = await Promise.all([
    Lab.create({ name: 'test-one', machines: 2 }),
    Lab.create({ name: 'test-two', machines: 1 }),
  ]);
  try {
    assert.deepEqual(
      traces('test-one', 'test-two').links,
      before.links,
      'the computer’s own links are not touched',
    );
    assert.equal((await one.machine('m2').runOk(['hostname'])).trim(), 'm2');
    assert.ok(await pings(one, 'm1', 'm2'));
    assert.ok(await pings(one, 'm1', 'outside'));
    assert.ok(await pings(two, 'm1', 'outside'));
    await one
      .machine('m1')
      .runOk(['sh', '-c', 'echo mine > /etc/cni/x && echo mine > /var/lib/tulle/x']);
    const seen = await two.machine('m1').run(['cat', '/etc/cni/x', '/var/lib/tulle/x']);
    assert.notEqual(seen.exitCode, 0, 'a machine’s files are its own');
  } finally {
    await Promise.all([Lab.remove('test-one'), Lab.remove('test-two')]);
  }
  assert.deepEqual(traces('test-one', 'test-two'), before);
});

test('Lab.partition() cuts one pair both ways, and heal() takes it back', async () => {
  const lab = await Lab.create({ name: 'test-cut', machines: 3 });
  try {
    lab.partition('m1', 'm2');
    assert.deepEqual(
      await Promise.all([pings(lab, 'm1', 'm2'), pings(lab, 'm2', 'm1'), pings(lab, 'm1', 'm3')]),
      [false, false, true],
    );
    lab.heal();
    assert.ok(await pings(lab, 'm1', 'm2'));
    lab.heal();
  } finally {
    await Lab.remove('test-cut');
  }
});

test('a lab whose maker was killed is found and removed, and its name can be used again', async () => {
  const before = traces('test-orphan');
  const script = `
    const { Lab } = await import(${JSON.stringify(join(import.meta.dirname, '../../src/lab/lab.ts'))});
    await Lab.create({ name: 'test-orphan', machines: 2 });
    console.log('drawn');
    setInterval(() => {}, 1000);`;
  const maker = spawn(NODE[0] ?? '', [...NODE.slice(1), '--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
    cwd: join(import.meta.dirname, '../..'),
  });
  await once(maker.stdout, 'data');
  await assert.rejects(
    Lab.create({ name: 'test-orphan', machines: 1 }),
    (error: unknown) =>
      error instanceof UserError && /being used by process \d+/.test(error.message),
  );
  maker.kill('SIGKILL');
  await once(maker, 'exit');
  const again = await Lab.create({ name: 'test-orphan', machines: 1 });
  assert.equal(again.hosts.length, 1);
  await Lab.remove('test-orphan');
  assert.deepEqual(traces('test-orphan'), before);
});

test('a maker that is killed while it draws leaves nothing that down does not remove', async () => {
  const before = traces('test-kill');
  for (const delayMs of [5, 60, 120]) {
    const maker = spawn(
      NODE[0] ?? '',
      [...NODE.slice(1), TULLE, 'lab', 'up', 'test-kill', '--bare'],
      {
        stdio: 'ignore',
      },
    );
    // Any moment will do: the delays only spread the kills over the drawing.
    while (traces('test-kill').labs.length === 0 && maker.exitCode === null)
      await new Promise((resolve) => setTimeout(resolve, 1));
    await new Promise((resolve) => setTimeout(resolve, delayMs));
    maker.kill('SIGKILL');
    await once(maker, 'exit');
    await Lab.remove('test-kill');
    assert.deepEqual(traces('test-kill'), before);
  }
});

for (const [what, options, message] of [
  ['a bad name', { name: 'No_Name', machines: 1 }, /"No_Name" is no name/],
  ['no machine', { name: 'test-none', machines: 0 }, /1 to 64 machines, not 0/],
] as const)
  test(`Lab.create() refuses ${what}`, async () => {
    await assert.rejects(Lab.create(options), message);
  });
