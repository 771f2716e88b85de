import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { createServer, type TLSSocket } from 'node:tls';
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';
import { decodeMessage, encodeMessage, makeQuery } from '#wire/dns/message.ts';
import { name } from '#wire/dns/name.ts';
import { answerWith } from './fake-upstream.ts';
import { FrameReader, frame } from './tcp-frame.ts';
import { describeMessage } from './testing.ts';
import { TlsPool } from './tls.ts';
import { UpstreamError } from './upstream.ts';

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const OPTIONS = { timeoutMs: 20_000 };

describe('DNS over TLS', () => {
  const sockets: TLSSocket[] = [];
  let server: ReturnType<typeof createServer>;
  let ca = '';
  let port = 0;
  let answering = true;

  before(async () => {
    x509.cryptoProvider.set(crypto);
    const keys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify']);
    const certificate = await x509.X509CertificateGenerator.createSelfSigned({
      name: 'CN=dns.example',
      notAfter: new Date(Date.now() + 3600_000),
      signingAlgorithm: ALGORITHM,
      keys,
      extensions: [
        new x509.SubjectAlternativeNameExtension([{ type: 'dns', value: 'dns.example' }]),
        new x509.BasicConstraintsExtension(true),
      ],
    });
    ca = certificate.toString('pem');
    const pkcs8 = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey));
    const key = `-----BEGIN PRIVATE KEY-----\n${pkcs8.toString('base64')}\n-----END PRIVATE KEY-----\n`;
    server = createServer({ key, cert: ca, ALPNProtocols: ['dot'] }, (socket) => {
      const reader = new FrameReader();
      sockets.push(socket);
      socket.on('error', () => socket.destroy());
      socket.on('data', (chunk: Buffer) => {
        if (!answering) return;
        // In the reverse order, so that ids matter.
        for (const bytes of reader.push(chunk).reverse())
          socket.write(frame(encodeMessage(answerWith(decodeMessage(bytes), ['192.0.2.80']))));
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    port = typeof address === 'object' && address !== null ? address.port : 0;
  });
  after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });

  const upstream = (tls: { serverName?: string; ca?: string }) => ({
    address: '127.0.0.1',
    port,
    tls,
  });
  const query = (owner: string) => encodeMessage(makeQuery(7, { name: name(owner), type: 1 }));

  test('many questions share one connection, and each gets its own answer', async () => {
    using pool = new TlsPool();
    const to = upstream({ serverName: 'dns.example', ca });
    const names = Array.from({ length: 50 }, (_, i) => `n${i}.example`);
    const answers = await Promise.all(names.map((it) => pool.ask(to, query(it), OPTIONS)));
    assert.deepEqual(
      answers.map((answer) => describeMessage(decodeMessage(answer))[1]),
      names.map((it) => `${it}. 300 A 192.0.2.80`),
    );
    assert.equal(sockets.length, 1);
  });

  test('a certificate of another name, or of an unknown authority, is refused', async () => {
    using pool = new TlsPool();
    for (const tls of [{ serverName: 'other.example', ca }, { serverName: 'dns.example' }, { ca }])
      await assert.rejects(
        pool.ask(upstream(tls), query('a.example'), OPTIONS),
        (error: unknown) => error instanceof UpstreamError && error.reason === 'closed',
      );
  });

  test('a connection that went is opened again, and one that swallows questions is left', async () => {
    using pool = new TlsPool();
    const to = upstream({ serverName: 'dns.example', ca });
    await pool.ask(to, query('a.example'), OPTIONS);
    sockets.at(-1)?.destroy();
    const again = () => pool.ask(to, query('a.example'), OPTIONS);
    await again().catch(again);
    const before = sockets.length;
    answering = false;
    await assert.rejects(pool.ask(to, query('a.example'), { timeoutMs: 50 }), /within 50 ms/);
    answering = true;
    await again();
    assert.equal(sockets.length, before + 1);
  });
});
