import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { cidr, ip } from '#lib/ip.ts';
import type { AddressOwner } from '../addresses.ts';
import { addressesOfHandle, newBlock, releaseAddresses, takeAddress } from './block.ts';

const START = Date.UTC(2026, 0, 1);
const COOL_DOWN_MS = 30_000;
const owner = (handle: string): AddressOwner => ({ handle, purpose: 'Pod' });
const at = (nowMs: number, handle = 'h') => ({
  owner: owner(handle),
  node: 'n1',
  nowMs,
  coolDownMs: COOL_DOWN_MS,
});
const block = () => newBlock({ cidr: cidr('192.0.2.0/30'), pool: 'p', node: 'n1' });

function take(from: ReturnType<typeof block>, nowMs: number, handle: string) {
  const taken = takeAddress(from, at(nowMs, handle));
  assert.ok(taken.kind === 'taken', taken.kind);
  return taken;
}

describe('takeAddress()', () => {
  test('gives every address of the block once, and counts the sequence up', () => {
    let current = block();
    const got: string[] = [];
    for (let i = 0; i < 4; i++) {
      const taken = take(current, START, `h${i}`);
      got.push(taken.address.address);
      assert.equal(taken.address.sequence, i + 1);
      current = taken.block;
    }
    assert.deepEqual(got, ['192.0.2.0', '192.0.2.1', '192.0.2.2', '192.0.2.3']);
    assert.deepEqual(takeAddress(current, at(START)), { kind: 'full', cooling: 0 });
  });

  test('does not change the block it is given', () => {
    const before = block();
    takeAddress(before, at(START));
    assert.deepEqual(before, block());
  });

  test('uses the address that has been free for longest, and none before its cool-down is over', () => {
    let current = block();
    const first = take(current, START, 'a');
    current = releaseAddresses(first.block, [first.address], START).block;
    for (const expected of ['192.0.2.1', '192.0.2.2', '192.0.2.3']) {
      const taken = take(current, START + 1, 'b');
      assert.equal(taken.address.address, expected);
      current = taken.block;
    }
    assert.deepEqual(takeAddress(current, at(START + COOL_DOWN_MS - 1)), {
      kind: 'full',
      cooling: 1,
    });
    const again = take(current, START + COOL_DOWN_MS, 'c');
    assert.equal(again.address.address, '192.0.2.0');
    assert.deepEqual(again.block.spec.releasedAt, {});
  });

  test('does not wait for a release that a clock set back has put far into the future', () => {
    const taken = take(block(), START, 'a');
    const { block: freed } = releaseAddresses(taken.block, [taken.address], START + 3_600_000);
    const only = { ...freed, spec: { ...freed.spec, free: [0] } };
    assert.equal(takeAddress(only, at(START)).kind, 'taken');
  });

  test('gives a requested address also while it cools down, and refuses one in use', () => {
    const taken = take(block(), START, 'a');
    const requested = ip('192.0.2.0');
    const busy = takeAddress(taken.block, { ...at(START, 'b'), requested });
    assert.ok(busy.kind === 'busy' && busy.allocation.handle === 'a');
    const { block: freed } = releaseAddresses(taken.block, [taken.address], START);
    const again = takeAddress(freed, { ...at(START, 'b'), requested });
    assert.ok(again.kind === 'taken' && again.address.address === requested);
  });
});

describe('releaseAddresses()', () => {
  test('leaves the next life of an address alone', () => {
    const first = take(block(), START, 'a');
    const freed = releaseAddresses(first.block, [first.address], START).block;
    const second = takeAddress(freed, { ...at(START, 'b'), requested: first.address.address });
    assert.ok(second.kind === 'taken');
    const late = releaseAddresses(second.block, [first.address], START);
    assert.equal(late.block, second.block);
    assert.deepEqual(late.released, []);
    assert.equal(addressesOfHandle(late.block, 'b', 'n1').length, 1);
  });

  test('is idempotent', () => {
    const taken = take(block(), START, 'a');
    const once = releaseAddresses(taken.block, [taken.address], START);
    assert.equal(releaseAddresses(once.block, [taken.address], START).block, once.block);
    assert.deepEqual(once.block.spec.free, [1, 2, 3, 0]);
  });
});
