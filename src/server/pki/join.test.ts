/** Both sides of joining, over real TLS. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import type { Server } from 'node:https';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { after, test } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { connect, createServer as createTlsServer } from 'node:tls';
import type { JoinOptions } from '#client/join.ts';
import { isServerAway, joinNode } from '#client/join.ts';
import { FakeClock } from '#lib/clock.ts';
import { ApiError, UserError } from '#lib/errors.ts';
import { ip } from '#lib/ip.ts';
import { openMemoryStore } from '#store/memory/memory-store.ts';
import type { Store } from '#store/port.ts';
import type { Ca } from './ca.ts';
import { openCa } from './ca.ts';
import { issueServerCertificate } from './issue.ts';
import { createJoinHandler, issueNodeCertificate } from './join.ts';
import { createToken } from './tokens.ts';

const root = mkdtempSync(join(tmpdir(), 'tulle-join-'));
after(() => rmSync(root, { recursive: true }));
let count = 0;
const newDirectory = () => join(root, String(count++));

interface Cluster {
  readonly url: string;
  readonly ca: Ca;
  readonly store: Store;
  readonly server: Server;
  /** Paths that were asked for, and what a join showed. */
  readonly seen: string[];
  token(ttlMs?: number): Promise<string>;
}

/** An HTTPS server with the two routes; `options` make it a bad one. */
async function startCluster(
  t: TestContext,
  options: { names?: string[]; serverCa?: Ca; answerCa?: string; clock?: FakeClock } = {},
): Promise<Cluster> {
  const ca = await openCa({ directory: newDirectory() });
  const store = openMemoryStore();
  const handler = createJoinHandler({
    ca,
    store,
    ...(options.clock === undefined ? {} : { clock: options.clock }),
  });
  const { certificatePem, keyPem } = await issueServerCertificate(options.serverCa ?? ca, {
    commonName: 'test',
    names: options.names ?? [],
    ips: options.names === undefined ? [ip('127.0.0.1')] : [],
  });
  const seen: string[] = [];
  const server = createServer({ cert: certificatePem, key: keyPem }, async (request, response) => {
    const token = request.headers.authorization?.replace(/^Bearer /, '') ?? '';
    seen.push(`${request.method} ${request.url}${token === '' ? '' : ' with a token'}`);
    if (request.url === '/tulle/v1/ca') {
      response.end(options.answerCa ?? ca.certificatePem);
      return;
    }
    try {
      const text = (await request.toArray()).join('');
      response.end(JSON.stringify(await handler({ token, body: JSON.parse(text) })));
    } catch (error) {
      assert.ok(error instanceof ApiError, String(error));
      response.statusCode = error.status;
      response.end(JSON.stringify({ kind: 'Status', message: error.message }));
    }
  }).listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const token = async (ttlMs?: number) => {
    const { fingerprint: caFingerprint } = ca;
    const clock = options.clock === undefined ? {} : { clock: options.clock };
    const settings = { caFingerprint, description: '', ttlMs, ...clock };
    return (await createToken(store, settings)).text;
  };
  return { url: `https://127.0.0.1:${port}`, ca, store, server, seen, token };
}

async function optionsFor(cluster: Cluster): Promise<JoinOptions> {
  const token = await cluster.token();
  return { server: cluster.url, token, nodeName: 'm1.example', directory: newDirectory() };
}

test('joinNode() gets a certificate for the node and keeps it', async (t) => {
  const cluster = await startCluster(t);
  const options = await optionsFor(cluster);
  const identity = await joinNode(options);
  assert.equal(identity.joined, true);
  assert.deepEqual(cluster.seen, ['GET /tulle/v1/ca', 'POST /tulle/v1/join with a token']);
  const certificate = new X509Certificate(readFileSync(identity.certificatePath));
  assert.equal(certificate.subject, 'O=system:nodes\nCN=system:node:m1.example');
  assert.equal(readFileSync(identity.caPath, 'utf8').trim(), cluster.ca.certificatePem.trim());
  assert.equal(statSync(identity.keyPath).mode & 0o777, 0o600);
  assert.equal(statSync(options.directory).mode & 0o777, 0o700);
  assert.deepEqual(readdirSync(options.directory).toSorted(), ['ca.crt', 'node.crt', 'node.key']);
});

test('joinNode() makes an identity that a TLS server of the cluster believes, also of a long name', async (t) => {
  const cluster = await startCluster(t);
  const nodeName = `${'a'.repeat(63)}.${'b'.repeat(63)}.example`;
  const identity = await joinNode({ ...(await optionsFor(cluster)), nodeName });
  const issued = await issueServerCertificate(cluster.ca, {
    commonName: 'test',
    names: [],
    ips: [ip('127.0.0.1')],
  });
  const server = createTlsServer({
    cert: issued.certificatePem,
    key: issued.keyPem,
    ca: cluster.ca.certificatePem,
    requestCert: true,
  }).listen(0, '127.0.0.1');
  t.after(() => server.close());
  await once(server, 'listening');
  const accepted = once(server, 'secureConnection');
  const client = connect({
    host: '127.0.0.1',
    port: (server.address() as AddressInfo).port,
    ca: readFileSync(identity.caPath),
    cert: readFileSync(identity.certificatePath),
    key: readFileSync(identity.keyPath),
  });
  t.after(() => client.destroy());
  const [socket] = (await accepted) as [TLSSocket];
  assert.equal(socket.authorized, true);
  const { subject } = socket.getPeerCertificate();
  assert.deepEqual([subject.CN, subject.O], [`system:node:${nodeName}`, 'system:nodes']);
});

test('joinNode() does nothing the second time, even if the server is away', async (t) => {
  const cluster = await startCluster(t);
  const options = await optionsFor(cluster);
  const first = await joinNode(options);
  const before = readFileSync(first.certificatePath, 'utf8');
  const again = await joinNode({ ...options, server: 'https://127.0.0.1:1' });
  assert.equal(again.joined, false);
  assert.equal(readFileSync(again.certificatePath, 'utf8'), before);
  assert.equal(cluster.seen.length, 2);
});

test('joinNode() joins again under another name, or when files are damaged or have run out', async (t) => {
  const cluster = await startCluster(t);
  const options = await optionsFor(cluster);
  const { keyPath, certificatePath } = await joinNode(options);
  assert.equal((await joinNode({ ...options, nodeName: 'm2' })).joined, true);
  writeFileSync(certificatePath, 'cut off');
  assert.equal((await joinNode({ ...options, nodeName: 'm2' })).joined, true);
  const foreign = await joinNode({ ...options, nodeName: 'm3', directory: newDirectory() });
  writeFileSync(keyPath, readFileSync(foreign.keyPath));
  assert.equal((await joinNode({ ...options, nodeName: 'm2' })).joined, true);
  const clock = new FakeClock(Date.now() + 366 * 24 * 3_600_000);
  assert.equal((await joinNode({ ...options, nodeName: 'm2', clock })).joined, true);
});

test('joinNode() moves to another cluster when the token is of that', async (t) => {
  const one = await optionsFor(await startCluster(t));
  await joinNode(one);
  const two = await startCluster(t);
  const options = { ...(await optionsFor(two)), directory: one.directory };
  const { caPath, joined } = await joinNode(options);
  assert.equal(joined, true);
  assert.equal(readFileSync(caPath, 'utf8').trim(), two.ca.certificatePem.trim());
});

test('joinNode() shows its token to no server but the pinned one', async (t) => {
  const cluster = await startCluster(t);
  const other = await startCluster(t);
  const options = { ...(await optionsFor(cluster)), server: other.url };
  const error = await failure(options, /not the server that the token is for/);
  assert.equal(isServerAway(error), false);
  assert.deepEqual(other.seen, ['GET /tulle/v1/ca']);
});

test('joinNode() shows its token to no server that only repeats the pinned certificate', async (t) => {
  const serverCa = await openCa({ directory: newDirectory() });
  const cluster = await startCluster(t, { serverCa });
  const error = await failure(await optionsFor(cluster), /Cannot reach the server/, /in between/);
  assert.equal(isServerAway(error), false);
  assert.deepEqual(cluster.seen, ['GET /tulle/v1/ca']);
});

test('joinNode() finds the pinned certificate among others, and trusts only that', async (t) => {
  const old = await openCa({ directory: newDirectory() });
  const ca = await openCa({ directory: newDirectory() });
  const answerCa = `${old.certificatePem}\n-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n`;
  const cluster = await startCluster(t, { answerCa });
  await failure(await optionsFor(cluster), /no certificate has the pinned key/);
  const good = await startCluster(t, {});
  const bundle = await startCluster(t, { answerCa: answerCa + ca.certificatePem, serverCa: ca });
  // The bundle's server is of a CA that the token does not pin: its certificate is in the answer, and is not trusted.
  await failure(
    { ...(await optionsFor(good)), server: bundle.url },
    /no certificate has the pinned/,
  );
});

test('joinNode() says what to do about a token that is unknown or has expired', async (t) => {
  const clock = new FakeClock();
  const cluster = await startCluster(t, { clock });
  const options = { ...(await optionsFor(cluster)), token: await cluster.token(1000) };
  const unknown = options.token.replace(/\.[a-z0-9]{16}@/, `.${'0'.repeat(16)}@`);
  await failure({ ...options, token: unknown }, /not known to this cluster/, /tulle token create/);
  clock.advance(1000);
  const error = await failure(options, /has expired at 2026/, /tulle token create/);
  assert.equal(isServerAway(error), false);
  assert.throws(() => readdirSync(options.directory), 'nothing half-done is left');
});

test('joinNode() tells a server that is away from one that refuses', async (t) => {
  const cluster = await startCluster(t);
  const options = await optionsFor(cluster);
  const named = await startCluster(t, { names: ['server.example'] });
  const wrongName = { ...(await optionsFor(named)) };
  assert.equal(isServerAway(await failure(wrongName, /Cannot reach/, /name or address/)), false);
  assert.equal(isServerAway(await failure({ ...options, nodeName: 'M_1' }, /nodeName/)), false);
  cluster.server.close();
  assert.equal(isServerAway(await failure(options, /Cannot reach.*ECONNREFUSED/)), true);
  for (const server of ['m1', 'http://127.0.0.1:1', 'https://'])
    await failure({ ...options, server }, /no address of a server/);
});

test('joinNode() stops when its signal is aborted', async (t) => {
  const cluster = await startCluster(t);
  const signal = AbortSignal.abort(new Error('enough'));
  await assert.rejects(joinNode({ ...(await optionsFor(cluster)), signal }), /enough/);
});

test('createJoinHandler() refuses bodies that are none', async () => {
  const ca = await openCa({ directory: newDirectory() });
  const store = openMemoryStore();
  const settings = { caFingerprint: ca.fingerprint, description: '', ttlMs: undefined };
  const { text } = await createToken(store, settings);
  const handler = createJoinHandler({ ca, store });
  const token = text.slice(0, text.indexOf('@'));
  for (const body of [undefined, null, 7, {}, { nodeName: 'm1' }, { nodeName: 'm1', csr: 1 }])
    await assert.rejects(handler({ token, body }), { status: 400, code: 'API' });
  const noCsr = { nodeName: 'm1', csr: 'none' };
  await assert.rejects(handler({ token, body: noCsr }), { status: 400 });
  // Who has no token learns nothing of what is wrong with the body.
  await assert.rejects(handler({ token: '', body: {} }), { status: 401 });
});

test('issueNodeCertificate() wants a token that is for joining, and a name of a node', async () => {
  const ca = await openCa({ directory: newDirectory() });
  const base = { id: 'aaaaaa', description: '', createdMs: 0, expiresMs: undefined };
  const request = { nodeName: 'm1', csrPem: '' };
  const other = { ...request, token: { ...base, usages: [] } };
  await assert.rejects(issueNodeCertificate(ca, other), { status: 403 });
  for (const nodeName of ['', 'M1', 'a_b', '-a', 'a..b', 'a'.repeat(254), 'm1\n'])
    await assert.rejects(
      issueNodeCertificate(ca, { nodeName, csrPem: '', token: { ...base, usages: ['join'] } }),
      { status: 422 },
      nodeName,
    );
});

async function failure(options: JoinOptions, message: RegExp, hint = /./): Promise<unknown> {
  const error = await joinNode(options).then(
    () => assert.fail('the join succeeded'),
    (error: unknown) => error,
  );
  assert.ok(error instanceof UserError, String(error));
  assert.match(error.message, message);
  assert.match(error.hint ?? '', hint);
  return error;
}
