import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { NODE } from '#api/core/v1/node.ts';
import { MAX_USED_RULES, POLICY_USAGE, type RuleUsage } from '#api/tulle/v1alpha1/policy-usage.ts';
import { FakeApi } from '#client/fake.ts';
import type { ApiClient } from '#client/port.ts';
import { FakeClock } from '#lib/clock.ts';
import { ApiError } from '#lib/errors.ts';
import { silentLogger } from '#lib/log.ts';
import { mostUsed, UsageReport } from './usage.ts';

const MINUTE_MS = 60_000;
const used = (rule: string, packets: number): RuleUsage => ({ rule, packets, bytes: packets * 60 });

describe('UsageReport', () => {
  async function withReport(
    body: (it: {
      api: FakeApi;
      calls: string[];
      setCounts: (counts: RuleUsage[]) => void;
      pass: (ms: number) => Promise<void>;
      refuse: (error: ApiError) => void;
    }) => Promise<void>,
  ): Promise<void> {
    const api = new FakeApi();
    const node = api.put(NODE, { apiVersion: 'v1', kind: 'Node', metadata: { name: 'm1' } });
    const clock = new FakeClock();
    const calls: string[] = [];
    let counts: RuleUsage[] = [];
    let refusal: ApiError | undefined;
    const client: Pick<ApiClient, 'create' | 'patch'> = {
      create(kind, object) {
        calls.push('create');
        if (refusal !== undefined) throw refusal;
        return api.create(kind, object);
      },
      patch(kind, target, patch) {
        calls.push('patch');
        if (refusal !== undefined) throw refusal;
        return api.patch(kind, target, patch);
      },
    };
    await using report = new UsageReport(
      {
        ...{ client, clock, log: silentLogger, random: () => 0.5 },
        counts: () => Promise.resolve(counts),
        node: () => node,
      },
      { node: 'm1' },
    );
    await body({
      ...{ api, calls },
      setCounts: (some) => {
        counts = some;
      },
      refuse: (error) => {
        refusal = error;
      },
      pass: async (ms) => {
        clock.advance(ms);
        await report.settled();
      },
    });
  }

  test('writes the own object when something has changed, at most once a minute', () =>
    withReport(async ({ api, calls, setCounts, pass }) => {
      await pass(MINUTE_MS / 2);
      assert.deepEqual(calls, []);
      setCounts([used('NetworkPolicy a/b ingress[0]', 1)]);
      await pass(MINUTE_MS - 1);
      assert.deepEqual(calls, []);
      await pass(1);
      assert.deepEqual(calls, ['patch', 'create']);
      const [usage] = api.objects(POLICY_USAGE);
      assert.equal(usage?.metadata.name, 'm1');
      assert.equal(usage?.metadata.ownerReferences?.[0]?.kind, 'Node');
      assert.deepEqual(usage?.status?.rules, [used('NetworkPolicy a/b ingress[0]', 1)]);
      await pass(MINUTE_MS);
      assert.equal(calls.length, 2);
      setCounts([]);
      await pass(MINUTE_MS);
      assert.deepEqual(calls, ['patch', 'create', 'patch']);
      assert.deepEqual(api.objects(POLICY_USAGE)[0]?.status?.rules, []);
    }));

  test('asks no more where the API does not know the kind, or forbids it', async () => {
    for (const status of [404, 403])
      await withReport(async ({ calls, setCounts, pass, refuse }) => {
        refuse(new ApiError(status, 'No', 'no'));
        setCounts([used('a', 1)]);
        await pass(MINUTE_MS);
        const before = calls.length;
        setCounts([used('a', 2)]);
        await pass(10 * MINUTE_MS);
        assert.equal(calls.length, before);
      });
  });

  test('tries again after another failure', () =>
    withReport(async ({ calls, setCounts, pass, refuse }) => {
      refuse(new ApiError(500, 'InternalError', 'no'));
      setCounts([used('a', 1)]);
      await pass(MINUTE_MS);
      const before = calls.length;
      await pass(MINUTE_MS);
      assert.ok(calls.length > before);
    }));
});

test('mostUsed() keeps those that decided most, by name', () => {
  const many = Array.from({ length: MAX_USED_RULES + 5 }, (_, i) => used(`rule-${i}`, i));
  const kept = mostUsed(many);
  assert.equal(kept.length, MAX_USED_RULES);
  assert.ok(!kept.some(({ packets }) => packets < 5));
  assert.deepEqual(mostUsed([used('b', 9), used('a', 1)]), [used('a', 1), used('b', 9)]);
});
