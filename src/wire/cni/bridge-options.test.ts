import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseBridgeOptions } from './bridge-options.ts';
import { CniError } from './error.ts';

test('parseBridgeOptions() reads VLANs as the reference plugin does', () => {
  const vlansOf = (json: object) => parseBridgeOptions({ ...json }).vlans;
  assert.equal(vlansOf({}), undefined);
  assert.equal(vlansOf({ vlan: 0, vlanTrunk: [] }), undefined);
  assert.deepEqual(vlansOf({ vlan: 7 }), { id: 7, trunk: [], preserveDefault: true });
  const vlanTrunk = [{ id: 3 }, { minID: 100, maxID: 110 }, { minID: 5, maxID: 5, id: 9 }];
  assert.deepEqual(vlansOf({ vlanTrunk, preserveDefaultVlan: false }), {
    id: 0,
    trunk: [
      { from: 3, to: 3 },
      { from: 100, to: 110 },
      { from: 5, to: 5 },
      { from: 9, to: 9 },
    ],
    preserveDefault: false,
  });
});

const REFUSED: readonly (readonly [object, RegExp])[] = [
  [{ vlan: 4095 }, /^invalid VLAN ID 4095 \(must be between 0 and 4094\)$/],
  [{ vlan: -1 }, /invalid VLAN ID -1/],
  [{ vlan: '7' }, /invalid VLAN ID 7/],
  [{ vlanTrunk: {} }, /vlanTrunk/],
  [{ vlanTrunk: [7] }, /vlanTrunk/],
  [{ vlanTrunk: [{ id: 0 }] }, /^incorrect trunk id parameter$/],
  [{ vlanTrunk: [{ minID: 0, maxID: 5 }] }, /^incorrect trunk minID parameter$/],
  [{ vlanTrunk: [{ minID: 1, maxID: 4095 }] }, /^incorrect trunk maxID parameter$/],
  [{ vlanTrunk: [{ minID: 9, maxID: 5 }] }, /^minID is greater than maxID in trunk parameter$/],
  [{ vlanTrunk: [{ maxID: 5 }] }, /simultaneously, minID is missing$/],
  [{ vlanTrunk: [{ minID: 5 }] }, /simultaneously, maxID is missing$/],
  [{ preserveDefaultVlan: 'no' }, /preserveDefaultVlan/],
];
for (const [json, message] of REFUSED)
  test(`parseBridgeOptions() refuses ${JSON.stringify(json)}`, () => {
    assert.throws(
      () => parseBridgeOptions({ ...json }),
      (error) => error instanceof CniError && message.test(error.message),
    );
  });
