/**
 * From a request on the wire to an answer on the wire: parse, authenticate, authorize, limit, handle, write, count.
 * Every way through ends in exactly one answer; errors become `metav1.Status`.
 */
import type { ServerResponse } from 'node:http';
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2';
import { tooManyRequests } from '#api/machinery/status.ts';
import type { Clock } from '#lib/clock.ts';
import { ApiError, explainError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import { authenticate } from './authn.ts';
import type { Authorizer } from './authz.ts';
import { passOver, readBody } from './body.ts';
import type { Connections } from './connections.ts';
import { createCredentialsReader } from './credentials.ts';
import { toApiError } from './errors.ts';
import { type Answer, type Exchange, errorAnswer } from './exchange.ts';
import { createFairness } from './fairness.ts';
import { impersonate } from './impersonation.ts';
import { MAX_BODY_BYTES, MAX_REQUESTS_UNKNOWN, MAX_STALL_MS } from './limits.ts';
import type { ServerMetrics } from './metrics.ts';
import type { Principal } from './principal.ts';
import { parseRequest, type RequestInfo } from './request.ts';
import { accessOf } from './selectors.ts';

export interface PipelineOptions {
  readonly handle: (exchange: Exchange) => Promise<Answer>;
  /** Settles when the server knows who may do what, and can work. */
  readonly ready: Promise<void>;
  readonly authorizer: Authorizer;
  /** PEM of the authorities whose own client certificates are believed. */
  readonly clientIssuersPem: readonly string[];
  /** Whose a bearer token is. @throws ApiError 401 */
  readonly checkBearer: (token: string) => Promise<Principal>;
  readonly connections: Connections;
  readonly metrics: ServerMetrics;
  readonly log: Logger;
  readonly clock: Clock;
  /** Aborted when the server stops: streams end. */
  readonly stopping: AbortSignal;
}

export type RequestListener = (request: Http2ServerRequest, response: Http2ServerResponse) => void;

/** A server with too much to do is asked again soon: most requests take milliseconds. */
const RETRY_AFTER_SECONDS = 1;

/** One for all: every request ends with it, and a new one for each would be a hundredth of the server's work. */
const CLIENT_GONE = new Error('the client has gone, or has its answer');

/** Makes the function that serves requests; it never throws. */
export function createPipeline(options: PipelineOptions): RequestListener {
  let inFlight = 0;
  const credentials = createCredentialsReader(options.clock, options.clientIssuersPem);
  const fairness = createFairness(options.clock);
  return (request, response) => {
    const startedMs = options.clock.elapsed();
    let info: RequestInfo | undefined;
    const gone = new AbortController();
    // The request's own 'close' comes as soon as it is read: only the response's says that the client is gone.
    response.on('close', () => gone.abort(CLIENT_GONE));
    response.on('error', (error) =>
      options.log.debug({ error: explainError(error) }, 'api server: an answer was not taken'),
    );
    const serve = async (ended: DisposableStack): Promise<Answer> => {
      info = parseRequest(request.method, request.url);
      const isWatch = info.type === 'resource' && info.verb === 'watch';
      if (!isWatch && inFlight > MAX_REQUESTS_UNKNOWN)
        throw tooManyRequests(
          `${MAX_REQUESTS_UNKNOWN} requests are being worked on; please try again later`,
          RETRY_AFTER_SECONDS,
        );
      await options.ready;
      const shown = authenticate(credentials.of(request), info.path);
      const { joinToken } = shown;
      const self =
        shown.bearer === undefined ? shown.principal : await options.checkBearer(shown.bearer);
      // The connection and the share are of who asks, whoever he acts as.
      options.connections.claim(request, response, self);
      ended.defer(fairness.enter(self, info));
      const principal = impersonate(self, request.headers, options.authorizer);
      const decision = options.authorizer.authorize(principal, accessOf(info));
      if (!decision.allowed) throw decision.error;
      const readWhole = (maxBytes = MAX_BODY_BYTES) =>
        readBody(request, { maxBytes, clock: options.clock });
      // Read before a seat is taken: a client that trickles keeps nobody from working.
      const sent =
        info.type === 'resource' && !isWatch && mayHaveBody(request)
          ? await readWhole()
          : undefined;
      ended.defer(await fairness.turn(self, info));
      return await options.handle({
        info,
        method: request.method,
        headers: request.headers,
        principal,
        joinToken,
        peer: request.socket.remoteAddress ?? '',
        // Made only for who asks, which is watches: there are a thousand short requests for each of them.
        get signal() {
          return AbortSignal.any([gone.signal, options.stopping]);
        },
        body: async (maxBytes) => sent ?? (await readWhole(maxBytes)),
      });
    };
    const run = async () => {
      inFlight++;
      let answer: Answer;
      try {
        using ended = new DisposableStack();
        answer = await serve(ended);
      } catch (error) {
        answer = refuse(error, request, options);
      } finally {
        inFlight--;
      }
      const writing = write(request, response, answer, options);
      // Counted when the answer is on its way: nobody waits for that.
      options.metrics.observe(info, statusCode(answer), options.clock.elapsed() - startedMs);
      await writing;
    };
    run().catch((error) => {
      options.log.error({ error: explainError(error) }, 'api server: a request failed');
      response.destroy();
    });
  };
}

function mayHaveBody({ method }: Http2ServerRequest): boolean {
  return method !== 'GET' && method !== 'HEAD';
}

function refuse(error: unknown, request: Http2ServerRequest, options: PipelineOptions): Answer {
  const refusal = error instanceof ApiError ? error : toApiError(error);
  if (refusal.status >= 500)
    options.log.error(
      {
        method: request.method,
        url: request.url,
        error: explainError(error),
        stack: stackOf(error),
      },
      'api server: a request failed',
    );
  return errorAnswer(refusal);
}

function stackOf(error: unknown): string | undefined {
  return error instanceof Error ? error.stack : undefined;
}

function statusCode(answer: Answer): number {
  return answer.type === 'stream' ? 200 : answer.status;
}

async function write(
  request: Http2ServerRequest,
  response: Http2ServerResponse,
  answer: Answer,
  options: PipelineOptions,
): Promise<void> {
  if (request.httpVersionMajor === 1 && !request.complete) await passOver(request, options.clock);
  if (response.destroyed) return;
  response.setHeader('cache-control', 'no-cache, private');
  // An HTTP/1.1 connection is not used again if its request was not read to the end, or if the server stops.
  if (request.httpVersionMajor === 1 && (!request.complete || options.stopping.aborted))
    response.setHeader('connection', 'close');
  if (answer.type === 'stream') {
    response.writeHead(200, { 'content-type': answer.contentType });
    await writeStream(response, answer.chunks, options);
    return;
  }
  const body = answer.type === 'text' ? answer.text : `${JSON.stringify(answer.body)}\n`;
  response.setHeader('content-type', answer.contentType ?? 'application/json');
  if (answer.type === 'json') setJsonHeaders(response, answer);
  else if (answer.etag !== undefined) response.setHeader('etag', answer.etag);
  response.setHeader('content-length', Buffer.byteLength(body));
  response.writeHead(answer.status);
  response.end(request.method === 'HEAD' ? '' : body);
}

function setJsonHeaders(response: Http2ServerResponse, answer: Answer & { type: 'json' }): void {
  const { warnings = [], status, body } = answer;
  if (warnings.length > 0)
    // RFC 7234 section 5.5, the form that kubectl reads.
    response.setHeader(
      'warning',
      warnings.map((warning) => `299 - ${JSON.stringify(oneLine(warning))}`),
    );
  const retryAfter = (body as { details?: { retryAfterSeconds?: number } } | null)?.details
    ?.retryAfterSeconds;
  if (status >= 400 && retryAfter !== undefined) response.setHeader('retry-after', retryAfter);
}

function oneLine(text: string): string {
  // Header values are visible ASCII.
  return text.replace(/[^\x20-\x7e]/g, '?');
}

async function writeStream(
  response: Http2ServerResponse,
  chunks: AsyncIterable<string>,
  options: PipelineOptions,
): Promise<void> {
  // The client sees the answer begin before the first event: it knows that the watch stands.
  if ('flushHeaders' in response) (response as unknown as ServerResponse).flushHeaders();
  for await (const chunk of chunks) {
    if (response.destroyed || response.writableEnded) return;
    if (response.write(chunk)) continue;
    if (!(await drained(response, options.clock))) {
      options.metrics.watchCut('slow');
      response.destroy();
      return;
    }
  }
  response.end();
}

/** @returns false if the client takes nothing for too long; a client that went away counts as drained */
function drained(response: Http2ServerResponse, clock: Clock): Promise<boolean> {
  return new Promise((resolve) => {
    const finish = (isDrained: boolean) => () => {
      cancel();
      response.off('drain', onDrain);
      response.off('close', onDrain);
      resolve(isDrained);
    };
    const onDrain = finish(true);
    const cancel = clock.schedule(MAX_STALL_MS, finish(false));
    response.once('drain', onDrain);
    response.once('close', onDrain);
  });
}
