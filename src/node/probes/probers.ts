/**
 * One question to a container. From the node's own network, as a kubelet asks: what answers there also answers the other
 * pods, and a policy lets the node itself through.
 */
import { request as httpRequest } from 'node:http';
import { connect as connectHttp2, constants } from 'node:http2';
import { request as httpsRequest } from 'node:https';
import { connect } from 'node:net';
import { explainError } from '#lib/errors.ts';
import { familyOf, type Ip } from '#lib/ip.ts';
import {
  decodeHealthResponse,
  encodeHealthRequest,
  HEALTH_CHECK_PATH,
  MAX_RESPONSE_BYTES,
} from '#wire/grpc/health.ts';
import type { Probe, ProbeAction } from './settings.ts';
import type { ProbeResult } from './state.ts';

/** Kept of what a command says: it goes into the Pod. */
const MAX_MESSAGE_LENGTH = 256;

export interface ExecResult {
  /** `undefined` if a signal ended it. */
  readonly exitCode: number | undefined;
  readonly output: string;
}

export interface Question {
  readonly probe: Probe;
  readonly address: Ip;
  /** Runs a command in the container; missing if its runtime cannot. */
  readonly exec:
    | ((
        argv: readonly string[],
        options: { timeoutMs: number; signal: AbortSignal },
      ) => Promise<ExecResult>)
    | undefined;
  readonly signal: AbortSignal;
}

/** Asks once. Never rejects: whatever goes wrong is a bad answer. */
export async function ask(question: Question): Promise<ProbeResult> {
  const { probe, signal } = question;
  // Not AbortSignal.timeout(): its timer would live on after an answer that came in time.
  const deadline = new AbortController();
  const timer = setTimeout(
    () => deadline.abort(new Error(`no answer within ${probe.timeoutMs} ms`)),
    probe.timeoutMs,
  );
  const either = AbortSignal.any([signal, deadline.signal]);
  try {
    either.throwIfAborted();
    return await askNow(probe.action, { ...question, signal: either });
  } catch (error) {
    const cause: unknown = either.aborted ? either.reason : error;
    return bad(explainError(cause));
  } finally {
    clearTimeout(timer);
  }
}

async function askNow(action: ProbeAction, question: Question): Promise<ProbeResult> {
  switch (action.kind) {
    case 'http':
      return await askHttp(action, question);
    case 'tcp':
      return await askTcp(action.port, question);
    case 'grpc':
      return await askGrpc(action, question);
    case 'exec':
      return await askExec(action.argv, question);
  }
}

function askHttp(
  { tls, port, path }: Extract<ProbeAction, { kind: 'http' }>,
  { address, signal }: Question,
): Promise<ProbeResult> {
  return new Promise((resolve, reject) => {
    const options = {
      ...{ host: address, port, path, signal, agent: false },
      headers: { 'user-agent': 'tulle-probe', accept: '*/*', connection: 'close' },
    };
    // A certificate for a pod's address is rare, and readiness is no secret.
    const sent = tls
      ? httpsRequest({ ...options, rejectUnauthorized: false })
      : httpRequest(options);
    sent.once('response', (response) => {
      const status = response.statusCode ?? 0;
      // The head is the answer; the body may be endless.
      response.destroy();
      resolve(status >= 200 && status < 400 ? { ok: true } : bad(`HTTP status ${status}`));
    });
    sent.once('error', reject);
    sent.end();
  });
}

function askTcp(port: number, { address, signal }: Question): Promise<ProbeResult> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address, port, signal });
    socket.once('connect', () => {
      socket.destroy();
      resolve({ ok: true });
    });
    socket.once('error', reject);
  });
}

function askGrpc(
  { port, service }: Extract<ProbeAction, { kind: 'grpc' }>,
  { address, signal }: Question,
): Promise<ProbeResult> {
  const host = familyOf(address) === 6 ? `[${address}]` : address;
  return new Promise((resolve, reject) => {
    const session = connectHttp2(`http://${host}:${port}`);
    const onAbort = () => fail(signal.reason);
    const finish = () => {
      signal.removeEventListener('abort', onAbort);
      session.destroy();
    };
    const fail = (error: unknown) => {
      finish();
      reject(error);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    session.on('error', fail);
    const stream = session.request({
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: HEALTH_CHECK_PATH,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    let grpcStatus: string | undefined;
    const note = (headers: Readonly<Record<string, unknown>>) => {
      if (headers['grpc-status'] !== undefined) grpcStatus = String(headers['grpc-status']);
    };
    const chunks: Buffer[] = [];
    let bytes = 0;
    stream.on('response', note);
    stream.on('trailers', note);
    stream.on('error', fail);
    stream.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > MAX_RESPONSE_BYTES) return fail(new Error('the answer is no health response'));
      chunks.push(chunk);
    });
    stream.on('end', () => {
      finish();
      try {
        resolve(grpcAnswer(grpcStatus, Buffer.concat(chunks)));
      } catch (error) {
        reject(error);
      }
    });
    stream.end(encodeHealthRequest(service));
  });
}

/** @see https://grpc.io/docs/guides/status-codes/ */
const GRPC_OK = '0';

function grpcAnswer(status: string | undefined, body: Buffer): ProbeResult {
  if (status !== GRPC_OK) return bad(`gRPC status ${status ?? 'missing'}`);
  const serving = decodeHealthResponse(body);
  return serving === 'SERVING' ? { ok: true } : bad(`the service is ${serving}`);
}

async function askExec(
  argv: readonly string[],
  { exec, probe, signal }: Question,
): Promise<ProbeResult> {
  if (exec === undefined) return bad('the runtime of this container cannot run commands in it');
  const { exitCode, output } = await exec(argv, { timeoutMs: probe.timeoutMs, signal });
  if (exitCode === 0) return { ok: true };
  const said = output.trim().slice(-MAX_MESSAGE_LENGTH);
  return bad(
    `"${argv[0] ?? ''}" ended with ${exitCode ?? 'a signal'}${said === '' ? '' : `: ${said}`}`,
  );
}

function bad(message: string): ProbeResult {
  return { ok: false, message: message.slice(0, 2 * MAX_MESSAGE_LENGTH) };
}
