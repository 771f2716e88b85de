import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ip } from '#lib/ip.ts';
import { encodeMessage, makeQuery } from '#wire/dns/message.ts';
import { name } from '#wire/dns/name.ts';
import { planForward } from './answer.ts';
import { PROTOCOL_QUERIES } from './protocol-vectors.ts';
import { randomBelowFrom } from './random-below.ts';
import {
  answererOf,
  ask,
  DOMAIN,
  describeMessage,
  describeRecord,
  exampleZone,
  queryBytes,
  service,
  slice,
} from './testing.ts';
import { VECTORS } from './vectors.ts';
import { Zone } from './zone.ts';

const answerer = answererOf(exampleZone());

for (const { question, type, expected } of VECTORS)
  test(`answerQuery() ${question} ${type} → ${expected[0]}`, () => {
    const answer = ask(answerer, queryBytes(question, type));
    assert.deepEqual(typeof answer === 'string' ? [answer] : describeMessage(answer), expected);
  });

test('answerQuery() repeats id and question in the client’s case, and copies RD and CD', () => {
  const asked = makeQuery(0xabcd, { name: name('WeB.Default.svc.CLUSTER.local.'), type: 1 });
  const answer = ask(answerer, encodeMessage({ ...asked, checkingDisabled: true }));
  assert.ok(typeof answer !== 'string');
  assert.equal(answer.id, 0xabcd);
  assert.equal(answer.questions[0]?.name, 'WeB.Default.svc.CLUSTER.local.');
  assert.equal(answer.answers[0]?.name, 'WeB.Default.svc.CLUSTER.local.');
  assert.ok(answer.response && answer.recursionDesired && answer.recursionAvailable);
  assert.ok(answer.checkingDisabled && !answer.authenticData);
});

test('answerQuery() says SERVFAIL, never NXDOMAIN, until the first sync', () => {
  const zone = new Zone(DOMAIN, [ip('10.96.0.10')]);
  const starting = answererOf(zone);
  starting.table.synced = false;
  for (const [question, type, expected] of [
    ['web.default.svc.cluster.local', 'A', 'SERVFAIL'],
    ['1.0.96.10.in-addr.arpa', 'PTR', 'SERVFAIL'],
    ['1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa', 'PTR', 'SERVFAIL'],
    ['8.8.8.8.in-addr.arpa', 'PTR', 'forward'],
    ['example.com', 'A', 'forward'],
    ['dns-version.cluster.local', 'TXT', 'NOERROR aa'],
  ] as const) {
    const answer = ask(starting, queryBytes(question, type));
    assert.equal(
      typeof answer === 'string' ? answer : describeMessage(answer)[0],
      expected,
      question,
    );
  }
});

test('answerQuery() refuses what is no query for data, and reads over what it does not know', () => {
  for (const [what, query, expected] of PROTOCOL_QUERIES) {
    const answer = ask(answerer, query);
    assert.equal(typeof answer === 'string' ? answer : describeMessage(answer)[0], expected, what);
    if (typeof answer !== 'string') assert.equal(answer.id, 9);
  }
});

test('answerQuery() drops what is shorter than a header and answers FORMERR to broken questions', () => {
  const good = queryBytes('web.default.svc.cluster.local', 'A');
  assert.equal(ask(answerer, good.slice(0, 11)), 'drop');
  const pointer = good.slice();
  pointer[12] = 0xc0;
  for (const bytes of [good.slice(0, -1), pointer, Uint8Array.from([...good, 0])]) {
    const answer = ask(answerer, bytes);
    assert.ok(typeof answer !== 'string' && answer.rcode === 1);
  }
});

test('answerQuery() answers EDNS with EDNS and plain with plain', () => {
  const plain = ask(answerer, queryBytes('web.default.svc.cluster.local', 'A'));
  const edns = ask(answerer, queryBytes('web.default.svc.cluster.local', 'A', { dnssecOk: true }));
  const missing = ask(answerer, queryBytes('no.default.svc.cluster.local', 'A', {}));
  assert.ok(typeof plain !== 'string' && typeof edns !== 'string' && typeof missing !== 'string');
  assert.equal(plain.edns, undefined);
  assert.deepEqual(edns.edns, { udpPayloadBytes: 1232, version: 0, dnssecOk: true, options: [] });
  assert.equal(missing.edns?.udpPayloadBytes, 1232);
  assert.equal(missing.rcode, 3);
});

/** A headless service with so many ready endpoints. */
function bigZone(count: number): Zone {
  const zone = new Zone(DOMAIN, [ip('10.96.0.10')]);
  const endpoints = Array.from({ length: count }, (_, i) => ({
    addresses: [`10.${(i >> 16) & 255}.${(i >> 8) & 255}.${i & 255}`],
  }));
  const spec = { clusterIP: 'None', ports: [{ name: 'http', port: 80 }] };
  const ports = [{ name: 'http', port: 80, protocol: 'TCP' as const }];
  zone.setService('a/big', service('a/big', spec), [slice('a/big', endpoints, { ports })]);
  return zone;
}

test('answerQuery() truncates over UDP to what the client takes, and not over TCP', () => {
  const big = answererOf(bigZone(100));
  // Header, question and each answer: 12 + 27 + 4, and 16 an answer.
  for (const [edns, transport, count, truncated] of [
    [undefined, 'udp', Math.floor((512 - 43) / 16), true],
    [{ udpPayloadBytes: 100 }, 'udp', Math.floor((512 - 43 - 11) / 16), true],
    [{ udpPayloadBytes: 800 }, 'udp', Math.floor((800 - 43 - 11) / 16), true],
    [{ udpPayloadBytes: 65_535 }, 'udp', Math.floor((1232 - 43 - 11) / 16), true],
    [undefined, 'tcp', 100, false],
  ] as const) {
    const answer = ask(big, queryBytes('big.a.svc.cluster.local', 'A', edns), transport);
    assert.ok(typeof answer !== 'string');
    assert.equal(answer.answers.length, count);
    assert.equal(answer.truncated, truncated);
    const addresses = answer.answers.map((r) => (r.data.kind === 'A' ? r.data.address : ''));
    assert.equal(new Set(addresses).size, count);
  }
});

test('answerQuery() leaves out additional records that do not fit, without truncation', () => {
  const big = answererOf(bigZone(8));
  const answer = ask(big, queryBytes('_http._tcp.big.a.svc.cluster.local', 'SRV'));
  assert.ok(typeof answer !== 'string');
  assert.deepEqual(
    [answer.answers.length, answer.additionals.length, answer.truncated],
    [8, 0, false],
  );
  const tcp = ask(big, queryBytes('_http._tcp.big.a.svc.cluster.local', 'SRV'), 'tcp');
  assert.ok(typeof tcp !== 'string');
  assert.deepEqual([tcp.answers.length, tcp.additionals.length], [8, 8]);
});

test('answerQuery() cuts a set of more addresses than a message can hold', () => {
  const answer = ask(
    answererOf(bigZone(5000)),
    queryBytes('big.a.svc.cluster.local', 'A', {}),
    'tcp',
  );
  assert.ok(typeof answer !== 'string');
  assert.ok(answer.answers.length > 3000 && answer.answers.length < 5000);
});

test('answerQuery() gives addresses in every order, each as often', () => {
  const shuffled = answererOf(bigZone(3), randomBelowFrom(1));
  const seen = new Map<string, number>();
  for (let i = 0; i < 6000; i++) {
    const answer = ask(shuffled, queryBytes('big.a.svc.cluster.local', 'A'));
    assert.ok(typeof answer !== 'string');
    const order = answer.answers.map((r) => describeRecord(r).at(-1)).join('');
    seen.set(order, (seen.get(order) ?? 0) + 1);
  }
  assert.deepEqual([...seen.keys()].sort(), ['012', '021', '102', '120', '201', '210']);
  for (const count of seen.values()) assert.ok(count > 800 && count < 1200, `${count} of 6000`);
});

test('answerQuery() sees changed and removed names at once', () => {
  const zone = new Zone(DOMAIN, [ip('10.96.0.10')]);
  const changing = answererOf(zone);
  const rcode = () => {
    const answer = ask(changing, queryBytes('x.a.svc.cluster.local', 'A'));
    assert.ok(typeof answer !== 'string');
    return [answer.rcode, ...answer.answers.map((r) => describeRecord(r).split(' ').at(-1))];
  };
  const set = (clusterIP: string) =>
    changing.table.apply(
      zone.setService('a/x', service('a/x', { clusterIP, ports: [{ port: 1 }] }), []),
    );
  assert.deepEqual(rcode(), [3]);
  set('10.96.0.5');
  assert.deepEqual(rcode(), [0, '10.96.0.5']);
  set('10.96.0.6');
  assert.deepEqual(rcode(), [0, '10.96.0.6']);
  changing.table.apply(zone.setService('a/x', undefined, []));
  assert.deepEqual(rcode(), [3]);
});

test('planForward() asks for the ExternalName’s target and keeps the alias', () => {
  const bytes = queryBytes('OUT.default.svc.cluster.local', 'AAAA');
  assert.equal(ask(answerer, bytes), 'forward');
  const plan = planForward(answerer, bytes);
  assert.equal(plan.name, 'www.example.com.');
  assert.equal(plan.type, 28);
  assert.deepEqual(plan.aliases.map(describeRecord), [
    'out.default.svc.cluster.local. 5 CNAME www.example.com.',
  ]);
});

test('answerQuery() survives damaged queries, and what it answers can be decoded', () => {
  const seeds = VECTORS.map(({ question, type }) => queryBytes(question, type, {}));
  fc.assert(
    fc.property(
      fc.constantFrom(...seeds),
      fc.array(fc.tuple(fc.nat(90), fc.nat(255)), { maxLength: 6 }),
      fc.nat(100),
      (seed, changes, cut) => {
        const bytes = seed.slice(0, cut > 60 ? seed.length : cut);
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        const answer = ask(answerer, bytes, cut % 2 === 0 ? 'udp' : 'tcp');
        if (answer === 'forward') {
          // Whatever is forwarded has a name that can be read, which the forwarder relies on.
          assert.doesNotThrow(() => planForward(answerer, bytes));
        } else if (answer !== 'drop') assert.equal(answer.response, true);
      },
    ),
    { numRuns: 5000 },
  );
});
