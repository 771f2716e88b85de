import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '#lib/clock.ts';
import { createFairQueue, type FairQueueOptions, type Seat } from './fair-queue.ts';

function fixture(options: Partial<FairQueueOptions> = {}) {
  const clock = new FakeClock();
  const queue = createFairQueue({
    seats: 4,
    maxSeatsPerFlow: 3,
    maxWaitingPerFlow: 5,
    maxWaiting: 8,
    maxWaitMs: 1000,
    clock,
    defer: (callback) => callback(),
    ...options,
  });
  const seated: string[] = [];
  const refused: string[] = [];
  const seats: { name: string; leave: () => void }[] = [];
  const take = (flow: string, name: string, cost = 1) =>
    queue.take(flow, cost).then((seat: Seat) => {
      if (seat.kind === 'seated') {
        seated.push(name);
        seats.push({ name, leave: seat.leave });
      } else refused.push(`${name}:${seat.kind}`);
    });
  const settle = () => new Promise<void>((resolve) => setImmediate(resolve));
  return { clock, queue, take, seated, refused, seats, settle };
}

test('a newcomer finds a seat while another flow has all it can have', async () => {
  const { take, seated, settle, queue } = fixture();
  for (let i = 0; i < 5; i++) void take('greedy', `g${i}`);
  void take('modest', 'm');
  await settle();
  assert.deepEqual(seated, ['g0', 'g1', 'g2', 'm']);
  assert.equal(queue.waiting, 2);
});

test('flows take turns, however many wait in one of them', async () => {
  const { take, seated, seats, settle } = fixture({ seats: 1, maxSeatsPerFlow: 1 });
  void take('a', 'a0');
  await settle();
  for (const name of ['a1', 'a2', 'a3']) void take('a', name);
  void take('b', 'b1');
  void take('b', 'b2');
  void take('c', 'c1');
  await settle();
  while (seats.length > 0) {
    seats.shift()?.leave();
    await settle();
  }
  assert.deepEqual(seated, ['a0', 'a1', 'b1', 'c1', 'a2', 'b2', 'a3']);
});

test('who has too many waiting is sent away, and so is a crowd', async () => {
  const { take, refused, settle } = fixture({ seats: 1, maxSeatsPerFlow: 1 });
  for (let i = 0; i < 7; i++) void take('a', `a${i}`);
  for (let i = 0; i < 5; i++) void take(`f${i}`, `f${i}`);
  await settle();
  assert.deepEqual(refused, ['a6:full', 'f3:full', 'f4:full']);
});

test('who waits too long is sent away and takes no seat later', async () => {
  const { take, refused, seated, seats, settle, clock, queue } = fixture({
    seats: 1,
    maxSeatsPerFlow: 1,
  });
  void take('a', 'a0');
  void take('b', 'b0');
  await settle();
  clock.advance(1000);
  await settle();
  assert.deepEqual(refused, ['b0:too-long']);
  assert.equal(queue.waiting, 0);
  seats.shift()?.leave();
  await settle();
  assert.deepEqual(seated, ['a0']);
});

test('a costly request takes many seats, and one that costs more than a flow can have still gets its turn', async () => {
  const { take, seated, seats, settle } = fixture();
  void take('a', 'a0', 3);
  void take('b', 'b0', 100);
  await settle();
  assert.deepEqual(seated, ['a0']);
  seats.shift()?.leave();
  await settle();
  assert.deepEqual(seated, ['a0', 'b0']);
});

test('leaving twice gives one seat back', async () => {
  const { take, seated, seats, settle } = fixture({ seats: 1, maxSeatsPerFlow: 1 });
  for (const name of ['a0', 'a1', 'a2']) void take('a', name);
  await settle();
  const first = seats.shift();
  first?.leave();
  first?.leave();
  await settle();
  assert.deepEqual(seated, ['a0', 'a1']);
});

test('who needs many seats is not overtaken for ever by who needs few', async () => {
  const { take, seated, seats, settle } = fixture();
  void take('a', 'a0', 2);
  void take('b', 'b0');
  await settle();
  void take('c', 'c-many', 3);
  void take('d', 'd0');
  await settle();
  assert.deepEqual(seated, ['a0', 'b0']);
  seats.shift()?.leave();
  await settle();
  assert.deepEqual(seated, ['a0', 'b0', 'c-many']);
});
