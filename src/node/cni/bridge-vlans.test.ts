import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseBridgeOptions } from '#wire/cni/bridge-options.ts';
import { planPortVlans, vlanGatewayName } from './bridge-vlans.ts';

const options = (json: object) => parseBridgeOptions({ ...json });

test('planPortVlans() puts a port into its VLAN without tags and into those of the trunk with tags', () => {
  assert.equal(planPortVlans(options({})), undefined);
  assert.deepEqual(planPortVlans(options({ vlan: 100 })), {
    removeDefault: false,
    add: [{ from: 100, to: 100, pvid: true, untagged: true }],
  });
  const vlanTrunk = [{ minID: 5, maxID: 8 }, { id: 20 }];
  assert.deepEqual(planPortVlans(options({ vlan: 100, vlanTrunk, preserveDefaultVlan: false })), {
    removeDefault: true,
    add: [
      { from: 5, to: 8 },
      { from: 20, to: 20 },
      { from: 100, to: 100, pvid: true, untagged: true },
    ],
  });
});

test('vlanGatewayName() names the interface of a VLAN with a gateway, and says when it is too long', () => {
  assert.equal(vlanGatewayName(options({ vlan: 100 })), undefined);
  assert.equal(vlanGatewayName(options({ isGateway: true })), undefined);
  assert.equal(vlanGatewayName(options({ isGateway: true, vlanTrunk: [{ id: 5 }] })), undefined);
  assert.equal(vlanGatewayName(options({ isGateway: true, vlan: 100 })), 'cni0.100');
  assert.throws(
    () => vlanGatewayName(options({ bridge: 'a-long-bridge', isGateway: true, vlan: 100 })),
    /too long a name/,
  );
});
