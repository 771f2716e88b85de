import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { createServer, type Http2Server, type ServerHttp2Stream } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { encodeFrame } from '#wire/grpc/frame.ts';
import { bytesField, messageField, numberField, type Pieces } from '#wire/protobuf/writer.ts';
import { createCriRuntime } from './cri.ts';

type Answer = { readonly message: Pieces } | { readonly grpcStatus: string };

/** What the runtime says of sandbox `id`. */
function sandbox(id: string, options: { isReady?: boolean; pid?: number } = {}): Answer {
  const { isReady = true, pid = 4711 } = options;
  const status = messageField(
    1,
    bytesField(1, id),
    numberField(3, isReady ? 0 : 1),
    messageField(7, bytesField(1, 'app'), bytesField(2, 'web')),
    messageField(8, bytesField(1, 'note'), bytesField(2, 'kept')),
  );
  const info = JSON.stringify({ pid, image: 'example.com/pause:1' });
  return { message: [...status, ...messageField(2, bytesField(1, 'info'), bytesField(2, info))] };
}

describe('createCriRuntime()', () => {
  const directory = mkdtempSync(join(tmpdir(), 'tulle-cri-'));
  const socketPath = join(directory, 'cri.sock');
  let server: Http2Server;
  let answer: Answer | undefined;
  let asked: string[] = [];
  before(async () => {
    server = createServer();
    server.on('stream', (stream: ServerHttp2Stream, headers) => {
      asked.push(String(headers[':path']));
      respond(stream, answer);
    });
    await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  });
  after(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });

  const inspect = (containerId: string, given: Answer | undefined, signal?: AbortSignal) => {
    answer = given;
    asked = [];
    return createCriRuntime('containerd', socketPath).inspect(containerId, signal);
  };

  test('tells of a sandbox that is ready, with its process', async () => {
    assert.deepEqual(await inspect('s1', sandbox('s1')), {
      image: 'example.com/pause:1',
      imageId: '',
      labels: { app: 'web' },
      annotations: { note: 'kept' },
      state: 'running',
      pid: 4711,
      exitCode: undefined,
      startedAt: undefined,
      finishedAt: undefined,
    });
    assert.deepEqual(asked, ['/runtime.v1.RuntimeService/PodSandboxStatus']);
  });

  test('tells of one that has ended, whose process number may be another by now', async () => {
    const info = await inspect('s1', sandbox('s1', { isReady: false }));
    assert.deepEqual([info?.state, info?.pid], ['ended', undefined]);
  });

  test('does not know one that the runtime does not find', async () => {
    assert.equal(await inspect('s1', { grpcStatus: '5' }), undefined);
  });

  test('does not take the beginning of an id for the id', async () => {
    assert.equal(await inspect('s', sandbox('s1')), undefined);
  });

  test('fails where the runtime cannot answer, or does not', async () => {
    await assert.rejects(inspect('s1', { grpcStatus: '12' }), { code: 'GRPC', grpcCode: 12 });
    const stop = new AbortController();
    const waiting = assert.rejects(inspect('s1', undefined, stop.signal), /enough/);
    stop.abort(new Error('enough'));
    await waiting;
  });

  test('knows when the runtime was started, by its socket, and what it has', async () => {
    const { daemon } = createCriRuntime('containerd', socketPath);
    assert.equal(daemon?.startedAtMs(), statSync(socketPath).mtimeMs);
    answer = { message: ['s1', 's2'].flatMap((id) => messageField(1, bytesField(1, id))) };
    assert.deepEqual(await daemon?.list(), new Set(['s1', 's2']));
    answer = { grpcStatus: '14' };
    await assert.rejects(async () => daemon?.list(), { grpcCode: 14 });
  });

  test('knows nothing where there is no runtime', async () => {
    const none = createCriRuntime('cri-o', join(directory, 'none.sock'));
    assert.equal(none.daemon?.startedAtMs(), undefined);
    assert.equal(await none.inspect('s1'), undefined);
  });
});

/** @param answer undefined: it never comes */
function respond(stream: ServerHttp2Stream, answer: Answer | undefined): void {
  stream.on('error', () => {
    // The client has gone, as some tests want it.
  });
  if (answer === undefined) return;
  if ('grpcStatus' in answer) {
    stream.respond({ ':status': 200, 'grpc-status': answer.grpcStatus }, { endStream: true });
    return;
  }
  stream.respond({ ':status': 200 }, { waitForTrailers: true });
  stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
  stream.end(encodeFrame(answer.message));
}
