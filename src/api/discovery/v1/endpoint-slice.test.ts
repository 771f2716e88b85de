import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatFieldError } from '../../machinery/field-errors.ts';
import { createTable } from '../../machinery/table.ts';
import { ENDPOINT_SLICE, type EndpointSlice, MAX_ENDPOINTS } from './endpoint-slice.ts';

function slice(more: object): EndpointSlice {
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'web-x', namespace: 'default', creationTimestamp: '2026-01-01T00:00:00Z' },
    addressType: 'IPv4',
    ...more,
  };
}
const complaints = (object: EndpointSlice, old?: EndpointSlice) =>
  ENDPOINT_SLICE.validate(ENDPOINT_SLICE.setDefaults(object), old).map(formatFieldError).join('\n');
const addresses = (...list: string[]) => list.map((address) => ({ addresses: [address] }));

test('ENDPOINT_SLICE.setDefaults() fills in the ports', () => {
  assert.deepEqual(ENDPOINT_SLICE.setDefaults(slice({ ports: [{ port: 80 }] })).ports, [
    { name: '', protocol: 'TCP', port: 80 },
  ]);
  assert.deepEqual(ENDPOINT_SLICE.setDefaults(slice({ ports: null })), slice({ ports: null }));
});

test('ENDPOINT_SLICE.validate() checks addresses and ports', () => {
  const table: [EndpointSlice, RegExp | ''][] = [
    [slice({ endpoints: addresses('10.0.0.1', '10.0.0.2'), ports: [{ port: 80 }] }), ''],
    [slice({ endpoints: null, ports: null }), ''],
    [slice({ addressType: 'IPv6', endpoints: addresses('fd00::1') }), ''],
    [slice({ addressType: 'FQDN', endpoints: addresses('a.example.com') }), ''],
    [slice({ addressType: 'ip' }), /^addressType: Unsupported value: "ip"/],
    [
      slice({ endpoints: addresses('fd00::1') }),
      /^endpoints\[0\]\.addresses\[0\]: Invalid value: "fd00::1": must be an IPv4 address/,
    ],
    [slice({ addressType: 'IPv6', endpoints: addresses('10.0.0.1') }), /must be an IPv6 address/],
    [
      slice({ addressType: 'IPv6', endpoints: addresses('fd00:0::1') }),
      /must be in canonical form \("fd00::1"\)/,
    ],
    [slice({ endpoints: addresses('127.0.0.1') }), /loopback/],
    [slice({ endpoints: addresses('169.254.1.1') }), /link-local/],
    [slice({ endpoints: addresses('224.0.0.1') }), /multicast/],
    [slice({ endpoints: addresses('0.0.0.0') }), /unspecified/],
    [slice({ endpoints: [{ addresses: [] }] }), /^endpoints\[0\]\.addresses: Required value/],
    [
      slice({ endpoints: [{ addresses: ['10.0.0.1'], hostname: 'a.b' }] }),
      /hostname: Invalid value/,
    ],
    [
      slice({ endpoints: Array(MAX_ENDPOINTS + 1).fill({ addresses: ['10.0.0.1'] }) }),
      /^endpoints: Too many: 1001: must have at most 1000 items$/,
    ],
    [slice({ ports: [{ port: 0 }] }), /^ports\[0\]\.port: Invalid value: 0/],
    [slice({ ports: [{ port: 1 }, { port: 2 }] }), /^ports\[1\]\.name: Duplicate value: ""/],
    [slice({ ports: [{ port: 1, protocol: 'ICMP' }] }), /^ports\[0\]\.protocol: Unsupported value/],
  ];
  for (const [object, message] of table) {
    if (message === '') assert.equal(complaints(object), '');
    else assert.match(complaints(object), message);
  }
  assert.match(
    complaints(slice({ addressType: 'IPv6' }), slice({})),
    /^addressType: Invalid value: "IPv6": field is immutable/,
  );
});

test('ENDPOINT_SLICE.columns shorten long lists as kubectl does', () => {
  const cells = (more: object) =>
    createTable(ENDPOINT_SLICE, [slice(more)], { nowMs: Date.parse('2026-01-05T00:00:00Z') })
      .rows[0]?.cells;
  assert.deepEqual(
    cells({
      endpoints: addresses('10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4', '10.0.0.5'),
      ports: [{ port: 80 }, { name: 'all' }],
    }),
    ['web-x', 'IPv4', '80,all', '10.0.0.1,10.0.0.2,10.0.0.3 + 2 more...', '4d'],
  );
  assert.deepEqual(cells({ endpoints: null })?.slice(2, 4), ['<unset>', '<unset>']);
});
