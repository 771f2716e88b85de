import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DecodeError } from '#lib/errors.ts';
import { ip } from '#lib/ip.ts';
import { decodeMessage, encodeMessage, type Message, makeQuery } from '#wire/dns/message.ts';
import { name } from '#wire/dns/name.ts';
import { answerWith } from './fake-upstream.ts';
import { newQuery, readQuery } from './query.ts';
import { recordsOfService, soaOf } from './records.ts';
import { prepareRelay, type Relay, writeAliasedRelay, writeRelay } from './relay.ts';
import { recordsOfSet } from './sets.ts';
import { DOMAIN, describeMessage, queryBytes, service } from './testing.ts';

const upstreamQuery = makeQuery(1, { name: name('www.example.com'), type: 1 }, {});
const soa = (ttlS: number, minimumS: number) => ({
  name: name('example.com'),
  type: 6,
  class: 1,
  ttlS,
  data: { kind: 'SOA', ...soaOf(name('example.com'), 1), minimumS } as const,
});
const relayOf = (message: Message) => prepareRelay(encodeMessage(message));

function relayed(
  relay: Relay,
  client: Uint8Array,
  options: { ageS?: number; transport?: 'udp' | 'tcp' } = {},
): Message {
  const reply = new Uint8Array(65_535);
  const query = newQuery();
  assert.equal(readQuery(client, client.length, 1, query), 0);
  const { ageS = 0, transport = 'udp' } = options;
  const length = writeRelay(reply, client, query, { relay, ageS, transport });
  return decodeMessage(reply.subarray(0, length));
}

test('prepareRelay() keeps an answer as long as its least TTL, and a denial as RFC 2308 says', () => {
  const two = answerWith(upstreamQuery, ['192.0.2.1', '192.0.2.2'], { ttlS: 60 });
  for (const [what, message, lifetimeS, negative] of [
    ['an answer', two, 60, false],
    [
      'the lesser of two TTLs',
      { ...two, answers: two.answers.map((r, i) => ({ ...r, ttlS: 40 - i })) },
      39,
      false,
    ],
    ['TTL 0', answerWith(upstreamQuery, ['192.0.2.1'], { ttlS: 0 }), 0, false],
    [
      'a TTL with the top bit',
      answerWith(upstreamQuery, ['192.0.2.1'], { ttlS: 0xffff_ffff }),
      0,
      false,
    ],
    ['a very long TTL', answerWith(upstreamQuery, ['192.0.2.1'], { ttlS: 86_400 }), 3600, false],
    [
      'NXDOMAIN',
      answerWith(upstreamQuery, [], { rcode: 3, authorities: [soa(900, 30)] }),
      30,
      true,
    ],
    [
      'NXDOMAIN with a short SOA',
      answerWith(upstreamQuery, [], { rcode: 3, authorities: [soa(20, 30)] }),
      20,
      true,
    ],
    ['no data', answerWith(upstreamQuery, [], { authorities: [soa(9000, 9000)] }), 1800, true],
    ['no data without SOA', answerWith(upstreamQuery, []), 0, true],
    ['SERVFAIL', answerWith(upstreamQuery, [], { rcode: 2 }), 0, true],
    ['truncated', answerWith(upstreamQuery, ['192.0.2.1'], { truncated: true }), 0, false],
  ] as const) {
    const relay = relayOf(message);
    assert.deepEqual([relay.lifetimeS, relay.negative], [lifetimeS, negative], what);
  }
});

test('writeRelay() gives the client its id, its case, its EDNS, and the TTL that is left', () => {
  const relay = relayOf(
    answerWith(upstreamQuery, ['192.0.2.1'], { ttlS: 60, authenticData: true }),
  );
  const plain = relayed(relay, queryBytes('WWW.example.com', 'A'), { ageS: 10 });
  assert.deepEqual(describeMessage(plain), ['NOERROR', 'WWW.example.com. 50 A 192.0.2.1']);
  assert.equal(plain.id, 0x4d2);
  assert.equal(plain.edns, undefined);
  assert.equal(plain.authenticData, false);
  const edns = relayed(relay, queryBytes('www.example.com', 'A', { dnssecOk: true }));
  assert.equal(edns.edns?.dnssecOk, true);
  assert.equal(edns.authenticData, true);
});

test('writeRelay() truncates what does not fit over UDP to nothing, with TC', () => {
  const addresses = Array.from({ length: 60 }, (_, i) => `192.0.2.${i}`);
  const relay = relayOf(answerWith(upstreamQuery, addresses));
  const udp = relayed(relay, queryBytes('www.example.com', 'A'));
  assert.deepEqual([udp.answers.length, udp.truncated], [0, true]);
  assert.equal(
    relayed(relay, queryBytes('www.example.com', 'A', { udpPayloadBytes: 1232 })).answers.length,
    60,
  );
  assert.equal(
    relayed(relay, queryBytes('www.example.com', 'A'), { transport: 'tcp' }).answers.length,
    60,
  );
});

test('writeRelay() marks what has run out as good for 30 seconds', () => {
  const relay = relayOf(answerWith(upstreamQuery, ['192.0.2.1'], { ttlS: 60 }));
  const stale = relayed(relay, queryBytes('www.example.com', 'A'), { ageS: 600 });
  assert.deepEqual(describeMessage(stale), ['NOERROR', 'www.example.com. 30 A 192.0.2.1']);
});

test('writeAliasedRelay() puts our alias in front of the upstream’s addresses', () => {
  const spec = { type: 'ExternalName', externalName: 'www.example.com' } as const;
  const owner = name('out.default.svc.cluster.local');
  const sets = recordsOfService(DOMAIN, service('default/out', spec), []).get(owner) ?? [];
  const aliases = sets.flatMap((set) => recordsOfSet(owner, set));
  const client = queryBytes('out.default.svc.cluster.local', 'A', {});
  const query = newQuery();
  readQuery(client, client.length, 1, query);
  const reply = new Uint8Array(1232);
  for (const [message, expected] of [
    [answerWith(upstreamQuery, ['192.0.2.1']), ['NOERROR', 'www.example.com. 300 A 192.0.2.1']],
    [
      answerWith(upstreamQuery, [], { rcode: 3, authorities: [soa(60, 30)] }),
      [
        'NXDOMAIN',
        'authority example.com. 60 SOA ns.dns.example.com. hostmaster.example.com. 1 7200 1800 86400 30',
      ],
    ],
  ] as const) {
    const options = { relay: relayOf(message), ageS: 0, transport: 'udp', aliases } as const;
    const length = writeAliasedRelay(reply, client, query, options);
    const lines = describeMessage(decodeMessage(reply.subarray(0, length)));
    const alias = 'out.default.svc.cluster.local. 5 CNAME www.example.com.';
    assert.deepEqual(lines, [expected[0], alias, expected[1]]);
  }
});

test('prepareRelay() throws only DecodeError, and what it takes can be relayed', () => {
  const seed = encodeMessage(
    answerWith(upstreamQuery, ['192.0.2.1', '192.0.2.2'], { authorities: [soa(60, 30)] }),
  );
  const client = queryBytes('www.example.com', 'A', {});
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 33, max: 200 }), fc.nat(255)), { maxLength: 5 }),
      (changes) => {
        const bytes = seed.slice();
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        let relay: Relay;
        try {
          relay = prepareRelay(bytes);
        } catch (error) {
          assert.ok(error instanceof DecodeError);
          return;
        }
        const query = newQuery();
        readQuery(client, client.length, 1, query);
        const length = writeRelay(new Uint8Array(1232), client, query, {
          relay,
          ageS: 1,
          transport: 'udp',
        });
        assert.ok(length >= 33);
      },
    ),
    { numRuns: 1000 },
  );
});

test('prepareRelay() keeps of an answer what belongs to the question', () => {
  const alias = {
    name: name('www.example.com'),
    type: 5,
    class: 1,
    ttlS: 60,
    data: { kind: 'CNAME', target: name('web.example.net') } as const,
  };
  const a = (owner: string) => ({
    name: name(owner),
    type: 1,
    class: 1,
    ttlS: 60,
    data: { kind: 'A', address: ip('192.0.2.1') } as const,
  });
  const told = (changes: Partial<Message>) =>
    describeMessage(
      relayed(relayOf(answerWith(upstreamQuery, [], changes)), encodeMessage(upstreamQuery)),
    ).slice(1);
  const good = ['www.example.com. 60 CNAME web.example.net.', 'web.example.net. 60 A 192.0.2.1'];
  assert.deepEqual(told({ answers: [alias, a('web.example.net')] }), good);
  assert.deepEqual(told({ answers: [alias, a('WEB.example.net'), a('bank.example')] }), good);
  assert.deepEqual(told({ answers: [a('bank.example')] }), []);
  const bankSoa = { ...soa(60, 60), name: name('bank.example') };
  assert.deepEqual(told({ answers: [], authorities: [bankSoa] }), []);
  assert.equal(told({ answers: [], authorities: [soa(60, 60)] }).length, 1);
  assert.deepEqual(
    told({ answers: [a('www.example.com')], additionals: [a('bank.example')] }),
    ['www.example.com. 60 A 192.0.2.1'],
    'an address that nothing in the answer leads to',
  );
});
