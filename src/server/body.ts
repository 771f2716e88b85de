/** Bodies of requests: read within bounds, and decoded as their `Content-Type` says. */
import type { Http2ServerRequest } from 'node:http2';
import { parseDocument } from 'yaml';
import { badRequest, requestEntityTooLarge, unsupportedMediaType } from '#api/machinery/status.ts';
import { decodeProtobufObject, type ProtobufObject } from '#api/protobuf/envelope.ts';
import type { Clock } from '#lib/clock.ts';
import { ApiError, explainError } from '#lib/errors.ts';
import { MAX_BODY_READ_MS, MAX_PASSED_BYTES, MAX_PASSED_MS } from './limits.ts';
import { JSON_TYPE, PROTOBUF_TYPE, parseMediaTypes, YAML_TYPE } from './negotiation.ts';

/** Aliases that one document may expand to; more is an attempt to fill memory. */
const MAX_YAML_ALIASES = 100;

/** Reads a body to its end. @throws ApiError 413 if it is too large, 408 if it takes too long, 400 if it breaks off */
export function readBody(
  request: Http2ServerRequest,
  { maxBytes, clock }: { maxBytes: number; clock: Clock },
): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const stop = () => {
      cancel();
      request.off('data', onData).off('end', onEnd).off('error', onBroken).off('aborted', onBroken);
    };
    const fail = (error: ApiError) => {
      stop();
      // What is still to come is not kept.
      request.pause();
      reject(error);
    };
    const onData = (chunk: Buffer) => {
      size += chunk.length;
      if (size > maxBytes) fail(requestEntityTooLarge(maxBytes));
      else chunks.push(chunk);
    };
    const onEnd = () => {
      stop();
      const [only] = chunks;
      resolve(only !== undefined && chunks.length === 1 ? only : Buffer.concat(chunks));
    };
    const onBroken = () => fail(badRequest('the body of the request breaks off'));
    const cancel = clock.schedule(MAX_BODY_READ_MS, () =>
      fail(
        new ApiError(
          408,
          'Timeout',
          `the body of the request was not complete after ${MAX_BODY_READ_MS / 1000} s`,
        ),
      ),
    );
    request.on('data', onData).on('end', onEnd).on('error', onBroken).on('aborted', onBroken);
  });
}

/**
 * Passes over the body of a request that is refused unread. A connection that is closed with something unread in it is
 * reset, and the client may never see the answer. Gives up, without an error, on more than a client could send before it looks.
 */
export function passOver(request: Http2ServerRequest, clock: Clock): Promise<void> {
  if (request.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    let size = 0;
    const stop = () => {
      cancel();
      request.off('data', onData).off('end', stop).off('close', stop);
      resolve();
    };
    const onData = (chunk: Buffer) => {
      size += chunk.length;
      if (size > MAX_PASSED_BYTES) stop();
    };
    const cancel = clock.schedule(MAX_PASSED_MS, stop);
    request.on('data', onData).on('end', stop).on('close', stop);
    // Whoever read it before may have stopped it.
    request.resume();
  });
}

/** What a client sent, and what it should hear about it. */
export interface Sent {
  /** Any JSON value. */
  readonly value: unknown;
  readonly warnings: readonly string[];
}

/** As {@link decodeSent}, without the warnings. @returns any JSON value */
export function decodeBody(body: Buffer, contentType: string | undefined): unknown {
  return decodeSent(body, contentType).value;
}

/**
 * Decodes an object that a client sent.
 * @throws ApiError 415 for a media type or a protobuf message that is not understood, 400 for what does not parse
 */
export function decodeSent(body: Buffer, contentType: string | undefined): Sent {
  const type = parseMediaTypes(contentType ?? JSON_TYPE)[0]?.type ?? '';
  if (type === PROTOBUF_TYPE) return parseProtobuf(body);
  if (type === JSON_TYPE) return { value: parseJson(body), warnings: [] };
  if (type === YAML_TYPE || type === 'text/yaml' || type === 'application/x-yaml')
    return { value: parseYaml(body), warnings: [] };
  throw unsupportedMediaType(type, [JSON_TYPE, YAML_TYPE, PROTOBUF_TYPE]);
}

function parseProtobuf(body: Buffer): Sent {
  let decoded: ProtobufObject;
  try {
    decoded = decodeProtobufObject(body);
  } catch (cause) {
    throw badRequest(`the body of the request is not valid protobuf: ${explainError(cause)}`);
  }
  if (decoded.kind === 'unknown-kind')
    throw new ApiError(
      415,
      'UnsupportedMediaType',
      `this server does not read ${decoded.name || 'such an object'} of "${decoded.apiVersion}" as protobuf; send ${JSON_TYPE} or ${YAML_TYPE}, for example with "kubectl apply -f"`,
    );
  return {
    value: decoded.object,
    warnings: decoded.unknownFields.map(
      (field) => `unknown protobuf field dropped: ${field}; send JSON to have it kept or refused`,
    ),
  };
}

export function parseJson(body: Buffer): unknown {
  if (body.length === 0) throw badRequest('the body of the request is empty');
  try {
    return JSON.parse(body.toString('utf8'));
  } catch (cause) {
    throw badRequest(`the body of the request is not valid JSON: ${explainError(cause)}`);
  }
}

function parseYaml(body: Buffer): unknown {
  const document = parseDocument(body.toString('utf8'), { uniqueKeys: true, stringKeys: true });
  const [error] = document.errors;
  if (error !== undefined)
    throw badRequest(`the body of the request is not valid YAML: ${error.message}`);
  try {
    return document.toJS({ maxAliasCount: MAX_YAML_ALIASES });
  } catch (cause) {
    throw badRequest(`the body of the request is not valid YAML: ${explainError(cause)}`);
  }
}
