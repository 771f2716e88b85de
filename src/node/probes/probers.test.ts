import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer as createHttp } from 'node:http';
import { createServer as createHttp2, type ServerHttp2Stream } from 'node:http2';
import { type AddressInfo, createServer as createTcp, type Server, type Socket } from 'node:net';
import { describe, test } from 'node:test';
import { ip } from '#lib/ip.ts';
import { HEALTH_CHECK_PATH } from '#wire/grpc/health.ts';
import { ask } from './probers.ts';
import { parseProbe } from './settings.ts';

const HOST = ip('127.0.0.1');

async function listen(server: Server): Promise<{ port: number } & AsyncDisposable> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => sockets.add(socket));
  server.listen(0, HOST);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

async function answer(
  settings: Record<string, string>,
  exec?: (argv: readonly string[]) => Promise<{ exitCode: number | undefined; output: string }>,
  signal = new AbortController().signal,
): Promise<string> {
  const parsed = parseProbe({ timeout: '30s', ...settings });
  assert.ok(parsed.kind === 'probe', JSON.stringify(parsed));
  const result = await ask({ probe: parsed.probe, address: HOST, exec, signal });
  return result.ok ? 'ok' : result.message;
}

describe('ask()', () => {
  for (const [status, expected] of [
    [200, 'ok'],
    [302, 'ok'],
    [404, 'HTTP status 404'],
    [503, 'HTTP status 503'],
  ] as const)
    test(`takes HTTP ${status} for ${expected}`, async () => {
      await using server = await listen(
        createHttp((request, response) => {
          response.writeHead(request.url === '/ready?x=1' ? status : 400);
          // Never ends: the head is enough.
          response.write('x'.repeat(100_000));
        }),
      );
      assert.equal(await answer({ http: `:${server.port}/ready?x=1` }), expected);
    });

  test('takes a connection for good, and a refused one for bad', async () => {
    const { port } = await (async () => {
      await using server = await listen(createTcp((socket) => socket.destroy()));
      assert.equal(await answer({ tcp: `${server.port}` }), 'ok');
      return server;
    })();
    assert.match(await answer({ tcp: `${port}` }), /ECONNREFUSED/);
    assert.match(await answer({ http: `${port}` }), /ECONNREFUSED/);
    assert.match(await answer({ grpc: `${port}` }), /ECONNREFUSED/);
  });

  test('gives up on a server that accepts and says nothing', async () => {
    await using server = await listen(createTcp(() => {}));
    for (const kind of ['http', 'grpc'])
      assert.equal(
        await answer({ [kind]: `${server.port}`, timeout: '50ms' }),
        'no answer within 50 ms',
      );
  });

  for (const [name, status, trailer, expected] of [
    ['SERVING', [8, 1], '0', 'ok'],
    ['NOT_SERVING', [8, 2], '0', 'the service is NOT_SERVING'],
    ['a default', [], '0', 'the service is UNKNOWN'],
    ['an unknown service', [], '5', 'gRPC status 5'],
  ] as const)
    test(`understands ${name} of a gRPC server`, async () => {
      const server = createHttp2();
      server.on('stream', (stream: ServerHttp2Stream, headers) => {
        assert.equal(headers[':path'], HEALTH_CHECK_PATH);
        const chunks: Buffer[] = [];
        stream.on('data', (chunk: Buffer) => chunks.push(chunk));
        stream.on('end', () => {
          assert.deepEqual([...Buffer.concat(chunks)], [0, 0, 0, 0, 3, 10, 1, 97]);
          stream.respond(
            { ':status': 200, 'content-type': 'application/grpc' },
            { waitForTrailers: true },
          );
          stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': trailer }));
          stream.end(Buffer.from([0, 0, 0, 0, status.length, ...status]));
        });
      });
      await using listening = await listen(server as unknown as Server);
      assert.equal(await answer({ grpc: `${listening.port}/a` }), expected);
    });

  test('a server that speaks no gRPC is a bad answer', async () => {
    await using server = await listen(createTcp((socket) => socket.end('HTTP/1.1 400 no\r\n\r\n')));
    assert.notEqual(await answer({ grpc: `${server.port}` }), 'ok');
  });

  test('takes the exit status of a command, and shows what it says', async () => {
    const run = (exitCode: number) => async (argv: readonly string[]) => ({
      exitCode,
      output: `${argv.join(' ')} says no\n`,
    });
    assert.equal(await answer({ exec: '["a","b"]' }, run(0)), 'ok');
    assert.equal(await answer({ exec: '["a","b"]' }, run(1)), '"a" ended with 1: a b says no');
    assert.match(await answer({ exec: 'x' }), /cannot run commands/);
    const fails = async () => {
      throw new Error('no podman');
    };
    assert.match(await answer({ exec: 'x' }, fails), /no podman/);
  });

  test('ends when it is told to', async () => {
    await using server = await listen(createTcp(() => {}));
    const signal = AbortSignal.abort(new Error('stopped'));
    assert.equal(await answer({ http: `${server.port}` }, undefined, signal), 'stopped');
    assert.equal(await answer({ grpc: `${server.port}` }, undefined, signal), 'stopped');
  });
});
