/**
 * The server's connections, filled: by strangers who say nothing, and by one client who opens more and more.
 * `TULLE_CONNECTIONS` is how many the server can have (default 60; this process needs twice as many files).
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { Agent, request as httpsRequest } from 'node:https';
import { connect, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { after, before, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { connectionLimits } from './connection-gate.ts';
import { type Identity, type ServerFixture, startServerFixture } from './test-server.ts';

const TOTAL = Number(process.env.TULLE_CONNECTIONS ?? 60);
const LIMITS = connectionLimits(TOTAL);
/** The garbage of a connection is gone some time after it; a leak of them all would be ten times that. */
const MAX_BYTES_PER_CONNECTION = 300_000;
const LEASES = '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases';

let fixture: ServerFixture;
let node: Identity;
before(async () => {
  fixture = await startServerFixture({ maxConnections: TOTAL });
  node = await fixture.identity('system:node:m1', ['system:nodes']);
  const lease = { metadata: { name: 'm1' }, spec: { holderIdentity: 'm1' } };
  const made = await fixture.call('POST', LEASES, { as: node, body: lease });
  assert.equal(made.status, 201, made.text);
});
after(() => fixture[Symbol.asyncDispose]());

/** A heartbeat on the connection that the node has. */
async function beat(): Promise<void> {
  const { text: lease } = await fixture.call('GET', `${LEASES}/m1`, { as: node });
  const { status } = await fixture.call('PUT', `${LEASES}/m1`, { as: node, body: lease });
  assert.equal(status, 200);
}

/** One request on a connection of its own, which is left open. */
async function requestAlone(
  as: Identity | undefined,
  localAddress = '127.0.0.1',
): Promise<{ status: number; body: string; closes: boolean; end: () => void }> {
  const agent = new Agent({ keepAlive: true });
  const sent = httpsRequest({
    ...{ ...fixture.server.address, ...as, ca: fixture.ca.certificatePem, localAddress },
    ...{ path: as === undefined ? '/healthz' : '/version', agent },
  });
  sent.end();
  const [response] = await once(sent, 'response');
  return {
    status: response.statusCode,
    body: await text(response),
    closes: response.headers.connection === 'close',
    end: () => agent.destroy(),
  };
}

async function counts(): Promise<{ strangers: number; known: number }> {
  const { text: figures } = await fixture.call('GET', '/metrics', { as: fixture.admin });
  const of = (what: string) =>
    Number(
      new RegExp(`^tulle_server_connections\\{of="${what}"\\} (\\d+)$`, 'm').exec(figures)?.[1],
    );
  return { strangers: of('strangers'), known: of('known') };
}

async function until(what: () => Promise<boolean>): Promise<void> {
  while (!(await what())) await new Promise((resolve) => setTimeout(resolve, 20));
}

test('strangers who say nothing take the places of their own kind only', async (t) => {
  const { host, port } = fixture.server.address;
  const flood: Socket[] = [];
  t.after(() => {
    for (const socket of flood) socket.destroy();
  });
  const open = () => flood.filter((socket) => !socket.destroyed).length;
  const rssBefore = process.memoryUsage.rss();
  for (let i = 0; i < 3 * LIMITS.strangers; i++) {
    // Every other one goes as far as it gets without a credential.
    const socket =
      i % 2 === 0
        ? connect({ host, port, localAddress: '127.0.0.1' })
        : connectTls({ host, port, ca: fixture.ca.certificatePem });
    // Being cut is what the test is about.
    socket.on('error', () => {});
    // A socket that nobody reads does not see its end.
    socket.resume();
    flood.push(socket);
    await once(socket, i % 2 === 0 ? 'connect' : 'secureConnect').catch(() => undefined);
    if (i % LIMITS.strangers === 0) await beat();
  }
  await until(async () => open() <= LIMITS.strangers);
  assert.ok((await counts()).strangers <= LIMITS.strangers);
  await beat();
  // A node that comes now gets in, from the address of the flood and from another.
  const other = await fixture.identity('system:node:m2', ['system:nodes']);
  for (const address of ['127.0.0.1', '127.0.0.2']) {
    const answer = await requestAlone(other, address);
    assert.equal(answer.status, 200);
    answer.end();
  }
  const health = await requestAlone(undefined, '127.0.0.2');
  assert.equal(health.status, 200);
  health.end();
  const bytes = process.memoryUsage.rss() - rssBefore;
  assert.ok(bytes < 64 * 1024 * 1024 + 3 * LIMITS.strangers * MAX_BYTES_PER_CONNECTION, `${bytes}`);
  for (const socket of flood) socket.destroy();
  await until(async () => (await counts()).strangers === 0);
});

test('one client who opens more and more is told so, and others get in', async () => {
  const greedy = await fixture.identity('greedy', ['system:masters']);
  const held: (() => void)[] = [];
  for (let i = 0; i < LIMITS.perPrincipal; i++) {
    const { status, end } = await requestAlone(greedy);
    assert.equal(status, 200);
    held.push(end);
    if (i % 100 === 0) await beat();
  }
  const full = await counts();
  const refused = await requestAlone(greedy);
  assert.equal(refused.status, 429);
  assert.ok(refused.closes);
  const { message, details } = JSON.parse(refused.body);
  assert.match(message, new RegExp(`"greedy" has ${LIMITS.perPrincipal} connections; use one`));
  assert.equal(details.retryAfterSeconds, 5);
  await refusedOverHttp2(greedy);
  await beat();
  const next = await requestAlone(await fixture.identity('other', ['system:masters']));
  assert.equal(next.status, 200);
  next.end();
  for (const end of held) end();
  await until(async () => (await counts()).known === full.known - LIMITS.perPrincipal);
  const again = await requestAlone(greedy);
  assert.equal(again.status, 200);
  again.end();
  const { text: figures } = await fixture.call('GET', '/metrics', { as: fixture.admin });
  assert.match(figures, /^tulle_server_connections_refused_total\{reason="principal"\} 2$/m);
});

/** The answer comes, and then the server ends the session. */
async function refusedOverHttp2({ cert, key }: Identity): Promise<void> {
  const session: ClientHttp2Session = connectHttp2(fixture.server.url, {
    ...{ cert, key, ca: fixture.ca.certificatePem },
  });
  const closed = once(session, 'close');
  const stream = session.request({ ':path': '/version' });
  const [headers] = await once(stream, 'response');
  assert.equal(headers[':status'], 429);
  stream.resume();
  await closed;
}
