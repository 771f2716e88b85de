import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatFieldError } from '../../machinery/field-errors.ts';
import { createTable } from '../../machinery/table.ts';
import {
  IP_BLOCK,
  type IPAllocation,
  type IPBlock,
  type IPBlockSpec,
  ipBlockName,
} from './ip-block.ts';
import { IP_POOL, type IPPool, type IPPoolSpec } from './ip-pool.ts';

const pool = (spec: Partial<IPPoolSpec>): IPPool => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPPool',
  metadata: { name: 'default' },
  spec: spec as IPPoolSpec,
});
const poolComplaints = (spec: Partial<IPPoolSpec>, old?: Partial<IPPoolSpec>) =>
  IP_POOL.validate(
    IP_POOL.setDefaults(pool(spec)),
    old === undefined ? undefined : IP_POOL.setDefaults(pool(old)),
  )
    .map(formatFieldError)
    .join('\n');

test('IP_POOL.setDefaults() fills in by family', () => {
  assert.deepEqual(IP_POOL.setDefaults(pool({ cidr: '10.244.0.0/16' })).spec, {
    cidr: '10.244.0.0/16',
    blockSize: 26,
    disabled: false,
    natOutgoing: true,
    encapsulation: 'Always',
    strictAffinity: false,
  });
  const sizeOf = (cidr: string) => IP_POOL.setDefaults(pool({ cidr })).spec.blockSize;
  assert.equal(sizeOf('fd00:10::/64'), 122);
  assert.equal(sizeOf('10.244.0.0/28'), 28, 'a small pool is one block');
  assert.equal(sizeOf('nonsense'), undefined);
});

test('IP_POOL.validate() says what a pool may be', () => {
  const table: [Partial<IPPoolSpec>, RegExp | ''][] = [
    [{ cidr: '10.244.0.0/16' }, ''],
    [{ cidr: '10.244.0.0/16', blockSize: 20 }, ''],
    [{ cidr: '10.244.0.0/16', blockSize: 32, encapsulation: 'CrossSubnet' }, ''],
    [{ cidr: 'fd00:10:244::/56', blockSize: 116 }, ''],
    [{}, /^spec\.cidr: Required value$/],
    [
      { cidr: '10.244.0.1/16' },
      /^spec\.cidr: Invalid value: "10\.244\.0\.1\/16": must be in canonical form \("10\.244\.0\.0\/16"\)$/,
    ],
    [{ cidr: 'FD00::1/64' }, /must be in canonical form \("fd00::\/64"\)/],
    [{ cidr: '10.244.0.0' }, /must be a network prefix in canonical form/],
    [{ cidr: '169.254.0.0/24' }, /must not overlap the link-local range \(169\.254\.0\.0\/16\)/],
    [{ cidr: '0.0.0.0/0', blockSize: 26 }, /must not overlap/],
    [{ cidr: 'fe80::/64' }, /link-local/],
    [{ cidr: '127.1.0.0/16' }, /loopback/],
    [{ cidr: '::1/128' }, /loopback/],
    [{ cidr: '239.0.0.0/8' }, /multicast/],
    [{ cidr: 'ff02::/16' }, /multicast/],
    [
      { cidr: '10.244.0.0/16', blockSize: 19 },
      /^spec\.blockSize: Invalid value: 19: must be between 20 and 32, inclusive, for an IPv4 pool$/,
    ],
    [{ cidr: '10.244.0.0/16', blockSize: 33 }, /between 20 and 32/],
    [{ cidr: 'fd00::/64', blockSize: 64 }, /between 116 and 128/],
    [
      { cidr: '10.244.0.0/24', blockSize: 22 },
      /must be at least 24: a block cannot be larger than the pool 10\.244\.0\.0\/24/,
    ],
    [
      { cidr: '10.244.0.0/16', encapsulation: 'VXLAN' as 'Always' },
      /^spec\.encapsulation: Unsupported value: "VXLAN"/,
    ],
  ];
  for (const [spec, message] of table) {
    if (message === '') assert.equal(poolComplaints(spec), '', JSON.stringify(spec));
    else assert.match(poolComplaints(spec), message);
  }
});

test('IP_POOL.validate() keeps prefix and block size', () => {
  const old = { cidr: '10.244.0.0/16' };
  assert.equal(
    poolComplaints({ ...old, disabled: true, natOutgoing: false, encapsulation: 'Never' }, old),
    '',
  );
  assert.match(
    poolComplaints({ cidr: '10.245.0.0/16' }, old),
    /^spec\.cidr: Invalid value: "10\.245\.0\.0\/16": field is immutable$/,
  );
  assert.match(
    poolComplaints({ ...old, blockSize: 27 }, old),
    /^spec\.blockSize: Invalid value: 27: field is immutable$/,
  );
});

const CIDR = '10.244.0.0/30';
const allocation: IPAllocation = {
  handle: 'h1',
  sequence: 1,
  since: '2026-01-01T00:00:00Z',
  node: 'm1',
  purpose: 'Pod',
};
const SPEC: IPBlockSpec = {
  cidr: CIDR,
  pool: 'default',
  node: 'm1',
  affinity: 'Confirmed',
  sequence: 1,
  allocations: { 0: allocation },
  free: [2, 3, 1],
  releasedAt: { 1: '2026-01-01T00:00:00Z' },
};
const block = (spec: Partial<IPBlockSpec>, name = ipBlockName(CIDR)): IPBlock => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPBlock',
  metadata: { name },
  spec: { ...SPEC, ...spec },
});
const blockComplaints = (object: IPBlock, old?: IPBlock) =>
  IP_BLOCK.validate(IP_BLOCK.setDefaults(object), old).map(formatFieldError).join('\n');

test('ipBlockName() makes names that are valid', () => {
  assert.equal(ipBlockName('10.244.0.0/26'), '10-244-0-0-26');
  assert.equal(ipBlockName('fd00:10::/122'), 'fd00-10---122');
  const v6 = block(
    { cidr: 'fd00:10::/128', allocations: {}, free: [0], releasedAt: {} },
    'fd00-10---128',
  );
  assert.equal(blockComplaints(v6), '');
});

test('IP_BLOCK.validate() lets no address be lost or given twice', () => {
  const table: [IPBlock, RegExp | ''][] = [
    [block({}), ''],
    [block({ allocations: {}, free: [0, 1, 2, 3], releasedAt: {}, node: '' }), ''],
    [
      block({ free: [2, 3] }),
      /^spec\.free: Invalid value: 2: ordinal 1 is neither in `allocations` nor in `free`$/,
    ],
    [block({ free: [2, 3, 1, 1] }), /^spec\.free\[3\]: Duplicate value: 1$/],
    [block({ free: [0, 1, 2, 3] }), /^spec\.free\[0\]: Duplicate value: 0$/],
    [
      block({ free: [1, 2, 3, 4] }),
      /^spec\.free\[3\]: Invalid value: 4: must be an ordinal between 0 and 3, inclusive$/,
    ],
    [block({ free: [1, 2, 3, -1] }), /must be an ordinal/],
    [
      block({ allocations: { '00': allocation } }),
      /^spec\.allocations\[00\]: Invalid value: "00": must be an ordinal/,
    ],
    [block({ releasedAt: { 9: '2026-01-01T00:00:00Z' } }), /^spec\.releasedAt\[9\]: Invalid value/],
    [
      block({ releasedAt: { 1: 'yesterday' } }),
      /^spec\.releasedAt\[1\]: Invalid value: "yesterday": must be a time/,
    ],
    [block({ allocations: { 0: { ...allocation, handle: '' } } }), /handle: Required value/],
    [
      block({ allocations: { 0: { ...allocation, sequence: 2 } } }),
      /sequence: Invalid value: 2: must not be greater than the sequence of the block, 1/,
    ],
    [
      block({ allocations: { 0: { ...allocation, purpose: 'X' as 'Pod' } } }),
      /purpose: Unsupported value: "X"/,
    ],
    [block({ affinity: 'Maybe' as 'Pending' }), /^spec\.affinity: Unsupported value/],
    [block({ pool: '' }), /^spec\.pool: Required value/],
    [
      block({}, 'other'),
      /^metadata\.name: Invalid value: "other": must be "10-244-0-0-30", after the prefix$/,
    ],
    [block({ cidr: '10.0.0.0/8' }, '10-0-0-0-8'), /must have at most 4096 addresses/],
  ];
  for (const [object, message] of table) {
    if (message === '') assert.equal(blockComplaints(object), '');
    else assert.match(blockComplaints(object), message);
  }
});

test('IP_BLOCK.validate() never lets the sequence go back', () => {
  assert.equal(blockComplaints(block({ sequence: 2 }), block({})), '');
  assert.match(
    blockComplaints(block({}), block({ sequence: 2 })),
    /^spec\.sequence: Invalid value: 1: must not go back: it was 2$/,
  );
  assert.match(
    blockComplaints(block({ pool: 'b' }), block({})),
    /^spec\.pool: Invalid value: "b": field is immutable$/,
  );
});

test('the columns of pools and blocks say how full they are', () => {
  const nowMs = 0;
  const { rows } = createTable(IP_BLOCK, [block({})], { nowMs });
  assert.deepEqual(rows[0]?.cells, [
    '10-244-0-0-30',
    CIDR,
    'm1',
    '1/4',
    'Confirmed',
    '<unknown>',
    'default',
    1,
  ]);
  const full = {
    ...IP_POOL.setDefaults(pool({ cidr: CIDR })),
    status: { allocated: 3, blocks: 1 },
  };
  assert.deepEqual(createTable(IP_POOL, [full], { nowMs }).rows[0]?.cells, [
    'default',
    CIDR,
    3,
    'Always',
    'false',
    '<unknown>',
    30,
    1,
    'true',
  ]);
});
