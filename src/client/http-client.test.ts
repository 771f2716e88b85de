import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import * as https from 'node:https';
import * as net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { LEASE } from '#api/coordination/v1/lease.ts';
import { NODE } from '#api/core/v1/node.ts';
import { ApiError, explainError, isConflict, isExpired, isNotFound } from '#lib/errors.ts';
import { until } from '#lib/testing/until.ts';
import type { ClientConfig } from './config.ts';
import { createApiClient } from './http-client.ts';
import { THING } from './test-server.ts';
import { makeTestTls, type TestTls } from './test-tls.ts';
import { ConnectionError } from './transport.ts';

interface Request {
  readonly method: string | undefined;
  readonly url: string | undefined;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
  /** Common name of the client's certificate. */
  readonly user: string | undefined;
}
type Handler = (request: Request, response: ServerResponse, count: number) => void;

describe('createApiClient()', () => {
  let tls: TestTls;
  before(async () => {
    tls = await makeTestTls();
  });

  async function serve(handler: Handler) {
    const requests: Request[] = [];
    const options = { ...tls.server, ca: tls.caPem, requestCert: true, rejectUnauthorized: false };
    const server = https.createServer(options, async (incoming, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of incoming) chunks.push(chunk as Buffer);
      const certificate = (incoming.socket as import('node:tls').TLSSocket).getPeerCertificate();
      const { method, url, headers } = incoming;
      const body = Buffer.concat(chunks).toString();
      const request = { method, url, headers, body, user: String(certificate.subject?.CN ?? '') };
      requests.push(request);
      handler(request, response, requests.length);
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `https://localhost:${(server.address() as net.AddressInfo).port}`;
    return {
      url,
      requests,
      async [Symbol.asyncDispose]() {
        server.closeAllConnections();
        server.close();
        await once(server, 'close');
      },
    };
  }

  function clientOf(url: string, config: Partial<ClientConfig> = {}) {
    return createApiClient({
      servers: [url],
      caPem: tls.caPem,
      certificatePem: tls.client.cert,
      keyPem: tls.client.key,
      ...config,
    });
  }

  const ok: Handler = (_, response) => response.end(JSON.stringify({ metadata: { name: 'x' } }));
  const thing = {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'a b', namespace: 'default' },
  };

  test('asks what the verbs of the Kubernetes API are', async () => {
    await using server = await serve(ok);
    await using client = clientOf(server.url);
    await client.get(THING, 'a', 'ns');
    await client.get(NODE, 'm1');
    await client.list(LEASE, { namespace: 'ns', labelSelector: 'a in (b,c)', limit: 5 });
    await client.list(THING);
    await client.create(THING, thing, { fieldValidation: 'Strict' });
    await client.update(THING, thing, { subresource: 'status' });
    const patch = { type: 'application/merge-patch+json', body: { data: null } } as const;
    await client.patch(THING, { name: 'a', namespace: 'ns' }, patch);
    const preconditions = { uid: 'u' };
    await client.delete(THING, { name: 'a', namespace: 'ns' }, { preconditions });
    assert.deepEqual(
      server.requests.map(({ method, url }) => `${method} ${url}`),
      [
        'GET /api/v1/namespaces/ns/configmaps/a',
        'GET /api/v1/nodes/m1',
        'GET /apis/coordination.k8s.io/v1/namespaces/ns/leases?labelSelector=a+in+%28b%2Cc%29&limit=5',
        'GET /api/v1/configmaps',
        'POST /api/v1/namespaces/default/configmaps?fieldValidation=Strict',
        'PUT /api/v1/namespaces/default/configmaps/a%20b/status',
        'PATCH /api/v1/namespaces/ns/configmaps/a',
        'DELETE /api/v1/namespaces/ns/configmaps/a',
      ],
    );
    assert.equal(server.requests[0]?.user, 'test client');
    assert.equal(server.requests[4]?.headers['content-type'], 'application/json');
    assert.deepEqual(JSON.parse(server.requests[4]?.body ?? ''), thing);
    assert.equal(server.requests[6]?.headers['content-type'], 'application/merge-patch+json');
    assert.deepEqual(JSON.parse(server.requests[7]?.body ?? '').preconditions, preconditions);
  });

  test('gives items of a list the kind that servers leave out', async () => {
    await using server = await serve((request, response) =>
      response.end(
        JSON.stringify({
          metadata: { resourceVersion: '7' },
          items: request.url?.includes('nodes') ? null : [{ metadata: { name: 'x' } }],
        }),
      ),
    );
    await using client = clientOf(server.url);
    const { items } = await client.list(LEASE);
    assert.deepEqual(items[0], {
      metadata: { name: 'x' },
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
    });
    assert.deepEqual((await client.list(NODE)).items, []);
  });

  test('rejects with what the server says is wrong', async () => {
    const answers: [number, unknown][] = [
      [404, { kind: 'Status', code: 404, reason: 'NotFound', message: 'nodes "x" not found' }],
      [409, { kind: 'Status', code: 409, reason: 'Conflict', message: 'changed' }],
      [410, { kind: 'Status', code: 410, reason: 'Gone', message: 'too old' }],
      [422, { kind: 'Status', reason: 'Invalid', message: 'bad', details: { causes: [1] } }],
      [502, '<html>bad gateway</html>'],
      [500, '{"kind":"Status",'],
    ];
    await using server = await serve((_, response, count) => {
      const [status, body] = answers[count - 1] ?? [200, ''];
      response.writeHead(status);
      response.end(typeof body === 'string' ? body : JSON.stringify(body));
    });
    await using client = clientOf(server.url);
    const errors: ApiError[] = [];
    for (const _ of answers)
      await client.get(NODE, 'x').catch((error) => {
        assert.ok(error instanceof ApiError);
        errors.push(error);
      });
    assert.deepEqual(
      errors.map((e) => [e.status, e.reason]),
      [
        [404, 'NotFound'],
        [409, 'Conflict'],
        [410, 'Gone'],
        [422, 'Invalid'],
        [502, 'Unknown'],
        [500, 'InternalError'],
      ],
    );
    assert.ok(isNotFound(errors[0]) && isConflict(errors[1]) && isExpired(errors[2]));
    assert.deepEqual(errors[3]?.details, { causes: [1] });
    assert.equal(
      errors[4]?.message,
      'GET /api/v1/nodes/x: 502 Bad Gateway: <html>bad gateway</html>',
    );
  });

  test('sends again, as often as it says, what the server is too busy for', async () => {
    await using server = await serve((_, response, count) => {
      if (count > 2) return response.end('{}');
      response.writeHead(count === 1 ? 429 : 503, { 'retry-after': '0' });
      response.end('{}');
    });
    await using client = clientOf(server.url);
    await client.create(THING, thing);
    assert.equal(server.requests.length, 3);
    await using never = await serve((_, response) => {
      response.writeHead(429, { 'retry-after': '0' });
      response.end('{}');
    });
    await using other = clientOf(never.url);
    await assert.rejects(other.create(THING, thing), { status: 429 });
    assert.ok(never.requests.length <= 10);
  });

  test('goes on to the next server when one cannot be reached, and stays there', async () => {
    await using server = await serve(ok);
    const closed = net.createServer().listen(0, '127.0.0.1');
    await once(closed, 'listening');
    const { port } = closed.address() as net.AddressInfo;
    closed.close();
    await once(closed, 'close');
    await using client = clientOf('', { servers: [`https://localhost:${port}`, server.url] });
    await client.create(THING, thing);
    await client.get(NODE, 'x');
    assert.equal(server.requests.length, 2);
    await using nobody = clientOf(`https://localhost:${port}`);
    await assert.rejects(nobody.get(NODE, 'x'), (error: unknown) => {
      assert.ok(error instanceof ConnectionError && !error.wasSent);
      assert.match(
        explainError(error),
        /Cannot reach the API server https:\/\/localhost:\d+.*ECONN/,
      );
      return true;
    });
  });

  test('repeats a read whose connection broke, and never a write', async () => {
    await using server = await serve((request, response, count) => {
      if (count === 1 || request.method === 'POST') response.destroy();
      else response.end('{}');
    });
    await using client = clientOf(server.url);
    await client.get(NODE, 'x');
    assert.equal(server.requests.length, 2);
    await assert.rejects(client.create(THING, thing), ConnectionError);
    assert.equal(server.requests.filter(({ method }) => method === 'POST').length, 1);
  });

  test('trusts only its authority, and only the name it expects', async () => {
    await using server = await serve(ok);
    const other = await makeTestTls();
    await using stranger = clientOf(server.url, { caPem: other.caPem });
    await assert.rejects(stranger.get(NODE, 'x'), /Cannot reach the API server/);
    await using misnamed = clientOf(server.url, { tlsServerName: 'other.example' });
    await assert.rejects(misnamed.get(NODE, 'x'), /Cannot reach the API server/);
    await using careless = clientOf(server.url, {
      caPem: other.caPem,
      insecureSkipTlsVerify: true,
    });
    await careless.get(NODE, 'x');
    assert.equal(server.requests.length, 1);
  });

  test('reads a token file again when it changes', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'tulle-'));
    try {
      const tokenFile = join(directory, 'token');
      writeFileSync(tokenFile, 'first\n');
      await using server = await serve(ok);
      await using client = clientOf(server.url, { tokenFile, token: 'other' });
      await client.get(NODE, 'x');
      writeFileSync(tokenFile, 'the second\n');
      await client.get(NODE, 'x');
      assert.deepEqual(
        server.requests.map(({ headers }) => headers.authorization),
        ['Bearer first', 'Bearer the second'],
      );
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test('ends a request at its time limit, and when its signal is aborted', async () => {
    await using server = await serve((request, response) => {
      // The headers, but never the whole body.
      if (request.url?.includes('half')) response.write('{');
    });
    // Long enough for the connection, and for the headers, to come on a busy machine.
    await using client = clientOf(server.url, { requestTimeoutMs: 1_000 });
    await Promise.all([
      assert.rejects(client.get(NODE, 'x'), (e) => /no answer within/.test(explainError(e))),
      assert.rejects(client.get(NODE, 'half'), (e) => /not complete/.test(explainError(e))),
    ]);
    await using patient = clientOf(server.url);
    const abort = new AbortController();
    const call = patient.get(NODE, 'half', undefined, { signal: abort.signal });
    setImmediate(() => abort.abort(new Error('enough')));
    await assert.rejects(call, /^Error: enough$/);
  });

  test('ends everything when it is disposed', async () => {
    await using server = await serve(() => {});
    const client = clientOf(server.url);
    const call = client.get(NODE, 'x');
    const outcome = assert.rejects(call, /the API client is closed/);
    await until(() => server.requests.length > 0);
    await client[Symbol.asyncDispose]();
    await outcome;
  });

  test('a watch tells when it is up, throws ERROR events, and ends when aborted', async () => {
    const event = { type: 'ADDED', object: { metadata: { name: 'x', resourceVersion: '2' } } };
    await using server = await serve((request, response) => {
      response.flushHeaders();
      response.write(`${JSON.stringify(event)}\n`);
      if (!request.url?.includes('resourceVersion=9')) return;
      const object = { kind: 'Status', code: 410, reason: 'Expired', message: 'too old' };
      response.write(`${JSON.stringify({ type: 'ERROR', object })}\n`);
    });
    await using client = clientOf(server.url);
    const abort = new AbortController();
    let isOpen = false;
    const onOpen = () => {
      isOpen = true;
    };
    const { signal } = abort;
    const events = client.watch(NODE, { resourceVersion: '1', signal, onOpen });
    const iterator = events[Symbol.asyncIterator]();
    assert.deepEqual((await iterator.next()).value, event);
    assert.equal(isOpen, true);
    const next = iterator.next();
    abort.abort(new Error('enough'));
    await assert.rejects(next, /^Error: enough$/);
    const expired = async () => {
      const fresh = new AbortController().signal;
      for await (const _ of client.watch(NODE, { resourceVersion: '9', signal: fresh }));
    };
    await assert.rejects(expired, (error) => isExpired(error));
  });

  test('refuses what cannot be a request', async () => {
    assert.throws(() => createApiClient({ servers: [] }), /at least one server/);
    assert.throws(() => createApiClient({ servers: ['server:6443'] }), /is not the URL/);
    await using client = createApiClient({ servers: ['https://192.0.2.1'] });
    await assert.rejects(client.get(THING, 'x'), /needs its namespace/);
    await assert.rejects(client.get(NODE, ''), /needs its name/);
  });
});
