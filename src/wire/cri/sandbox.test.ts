import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DecodeError } from '#lib/errors.ts';
import { decodeSandboxList, decodeSandboxStatus, encodeSandboxStatusRequest } from './sandbox.ts';

const hex = (text: string) => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');
const bytes = (field: number, content: Uint8Array | string) => {
  const body = Buffer.from(content);
  return Buffer.concat([Buffer.of(field * 8 + 2, body.length), body]);
};
const entry = (field: number, key: string, value: string) =>
  bytes(field, Buffer.concat([bytes(1, key), bytes(2, value)]));

test('encodeSandboxStatusRequest() asks for everything', () => {
  assert.deepEqual(Buffer.concat(encodeSandboxStatusRequest('s1')), hex('0a 02 73 31  10 01'));
});

test('decodeSandboxStatus() reads what containerd says of a sandbox', () => {
  const status = Buffer.concat([
    bytes(1, 's1'),
    bytes(2, bytes(1, 'web')),
    // Not ready; made at a time that is more nanoseconds than a number holds.
    hex('18 01  20 80 80 d0 e7 83 c5 c9 c3 18'),
    bytes(5, bytes(1, '192.0.2.1')),
    entry(7, 'app', 'web'),
    entry(8, 'note', ''),
    bytes(9, 'runc'),
  ]);
  const info = JSON.stringify({ pid: 4711, image: 'example.com/pause:1', config: {} });
  assert.deepEqual(decodeSandboxStatus(Buffer.concat([bytes(1, status), entry(2, 'info', info)])), {
    id: 's1',
    isReady: false,
    labels: { app: 'web' },
    annotations: { note: '' },
    pid: 4711,
    image: 'example.com/pause:1',
  });
});

for (const [what, info] of [
  ['nothing', ''],
  ['no JSON', 'pid 1'],
  ['no object', '7'],
  ['no process', '{"pid":0,"image":1}'],
] as const)
  test(`decodeSandboxStatus() takes ${what} for unknown`, () => {
    const decoded = decodeSandboxStatus(
      Buffer.concat([bytes(1, bytes(1, 's')), entry(2, 'info', info)]),
    );
    assert.deepEqual([decoded.pid, decoded.image, decoded.isReady], [undefined, '', true]);
  });

test('decodeSandboxList() reads the ids, however much more is said of each', () => {
  const item = (id: string) => bytes(1, Buffer.concat([bytes(1, id), entry(5, 'app', 'web')]));
  assert.deepEqual(
    decodeSandboxList(Buffer.concat([item('s1'), item('s2')])),
    new Set(['s1', 's2']),
  );
  assert.deepEqual(decodeSandboxList(Buffer.alloc(0)), new Set());
});

test('decodeSandboxStatus() gives a status or a DecodeError for any bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (any) => {
      try {
        decodeSandboxStatus(any);
      } catch (error) {
        assert.ok(error instanceof DecodeError, String(error));
      }
    }),
    { numRuns: 1000 },
  );
});
