/** Small requests over TLS before there is a cluster configuration: the authority is given, or deliberately not checked. */
import { request as httpsRequest } from 'node:https';

/** A server that is up answers in milliseconds; the caller tries again. */
const REQUEST_TIMEOUT_MS = 10_000;
/** Certificates have about 1 KiB; anything much larger is no answer to us. */
const MAX_ANSWER_BYTES = 256 * 1024;

export interface HttpsAnswer {
  readonly status: number;
  readonly body: string;
}

/** The request got no answer: the server is away, or is not who it should be. */
export class RequestError extends Error {
  /** Of Node or OpenSSL: `ECONNREFUSED`, `ERR_TLS_CERT_ALTNAME_INVALID`… */
  readonly code: string | undefined;
  constructor(cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
    this.name = 'RequestError';
    this.code = (cause as NodeJS.ErrnoException).code;
  }
}

/**
 * Sends one request on a connection of its own.
 * @param options.caPem the only authority that is believed; `undefined` believes anybody: then send nothing secret and
 *   check what comes back
 * @throws RequestError; the signal's reason
 */
export function pinnedRequest(
  url: URL,
  options: {
    readonly method: 'GET' | 'POST';
    readonly caPem: string | undefined;
    readonly headers?: Readonly<Record<string, string>>;
    readonly body?: string;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<HttpsAnswer> {
  const timeout = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
  const signal =
    options.signal === undefined ? timeout : AbortSignal.any([timeout, options.signal]);
  return new Promise<HttpsAnswer>((resolve, reject) => {
    const request = httpsRequest(url, {
      method: options.method,
      headers: { ...options.headers },
      agent: false,
      signal,
      minVersion: 'TLSv1.2',
      ...(options.caPem === undefined ? { rejectUnauthorized: false } : { ca: options.caPem }),
    });
    request.on('response', (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (text: string) => {
        body += text;
        if (body.length > MAX_ANSWER_BYTES)
          request.destroy(new Error(`the answer is longer than ${MAX_ANSWER_BYTES} bytes`));
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
      response.on('error', reject);
    });
    request.on('error', reject);
    request.end(options.body);
  }).catch((error) => {
    options.signal?.throwIfAborted();
    const why = timeout.aborted ? new Error(`no answer in ${REQUEST_TIMEOUT_MS} ms`) : error;
    throw new RequestError(why);
  });
}
