/** A request as handlers see it, and an answer as they give it: values, so that handlers need no socket. */

import { statusOf } from '#api/machinery/status.ts';
import type { Status } from '#api/meta.ts';
import type { ApiError } from '#lib/errors.ts';
import type { Principal } from './principal.ts';
import type { RequestInfo } from './request.ts';

export interface Exchange<Info extends RequestInfo = RequestInfo> {
  readonly info: Info;
  readonly method: string;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly principal: Principal;
  /** A bearer token that nobody has checked yet; only on the path for joining. */
  readonly joinToken: string | undefined;
  /** Address of the client, for limits and logs. */
  readonly peer: string;
  /** Aborted when the client is gone or the server stops. */
  readonly signal: AbortSignal;
  /** The whole body. @param maxBytes {@link MAX_BODY_BYTES} if missing @throws ApiError 413 */
  body(maxBytes?: number): Promise<Buffer>;
}

export type Answer =
  | {
      readonly type: 'json';
      readonly status: number;
      readonly body: unknown;
      /** `application/json` if missing. */
      readonly contentType?: string;
      /** Shown to the person by kubectl. */
      readonly warnings?: readonly string[];
    }
  | {
      readonly type: 'text';
      readonly status: number;
      readonly contentType: string;
      readonly text: string;
      /** For clients that keep a copy. */
      readonly etag?: string;
    }
  /** Written as it comes, until it ends or the client is gone. */
  | {
      readonly type: 'stream';
      readonly contentType: string;
      readonly chunks: AsyncIterable<string>;
    };

export function json(status: number, body: unknown, warnings: readonly string[] = []): Answer {
  return { type: 'json', status, body, warnings };
}

export function text(status: number, content: string): Answer {
  return { type: 'text', status, contentType: 'text/plain; charset=utf-8', text: content };
}

export function errorAnswer(error: ApiError): Answer {
  const status: Status = statusOf(error);
  return json(error.status, status);
}

/** A header that may occur once. */
export function headerOf(headers: Exchange['headers'], name: string): string | undefined {
  const value = headers[name];
  return Array.isArray(value) ? value.join(', ') : value;
}
