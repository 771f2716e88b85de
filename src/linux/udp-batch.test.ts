import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import { EADDRNOTAVAIL, isErrno } from '#lib/errors.ts';
import { ip } from '#lib/ip.ts';
import { until } from '#lib/testing/until.ts';
import { UdpBatchSocket, waitReadable } from './udp-batch.ts';
import { drainWakeEvent, WakeEvent } from './wake-event.ts';

const SIZES = { requestBytes: 64, replyBytes: 64 };

async function client(address: string, port: number) {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  socket.connect(port, address);
  await once(socket, 'connect');
  return socket;
}

for (const address of ['127.0.0.1', '::1'])
  test(`UdpBatchSocket answers every datagram of a batch to its sender, over ${address}`, async (t) => {
    let server: UdpBatchSocket;
    try {
      server = new UdpBatchSocket({ address: ip(address), port: 0, ...SIZES });
    } catch (error) {
      if (address === '::1' && isErrno(error, EADDRNOTAVAIL)) {
        t.skip('this machine has no IPv6 loopback address');
        return;
      }
      throw error;
    }
    using _ = server;
    const clients = await Promise.all([client(address, server.port), client(address, server.port)]);
    const got: string[][] = clients.map(() => []);
    for (const [i, socket] of clients.entries())
      socket.on('message', (m) => got[i]?.push(String(m)));
    for (let n = 0; n < 5; n++)
      for (const [i, socket] of clients.entries()) socket.send(`${i}:${n}`);
    let answered = 0;
    while (answered < 10) {
      // The clients send on the event loop, which must run in between.
      await new Promise(setImmediate);
      if (waitReadable([server.fd], 0).length === 0) continue;
      const count = server.receive();
      for (let i = 0; i < count; i++) {
        const text = Buffer.from(server.request(i)).toString('latin1', 0, server.requestLength(i));
        // Every third is left without an answer, so that runs of answers are sent.
        const reply = Buffer.from(`re ${text}`);
        server.reply(i).set(reply);
        server.setReplyLength(i, answered % 3 === 2 ? 0 : reply.length);
        if (answered % 3 === 2)
          server.sendTo(server.peer(i), Buffer.from(`late ${text}`), 5 + text.length);
        answered++;
      }
      server.send();
    }
    await until(() => got.flat().length >= 10);
    for (const [i, list] of got.entries())
      assert.deepEqual(
        list.map((text) => text.split(' ')[1]).sort(),
        [0, 1, 2, 3, 4].map((n) => `${i}:${n}`),
      );
    assert.ok(got.flat().some((text) => text.startsWith('late')));
    for (const socket of clients) socket.close();
  });

test('UdpBatchSocket cuts what is longer than its buffer', async () => {
  using server = new UdpBatchSocket({ address: ip('127.0.0.1'), port: 0, ...SIZES });
  const socket = await client('127.0.0.1', server.port);
  socket.send(Buffer.alloc(100, 'x'));
  await until(() => waitReadable([server.fd], 0).length > 0);
  assert.equal(server.receive(), 1);
  assert.equal(server.requestLength(0), 64);
  assert.equal(server.receive(), 0);
  socket.close();
});

test('UdpBatchSocket can be opened twice on one port, and names the address it cannot use', () => {
  using first = new UdpBatchSocket({ address: ip('127.0.0.1'), port: 0, ...SIZES });
  using second = new UdpBatchSocket({ address: ip('127.0.0.1'), port: first.port, ...SIZES });
  assert.equal(second.port, first.port);
  assert.throws(
    () => new UdpBatchSocket({ address: ip('192.0.2.1'), port: 5353, ...SIZES }),
    /bind UDP 192\.0\.2\.1:5353: EADDRNOTAVAIL/,
  );
});

test('WakeEvent makes its descriptor readable until it is drained', () => {
  using wake = new WakeEvent();
  assert.deepEqual(waitReadable([wake.fd], 0), []);
  wake.signal();
  wake.signal();
  assert.deepEqual(waitReadable([wake.fd], 0), [0]);
  drainWakeEvent(wake.fd);
  assert.deepEqual(waitReadable([wake.fd], 0), []);
});
