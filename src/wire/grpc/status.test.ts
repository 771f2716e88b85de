import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readGrpcEnd } from './status.ts';

const OK_HEADERS = { ':status': 200 };

for (const [what, headers, trailers, expected] of [
  ['that it went well', OK_HEADERS, { 'grpc-status': '0' }, 'ok'],
  ['that it breaks off', OK_HEADERS, undefined, 'none'],
  ['that nothing came', undefined, undefined, 'none'],
  [
    'why it failed',
    OK_HEADERS,
    { 'grpc-status': '5', 'grpc-message': 'no%20pod %E2%9C%97' },
    { grpcCode: 5, message: 'no pod ✗' },
  ],
  [
    'why it failed at once',
    { ...OK_HEADERS, 'grpc-status': '12', 'grpc-message': 'unknown service' },
    undefined,
    { grpcCode: 12, message: 'unknown service' },
  ],
  [
    'what is not encoded',
    OK_HEADERS,
    { 'grpc-status': '2', 'grpc-message': '100%' },
    { grpcCode: 2, message: '100%' },
  ],
  [
    'that it is no gRPC server',
    { ':status': 404 },
    undefined,
    { grpcCode: 14, message: 'it answers with HTTP status 404, which no gRPC server does' },
  ],
] as const)
  test(`readGrpcEnd() tells ${what}`, () => {
    assert.deepEqual(readGrpcEnd(headers, trailers), expected);
  });
