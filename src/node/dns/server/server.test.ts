import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { ip } from '#lib/ip.ts';
import { TYPE_HINFO } from '#wire/dns/constants.ts';
import { decodeMessage, encodeMessage } from '#wire/dns/message.ts';
import { AnswerRelay, type AnswerWatch } from '../../answer-watch.ts';
import { DEFAULT_CONFIG } from '../config.ts';
import { answerWith, startFakeUpstream } from '../fake-upstream.ts';
import { PROTOCOL_QUERIES } from '../protocol-vectors.ts';
import { describeMessage, exampleZone, queryBytes } from '../testing.ts';
import type { Upstream } from '../upstream.ts';
import { VECTORS } from '../vectors.ts';
import {
  askTcp,
  askUdp,
  exampleServer,
  LOOPBACK,
  listening,
  portOf,
  until,
} from '../wire-testing.ts';

const WEB = 'web.default.svc.cluster.local.';
const LOOPBACK_V6 = ip('::1');
const hasIpv6 = Object.values(networkInterfaces()).some((addresses) =>
  addresses?.some(({ address }) => address === LOOPBACK_V6),
);

for (const address of [LOOPBACK, LOOPBACK_V6])
  test(`DnsServer answers the vectors over UDP and TCP on ${address}`, async (t) => {
    if (address === LOOPBACK_V6 && !hasIpv6)
      return t.skip('this machine has no IPv6 loopback address');
    await using server = exampleServer({ listen: [address] });
    await listening(server);
    const udp = portOf(server.listening, 'udp');
    for (const { question, type, expected } of VECTORS) {
      // Sets of several addresses come in any order, and no upstream is known.
      const wanted = expected[0] === 'forward' ? ['SERVFAIL'] : [...expected].sort();
      const bytes = queryBytes(question, type, {});
      const got = describeMessage(await askUdp(udp, bytes, address));
      assert.deepEqual(got.sort(), wanted, `${question} ${type}`);
    }
    const queries = VECTORS.map(({ question, type }) => queryBytes(question, type));
    const answers = await askTcp(portOf(server.listening, 'tcp'), queries, address);
    assert.equal(answers.length, VECTORS.length);
    const rcodes = (some: readonly string[]) => [...some].sort();
    assert.deepEqual(
      rcodes(answers.map((answer) => describeMessage(answer)[0] ?? '')),
      rcodes(
        VECTORS.map(({ expected: [first = ''] }) => (first === 'forward' ? 'SERVFAIL' : first)),
      ),
    );
  });

test('DnsServer refuses over UDP and TCP what is no query for data', async () => {
  await using server = exampleServer();
  await listening(server);
  for (const [what, query, expected] of PROTOCOL_QUERIES) {
    const [overTcp] = await askTcp(portOf(server.listening, 'tcp'), [query]);
    const got = overTcp === undefined ? 'drop' : describeMessage(overTcp)[0];
    assert.equal(got, expected, `${what}, over TCP`);
    if (expected === 'drop') continue;
    const overUdp = await askUdp(portOf(server.listening, 'udp'), query);
    assert.equal(describeMessage(overUdp)[0], expected, `${what}, over UDP`);
  }
});

test('many clients that wait at once get each the answer to its own question, and so does the cache', async () => {
  // The address tells the name; the last question is answered first.
  const held: (() => void)[] = [];
  const upstream = createSocket('udp4');
  upstream.bind(0, LOOPBACK);
  await once(upstream, 'listening');
  upstream.on('message', (bytes, peer) => {
    const query = decodeMessage(bytes);
    const owner = query.questions[0]?.name ?? '';
    const number = /^n(\d+)\./.exec(owner)?.[1];
    if (number === undefined) return;
    const answer = encodeMessage(answerWith(query, [`198.51.100.${number}`]));
    held.push(() => upstream.send(answer, peer.port, peer.address));
    if (held.length === 200) for (const send of held.reverse()) send();
  });
  await using server = exampleServer({
    upstreams: [{ address: LOOPBACK, port: upstream.address().port }],
  });
  await listening(server);
  const udp = portOf(server.listening, 'udp');
  const askAll = () =>
    Promise.all(
      Array.from({ length: 200 }, async (_, i) => {
        const answer = await askUdp(udp, queryBytes(`n${i}.example`, 'A'));
        return describeMessage(answer)[1];
      }),
    );
  const expected = Array.from({ length: 200 }, (_, i) => `n${i}.example. 300 A 198.51.100.${i}`);
  assert.deepEqual(await askAll(), expected);
  const again = (await askAll()).map((line) => line?.replace(/ \d+ A/, ' 300 A'));
  assert.deepEqual(again, expected, 'from the cache');
  assert.equal(held.length, 200);
  upstream.close();
});

test('a storm of changes without end leaves time for answers', async () => {
  const zone = exampleZone();
  await using server = exampleServer();
  await listening(server);
  const udp = portOf(server.listening, 'udp');
  const changes = [...zone.all()];
  let over = false;
  const storm = (async () => {
    while (!over) {
      for (let i = 0; i < 20; i++) server.apply(changes, { serial: 7, synced: true });
      await new Promise(setImmediate);
    }
  })();
  try {
    for (let i = 0; i < 20; i++)
      assert.equal(describeMessage(await askUdp(udp, queryBytes(WEB, 'A')))[0], 'NOERROR aa');
  } finally {
    over = true;
    await storm;
  }
});

test('a main thread that does nothing delays no answer, over UDP or TCP, kept or from outside', async () => {
  const done = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  const client = new Worker(new URL('./asking.fixture.ts', import.meta.url), {
    workerData: done.buffer,
  });
  const [upstream] = (await once(client, 'message')) as [Upstream];
  await using server = exampleServer({ upstreams: [upstream] });
  await listening(server);
  const told = once(client, 'message');
  const [udp, tcp] = [portOf(server.listening, 'udp'), portOf(server.listening, 'tcp')];
  client.postMessage({ udp, tcp });
  // Nothing runs on this thread until all is answered; the time is only the end of a wait in vain.
  assert.notEqual(Atomics.wait(done, 0, 0, 60_000), 'timed-out');
  const outside = '192.0.2.80';
  const round = ['10.96.0.1', outside, outside, '10.96.0.1', outside].join(' ');
  assert.deepEqual(await told, [new Array(5).fill(round)]);
  await client.terminate();
});

/** Runs a test with threads that crash once. @param hasCrashed tells whether they did */
async function withCrash(body: (hasCrashed: () => boolean) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'tulle-dns-'));
  const marker = join(folder, 'crashed');
  process.env.TULLE_TEST_CRASH_MARKER = marker;
  try {
    await body(() => existsSync(marker));
  } finally {
    rmSync(folder, { recursive: true });
    delete process.env.TULLE_TEST_CRASH_MARKER;
  }
}

describe('a thread that crashes', () => {
  const fixture = (name: string) => new URL(`./${name}.fixture.ts`, import.meta.url);

  test('is started again with all names', () =>
    withCrash(async () => {
      await using server = exampleServer({ responderUrl: fixture('crash-once') });
      await listening(server);
      assert.equal(server.restarts, 1);
      const answer = await askUdp(portOf(server.listening, 'udp'), queryBytes(WEB, 'A'));
      assert.equal(describeMessage(answer)[0], 'NOERROR aa');
    }));

  test('while it serves: what is asked until the next one runs is answered by that, as if nothing had been', () =>
    withCrash(async (hasCrashed) => {
      await using server = exampleServer({ responderUrl: fixture('crash-serving') });
      await listening(server);
      const udp = portOf(server.listening, 'udp');
      const kick = createSocket('udp4');
      kick.send(queryBytes(WEB, 'A'), udp, LOOPBACK);
      await until(hasCrashed, 'the first crashes');
      kick.close();
      // Each is sent once. Neither is one lost, nor does one hear of a server that knows nothing yet.
      const asked = Array.from({ length: 30 }, () => askUdp(udp, queryBytes(WEB, 'A')));
      const overTcp = askTcp(portOf(server.listening, 'tcp'), [queryBytes(WEB, 'A')]);
      for (const answer of [...(await Promise.all(asked)), ...(await overTcp)])
        assert.equal(describeMessage(answer)[0], 'NOERROR aa');
      assert.equal(server.restarts, 1);
      assert.equal(portOf(server.listening, 'udp'), udp);
    }));

  test('while it asks outside: the next one asks again, and the client does not notice', () =>
    withCrash(async () => {
      await using upstream = await startFakeUpstream((query) => [
        answerWith(query, ['192.0.2.80']),
      ]);
      await using server = exampleServer({
        upstreams: [upstream.upstream],
        forwarderUrl: fixture('crash-asked'),
      });
      await listening(server);
      const udp = portOf(server.listening, 'udp');
      const answer = await askUdp(udp, queryBytes('www.example.com', 'A'));
      assert.equal(describeMessage(answer)[1], 'www.example.com. 300 A 192.0.2.80');
      assert.equal(server.restarts, 1);
      await listening(server);
      const overTcp = await askTcp(portOf(server.listening, 'tcp'), [queryBytes(WEB, 'A')]);
      assert.equal(describeMessage(overTcp[0] ?? assert.fail())[0], 'NOERROR aa');
    }));

  test('leaves nothing open when nobody follows', () =>
    withCrash(async (hasCrashed) => {
      const server = exampleServer({ responderUrl: fixture('crash-serving') });
      await listening(server);
      const udp = portOf(server.listening, 'udp');
      const kick = createSocket('udp4');
      kick.send(queryBytes(WEB, 'A'), udp, LOOPBACK);
      await until(hasCrashed, 'it crashes');
      kick.close();
      await server[Symbol.asyncDispose]();
      // Whoever shares the port would get half of the queries if the old socket were there.
      await using next = exampleServer({ port: udp });
      await listening(next);
      for (let i = 0; i < 30; i++)
        assert.equal(describeMessage(await askUdp(udp, queryBytes(WEB, 'A')))[0], 'NOERROR aa');
    }));
});

describe('answers that policies want to know', () => {
  /** Hears of names below example.com. */
  function watch(answered: (text: string) => void): AnswerWatch {
    return {
      wanted: () => new Set(['*.example.com']),
      asked: (name) => answered(`asked ${name}`),
      answered: (name, family, addresses) =>
        answered(`${name} ${family} ${addresses?.map(({ address }) => address)}`),
    };
  }
  async function ask(answers: AnswerRelay, ...owners: string[]): Promise<string[]> {
    await using upstream = await startFakeUpstream((query) => [answerWith(query, ['192.0.2.80'])]);
    await using server = exampleServer({ upstreams: [upstream.upstream], answers });
    await listening(server);
    const udp = portOf(server.listening, 'udp');
    const got: string[] = [];
    for (const owner of owners)
      got.push(describeMessage(await askUdp(udp, queryBytes(owner, 'A')))[0] ?? '');
    return got;
  }

  test('are told before the pod has them, and others are not told', async () => {
    const told: string[] = [];
    const answers = new AnswerRelay();
    answers.attach(watch((text) => told.push(text)));
    assert.deepEqual(await ask(answers, 'www.example.com', 'www.example.org'), [
      'NOERROR',
      'NOERROR',
    ]);
    assert.deepEqual(told, ['asked www.example.com', 'www.example.com 4 192.0.2.80']);
  });

  test('are not given when policies cannot be told', async () => {
    const answers = new AnswerRelay();
    answers.attach(
      watch((text) => {
        if (!text.startsWith('asked')) throw new Error('the kernel says no');
      }),
    );
    assert.deepEqual(await ask(answers, 'www.example.com', 'www.example.org'), [
      'SERVFAIL',
      'NOERROR',
    ]);
  });
});

test('what was asked of upstreams before the configuration changed is given, and not kept', async (t) => {
  const held: (() => void)[] = [];
  const old = createSocket('udp4');
  t.after(() => old.close());
  old.bind(0, LOOPBACK);
  await once(old, 'listening');
  old.on('message', (bytes, peer) => {
    const query = decodeMessage(bytes);
    if (query.questions[0]?.type === TYPE_HINFO) return; // a probe for loops
    const answer = encodeMessage(answerWith(query, ['192.0.2.1']));
    held.push(() => old.send(answer, peer.port, peer.address));
  });
  await using upstream = await startFakeUpstream((query) => [answerWith(query, ['192.0.2.2'])]);
  await using server = exampleServer({
    upstreams: [{ address: LOOPBACK, port: old.address().port }],
  });
  await listening(server);
  const udp = portOf(server.listening, 'udp');
  const ask = async () => describeMessage(await askUdp(udp, queryBytes('www.example.com', 'A')))[1];
  const first = ask();
  await until(() => held.length > 0, 'the old upstream is asked');
  const forward = { ...DEFAULT_CONFIG.forward, upstreams: [upstream.upstream] };
  server.configure({ ...DEFAULT_CONFIG, forward }, { flush: true });
  assert.equal(await ask(), 'www.example.com. 300 A 192.0.2.2', 'asked now, not with the first');
  held[0]?.();
  assert.equal(await first, 'www.example.com. 300 A 192.0.2.1');
  assert.match((await ask()) ?? '', /192\.0\.2\.2$/);
});

test('DnsServer shares its port with its successor, which answers when it has gone', async () => {
  const first = exampleServer();
  await until(() => first.listening.length === 2, 'the first listens');
  const udp = portOf(first.listening, 'udp');
  await using second = exampleServer({ port: udp });
  await until(() => second.listening.length === 2, 'the second listens');
  await first[Symbol.asyncDispose]();
  for (let i = 0; i < 20; i++)
    assert.equal(describeMessage(await askUdp(udp, queryBytes(WEB, 'A')))[0], 'NOERROR aa');
});
