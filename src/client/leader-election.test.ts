import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { LEASE, type Lease } from '#api/coordination/v1/lease.ts';
import { FakeClock } from '#lib/clock.ts';
import { silentLogger } from '#lib/log.ts';
import { FakeApi } from './fake.ts';
import {
  decideLease,
  observeLease,
  runLeaderElection,
  DEFAULT_LEASE_TIMES as times,
} from './leader-election.ts';

const NAME = { name: 'leader', namespace: 'kube-system' };

function lease(spec: Lease['spec']): Lease {
  return { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { ...NAME }, spec };
}

describe('decideLease()', () => {
  const nowMs = Date.parse('2026-01-01T00:00:00Z');
  const decide = (found: Lease | undefined, silentMs: number) =>
    decideLease({
      ...NAME,
      identity: 'me',
      lease: found,
      observation: { record: '', seenAtMs: nowMs - silentMs },
      times,
      nowMs,
      elapsedMs: nowMs,
    });
  const theirs = lease({ holderIdentity: 'they', leaseDurationSeconds: 15, leaseTransitions: 3 });

  test('makes a lease where there is none', () => {
    const decision = decide(undefined, 0);
    assert.equal(decision.type, 'create');
    assert.deepEqual(decision.type === 'create' && decision.lease.spec, {
      holderIdentity: 'me',
      leaseDurationSeconds: 15,
      renewTime: '2026-01-01T00:00:00.000000Z',
      acquireTime: '2026-01-01T00:00:00.000000Z',
      leaseTransitions: 0,
    });
  });

  for (const { name, found, silentMs, want } of [
    { name: 'waits for a holder that renews', found: theirs, silentMs: 14_999, want: 'wait' },
    { name: 'takes a lease that has run out', found: theirs, silentMs: 15_000, want: 'update' },
    {
      name: 'believes a holder for as long as it says',
      found: lease({ holderIdentity: 'they', leaseDurationSeconds: 60 }),
      silentMs: 59_000,
      want: 'wait',
    },
    {
      name: 'takes a lease that was given back',
      found: lease({ holderIdentity: '', leaseDurationSeconds: 15 }),
      silentMs: 0,
      want: 'update',
    },
    {
      name: 'renews its own',
      found: lease({ holderIdentity: 'me', leaseTransitions: 3 }),
      silentMs: 0,
      want: 'update',
    },
  ])
    test(name, () => assert.equal(decide(found, silentMs).type, want));

  test('counts a change of hands, but not a renewal', () => {
    const taken = decide(theirs, 15_000);
    assert.equal(taken.type === 'update' && taken.lease.spec.leaseTransitions, 4);
    const own = lease({ holderIdentity: 'me', leaseTransitions: 3, acquireTime: 'then' });
    const renewed = decide(own, 0);
    assert.equal(renewed.type === 'update' && renewed.lease.spec.leaseTransitions, 3);
    assert.equal(renewed.type === 'update' && renewed.lease.spec.acquireTime, 'then');
  });

  test('observeLease() counts from when we saw the renewal, by our clock', () => {
    const first = observeLease(undefined, theirs, 1_000);
    assert.equal(observeLease(first, theirs, 9_000), first);
    const renewed = lease({ ...theirs.spec, renewTime: '1999-01-01T00:00:00Z' });
    assert.equal(observeLease(first, renewed, 9_000).seenAtMs, 9_000);
  });
});

describe('runLeaderElection()', () => {
  /** The API, for whom it is cut off at times. */
  function cuttable(api: FakeApi, isCut: () => boolean): FakeApi {
    const broken = Object.create(api) as FakeApi;
    for (const verb of ['get', 'create', 'update'] as const)
      Object.defineProperty(broken, verb, {
        value: (...args: never[]) =>
          isCut()
            ? Promise.reject(new Error('cut'))
            : (api[verb] as (...a: never[]) => Promise<unknown>)(...args),
      });
    return broken;
  }

  function setUp() {
    const clock = new FakeClock();
    const api = new FakeApi({ clock });
    const leading: string[] = [];
    const history: string[] = [];
    const join = (identity: string, client = api) => {
      const abort = new AbortController();
      const ended = runLeaderElection({
        client,
        ...NAME,
        identity,
        signal: abort.signal,
        log: silentLogger,
        clock,
        lead: (signal) =>
          new Promise((resolve) => {
            leading.push(identity);
            history.push(`+${identity}`);
            const stop = () => {
              leading.splice(leading.indexOf(identity), 1);
              history.push(`-${identity}`);
              resolve();
            };
            if (signal.aborted) stop();
            else signal.addEventListener('abort', stop);
          }),
      });
      return { ended, leave: () => abort.abort(new Error('leaving')) };
    };
    const pass = async (ms: number) => {
      for (let left = ms; left > 0; left -= 500) {
        clock.advance(500);
        for (let turn = 0; turn < 6; turn++) await new Promise((resolve) => setImmediate(resolve));
        assert.ok(leading.length <= 1, `two leaders: ${leading}`);
      }
    };
    return { api, clock, leading, history, join, pass };
  }

  test('has one leader, and the next at once when it leaves', async () => {
    const { api, leading, history, join, pass } = setUp();
    const one = join('one');
    await pass(1_000);
    const two = join('two');
    await pass(60_000);
    assert.deepEqual(leading, ['one']);
    one.leave();
    await one.ended;
    await pass(3_000);
    assert.deepEqual(leading, ['two']);
    two.leave();
    await two.ended;
    assert.deepEqual(history, ['+one', '-one', '+two', '-two']);
    assert.equal(api.objects(LEASE)[0]?.spec.holderIdentity, '');
  });

  test('a leader that cannot renew gives up before another takes over', async () => {
    const { api, leading, join, pass } = setUp();
    let isCut = false;
    const broken = cuttable(api, () => isCut);
    const one = join('one', broken);
    await pass(1_000);
    const two = join('two');
    await pass(10_000);
    assert.deepEqual(leading, ['one']);
    isCut = true;
    await pass(12_000);
    assert.deepEqual(leading, []);
    await pass(8_000);
    assert.deepEqual(leading, ['two']);
    isCut = false;
    await pass(20_000);
    assert.deepEqual(leading, ['two']);
    for (const candidate of [one, two]) {
      candidate.leave();
      await candidate.ended;
    }
  });

  test('a clock that is set makes no second leader, and keeps none that is cut off', async () => {
    const { api, clock, leading, join, pass } = setUp();
    let isCut = false;
    const one = join(
      'one',
      cuttable(api, () => isCut),
    );
    await pass(1_000);
    const two = join('two');
    await pass(5_000);
    for (const days of [1, -2, 3_650]) {
      clock.jump(days * 86_400_000);
      await pass(20_000);
      assert.deepEqual(leading, ['one'], `${days} days`);
    }
    isCut = true;
    clock.jump(-3_650 * 86_400_000);
    await pass(12_000);
    assert.deepEqual(leading, []);
    await pass(8_000);
    assert.deepEqual(leading, ['two']);
    for (const candidate of [one, two]) {
      candidate.leave();
      await candidate.ended;
    }
  });

  test('ends when the work ends by itself, and rejects when it fails', async () => {
    const clock = new FakeClock();
    const api = new FakeApi({ clock });
    const { signal } = new AbortController();
    const base = { client: api, ...NAME, identity: 'me', signal, log: silentLogger, clock };
    await runLeaderElection({ ...base, lead: async () => {} });
    assert.equal(api.objects(LEASE)[0]?.spec.holderIdentity, '');
    const failing = async () => {
      throw new Error('defect');
    };
    await assert.rejects(runLeaderElection({ ...base, lead: failing }), /defect/);
    assert.equal(api.objects(LEASE)[0]?.spec.holderIdentity, '');
  });
});
