import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ip, mac } from '#lib/ip.ts';
import { NetlinkWriter } from '../netlink/writer.ts';
import {
  decodeLink,
  encodeBridgePort,
  encodeGetLink,
  encodeNewLink,
  encodeSetLink,
  IFF_LOWER_UP,
  IFF_UP,
} from './link.ts';
import { CAPTURED } from './vectors.ts';

const MAC = mac('02:00:00:00:00:0a');

test('decodeLink() reads a veth whose peer is in another namespace', () => {
  const { flags, ...link } = decodeLink(CAPTURED.veth);
  assert.deepEqual(link, {
    family: 0,
    index: 2,
    change: 0,
    name: 'tl0',
    mac: MAC,
    mtuBytes: 1500,
    master: undefined,
    lower: 2,
    lowerNetnsId: 0,
    kind: 'veth',
    vxlan: undefined,
    bridgePort: undefined,
  });
  assert.equal(flags & (IFF_UP | IFF_LOWER_UP), IFF_UP | IFF_LOWER_UP);
});

test('decodeLink() reads a VXLAN link that is a port of a bridge', () => {
  const link = decodeLink(CAPTURED.vxlanPort);
  assert.deepEqual([link.name, link.kind, link.master], ['vx0', 'vxlan', 3]);
  assert.deepEqual(link.vxlan, {
    vni: 5390,
    port: 4789,
    local: '192.0.2.1',
    device: 2,
    learning: false,
  });
  assert.deepEqual(link.bridgePort, {
    hairpin: true,
    isolated: true,
    learning: false,
    neighSuppress: false,
  });
});

test('encodeNewLink() writes a veth with its peer', () => {
  const expected = [
    '00 00 0000 00000000 01000000 01000000', // ifinfomsg: unspec, index 0, flags UP, change UP
    '0800 0300 746c3000', //                    IFLA_IFNAME "tl0"
    '0a00 0100 02000000000a 0000', //           IFLA_ADDRESS, padded
    '3c00 1280', //                             IFLA_LINKINFO, nested
    '0900 0100 7665746800 000000', //             IFLA_INFO_KIND "veth", padded
    '2c00 0280', //                               IFLA_INFO_DATA, nested
    '2800 0180', //                                 VETH_INFO_PEER, nested
    '00 00 0000 00000000 00000000 00000000', //       ifinfomsg of the peer
    '0900 0300 6574683000 000000', //                 IFLA_IFNAME "eth0", padded
    '0800 1c00 07000000', //                          IFLA_NET_NS_FD 7
  ];
  const written = payload((writer) =>
    encodeNewLink(writer, {
      name: 'tl0',
      mac: MAC,
      up: true,
      kind: 'veth',
      peer: { name: 'eth0', netnsFd: 7 },
    }),
  );
  assert.equal(written.toString('hex'), expected.join('').replaceAll(' ', ''));
});

test('encodeNewLink() of a VXLAN link is read back by decodeLink()', () => {
  for (const local of [ip('192.0.2.1'), ip('2001:db8::1'), undefined]) {
    const vxlan = { vni: 0xffffff, port: 4789, local, device: 3, learning: true };
    const bytes = payload((writer) =>
      encodeNewLink(writer, { name: 'vx0', mac: MAC, mtuBytes: 1450, kind: 'vxlan', vxlan }),
    );
    const link = decodeLink(bytes);
    assert.deepEqual([link.name, link.mac, link.mtuBytes, link.vxlan], ['vx0', MAC, 1450, vxlan]);
  }
});

test('encodeSetLink() marks only the flags that change', () => {
  const flags = (change: { up?: boolean; promiscuous?: boolean }) =>
    payload((writer) => encodeSetLink(writer, 5, change))
      .toString('hex')
      .slice(8, 32);
  assert.equal(flags({}), '050000000000000000000000');
  assert.equal(flags({ up: true }), '050000000100000001000000');
  assert.equal(flags({ up: false }), '050000000000000001000000');
  assert.equal(flags({ up: true, promiscuous: false }), '050000000100000001010000');
});

test('encodeBridgePort() writes what is named, encodeGetLink() a name or an index', () => {
  const port = decodeLink(payload((w) => encodeBridgePort(w, 5, { hairpin: true })));
  assert.equal(port.bridgePort?.hairpin, true);
  assert.equal(decodeLink(payload((w) => encodeGetLink(w, 'tl0'))).name, 'tl0');
  const byIndex = decodeLink(payload((w) => encodeGetLink(w, 9)));
  assert.deepEqual([byIndex.index, byIndex.name], [9, undefined]);
});

function payload(write: (writer: NetlinkWriter) => void): Buffer {
  const writer = new NetlinkWriter();
  write(writer);
  return writer.bytes();
}
