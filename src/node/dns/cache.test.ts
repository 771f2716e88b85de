import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeMessage, makeQuery } from '#wire/dns/message.ts';
import { name, nameToWire } from '#wire/dns/name.ts';
import {
  AnswerCache,
  ageS,
  type CacheQuestion,
  cacheKey,
  isFresh,
  QUESTION_CD,
  QUESTION_DO,
} from './cache.ts';
import { answerWith } from './fake-upstream.ts';
import { hashName } from './query.ts';
import { prepareRelay, type Relay } from './relay.ts';

const QUERY = makeQuery(1, { name: name('www.example.com'), type: 1 }, {});
const relay = (ttlS = 60) =>
  prepareRelay(encodeMessage(answerWith(QUERY, ['192.0.2.1'], { ttlS })));
const denial: Relay = { ...relay(), negative: true };

function question(owner: string, changes: Partial<CacheQuestion> = {}): CacheQuestion {
  const bytes = nameToWire(name(owner));
  const end = bytes.length;
  return { bytes, start: 0, end, hash: hashName(bytes, 0, end, 1), type: 1, flags: 0, ...changes };
}
const create = (maxEntries = 100) => new AnswerCache({ maxEntries, maxStaleS: 3600 });

test('AnswerCache tells when the time of an answer is over, and when it is no use even so', () => {
  const cache = create();
  cache.put(question('a'), relay(60), 1000);
  const entry = cache.find(question('A'));
  assert.ok(entry);
  assert.equal(isFresh(entry, 60_999), true);
  assert.equal(isFresh(entry, 61_000), false);
  assert.equal(cache.isStaleUsable(entry, 61_000 + 3_600_000), true);
  assert.equal(cache.isStaleUsable(entry, 61_000 + 3_600_001), false);
  assert.equal(cache.find(question('b')), undefined);
});

test('AnswerCache tells apart what can have different answers, also where hashes collide', () => {
  const cache = create();
  const questions = [
    question('a', { hash: 7 }),
    question('b', { hash: 7 }),
    question('a', { hash: 7, type: 28 }),
    question('a', { hash: 7, flags: QUESTION_DO }),
    question('a', { hash: 7, flags: QUESTION_CD }),
  ];
  for (const [i, one] of questions.entries()) cache.put(one, { ...relay(), rcode: i }, 0);
  assert.deepEqual(
    questions.map((one) => cache.find(one)?.relay.rcode),
    [0, 1, 2, 3, 4],
  );
  cache.clear();
  assert.equal(cache.find(questions[0] ?? question('x')), undefined);
});

test('AnswerCache keeps nothing that may not be kept, and nothing at all when it is off', () => {
  const cache = create();
  cache.put(question('a'), relay(0), 0);
  assert.equal(cache.find(question('a')), undefined);
  const off = create(0);
  off.put(question('a'), relay(), 0);
  assert.equal(off.find(question('a')), undefined);
});

test('AnswerCache forgets what was used longest ago', () => {
  const cache = create(2);
  cache.put(question('a'), relay(), 0);
  cache.put(question('b'), relay(), 0);
  const a = cache.find(question('a'));
  assert.ok(a);
  cache.touch(a);
  cache.put(question('c'), relay(), 1);
  assert.ok(cache.find(question('a')) && cache.find(question('c')));
  assert.equal(cache.find(question('b')), undefined);
  assert.deepEqual(cache.sizes, { success: 2, denial: 0 });
  assert.equal(cache.evictions, 1);
  cache.setLimits({ maxEntries: 1, maxStaleS: 0 });
  assert.deepEqual(cache.sizes, { success: 1, denial: 0 });
});

test('AnswerCache: a storm of denials pushes out no answer', () => {
  const cache = create(10);
  for (let i = 0; i < 10; i++) cache.put(question(`a${i}`), relay(), 0);
  for (let i = 0; i < 1000; i++) cache.put(question(`no${i}`), denial, 0);
  assert.deepEqual(cache.sizes, { success: 10, denial: 10 });
  for (let i = 0; i < 10; i++) assert.ok(cache.find(question(`a${i}`)));
});

test('AnswerCache moves a name from the denials to the answers', () => {
  const cache = create(10);
  cache.put(question('a'), denial, 0);
  cache.put(question('a'), relay(), 1);
  assert.deepEqual(cache.sizes, { success: 1, denial: 0 });
  assert.equal(cache.find(question('a'))?.relay.negative, false);
});

test('AnswerCache bounds its memory whatever the number of entries', () => {
  const cache = create(1_000_000);
  const large = { ...relay(), bytes: new Uint8Array(60_000) };
  for (let i = 0; i < 2000; i++) cache.put(question(`a${i}`), large, 0);
  assert.ok(cache.sizes.success * 60_000 <= 32 * 1024 * 1024);
});

test('cacheKey() tells apart what can have different answers, and not the case of the name', () => {
  const key = (owner: string, type: number, dnssecOk: boolean, checkingDisabled: boolean) =>
    cacheKey(name(owner), { type, dnssecOk, checkingDisabled });
  assert.equal(key('A.b', 1, false, false), key('a.B', 1, false, false));
  const keys = [
    key('a', 1, false, false),
    key('a', 28, false, false),
    key('a', 1, true, false),
    key('a', 1, false, true),
    key('b', 1, false, false),
  ];
  assert.equal(new Set(keys).size, keys.length);
});

test('ageS() counts whole seconds, and is never negative', () => {
  assert.equal(ageS({ relay: relay(), storedAtMs: 1000 }, 2999), 1);
  assert.equal(ageS({ relay: relay(), storedAtMs: 5000 }, 1000), 0);
});
