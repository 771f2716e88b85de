import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NetlinkWriter } from '../netlink/writer.ts';
import { encodeBridgeVlans, encodeVlanFiltering } from './bridge-vlan.ts';

function hex(write: (writer: NetlinkWriter) => void): string {
  const writer = new NetlinkWriter();
  write(writer);
  return writer.bytes().toString('hex');
}

test('encodeBridgeVlans() writes single VLANs and ranges in the family bridge', () => {
  const written = hex((writer) =>
    encodeBridgeVlans(writer, 5, [
      { from: 100, to: 100, pvid: true, untagged: true },
      { from: 200, to: 300 },
    ]),
  );
  assert.equal(
    written,
    [
      '07000000' + '05000000' + '00000000' + '00000000', // AF_BRIDGE, index 5
      '2400' + '1a80', // IFLA_AF_SPEC, nested, 36 bytes
      '0600' + '0000' + '0100' + '0000', // IFLA_BRIDGE_FLAGS: master
      '0800' + '0200' + '0600' + '6400', // 100: PVID, untagged
      '0800' + '0200' + '0800' + 'c800', // from 200
      '0800' + '0200' + '1000' + '2c01', // to 300
    ].join(''),
  );
});

test('encodeVlanFiltering() names the kind, without which the kernel would not look', () => {
  const written = hex((writer) => encodeVlanFiltering(writer, 5, true));
  assert.equal(
    written,
    [
      '00000000' + '05000000' + '00000000' + '00000000',
      '1c00' + '1280', // IFLA_LINKINFO, nested
      '0b00' + '0100' + '627269646765' + '00' + '00', // "bridge"
      '0c00' + '0280' + '0500' + '0700' + '01000000', // IFLA_BR_VLAN_FILTERING
    ].join(''),
  );
});
