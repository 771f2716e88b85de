import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { sleep } from '#lib/clock.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { TcpListener, type TcpListenerOptions } from './server/tcp.ts';
import { FrameReader, frame } from './tcp-frame.ts';

async function listener(
  options: Partial<TcpListenerOptions>,
): Promise<{ tcp: TcpListener; dial: () => Promise<Socket> }> {
  const answer = async (query: Uint8Array) => query;
  const tcp = new TcpListener({
    address: ip('127.0.0.1'),
    port: 0,
    log: silentLogger,
    answer,
    ...options,
  });
  while (tcp.failure !== undefined) await sleep(1);
  const dial = async () => {
    const socket = connect(tcp.port ?? 0, '127.0.0.1');
    await once(socket, 'connect');
    return socket;
  };
  return { tcp, dial };
}

test('FrameReader gives the same messages however the stream is cut', () => {
  const messages = [Buffer.from('a'), Buffer.alloc(0), Buffer.alloc(700, 'x'), Buffer.from('end')];
  const stream = Buffer.concat(messages.map(frame));
  for (const size of [1, 2, 3, 7, 100, stream.length]) {
    const reader = new FrameReader();
    const got: Buffer[] = [];
    for (let at = 0; at < stream.length; at += size)
      got.push(...reader.push(stream.subarray(at, at + size)));
    assert.deepEqual(got, messages, `chunks of ${size}`);
  }
});

test('TcpListener closes a connection on which nothing happens', async () => {
  const { tcp, dial } = await listener({ idleMs: 50 });
  await using _ = tcp;
  const socket = await dial();
  await once(socket.resume(), 'close');
});

test('TcpListener takes no more connections than its limit', async () => {
  const { tcp, dial } = await listener({ maxConnections: 1 });
  await using _ = tcp;
  const first = await dial();
  const second = await dial();
  await once(second.resume(), 'close');
  first.write(frame(Buffer.from('still here')));
  const [answer] = (await once(first, 'data')) as [Buffer];
  assert.equal(answer.toString('latin1').slice(2), 'still here');
  first.destroy();
});

test('TcpListener closes a connection that sends what is no query', async () => {
  const { tcp, dial } = await listener({ answer: async () => undefined });
  await using _ = tcp;
  const socket = await dial();
  socket.write(frame(Buffer.from('x')));
  await once(socket.resume(), 'close');
});

test('TcpListener answers all of a long pipeline', async () => {
  const { tcp, dial } = await listener({
    answer: async (query) => {
      await sleep(1);
      return query;
    },
  });
  await using _ = tcp;
  const socket = await dial();
  const count = 500;
  socket.end(Buffer.concat(Array.from({ length: count }, (_, i) => frame(Buffer.from(String(i))))));
  const reader = new FrameReader();
  const got: string[] = [];
  for await (const chunk of socket) got.push(...reader.push(chunk as Buffer).map(String));
  assert.equal(new Set(got).size, count);
});
