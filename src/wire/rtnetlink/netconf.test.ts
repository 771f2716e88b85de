import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DecodeError } from '#lib/errors.ts';
import { decodeNetconf } from './netconf.ts';

test('decodeNetconf() reads one setting of a link, and of all links', () => {
  // AF_INET; NETCONFA_IFINDEX 7; NETCONFA_RP_FILTER 0, as Linux 6.18 tells of it
  const link = Buffer.from('02000000' + '0800010007000000' + '0800030000000000', 'hex');
  assert.deepEqual(decodeNetconf(link), {
    family: 4,
    index: 7,
    forwarding: undefined,
    rpFilter: 0,
    proxyNeigh: undefined,
  });
  const all = Buffer.from('0a000000' + '08000100ffffffff' + '0800020001000000', 'hex');
  assert.deepEqual([decodeNetconf(all)?.family, decodeNetconf(all)?.index], [6, -1]);
  assert.equal(decodeNetconf(all)?.forwarding, 1);
});

test('decodeNetconf() leaves other families and half messages alone', () => {
  assert.equal(decodeNetconf(Buffer.from('1c0000000800010007000000', 'hex')), undefined);
  assert.equal(decodeNetconf(Buffer.from('02000000', 'hex')), undefined);
  assert.throws(() => decodeNetconf(Buffer.from('02', 'hex')), DecodeError);
});

test('decodeNetconf() throws nothing but DecodeError for any bytes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      try {
        decodeNetconf(Buffer.from(bytes));
      } catch (error) {
        assert.ok(error instanceof DecodeError);
      }
    }),
  );
});
