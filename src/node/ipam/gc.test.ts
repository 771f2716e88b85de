import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FakeClock } from '#lib/clock.ts';
import { cidr, ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import type { OwnAllocation } from './allocator.ts';
import { createIpamGc, type GcState, planGc } from './gc.ts';

const EMPTY: GcState = { suspects: new Map() };
const own = (handle: string, more: Partial<OwnAllocation['allocation']> = {}): OwnAllocation => ({
  address: {
    address: ip('192.0.2.1'),
    family: 4,
    pool: 'p',
    block: cidr('192.0.2.0/26'),
    sequence: 7,
  },
  allocation: {
    handle,
    sequence: 7,
    since: '2026-01-01T00:00:00Z',
    node: 'n1',
    purpose: 'Pod',
    ...more,
  },
});
const look = (allocations: OwnAllocation[], nowMs: number, state = EMPTY, live: string[] = []) =>
  planGc({ node: 'n1', allocations, live: new Set(live), state, nowMs, graceMs: 1000 });

describe('planGc()', () => {
  test('releases only what two looks, a grace period apart, see without its attachment', () => {
    const first = look([own('a')], 0);
    assert.deepEqual(first.release, []);
    const second = look([own('a')], 999, first.state);
    assert.deepEqual(second.release, []);
    assert.equal(look([own('a')], 1000, second.state).release.length, 1);
  });

  test('forgets a suspicion when the attachment is seen in between', () => {
    const first = look([own('a')], 0);
    const alive = look([own('a')], 500, first.state, ['a']);
    assert.deepEqual(look([own('a')], 5000, alive.state).release, []);
  });

  test('does not carry a suspicion over to the next life of the address', () => {
    const first = look([own('a')], 0);
    const next = { ...own('b'), address: { ...own('b').address, sequence: 8 } };
    assert.deepEqual(look([next], 5000, first.state).release, []);
  });

  for (const [what, allocation] of [
    ['a tunnel address', own('t', { purpose: 'Tunnel' })],
    ["another node's allocation", own('a', { node: 'n2' })],
  ] as const)
    test(`never suspects ${what}`, () => {
      assert.equal(look([allocation], 0).state.suspects.size, 0);
    });
});

test('createIpamGc() looks once more right before it releases', async () => {
  const clock = new FakeClock();
  const released: string[] = [];
  let live: string[] = [];
  let comesBack = false;
  const gc = createIpamGc({
    node: 'n1',
    clock,
    log: silentLogger,
    graceMs: 1000,
    liveHandles: () => {
      const now = live;
      if (comesBack) live = ['a'];
      return now;
    },
    allocator: {
      allocations: async () => [own('a')],
      release: async (handle) => {
        released.push(handle);
        return [ip('192.0.2.1')];
      },
    },
  });
  await gc();
  clock.advance(1000);
  comesBack = true;
  assert.deepEqual(await gc(), []);
  comesBack = false;
  live = [];
  await gc();
  clock.advance(1000);
  assert.deepEqual(await gc(), ['192.0.2.1']);
  assert.deepEqual(released, ['a']);
});
