/**
 * What an answer over UDP costs the engine: bytes allocated on the heap, and time, per query of each kind, through the
 * responder in this process, without sockets. Objects that live for a query are what a garbage collector's pauses are
 * made of.
 *
 * usage: ./dev bench dns/allocation      one JSON object a line, see docs/benchmarks.md
 */
import { getHeapStatistics } from 'node:v8';
import { ip } from '#lib/ip.ts';
import { AnswerCache } from '#node/dns/cache.ts';
import { Cookies, SECRET_BYTES } from '#node/dns/cookies.ts';
import { answerWith } from '#node/dns/fake-upstream.ts';
import { randomBelowFrom } from '#node/dns/random-below.ts';
import { Clients } from '#node/dns/server/clients.ts';
import type { Request } from '#node/dns/server/request.ts';
import { Responder } from '#node/dns/server/responder.ts';
import { answererOf, exampleZone, typeNumber } from '#node/dns/testing.ts';
import { OPTION_COOKIE, UDP_PAYLOAD_BYTES } from '#wire/dns/constants.ts';
import { type Edns, encodeMessage, makeQuery } from '#wire/dns/message.ts';
import { name } from '#wire/dns/name.ts';

const QUERIES = Number(process.env.TULLE_BENCH_QUERIES ?? 1_000_000);
/** Until then the engine compiles, which allocates too. */
const WARM_UP = 200_000;
/** As the server takes them from a socket: one look at the clock each. */
const BATCH = 64;
const OUTSIDE = 'www.example.com';
const SEARCH = '.default.svc.cluster.local';

const COOKIE = { options: [{ code: OPTION_COOKIE, bytes: new Uint8Array(8).fill(1) }] };

const CASES: readonly [what: string, name: string, type: string, edns?: Partial<Edns>][] = [
  ['A', 'web.default.svc.cluster.local', 'A'],
  ['A with EDNS', 'web.default.svc.cluster.local', 'A', {}],
  ['A with a cookie', 'web.default.svc.cluster.local', 'A', COOKIE],
  ['A, headless', 'head.db.svc.cluster.local', 'A'],
  ['AAAA', 'web.default.svc.cluster.local', 'AAAA'],
  ['SRV', '_http._tcp.web.default.svc.cluster.local', 'SRV'],
  ['PTR', '1.0.96.10.in-addr.arpa', 'PTR'],
  ['NXDOMAIN', 'none.default.svc.cluster.local', 'A'],
  ['NODATA', 'web.default.svc.cluster.local', 'TXT'],
  ['cached outside', OUTSIDE, 'A'],
  ['cached outside with EDNS', OUTSIDE, 'A', {}],
  ['searched, outside', `${OUTSIDE}${SEARCH}`, 'A'],
  ['searched, cluster', `web.default.svc.cluster.local${SEARCH}`, 'A'],
];

const pod = ip('10.244.0.1');
const clients = new Clients('cluster.local.');
clients.setPods([{ address: pod, pod: 'default/a' }]);
const peers = new Uint8Array(32);
peers.set([10, 244, 0, 1], 4);

let token = 0;
const responder = new Responder({
  table: answererOf(exampleZone()).table,
  cache: new AnswerCache({ maxEntries: 100, maxStaleS: 3600 }),
  random: randomBelowFrom(1),
  nowMs: Date.now,
  cookies: new Cookies(new Uint8Array(SECRET_BYTES)),
  forward: (asked) => {
    token = asked;
  },
});
const request: Request = {
  bytes: new Uint8Array(1280),
  length: 0,
  reply: new Uint8Array(UDP_PAYLOAD_BYTES),
  transport: 'udp',
  client: clients.find(peers, 4, 4),
  searchSuffix: undefined,
  defer: () => () => undefined,
};

for (const [, owner, type, edns] of CASES) {
  setQuery(owner, type, edns);
  if (answer(1) === 0) keepOutside(edns);
  if (answer(WARM_UP) === 0) throw new Error(`${type} ${owner} is not answered at once`);
}
for (const [what, owner, type, edns] of CASES) {
  setQuery(owner, type, edns);
  answer(WARM_UP);
  const allocated = allocatedBytes();
  const startMs = performance.now();
  answer(QUERIES);
  const tookMs = performance.now() - startMs;
  line(what, 'B/query', (allocatedBytes() - allocated) / QUERIES);
  line(what, 'ns/query', (tookMs / QUERIES) * 1e6);
}

function setQuery(owner: string, type: string, edns?: Partial<Edns>): void {
  const query = encodeMessage(makeQuery(1, { name: name(owner), type: typeNumber(type) }, edns));
  request.bytes.set(query);
  request.length = query.length;
}

/** Asks so often, as the pod. @returns the last answer's length */
function answer(queries: number): number {
  let length = 0;
  for (let i = 0; i < queries; i += BATCH) {
    const nowMs = Date.now();
    for (let j = 0; j < BATCH; j++) {
      request.client = clients.find(peers, 4, 4);
      length = responder.respond(request, nowMs);
    }
  }
  return length;
}

/** What an upstream says to the last question that was forwarded. */
function keepOutside(edns?: Partial<Edns>): void {
  const query = makeQuery(0, { name: name(OUTSIDE), type: typeNumber('A') }, edns);
  responder.resolved(token, encodeMessage(answerWith(query, ['192.0.2.80'])));
}

/** Of all the heap's life, whatever was collected since. */
function allocatedBytes(): number {
  return getHeapStatistics().total_allocated_bytes;
}

function line(what: string, unit: string, value: number): void {
  const rounded = Number(value.toPrecision(4));
  console.log(JSON.stringify({ bench: 'dns/allocation', case: what, value: rounded, unit }));
}
