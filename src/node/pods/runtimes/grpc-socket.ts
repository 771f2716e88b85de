/** One question by gRPC over a unix socket, with a connection of its own: for servers that are asked seldom. */
import { connect } from 'node:http2';
import { createConnection } from 'node:net';
import { DecodeError } from '#lib/errors.ts';
import { createFrameReader, encodeFrame } from '#wire/grpc/frame.ts';
import { readGrpcEnd } from '#wire/grpc/status.ts';
import type { Pieces } from '#wire/protobuf/writer.ts';

/** The server has answered, and not with what was asked for. */
export class GrpcError extends Error {
  readonly code = 'GRPC' as const;
  /** @see https://grpc.io/docs/guides/status-codes/ */
  readonly grpcCode: number;
  constructor(grpcCode: number, message: string) {
    super(message);
    this.name = 'GrpcError';
    this.grpcCode = grpcCode;
  }
}

export interface GrpcQuestion {
  readonly socketPath: string;
  readonly method: string;
  readonly message: Pieces;
  readonly timeoutMs: number;
  /** Of the answer. */
  readonly maxBytes: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * @returns the answer's one message
 * @throws GrpcError if the server says that it failed; DecodeError; another Error if there is no server or no answer in time
 */
export async function askGrpcSocket(question: GrpcQuestion): Promise<Uint8Array> {
  const { socketPath, method, message, timeoutMs, maxBytes, signal } = question;
  signal?.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  const onAbort = () => reject(signal?.reason);
  const timer = setTimeout(
    () => reject(new Error(`no answer of "${socketPath}" within ${timeoutMs} ms`)),
    timeoutMs,
  );
  signal?.addEventListener('abort', onAbort, { once: true });
  const session = connect('http://localhost', {
    createConnection: () => createConnection(socketPath),
  });
  session.on('error', reject);
  try {
    const stream = session.request({
      ':method': 'POST',
      ':path': method,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    const frames = createFrameReader(maxBytes);
    let answer: Uint8Array | undefined;
    let headers: Readonly<Record<string, unknown>> | undefined;
    let trailers: typeof headers;
    stream.on('response', (found) => {
      headers = found;
    });
    stream.on('trailers', (found) => {
      trailers = found;
    });
    stream.on('error', reject);
    stream.on('data', (chunk: Buffer) => {
      try {
        for (const found of frames.push(chunk)) answer ??= found;
      } catch (error) {
        reject(error);
      }
    });
    stream.on('close', () => {
      const end = readGrpcEnd(headers, trailers);
      if (end === 'none') reject(new Error(`the answer of "${socketPath}" breaks off`));
      else if (end !== 'ok') reject(new GrpcError(end.grpcCode, end.message));
      else if (answer === undefined)
        reject(new DecodeError('it has no message', { protocol: 'grpc', field: method }));
      else resolve(answer);
    });
    stream.end(encodeFrame(message));
    return await promise;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', onAbort);
    session.destroy();
  }
}
