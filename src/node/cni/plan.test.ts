import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { cidr, type Family, type Ip, ip, mac } from '#lib/ip.ts';
import { HOST_VETH_MAC } from '#lib/kernel-objects.ts';
import type { NetworkEvent } from '#linux/network/port.ts';
import type { Attachment } from '../attachment.ts';
import { comparePrevResult, planAttach, planDns, planResult } from './plan.ts';
import { isBroken } from './repairs.ts';

const POD_MAC = mac('02:00:00:00:00:01');
const address = (text: string, block: string, family: Family) => ({
  address: ip(text),
  family,
  pool: 'p',
  block: cidr(block),
  sequence: 1,
});
const V4 = address('192.0.2.7', '192.0.2.0/26', 4);
const V6 = address('2001:db8::7', '2001:db8::/122', 6);
const attachment: Attachment = {
  handle: 'tulle.c1.eth0',
  network: 'tulle',
  containerId: 'c1',
  ifName: 'eth0',
  netns: '/run/netns/c1',
  hostLink: 'tl0123456789a',
  mac: POD_MAC,
  mtuBytes: 1450,
  addresses: [V4, V6],
  pod: { namespace: 'shop', name: 'c1', kubelet: false },
  createdAt: '2026-01-01T00:00:00.000Z',
};
const noSource = () => undefined;

describe('planAttach()', () => {
  test('makes the peer in the namespace, and gives the gateway a route before the default goes through it', () => {
    const { link, pod } = planAttach(attachment, noSource);
    assert.deepEqual(link.peer, {
      name: 'eth0',
      netns: '/run/netns/c1',
      mac: POD_MAC,
      mtuBytes: 1450,
    });
    assert.deepEqual(
      pod.routes.map((it) => [it.destination, it.gateway]),
      [
        ['169.254.1.1/32', undefined],
        ['0.0.0.0/0', '169.254.1.1'],
        ['::/0', 'fe80::1'],
      ],
    );
    assert.deepEqual(
      pod.neighbours.map((it) => [it.address, it.mac, it.permanent]),
      [
        ['169.254.1.1', 'ee:ee:ee:ee:ee:ee', true],
        ['fe80::1', 'ee:ee:ee:ee:ee:ee', true],
      ],
    );
  });

  test('gives host routes the preferred source of their family', () => {
    const source = (family: Family): Ip | undefined =>
      family === 4 ? ip('192.0.2.64') : undefined;
    assert.deepEqual(
      planAttach(attachment, source).host.routes.map((it) => [it.destination, it.source]),
      [
        ['192.0.2.7/32', '192.0.2.64'],
        ['2001:db8::7/128', undefined],
      ],
    );
  });

  test('touches nothing of IPv6 for a pod without it', () => {
    const { host, pod } = planAttach({ ...attachment, addresses: [V4] }, noSource);
    const names = [...host.sysctls, ...pod.sysctls].map(([name]) => name);
    assert.deepEqual(host.ipv4, { forwarding: 1, proxy_arp: 1, rp_filter: 1 });
    assert.ok(names.length > 0 && names.every((it) => it.startsWith('net/ipv4/')), names.join());
    assert.deepEqual(host.addresses, []);
  });
});

test('planDns() searches from the namespace outwards, and says nothing without a server', () => {
  const settings = { nameservers: [ip('192.0.2.53')], clusterDomain: 'cluster.local' };
  assert.deepEqual(planDns('shop', settings).search, [
    'shop.svc.cluster.local',
    'svc.cluster.local',
    'cluster.local',
  ]);
  assert.deepEqual(planDns('shop', { ...settings, nameservers: [] }), {});
});

test('comparePrevResult() accepts its own result and names every difference', () => {
  const result = planResult(attachment, { nameservers: [], clusterDomain: 'x' });
  assert.deepEqual(comparePrevResult(result, attachment), []);
  const moved = { ...attachment, addresses: [V6], mac: mac('02:00:00:00:00:02') };
  assert.deepEqual(comparePrevResult(result, moved), [
    "prevResult has address 192.0.2.7/32, which is not the attachment's",
    'prevResult has MAC 02:00:00:00:00:01, not 02:00:00:00:00:02',
  ]);
});

test('isBroken() tells what takes something from the attachment from what does not', () => {
  const route = { destination: cidr('192.0.2.7/32'), protocol: 84, link: 5 };
  const neighbour = { link: 5, address: ip('192.0.2.7'), mac: POD_MAC, permanent: true };
  const link = {
    ...{ index: 5, name: attachment.hostLink, kind: 'veth', mac: HOST_VETH_MAC },
    ...{ mtuBytes: attachment.mtuBytes, up: true, carrier: true, loopback: false },
    ...{ promiscuous: false, master: undefined, peerIndex: 2, peerNetnsId: 0, vxlan: undefined },
  };
  const cases: [NetworkEvent, boolean][] = [
    [{ type: 'route', deleted: true, route }, true],
    [{ type: 'route', deleted: false, route }, false],
    [{ type: 'route', deleted: true, route: { ...route, protocol: 4 } }, false],
    [
      { type: 'route', deleted: true, route: { ...route, destination: cidr('192.0.2.77/32') } },
      false,
    ],
    [{ type: 'neighbour', deleted: true, neighbour }, true],
    [{ type: 'neighbour', deleted: false, neighbour }, false],
    [{ type: 'neighbour', deleted: false, neighbour: { ...neighbour, permanent: false } }, true],
    [
      {
        type: 'neighbour',
        deleted: false,
        neighbour: { ...neighbour, mac: mac('02:00:00:00:00:99') },
      },
      true,
    ],
    // Another program's route in the place of ours.
    [{ type: 'route', deleted: false, route: { ...route, protocol: 4 } }, true],
    [{ type: 'link', deleted: false, link }, false],
    [{ type: 'link', deleted: true, link }, true],
    [{ type: 'link', deleted: false, link: { ...link, up: false } }, true],
    // Told of its making, when it is up already.
    [{ type: 'link', deleted: false, link: { ...link, up: false }, isNew: true }, false],
    [{ type: 'link', deleted: false, link: { ...link, mtuBytes: 1300 } }, true],
    [{ type: 'link', deleted: false, link: { ...link, mac: POD_MAC } }, true],
    [{ type: 'setting', family: 4, link: 5, setting: 'rp_filter', value: 0 }, true],
    [{ type: 'setting', family: 4, link: 5, setting: 'rp_filter', value: 1 }, false],
    [{ type: 'setting', family: 6, link: 5, setting: 'proxy_neigh', value: 0 }, false],
    [{ type: 'rule', deleted: true }, false],
  ];
  for (const [event, expected] of cases)
    assert.equal(isBroken(event, attachment), expected, JSON.stringify(event));
});
