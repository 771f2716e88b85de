import assert from 'node:assert/strict';
import { test } from 'node:test';
import { cidr, ip } from '#lib/ip.ts';
import { nameFromWire } from '#wire/dns/name.ts';
import { allow, Clients } from './clients.ts';

const ZONE = 'cluster.local.';
const suffixOf = (clients: Clients, address: string) => {
  const { searchSuffix } = clients.findIp(ip(address));
  return searchSuffix === undefined ? undefined : nameFromWire(searchSuffix);
};

test('Clients knows pods by their addresses of both families, and nobody else', () => {
  const clients = new Clients(ZONE);
  clients.setPods([
    { address: ip('10.244.0.5'), pod: 'shop/cart' },
    { address: ip('2001:db8::5'), pod: 'shop/cart' },
  ]);
  assert.equal(suffixOf(clients, '10.244.0.5'), 'shop.svc.cluster.local.');
  assert.equal(suffixOf(clients, '2001:db8::5'), 'shop.svc.cluster.local.');
  assert.equal(suffixOf(clients, '10.244.0.6'), undefined);
  assert.equal(clients.findIp(ip('10.244.0.5')).pod, 'shop/cart');
});

test('Clients: an address that is used again is the new pod at once, and nobody in between', () => {
  const clients = new Clients(ZONE);
  const address = ip('10.244.0.5');
  clients.setPods([{ address, pod: 'shop/cart' }]);
  assert.equal(suffixOf(clients, address), 'shop.svc.cluster.local.');
  clients.setPods([]);
  assert.equal(suffixOf(clients, address), undefined);
  clients.setPods([{ address, pod: 'db/main' }]);
  assert.equal(suffixOf(clients, address), 'db.svc.cluster.local.');
});

test('Clients trusts pods and the given prefixes', () => {
  const clients = new Clients(ZONE);
  const trusted = (address: string) => clients.findIp(ip(address)).trusted;
  assert.equal(trusted('10.244.3.1'), false);
  clients.setTrusted([cidr('10.244.0.0/14'), cidr('2001:db8:1::/49')]);
  clients.setPods([{ address: ip('192.0.2.1'), pod: 'a/b' }]);
  assert.deepEqual(
    [
      '10.247.255.255',
      '10.248.0.0',
      '10.243.255.255',
      '192.0.2.1',
      '2001:db8:1:7fff::1',
      '2001:db8:1:8000::1',
    ].map(trusted),
    [true, false, false, true, true, false],
  );
});

test('Clients forgets strangers instead of keeping more than it may', () => {
  const clients = new Clients(ZONE);
  const first = clients.findIp(ip('198.51.100.1'));
  assert.equal(clients.findIp(ip('198.51.100.1')), first);
  for (let i = 0; i < 5000; i++) clients.findIp(ip(`203.0.${i >> 8}.${i & 255}`));
  assert.notEqual(clients.findIp(ip('198.51.100.1')), first);
});

test('allow() lets a second’s worth through at once and then as many as the limit', () => {
  const clients = new Clients(ZONE);
  clients.setLimits({ queriesPerSecond: 10, namespaces: { quiet: 2, free: 0 } });
  clients.setPods([
    { address: ip('10.244.0.1'), pod: 'shop/a' },
    { address: ip('10.244.0.2'), pod: 'quiet/a' },
    { address: ip('10.244.0.3'), pod: 'free/a' },
  ]);
  const count = (address: string, nowMs: number) => {
    const client = clients.findIp(ip(address));
    let allowed = 0;
    for (let i = 0; i < 100; i++) if (allow(client, nowMs)) allowed++;
    return allowed;
  };
  assert.deepEqual(
    ['10.244.0.1', '10.244.0.2', '10.244.0.3', '198.51.100.1'].map((it) => count(it, 1000)),
    [10, 2, 100, 10],
  );
  assert.equal(count('10.244.0.1', 1000), 0);
  assert.equal(count('10.244.0.1', 1500), 5);
  // A list of pods that comes again gives nobody a new allowance.
  clients.setPods([{ address: ip('10.244.0.1'), pod: 'shop/a' }]);
  assert.equal(count('10.244.0.1', 1500), 0);
  clients.setPods([{ address: ip('10.244.0.1'), pod: 'shop/b' }]);
  assert.equal(count('10.244.0.1', 1500), 10);
});

test('Clients logs the pods that are asked for, also those that come later', () => {
  const clients = new Clients(ZONE);
  const logged = () => clients.findIp(ip('10.244.0.1')).logged;
  clients.setLogged('shop/a', true);
  clients.setPods([{ address: ip('10.244.0.1'), pod: 'shop/a' }]);
  assert.equal(logged(), true);
  clients.setLogged('shop/a', false);
  assert.equal(logged(), false);
});
