/**
 * How an answer of gRPC has ended: `grpc-status` and `grpc-message`, which stand in the trailers, or in the headers of an
 * answer without a message.
 *
 * @see https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
 */

/** @see https://grpc.io/docs/guides/status-codes/ */
export const GRPC_NOT_FOUND = 5;
const GRPC_UNAVAILABLE = 14;

/** `none`: the answer breaks off. */
export type GrpcEnd = 'ok' | 'none' | { readonly grpcCode: number; readonly message: string };

type Headers = Readonly<Record<string, unknown>>;

/** @param headers, trailers as `node:http2` gives them, if they came */
export function readGrpcEnd(headers: Headers | undefined, trailers: Headers | undefined): GrpcEnd {
  const http = headers?.[':status'];
  if (headers !== undefined && Number(http) !== 200)
    return {
      grpcCode: GRPC_UNAVAILABLE,
      message: `it answers with HTTP status ${http}, which no gRPC server does`,
    };
  const { 'grpc-status': code, 'grpc-message': message = '' } = { ...headers, ...trailers };
  if (code === undefined) return 'none';
  return code === '0' ? 'ok' : { grpcCode: Number(code), message: decodeText(String(message)) };
}

/** `grpc-message` is percent-encoded, as far as need be. */
function decodeText(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // From a program that does not encode: as it stands.
    return text;
  }
}
