import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Ip, ip } from '#lib/ip.ts';
import { OPTION_COOKIE } from '#wire/dns/constants.ts';
import { decodeMessage, encodeMessage, type Message, makeQuery } from '#wire/dns/message.ts';
import { name } from '#wire/dns/name.ts';
import { AnswerCache } from '../cache.ts';
import { Cookies, SECRET_BYTES } from '../cookies.ts';
import { answerWith } from '../fake-upstream.ts';
import type { ForwardQuestion } from '../forward.ts';
import { answererOf, describeMessage, exampleZone, queryBytes } from '../testing.ts';
import { Clients } from './clients.ts';
import type { LoggedQuery, Request } from './request.ts';
import { MAX_WAIT_MS, Responder, STALE_AFTER_MS } from './responder.ts';

const POD = ip('10.244.0.1');
const STRANGER = ip('198.51.100.1');

/** A responder without sockets or threads: the test is the clock, the clients and the upstream. */
function create() {
  const clients = new Clients('cluster.local.');
  clients.setPods([{ address: POD, pod: 'default/a' }]);
  const asked: { token: number; question: ForwardQuestion }[] = [];
  const logged: LoggedQuery[] = [];
  const late: Message[] = [];
  const clock = { nowMs: 1_000_000 };
  const responder = new Responder({
    table: answererOf(exampleZone()).table,
    cache: new AnswerCache({ maxEntries: 100, maxStaleS: 3600 }),
    random: (end) => end - 1,
    nowMs: () => clock.nowMs,
    forward: (token, question) => asked.push({ token, question }),
    log: (query) => logged.push(query),
    cookies: new Cookies(new Uint8Array(SECRET_BYTES)),
  });
  return {
    responder,
    clients,
    asked,
    logged,
    late,
    clock,
    ask(query: Uint8Array, from = POD, transport: 'udp' | 'tcp' = 'udp'): string[] {
      const answer = this.askFor(query, from, transport);
      return answer === undefined ? [] : describeMessage(answer);
    },
    askFor(query: Uint8Array, from: Ip, transport: 'udp' | 'tcp'): Message | undefined {
      const reply = new Uint8Array(transport === 'udp' ? 1232 : 65_535);
      const bytes = new Uint8Array(1280);
      bytes.set(query);
      const request: Request = {
        bytes,
        length: query.length,
        reply,
        transport,
        client: clients.findIp(from),
        searchSuffix: undefined,
        defer: () => (answer, length) => late.push(decodeMessage(answer.slice(0, length))),
      };
      const length = responder.respond(request, clock.nowMs);
      return length === 0 ? undefined : decodeMessage(reply.subarray(0, length));
    },
    /** The upstream answers what was asked last. */
    answer(make: (query: Message) => Message | undefined): void {
      const { token, question } = asked.at(-1) ?? assert.fail('nothing was asked');
      const message = make(makeQuery(1, { name: question.name, type: question.type }));
      responder.resolved(token, message === undefined ? undefined : encodeMessage(message));
    },
    lateText: () => late.map(describeMessage),
  };
}

const WWW = queryBytes('www.example.com', 'A');
const good = (query: Message) => answerWith(query, ['192.0.2.80'], { ttlS: 100 });
const SEARCHED = 'www.example.com.default.svc.cluster.local.';

test('Responder asks once, answers when the answer comes, and from the cache then', () => {
  const it = create();
  assert.deepEqual(it.ask(WWW), []);
  assert.equal(it.asked.length, 1);
  it.answer(good);
  assert.deepEqual(it.lateText(), [['NOERROR', 'www.example.com. 100 A 192.0.2.80']]);
  it.clock.nowMs += 40_000;
  assert.deepEqual(it.ask(WWW), ['NOERROR', 'www.example.com. 60 A 192.0.2.80']);
  assert.equal(it.asked.length, 1);
});

test('Responder fetches an answer in use anew before its time is over, once', () => {
  const it = create();
  it.ask(WWW);
  it.answer(good);
  for (let i = 0; i < 5; i++) it.ask(WWW);
  assert.equal(it.asked.length, 1);
  it.clock.nowMs += 91_000;
  for (let i = 0; i < 3; i++)
    assert.deepEqual(it.ask(WWW), ['NOERROR', 'www.example.com. 9 A 192.0.2.80']);
  assert.equal(it.asked.length, 2, 'the answers were given from the cache meanwhile');
  it.answer(good);
  assert.deepEqual(it.ask(WWW), ['NOERROR', 'www.example.com. 100 A 192.0.2.80']);
  assert.equal(it.late.length, 1, 'nobody waited for the second answer');
});

test('Responder fetches nothing anew that is hardly used, nor when that is off', () => {
  const it = create();
  it.ask(WWW);
  it.answer(good);
  it.clock.nowMs += 91_000;
  it.ask(WWW);
  assert.equal(it.asked.length, 1);
  it.responder.prefetch = false;
  for (let i = 0; i < 10; i++) it.ask(WWW);
  assert.equal(it.asked.length, 1);
});

describe('stale answers (RFC 8767)', () => {
  function stale() {
    const it = create();
    it.ask(WWW);
    it.answer(good);
    it.late.length = 0;
    it.clock.nowMs += 200_000;
    assert.deepEqual(it.ask(WWW), []);
    return it;
  }
  const STALE = [['NOERROR', 'www.example.com. 30 A 192.0.2.80']];

  test('are given when no upstream answers, at once until it is asked again', () => {
    const it = stale();
    it.answer(() => undefined);
    assert.deepEqual(it.lateText(), STALE);
    assert.deepEqual(it.ask(WWW), STALE[0]);
    assert.equal(it.asked.length, 2);
    it.clock.nowMs += 6000;
    assert.deepEqual(it.ask(WWW), []);
    assert.equal(it.asked.length, 3);
  });

  test('are given in time when the upstream is slow, and its answer is kept', () => {
    const it = stale();
    it.clock.nowMs += STALE_AFTER_MS - 1;
    it.responder.tick(it.clock.nowMs);
    assert.deepEqual(it.lateText(), []);
    it.clock.nowMs += 1;
    it.responder.tick(it.clock.nowMs);
    it.responder.tick(it.clock.nowMs);
    assert.deepEqual(it.lateText(), STALE);
    it.answer((query) => answerWith(query, ['192.0.2.81']));
    assert.equal(it.late.length, 1);
    assert.deepEqual(it.ask(WWW), ['NOERROR', 'www.example.com. 300 A 192.0.2.81']);
  });

  test('are given instead of SERVFAIL, not instead of NXDOMAIN', () => {
    const failing = stale();
    failing.answer((query) => answerWith(query, [], { rcode: 2 }));
    assert.deepEqual(failing.lateText(), STALE);
    const gone = stale();
    gone.answer((query) => answerWith(query, [], { rcode: 3 }));
    assert.deepEqual(gone.lateText(), [['NXDOMAIN']]);
  });

  test('are not given for ever', () => {
    const it = stale();
    it.clock.nowMs += 3600_000;
    it.answer(() => undefined);
    assert.deepEqual(it.lateText(), [['SERVFAIL']]);
  });
});

describe('searched names outside', () => {
  test('cost one question, and none when they are known', () => {
    const it = create();
    assert.deepEqual(it.ask(queryBytes(SEARCHED, 'A')), []);
    assert.equal(it.asked[0]?.question.name, 'www.example.com.');
    it.answer(good);
    const expected = (ttlS: number) => [
      'NOERROR',
      `${SEARCHED} 5 CNAME www.example.com.`,
      `www.example.com. ${ttlS} A 192.0.2.80`,
    ];
    assert.deepEqual(it.lateText(), [expected(100)]);
    it.clock.nowMs += 10_000;
    assert.deepEqual(it.ask(queryBytes(SEARCHED, 'A')), expected(90));
    // Now from the whole answer that was kept.
    assert.deepEqual(it.ask(queryBytes(SEARCHED, 'A')), expected(90));
    assert.deepEqual(it.ask(WWW), ['NOERROR', 'www.example.com. 90 A 192.0.2.80']);
    assert.equal(it.asked.length, 1);
  });

  test('are denied when they do not exist, or nobody knows: the client walks on', () => {
    for (const answer of [
      () => undefined,
      (query: Message) => answerWith(query, [], { rcode: 3 }),
      (query: Message) => answerWith(query, [], { rcode: 5 }),
    ]) {
      const it = create();
      it.ask(queryBytes(SEARCHED, 'A'));
      it.answer(answer);
      assert.equal(it.lateText()[0]?.[0], 'NXDOMAIN aa');
    }
  });

  test('do not make a client wait for a dead upstream', () => {
    const it = create();
    it.ask(queryBytes(SEARCHED, 'A'));
    it.clock.nowMs += STALE_AFTER_MS;
    it.responder.tick(it.clock.nowMs);
    assert.equal(it.lateText()[0]?.[0], 'NXDOMAIN aa');
  });

  test('are never given to another namespace or to a stranger', () => {
    const it = create();
    it.ask(queryBytes(SEARCHED, 'A'));
    it.answer(good);
    it.clients.setPods([{ address: POD, pod: 'db/b' }]);
    assert.equal(it.ask(queryBytes(SEARCHED, 'A'))[0], 'NXDOMAIN aa');
    assert.equal(it.ask(queryBytes(SEARCHED, 'A'), STRANGER, 'tcp')[0], 'NXDOMAIN aa');
  });
});

test('Responder gives a stranger over UDP no more than it sent, and everything over TCP', () => {
  const it = create();
  const query = queryBytes('head.db.svc.cluster.local', 'A', { udpPayloadBytes: 4096 });
  assert.deepEqual(it.ask(query, STRANGER), ['NOERROR tc']);
  assert.equal(it.ask(query, STRANGER, 'tcp').length, 3);
  assert.equal(it.ask(query).length, 3);
  it.ask(WWW, STRANGER);
  it.answer(good);
  assert.deepEqual(it.lateText(), [['NOERROR tc']]);
});

test('Responder gives a stranger everything that has proven its address with a cookie', () => {
  const it = create();
  const ask = (cookie: Uint8Array, transport: 'udp' | 'tcp' = 'udp', from = STRANGER) => {
    const asked = { name: name('head.db.svc.cluster.local'), type: 1 };
    const options = [{ code: OPTION_COOKIE, bytes: cookie }];
    return it.askFor(encodeMessage(makeQuery(1, asked, { options })), from, transport);
  };
  const cookieOf = (message: Message | undefined) => message?.edns?.options[0]?.bytes;
  const client = Uint8Array.from([1, 2, 3, 4, 5, 6, 7, 8]);
  // Over UDP the first answer has no room for a cookie that the question had no room for.
  assert.equal(cookieOf(ask(client)), undefined);
  const cookie = cookieOf(ask(client, 'tcp')) ?? assert.fail('no cookie over TCP');
  assert.equal(ask(cookie)?.answers.length, 2);
  assert.notEqual(cookieOf(ask(cookie)), undefined);
  assert.deepEqual(ask(cookie, 'udp', ip('198.51.100.2'))?.answers, []);
  it.responder.cookies = false;
  assert.deepEqual(ask(cookie)?.answers, []);
  assert.equal(cookieOf(ask(client, 'tcp')), undefined);
});

test('Responder drops what a client sends beyond its limit', () => {
  const it = create();
  it.clients.setLimits({ queriesPerSecond: 2, namespaces: {} });
  it.clients.setPods([{ address: POD, pod: 'default/b' }]);
  const web = queryBytes('web.default.svc.cluster.local', 'A');
  assert.deepEqual(
    [1, 2, 3].map(() => it.ask(web).length),
    [2, 2, 0],
  );
  assert.equal(it.responder.stats.rateLimited, 1);
});

test('Responder logs the queries of a pod that is followed, and no others', () => {
  const it = create();
  it.ask(WWW);
  it.clients.setLogged('default/a', true);
  it.ask(queryBytes('web.default.svc.cluster.local', 'A'));
  it.ask(queryBytes('web.default.svc.cluster.local', 'A'), STRANGER);
  it.clock.nowMs += 7;
  it.answer(good);
  assert.deepEqual(
    it.logged.map((q) => [q.pod, q.name, q.rcode, q.from, q.durationMs]),
    [
      ['default/a', 'web.default.svc.cluster.local.', 0, 'cluster', 0],
      ['default/a', 'www.example.com.', 0, 'forward', 7],
    ],
  );
});

test('Responder asks again what another forwarder was asked, and tells who waits for none', () => {
  const world = create();
  const { responder, asked, clock } = world;
  world.ask(WWW);
  responder.askAgain();
  assert.equal(asked.length, 2);
  assert.equal(asked[1]?.token, asked[0]?.token);
  world.answer(good);
  assert.match(world.lateText().join(), /NOERROR/);
  world.ask(queryBytes('other.example', 'A'));
  clock.nowMs += MAX_WAIT_MS;
  responder.tick(clock.nowMs);
  assert.deepEqual(world.lateText().at(-1), ['SERVFAIL']);
  assert.equal(responder.isWaiting, false);
});

test('Responder keeps no answer that it is told not to keep', () => {
  const world = create();
  const { responder, asked } = world;
  world.ask(WWW);
  const { token, question } = asked[0] ?? assert.fail();
  const query = makeQuery(1, { name: question.name, type: question.type });
  responder.resolved(token, encodeMessage(good(query)), { keep: false });
  assert.match(world.lateText().join(), /NOERROR/);
  world.ask(WWW);
  assert.equal(asked.length, 2);
});

test('Responder holds no more waiting clients than it may', () => {
  const it = create();
  let refused = 0;
  for (let i = 0; i < 2100; i++)
    if (it.ask(queryBytes(`n${i}.example`, 'A'))[0] === 'SERVFAIL') refused++;
  assert.equal(refused, 100);
});
