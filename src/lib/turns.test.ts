import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Turns } from './turns.ts';

test('Turns.next() lets one on in each turn of the event loop, in order, also those that come later', async () => {
  const turns = new Turns();
  const seen: string[] = [];
  let loop = 0;
  let isOver = false;
  const count = () => {
    loop++;
    if (!isOver) setImmediate(count);
  };
  setImmediate(count);
  const take = async (name: string) => {
    await turns.next();
    seen.push(`${name} ${loop}`);
  };
  await Promise.all([take('a'), take('b').then(() => take('d')), take('c')]);
  isOver = true;
  const [first = 0] = seen.map((it) => Number(it.slice(2)));
  assert.deepEqual(seen, [`a ${first}`, `b ${first + 1}`, `c ${first + 2}`, `d ${first + 3}`]);
});
