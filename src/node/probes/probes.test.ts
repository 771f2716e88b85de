import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeClock } from '#lib/clock.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import type { ProbeTarget } from '../readiness.ts';
import type { Question } from './probers.ts';
import { Probes } from './probes.ts';

function setUp() {
  const clock = new FakeClock(0);
  const asked: string[] = [];
  const state = {
    ok: true,
    changes: 0,
    pending: 0,
    /** By how much the time of day is set during a question. */
    jumpMs: 0,
    release: undefined as (() => void) | undefined,
  };
  const probes = new Probes({
    runtimes: [],
    log: silentLogger,
    clock,
    ask: async ({ address }: Question) => {
      asked.push(`${clock.now()} ${address}`);
      clock.jump(state.jumpMs);
      state.pending++;
      if (state.release !== undefined) await new Promise<void>(() => {});
      state.pending--;
      return state.ok ? { ok: true } : { ok: false, message: `bad at ${clock.now()}` };
    },
  });
  probes.onChange(() => state.changes++);
  const pass = async (ms: number) => {
    for (let left = ms; left >= 0; left -= 100) {
      clock.advance(left === ms ? 0 : 100);
      for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return { probes, asked, state, pass, [Symbol.asyncDispose]: () => probes[Symbol.asyncDispose]() };
}

const target = (id: string, more: Partial<ProbeTarget> = {}): ProbeTarget => ({
  containerId: id,
  addresses: [ip('192.0.2.1')],
  runtime: undefined,
  settings: { tcp: '80', period: '5s' },
  startedAt: '1970-01-01T00:00:00Z',
  was: undefined,
  ...more,
});

describe('Probes', () => {
  test('asks a new container at once and often, and one that is ready at its pace', async () => {
    await using t = setUp();
    t.state.ok = false;
    t.probes.follow([target('a')]);
    assert.equal(t.probes.readinessOf('a')?.ready, false);
    await t.pass(2000);
    assert.deepEqual(t.asked, ['0 192.0.2.1', '1000 192.0.2.1', '2000 192.0.2.1']);
    t.state.ok = true;
    await t.pass(1000);
    assert.deepEqual(t.probes.readinessOf('a'), {
      ready: true,
      since: '1970-01-01T00:00:03.000Z',
      message: '',
    });
    t.asked.length = 0;
    await t.pass(10_000);
    assert.deepEqual(t.asked, ['8000 192.0.2.1', '13000 192.0.2.1']);
  });

  test('goes on asking at its pace when the time of day is set', async () => {
    await using t = setUp();
    t.probes.follow([target('a')]);
    await t.pass(1000);
    for (const jumpMs of [-86_400_000, 86_400_000]) {
      t.state.jumpMs = jumpMs;
      t.asked.length = 0;
      await t.pass(5000);
      assert.equal(t.asked.length, 1);
    }
  });

  test('takes over what the API says, and takes it back after bad answers', async () => {
    await using t = setUp();
    t.state.ok = false;
    t.probes.follow([target('a', { was: { ready: true, since: undefined } })]);
    await t.pass(9000);
    assert.equal(t.probes.readinessOf('a')?.ready, true);
    await t.pass(1000);
    assert.deepEqual(t.probes.readinessOf('a'), {
      ready: false,
      since: '1970-01-01T00:00:10.000Z',
      message: 'bad at 10000',
    });
    assert.equal(t.state.changes, 1);
    await t.pass(60_000);
    assert.ok(t.state.changes <= 7, `${t.state.changes} changes, a reason each`);
  });

  test('follows nobody whom nothing is asked of, and stops with the container', async () => {
    await using t = setUp();
    t.probes.follow([target('a', { settings: { period: '5s' } }), target('b')]);
    assert.equal(t.probes.readinessOf('a'), undefined);
    await t.pass(0);
    t.probes.follow([]);
    assert.equal(t.probes.readinessOf('b'), undefined);
    await t.pass(30_000);
    assert.equal(t.asked.length, 1);
  });

  test('goes on undisturbed when it is told the same again, and anew when something changes', async () => {
    await using t = setUp();
    t.probes.follow([target('a')]);
    await t.pass(0);
    t.probes.follow([target('a', { was: { ready: true, since: 'x' } })]);
    await t.pass(1000);
    assert.equal(t.asked.length, 1);
    t.probes.follow([target('a', { addresses: [ip('192.0.2.9')] })]);
    assert.equal(t.probes.readinessOf('a')?.ready, false);
    await t.pass(0);
    assert.equal(t.asked.at(-1), '1000 192.0.2.9');
  });

  test('says what is wrong with a wish, and does not take it for a good answer', async () => {
    await using t = setUp();
    t.probes.follow([target('a', { settings: { tcp: 'nonsense' } })]);
    assert.match(t.probes.readinessOf('a')?.message ?? '', /readiness-tcp "nonsense" is wrong/);
    await t.pass(10_000);
    assert.equal(t.asked.length, 0);
  });

  test('asks a bounded number at a time', async () => {
    const t = setUp();
    t.state.release = () => {};
    t.probes.follow(Array.from({ length: 100 }, (_, i) => target(`c${i}`)));
    await t.pass(1000);
    assert.equal(t.state.pending, 64);
  });
});
