import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ENODEV, ENOENT, isErrno } from '#lib/errors.ts';
import { cidr } from '#lib/ip.ts';
import { Poller } from '../poller.ts';
import { ScratchNetns } from '../testing/scratch-netns.ts';
import { type ContractStacks, networkStackContract } from './contract.ts';
import { Recorder } from './contract-support.ts';
import { openNetworkStack } from './kernel.ts';

networkStackContract('the kernel', (): ContractStacks => {
  using cleanup = new DisposableStack();
  const hostNetns = cleanup.use(new ScratchNetns());
  const podNetns = cleanup.use(new ScratchNetns());
  const host = cleanup.use(openNetworkStack({ netns: hostNetns.path }));
  const pod = cleanup.use(openNetworkStack({ netns: podNetns.path }));
  const resources = cleanup.move();
  return { host, pod, podNetns: podNetns.path, [Symbol.dispose]: () => resources.dispose() };
});

test('watch() says that events were lost when more came than its queue holds, and goes on', async () => {
  using netns = new ScratchNetns();
  using stack = openNetworkStack({ netns: netns.path });
  const { index: link } = stack.links.create({ kind: 'bridge', name: 'br0', up: true });
  using seen = new Recorder(stack);
  // No event is read meanwhile: this does not yield to the event loop.
  const routes = Array.from({ length: 40_000 }, (_, n) => ({
    destination: cidr(`10.${n >> 16}.${(n >> 8) & 255}.${n & 255}/32`),
    link,
    protocol: 84,
  }));
  stack.routes.replace(routes);
  await seen.next('overrun', () => true);
  stack.rules.add({ family: 4, priority: 8400, table: 100 });
  await seen.next('rule', () => true);
  assert.equal(stack.routes.list({ protocol: 84 }).length, routes.length);
});

test('a batch that fails in every message does not overflow the queue of answers', () => {
  using netns = new ScratchNetns();
  using stack = openNetworkStack({ netns: netns.path });
  const routes = Array.from({ length: 3000 }, (_, n) => ({
    destination: cidr(`10.0.${n >> 8}.${n & 255}/32`),
    link: 4711,
    protocol: 84,
  }));
  assert.throws(
    () => stack.routes.replace(routes),
    (error) => isErrno(error, ENODEV) && error.op.includes('and 2999 of the 2999 others'),
  );
});

test('a stack keeps to its namespace when the name is gone', () => {
  const netns = new ScratchNetns();
  using stack = openNetworkStack({ netns: netns.path });
  stack.sysctl.set('net/ipv4/ip_forward', '1');
  netns[Symbol.dispose]();
  assert.equal(stack.sysctl.get('net/ipv4/ip_forward'), '1');
  assert.equal(stack.links.create({ kind: 'bridge', name: 'br0' }).name, 'br0');
});

test('two stacks share a poller that is given, and disposing one leaves the other’s watch', async () => {
  using netns = new ScratchNetns();
  using poller = new Poller();
  using stack = openNetworkStack({ netns: netns.path, poller });
  const other = openNetworkStack({ netns: netns.path, poller });
  const told: unknown[] = [];
  other.watch((event) => told.push(event));
  using seen = new Recorder(stack);
  other[Symbol.dispose]();
  stack.links.create({ kind: 'bridge', name: 'br0' });
  await seen.next('link', (event) => event.link.name === 'br0');
  assert.deepEqual(told, []);
});

test('a namespace that is not there is named', () => {
  assert.throws(
    () => openNetworkStack({ netns: '/run/netns/no-such' }),
    (error) => isErrno(error, ENOENT) && error.op.includes('"/run/netns/no-such"'),
  );
});
