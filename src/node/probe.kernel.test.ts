import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { ScratchNetns } from '#linux/testing/scratch-netns.ts';
import { probeKernel } from './probe.ts';

test('this kernel has all that is used, and the questions leave nothing behind', () => {
  using netns = new ScratchNetns();
  using stack = openNetworkStack({ netns: netns.path });
  using nftables = openNftables({ netns: netns.path });
  assert.deepEqual(probeKernel(stack, nftables), []);
  assert.deepEqual(nftables.listTables(), []);
  assert.deepEqual(
    stack.links.list().map(({ name }) => name),
    ['lo'],
  );
});
