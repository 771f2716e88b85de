import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ip } from '#lib/ip.ts';
import { ROUTE_PROTOCOL } from '#lib/kernel-objects.ts';
import { silentLogger } from '#lib/log.ts';
import { FakeNetwork } from '#linux/network/fake.ts';
import { LocalAddresses } from './local-addresses.ts';

const LOCAL = { protocol: ROUTE_PROTOCOL, table: 255 };

test('LocalAddresses makes addresses local, drops old ones, and puts back what is deleted', async () => {
  const stack = new FakeNetwork().open();
  const destinations = () => stack.routes.list(LOCAL).map((route) => route.destination);
  await using first = new LocalAddresses(
    { stack, log: silentLogger },
    { addresses: [ip('10.96.0.10'), ip('fd00:96::a')] },
  );
  await first.start();
  assert.deepEqual(destinations().sort(), ['10.96.0.10/32', 'fd00:96::a/128']);
  assert.ok(stack.links.get('lo')?.up);
  await first[Symbol.asyncDispose]();

  await using second = new LocalAddresses(
    { stack, log: silentLogger },
    { addresses: [ip('10.97.0.10')] },
  );
  await second.start();
  assert.deepEqual(destinations(), ['10.97.0.10/32']);
  stack.routes.delete(stack.routes.list(LOCAL));
  while (destinations().length === 0) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(destinations(), ['10.97.0.10/32']);
});
