/** Addresses out of ranges that a runtime gives (capability `ipRanges`), in the pools that there are. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IP_BLOCK, type IPBlock, ipBlockName } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { FakeApi } from '#client/fake.ts';
import { FakeClock } from '#lib/clock.ts';
import { cidr, ip } from '#lib/ip.ts';
import { parseIpRange } from '#lib/ip-range.ts';
import { silentLogger } from '#lib/log.ts';
import type { AddressRequest } from '../addresses.ts';
import { Allocator } from './allocator.ts';
import { newBlock, withAffinity } from './block.ts';
import { planNewBlock } from './claim.ts';

const pool = (name: string, prefix: string, more: Partial<IPPool['spec']> = {}): IPPool => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPPool',
  metadata: { name },
  spec: { cidr: prefix, ...more },
});
const range = (text: string) => {
  const parsed = parseIpRange(text);
  assert.ok(parsed !== undefined, text);
  return parsed;
};

function setUp(pools: readonly IPPool[]) {
  const clock = new FakeClock();
  const api = new FakeApi({ clock });
  const on = (node: string) =>
    new Allocator({ client: api, node, pools: () => pools, log: silentLogger, clock });
  /** @returns the addresses, or why there are none */
  const ask = async (
    allocator: Allocator,
    handle: string,
    ranges: readonly string[],
    more: Partial<AddressRequest> = {},
  ) => {
    const result = await allocator.allocate({
      owner: { handle, purpose: 'Pod' },
      ranges: ranges.map(range),
      ...more,
    });
    return result.kind === 'allocated'
      ? result.addresses.map((it) => it.address).join()
      : result.message;
  };
  return { api, on, ask };
}

const SMALL = pool('small', '192.0.2.0/24', { blockSize: 29 });
const LARGE = pool('large', '2001:db8::/32');

test('Allocator gives every address of the ranges, across blocks, and then says which were asked for', async () => {
  const { on, ask } = setUp([SMALL, LARGE]);
  const node = on('n1');
  const got = [];
  for (let i = 0; i < 4; i++) got.push(await ask(node, `c${i}`, ['192.0.2.14-192.0.2.17']));
  assert.deepEqual(got.sort(), ['192.0.2.14', '192.0.2.15', '192.0.2.16', '192.0.2.17']);
  assert.match(
    await ask(node, 'c4', ['192.0.2.14-192.0.2.17']),
    /no free IPv4 address of the ranges 192\.0\.2\.14-192\.0\.2\.17 for node "n1".*"small"/,
  );
  assert.match(await ask(node, 'c5', ['203.0.113.0/24']), /no enabled IPPool .*203\.0\.113\.0\/24/);
});

test('Allocator gives an address of each family that the ranges have, and the same one again', async () => {
  const { on, ask } = setUp([SMALL, LARGE]);
  const ranges = ['2001:db8:77::/64', '192.0.2.200/32'];
  const first = await ask(on('n1'), 'c', ranges);
  assert.match(first, /^192\.0\.2\.200,2001:db8:77:/);
  assert.equal(await ask(on('n1'), 'c', ranges), first);
});

test('Allocator refuses a requested address that is not in the ranges', async () => {
  const { on, ask } = setUp([SMALL]);
  const requested = [ip('192.0.2.9')];
  assert.match(
    await ask(on('n1'), 'c', ['192.0.2.32/29'], { requested }),
    /192\.0\.2\.9: it is not in the ranges 192\.0\.2\.32\/29/,
  );
  assert.equal(await ask(on('n1'), 'c', ['192.0.2.8/29'], { requested }), '192.0.2.9');
});

test('Allocator borrows of the ranges, or takes them over, when others have the blocks', async () => {
  const { api, on, ask } = setUp([SMALL]);
  const put = (prefix: string, node: string) => {
    const block = newBlock({ cidr: cidr(prefix), pool: 'small', node });
    api.put<IPBlock>(IP_BLOCK, withAffinity(block, node, node === '' ? 'Pending' : 'Confirmed'));
  };
  put('192.0.2.8/29', 'n2');
  put('192.0.2.16/29', '');
  assert.match(await ask(on('n1'), 'a', ['192.0.2.16/29']), /^192\.0\.2\.(1[6-9]|2[0-3])$/);
  const adopted = await api.get(IP_BLOCK, ipBlockName('192.0.2.16/29'));
  assert.equal(adopted.spec.node, 'n1');
  assert.match(await ask(on('n1'), 'b', ['192.0.2.8/29']), /^192\.0\.2\.([89]|1[0-5])$/);
  const lent = await api.get(IP_BLOCK, ipBlockName('192.0.2.8/29'));
  assert.deepEqual([lent.spec.node, Object.keys(lent.spec.allocations).length], ['n2', 1]);
});

test('planNewBlock() looks for blocks in the ranges only, past reserved ones', () => {
  const at = (reserved: string[], ranges: string[], taken: string[] = []) =>
    planNewBlock(
      pool('p', '10.0.0.0/8', { blockSize: 26, reserved }),
      taken.map((it) => newBlock({ cidr: cidr(it), pool: 'p', node: 'x' })),
      'n1',
      ranges.map(range),
    );
  assert.equal(at([], ['10.1.1.70-10.1.1.80']), '10.1.1.64/26');
  assert.equal(at([], ['192.0.2.0/24', '10.9.0.0/26']), '10.9.0.0/26');
  assert.equal(at([], ['10.9.0.0/26'], ['10.9.0.0/26']), undefined);
  // Whatever block the search starts at, it ends at the one that is left.
  assert.equal(
    at(['10.9.0.64/26', '10.9.0.128/25', '10.9.1.0/24'], ['10.9.0.0/24']),
    '10.9.0.0/26',
  );
  assert.equal(at(['10.9.0.0/16'], ['10.9.0.0/24']), undefined);
});
