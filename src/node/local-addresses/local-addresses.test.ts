import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ip } from '#lib/ip.ts';
import { ROUTE_PROTOCOL } from '#lib/kernel-objects.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { FakeNetwork } from '#linux/network/fake.ts';
import { LocalAddresses } from './local-addresses.ts';

test('LocalAddresses makes addresses local, drops old ones, and puts back what is deleted', async () => {
  const stack = new FakeNetwork().open();
  const ours = () => [
    ...stack.routes
      .list({ family: 4, protocol: ROUTE_PROTOCOL, table: 255 })
      .map((route) => route.destination),
    ...stack.addresses.list().flatMap((a) => (a.protocol === ROUTE_PROTOCOL ? [a.address] : [])),
  ];
  const start = async (...addresses: string[]) => {
    const local = new LocalAddresses(
      { stack, log: silentLogger },
      { addresses: addresses.map(ip) },
    );
    await local.start();
    return local;
  };
  const first = await start('10.96.0.10', 'fd00:96::a');
  assert.deepEqual(ours(), ['10.96.0.10/32', 'fd00:96::a']);
  assert.ok(stack.links.get('lo')?.up);
  await first[Symbol.asyncDispose]();

  await using second = await start('10.97.0.10', 'fd00:97::a');
  assert.deepEqual(ours(), ['10.97.0.10/32', 'fd00:97::a']);
  stack.routes.delete(stack.routes.list({ protocol: ROUTE_PROTOCOL }));
  for (const address of stack.addresses.list({ family: 6 })) stack.addresses.delete(address);
  await until(() => ours().length >= 2);
  assert.deepEqual(ours(), ['10.97.0.10/32', 'fd00:97::a']);
  await second[Symbol.asyncDispose]();
});
