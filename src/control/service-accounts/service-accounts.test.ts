import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NAMESPACE, type Namespace } from '#api/core/v1/namespace.ts';
import { SERVICE_ACCOUNT } from '#api/core/v1/service-account.ts';
import { forbidden, namespaceTerminating, notFound } from '#api/machinery/status.ts';
import { FakeApi } from '#client/fake.ts';
import { FakeClock } from '#lib/clock.ts';
import { silentLogger } from '#lib/log.ts';
import { planAccounts, startServiceAccounts } from './service-accounts.ts';

const namespace = (name: string, going = false): Namespace => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name, ...(going ? { deletionTimestamp: '2026-01-01T00:00:00Z' } : {}) },
});

test('planAccounts() names the namespaces that stay and have no account', () => {
  const all = [namespace('a'), namespace('b'), namespace('c', true)];
  assert.deepEqual(
    planAccounts(all, (name) => name === 'b'),
    ['a'],
  );
});

test('a namespace gets its account, and gets it back', async () => {
  const clock = new FakeClock();
  const api = new FakeApi({ clock });
  api.put(NAMESPACE, namespace('a'));
  await using _controller = startServiceAccounts({ client: api, log: silentLogger, clock });
  const settle = async () => {
    for (let turn = 0; turn < 40; turn++) {
      clock.advance(1);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const has = async (where: string) => {
    const { items } = await api.list(SERVICE_ACCOUNT, { namespace: where });
    return items.map(({ metadata }) => metadata.name);
  };
  await settle();
  assert.deepEqual(await has('a'), ['default']);
  api.put(NAMESPACE, namespace('b'));
  await settle();
  assert.deepEqual(await has('b'), ['default']);
  await api.delete(SERVICE_ACCOUNT, { name: 'default', namespace: 'a' });
  await settle();
  assert.deepEqual(await has('a'), ['default']);
});

test('a refusal is tried again, unless it is because the namespace goes', async () => {
  const table = [
    [forbidden(SERVICE_ACCOUNT, 'default', 'there is no role yet'), 1],
    [namespaceTerminating(SERVICE_ACCOUNT, 'default', 'a'), 0],
    [notFound(NAMESPACE, 'a'), 0],
  ] as const;
  for (const [refusal, made] of table) {
    const clock = new FakeClock();
    const api = new FakeApi({ clock });
    api.put(NAMESPACE, namespace('a'));
    api.failNext({ verb: 'create' }, refusal);
    await using _controller = startServiceAccounts({ client: api, log: silentLogger, clock });
    for (let turn = 0; turn < 200; turn++) {
      clock.advance(100);
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal(api.objects(SERVICE_ACCOUNT).length, made, refusal.message);
  }
});
