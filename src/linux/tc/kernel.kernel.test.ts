import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { openNetworkStack } from '../network/kernel.ts';
import { ScratchNetns } from '../testing/scratch-netns.ts';
import { trafficControlContract } from './contract.ts';
import { openTrafficControl } from './kernel.ts';

function create() {
  const stack = new DisposableStack();
  const netns = stack.use(new ScratchNetns());
  const network = stack.use(openNetworkStack({ netns: netns.path }));
  const tc = stack.use(openTrafficControl({ netns: netns.path }));
  const { index: link } = network.links.create({
    kind: 'veth',
    name: 'v0',
    up: true,
    peer: { name: 'v1', up: true },
  });
  return { tc, link, netns, [Symbol.dispose]: () => stack.dispose() };
}

describe('openTrafficControl()', () => {
  trafficControlContract(create);

  test('makes what tc makes and shows', () => {
    using world = create();
    const { tc, link, netns } = world;
    const shown = () => netns.json<object[]>('tc', '-j', 'qdisc', 'show', 'dev', 'v0');
    tc.limit(link, { rateBytesPerSecond: 1_250_000, burstBytes: 65_536, limitBytes: 96_786 });
    const ours = shown();
    netns.run('tc', 'qdisc', 'del', 'dev', 'v0', 'root');
    const theirs = 'tc qdisc add dev v0 root handle 1: tbf rate 10mbit burst 65536 limit 96786';
    netns.run('sh', '-c', theirs);
    assert.deepEqual(ours, shown());

    const ifb = tc.createIfb('tli0123456789', 1450);
    tc.redirect(link, ifb);
    const filter = netns.run('tc', 'filter', 'show', 'dev', 'v0', 'parent', 'ffff:');
    assert.match(filter, /match 00000000\/00000000 at 0/);
    assert.match(filter, /mirred \(Egress Redirect to device tli0123456789\) stolen/);
  });
});
