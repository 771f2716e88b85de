import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RecentMap } from './recent-map.ts';

test('RecentMap keeps what is used and forgets the rest', () => {
  const map = new RecentMap<number, number>(10);
  for (let i = 0; i < 1000; i++) {
    map.set(i, i, 1);
    assert.equal(map.get(i, 1), i);
    if (i > 0) assert.equal(map.get(0, 1), 0, 'what is used stays');
    assert.ok(map.size <= 20);
  }
  assert.equal(map.get(500, 1), undefined);
});
