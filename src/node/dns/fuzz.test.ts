/**
 * Bytes from outside: what the server does with anything. The corpus in `test/fuzz/dns` is where mutations begin; a case
 * that was found to break something is added to it.
 */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { DecodeError } from '#lib/errors.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { decodeMessage } from '#wire/dns/message.ts';
import { answerQuery, newAnswerer } from './answer.ts';
import { randomBelowFrom } from './random-below.ts';
import { prepareRelay } from './relay.ts';
import { searchSuffixOf } from './search.ts';
import { DnsServer } from './server/server.ts';
import { answererOf, exampleZone, queryBytes } from './testing.ts';

const FOLDER = join(import.meta.dirname, '../../../test/fuzz/dns');
const CORPUS = readdirSync(FOLDER).map((file) => ({
  file,
  bytes: new Uint8Array(Buffer.from(readFileSync(join(FOLDER, file), 'utf8').trim(), 'hex')),
}));
/** More with `TULLE_FUZZ_RUNS`. */
const RUNS = Number(process.env.TULLE_FUZZ_RUNS ?? 3000);

const { table } = answererOf(exampleZone());
table.podMode = 'insecure';
const answerer = newAnswerer(table, randomBelowFrom(1));
const searchSuffix = searchSuffixOf('default', 'cluster.local.');

/** The server's whole path for one datagram: nothing but an answer that can be decoded, or none. */
function holdQuery(bytes: Uint8Array): void {
  const room = new Uint8Array(Math.max(1280, bytes.length));
  room.set(bytes);
  for (const transport of ['udp', 'tcp'] as const) {
    const reply = new Uint8Array(transport === 'udp' ? 1232 : 65_535);
    const options = { length: bytes.length, reply, transport, searchSuffix };
    const length = answerQuery(answerer, room, options);
    if (length <= 0) continue;
    assert.ok(length <= reply.length);
    const answer = decodeMessage(reply.subarray(0, length));
    assert.equal(answer.response, true);
    assert.equal(answer.id, ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0));
  }
}

/** What an upstream sends: it is taken whole, or refused as undecodable. */
function holdAnswer(bytes: Uint8Array): void {
  for (const read of [decodeMessage, prepareRelay])
    try {
      read(bytes);
    } catch (error) {
      if (!(error instanceof DecodeError)) throw error;
    }
}

test('the corpus is not empty', () => assert.ok(CORPUS.length >= 20));

for (const { file, bytes } of CORPUS)
  test(`${file} harms neither the server nor the forwarder`, () => {
    holdQuery(bytes);
    holdAnswer(bytes);
  });

test('nothing that is made of the corpus by damage harms them', () => {
  const seed = fc.constantFrom(...CORPUS.map(({ bytes }) => bytes));
  const damage = fc.array(fc.record({ at: fc.nat(400), to: fc.nat(255) }), { maxLength: 6 });
  fc.assert(
    fc.property(seed, damage, fc.nat(400), seed, (bytes, changes, cutAt, other) => {
      const damaged = bytes.slice();
      for (const { at, to } of changes) if (damaged.length > 0) damaged[at % damaged.length] = to;
      const cut = damaged.slice(0, cutAt % (damaged.length + 1));
      for (const one of [damaged, cut, new Uint8Array([...cut, ...other])]) {
        holdQuery(one);
        holdAnswer(one);
      }
    }),
    { numRuns: RUNS },
  );
});

test('a flood of rubbish leaves the server answering', async () => {
  const zone = exampleZone();
  await using server = new DnsServer({
    listen: [ip('127.0.0.1')],
    port: 0,
    zone: zone.domain,
    upstreams: [],
    log: silentLogger,
    snapshot: () => ({ changes: zone.all(), serial: 7, synced: true }),
  });
  while (server.listening.length < 2) await server.nextSocketReport();
  const port = Number(/:(\d+)\/udp/.exec(server.listening.join(' '))?.[1]);
  const socket = createSocket('udp4');
  socket.connect(port, '127.0.0.1');
  await once(socket, 'connect');
  const answered: number[] = [];
  socket.on('message', (answer) => answered.push(answer.readUInt16BE(0)));
  const rubbish = Array.from({ length: 64 }, () => crypto.getRandomValues(new Uint8Array(24)));
  // No queries: a flag says "response", so that what comes back answers the real one.
  for (const one of rubbish) one[2] = (one[2] ?? 0) | 0x80;
  const query = queryBytes('web.default.svc.cluster.local', 'A');
  for (let i = 0; i < 200 && answered.length === 0; i++) {
    for (let j = 0; j < 20; j++) for (const one of rubbish) socket.send(one);
    socket.send(query);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  socket.close();
  assert.equal(answered[0], 0x4d2);
  assert.equal(server.restarts, 0);
});
