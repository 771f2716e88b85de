/** What a link says of failures, against a server that fails in each of these ways. No etcd is needed. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  constants,
  createServer,
  type Http2Server,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { encodeFrame } from '#wire/grpc/frame.ts';
import { numberField } from '#wire/protobuf/writer.ts';
import { EtcdLink, type Exchange } from './link.ts';

const OK = { 'grpc-status': '0' };

/** @param serve gets each request with its number, from 1 */
async function start(
  t: TestContext,
  serve: (stream: ServerHttp2Stream, count: number) => void,
): Promise<{ link: EtcdLink; sessions: ServerHttp2Session[]; server: Http2Server }> {
  const server = createServer();
  const sessions: ServerHttp2Session[] = [];
  let count = 0;
  server.on('session', (session) => sessions.push(session));
  server.on('stream', (stream: ServerHttp2Stream) => {
    stream.on('error', () => {});
    serve(stream, ++count);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const link = new EtcdLink(
    new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`),
    {},
  );
  t.after(() => {
    link[Symbol.dispose]();
    for (const session of sessions) session.destroy();
    server.close();
  });
  return { link, sessions, server };
}

function answer(stream: ServerHttp2Stream, trailers: Record<string, string> = OK): void {
  stream.respond({ ':status': 200 }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers(trailers));
  stream.end(encodeFrame(numberField(1, 7)));
}

/** @returns the messages of the answer, in hexadecimal */
async function ask(link: EtcdLink, more: Partial<Exchange> = {}): Promise<string[]> {
  const found: string[] = [];
  await link.exchange({
    method: '/test/Method',
    message: numberField(1, 1),
    token: undefined,
    timeoutMs: 5_000,
    onMessage: (message) => found.push(Buffer.from(message).toString('hex')),
    ...more,
  });
  return found;
}

/** The request races with the news that the connection ends: it may not fail as one that has perhaps happened. */
async function askOnEndOf(link: EtcdLink): Promise<void> {
  await ask(link).catch((error) => assert.equal((error as { wasSent?: boolean }).wasSent, false));
}

test('exchange() gives the messages of an answer that ends well', async (t) => {
  const { link, sessions } = await start(t, (stream) => answer(stream));
  const answers = await Promise.all([ask(link), ask(link), ask(link)]);
  assert.deepEqual(answers, [['0807'], ['0807'], ['0807']]);
  assert.equal(sessions.length, 1);
});

test('exchange() fails with what etcd says, in trailers or in headers alone', async (t) => {
  const { link } = await start(t, (stream, count) => {
    const said = { 'grpc-status': '8', 'grpc-message': 'no%20space' };
    if (count === 1) answer(stream, said);
    else stream.respond({ ':status': 200, ...said }, { endStream: true });
  });
  const expected = { code: 'ETCD', grpcCode: 8, message: /no space/ };
  await assert.rejects(ask(link), expected);
  await assert.rejects(ask(link), expected);
});

test('exchange() knows what cannot have reached the member, and what can', async (t) => {
  const { link, server, sessions } = await start(t, (stream, count) => {
    if (count === 1) stream.close(constants.NGHTTP2_REFUSED_STREAM);
    else if (count === 2) stream.close(constants.NGHTTP2_INTERNAL_ERROR);
    else stream.session?.destroy();
  });
  const broken = (wasSent: boolean) => ({ code: 'ETCD_CONNECTION', wasSent });
  await assert.rejects(ask(link), broken(false));
  await assert.rejects(ask(link), broken(true));
  await assert.rejects(ask(link), broken(true));
  server.close();
  for (const session of sessions) session.destroy();
  await assert.rejects(ask(link), broken(false));
});

test('exchange() refuses an answer that breaks off, and what is no gRPC', async (t) => {
  const { link } = await start(t, (stream, count) => {
    if (count === 1) stream.respond({ ':status': 502 }, { endStream: true });
    else {
      stream.respond({ ':status': 200 });
      stream.end(encodeFrame(numberField(1, 7)));
    }
  });
  await assert.rejects(ask(link), { code: 'ETCD', grpcCode: 14 });
  await assert.rejects(ask(link), { code: 'ETCD_CONNECTION', wasSent: true });
});

test('a connection that the member ends takes no more requests, and those under way end well', async (t) => {
  const begun = Promise.withResolvers<ServerHttp2Stream>();
  const { link, sessions } = await start(t, (stream, count) => {
    if (count > 1) answer(stream);
    else begun.resolve(stream);
  });
  const first = ask(link);
  const stream = await begun.promise;
  // As etcd when it stops: what it has taken it serves.
  stream.session?.goaway(0, 2 ** 31 - 1);
  while (sessions.length < 2) await askOnEndOf(link);
  answer(stream);
  assert.deepEqual(await first, ['0807']);
});

test('connections that are closed while they are idle lose no request', async (t) => {
  const { link, sessions } = await start(t, (stream) => answer(stream));
  for (let round = 0; round < 20; round++) {
    assert.deepEqual(await ask(link), ['0807']);
    for (const session of sessions.splice(0)) session.close();
    await askOnEndOf(link);
  }
});

test('after an answer that is late the next request has a connection of its own', async (t) => {
  const { link, sessions } = await start(t, (stream, count) => {
    if (count > 1) answer(stream);
  });
  await assert.rejects(ask(link, { timeoutMs: 20 }), { code: 'ETCD_CONNECTION', wasSent: true });
  assert.deepEqual(await ask(link), ['0807']);
  assert.equal(sessions.length, 2);
});
