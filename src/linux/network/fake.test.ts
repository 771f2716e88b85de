import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { EBUSY, isErrno } from '#lib/errors.ts';
import { cidr } from '#lib/ip.ts';
import { networkStackContract } from './contract.ts';
import { FakeNetwork } from './fake.ts';
import type { NetworkEvent } from './port.ts';

const POD = '/run/netns/pod';

networkStackContract('the fake', () => {
  const network = new FakeNetwork();
  network.addNamespace(POD);
  const host = network.open();
  const pod = network.open({ netns: POD });
  return {
    host,
    pod,
    podNetns: POD,
    [Symbol.dispose]() {
      host[Symbol.dispose]();
      pod[Symbol.dispose]();
    },
  };
});

test('removeNamespace() takes the host end of a pod’s veth along', () => {
  const network = new FakeNetwork();
  network.addNamespace(POD);
  const host = network.open();
  host.links.create({ kind: 'veth', name: 'tl0', peer: { name: 'eth0', netns: POD } });
  network.removeNamespace(POD);
  assert.equal(host.links.get('tl0'), undefined);
  assert.throws(() => network.open({ netns: POD }), /"\/run\/netns\/pod".*ENOENT/);
});

test('failNext() fails one matching change, others go on', () => {
  const network = new FakeNetwork();
  const host = network.open();
  const { index: link } = network.addCard('eth0');
  network.failNext(/replace route "10\.0\.1\.0/, EBUSY);
  const routes = ['10.0.0.0/24', '10.0.1.0/24', '10.0.2.0/24'].map((text) => ({
    destination: cidr(text),
    link,
    protocol: 84,
  }));
  assert.throws(
    () => host.routes.replace(routes),
    (error) => isErrno(error, EBUSY) && error.index === 1,
  );
  assert.equal(host.routes.list({ protocol: 84 }).length, 2);
  host.routes.replace(routes);
  assert.equal(host.routes.list({ protocol: 84 }).length, 3);
});

test('overrun() reaches every watcher', async () => {
  const network = new FakeNetwork();
  const events = new EventTarget();
  network.open().watch((event: NetworkEvent) => events.dispatchEvent(new Event(event.type)));
  const told = once(events, 'overrun');
  network.overrun();
  await told;
});
