/** Addresses, routes, neighbours and rules: what the kernel sent, decode∘encode, and damage. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DecodeError } from '#lib/errors.ts';
import {
  bitsOf,
  type Cidr,
  cidrOf,
  type Family,
  type Ip,
  ipFromBytes,
  type Mac,
  macFromBytes,
} from '#lib/ip.ts';
import { NetlinkWriter } from '../netlink/writer.ts';
import { decodeAddress, encodeAddress } from './address.ts';
import { AF_BRIDGE, AF_INET } from './constants.ts';
import { decodeLink } from './link.ts';
import { decodeNeighbour, encodeNeighbour, NTF_SELF, NUD_PERMANENT } from './neighbour.ts';
import { decodeRoute, encodeLookup, encodeRoute, RTN_BLACKHOLE, RTNH_F_ONLINK } from './route.ts';
import { decodeRule, encodeRule, FR_ACT_TO_TBL } from './rule.ts';
import { CAPTURED } from './vectors.ts';

/** Objects as literals make them, so that deep equality holds. */
const PLAIN = { noNullPrototype: true };

test('decodeAddress() reads what the kernel sent', () => {
  const v4 = {
    index: 2,
    address: '192.0.2.1',
    prefixLength: 24,
    scope: 0,
    flags: 0x80,
    protocol: 0,
  };
  assert.deepEqual(decodeAddress(CAPTURED.addressV4), v4);
  const v6 = {
    index: 2,
    address: '2001:db8::1',
    prefixLength: 64,
    scope: 0,
    flags: 0x82,
    protocol: 0,
  };
  assert.deepEqual(decodeAddress(CAPTURED.addressV6), v6);
});

test('decodeRoute() reads what the kernel sent', () => {
  const none = {
    gateway: undefined,
    source: undefined,
    metric: undefined,
    mtuBytes: undefined,
    flags: 0,
    scope: 0,
    type: 1,
    protocol: 84,
    table: 254,
    index: 2,
    nextHops: 0,
  };
  assert.deepEqual(decodeRoute(CAPTURED.routeFull), {
    ...none,
    destination: '10.2.0.0/16',
    table: 1000,
    gateway: '169.254.9.9',
    source: '192.0.2.1',
    metric: 50,
    mtuBytes: 1280,
    flags: RTNH_F_ONLINK,
  });
  assert.deepEqual(decodeRoute(CAPTURED.routeVia), {
    ...none,
    destination: '10.3.0.0/16',
    gateway: 'fe80::9',
  });
  assert.deepEqual(decodeRoute(CAPTURED.routeMultipath), {
    ...none,
    destination: '10.4.0.0/16',
    index: undefined,
    nextHops: 2,
  });
  assert.deepEqual(decodeRoute(CAPTURED.routeBlackholeV6), {
    ...none,
    destination: '2001:db8:5::/122',
    type: RTN_BLACKHOLE,
    metric: 1024,
    index: 1,
  });
});

test('decodeNeighbour() reads a neighbour and a forwarding entry', () => {
  assert.deepEqual(decodeNeighbour(CAPTURED.neighbour), {
    family: AF_INET,
    index: 2,
    state: NUD_PERMANENT,
    flags: 0,
    destination: '192.0.2.7',
    mac: '02:00:00:00:00:07',
  });
  const fdb = decodeNeighbour(CAPTURED.fdb);
  assert.deepEqual(
    [fdb.family, fdb.index, fdb.destination, fdb.mac, fdb.flags & NTF_SELF],
    [AF_BRIDGE, 4, '192.0.2.2', '02:00:00:00:00:0d', NTF_SELF],
  );
});

test('decodeRule() reads what the kernel sent', () => {
  assert.deepEqual(decodeRule(CAPTURED.rule), {
    family: 4,
    action: FR_ACT_TO_TBL,
    priority: 8400,
    table: 70_000,
    from: '10.0.0.0/8',
    to: undefined,
    mark: 0x54,
    markMask: 0xff,
  });
});

test('encodeRoute() writes the bytes of the header and its attributes', () => {
  const expected = [
    '02 10 00 00 fc 54 00 01 04000000', // rtmsg: INET, /16, table COMPAT, protocol 84, universe, unicast, ONLINK
    '0800 0100 0a020000', //               RTA_DST 10.2.0.0
    '0800 0f00 e8030000', //               RTA_TABLE 1000
    '0800 0400 02000000', //               RTA_OIF 2
    '0800 0500 a9fe0909', //               RTA_GATEWAY 169.254.9.9
    '0800 0700 c0000201', //               RTA_PREFSRC 192.0.2.1
    '0800 0600 32000000', //               RTA_PRIORITY 50
    '0c00 0880 0800 0200 00050000', //     RTA_METRICS { RTAX_MTU 1280 }
  ];
  const route = decodeRoute(CAPTURED.routeFull);
  assert.ok(route);
  const written = payload((writer) => encodeRoute(writer, route));
  assert.equal(written.toString('hex'), expected.join('').replaceAll(' ', ''));
});

test('encodeLookup() asks for one address', () => {
  const lookup = (address: string) => payload((w) => encodeLookup(w, address as Ip));
  assert.equal(
    lookup('192.0.2.7').toString('hex'),
    '022000000000000000100000' + '08000100c0000207',
  );
  assert.equal(decodeRoute(lookup('2001:db8::7'))?.destination, '2001:db8::7/128');
});

test('decodeRoute() and decodeRule() pass other families over', () => {
  const mpls = Buffer.from(CAPTURED.routeVia);
  mpls.writeUInt8(28, 0);
  assert.equal(decodeRoute(mpls), undefined);
  assert.equal(decodeRule(mpls), undefined);
});

test('decode gives back what encode wrote', () => {
  fc.assert(
    fc.property(anyRoute(), (route) => {
      const decoded = decodeRoute(payload((writer) => encodeRoute(writer, route)));
      assert.deepEqual(decoded, { ...route, nextHops: 0 });
    }),
  );
  const address = fc.record(
    {
      index: fc.integer({ min: 1, max: 0x7fffffff }),
      address: anyIp(),
      prefixLength: fc.integer({ min: 0, max: 32 }),
      scope: byte(),
      flags: fc.integer({ min: 0, max: 0xffffffff }),
      protocol: byte(),
    },
    PLAIN,
  );
  fc.assert(
    fc.property(address, (message) => {
      assert.deepEqual(decodeAddress(payload((w) => encodeAddress(w, message))), message);
    }),
  );
  const neighbour = fc.record(
    {
      family: fc.constantFrom(2, 7, 10),
      index: fc.integer({ min: 1, max: 0x7fffffff }),
      state: fc.integer({ min: 0, max: 0xffff }),
      flags: byte(),
      destination: optional(anyIp()),
      mac: optional(anyMac()),
    },
    PLAIN,
  );
  fc.assert(
    fc.property(neighbour, (message) => {
      assert.deepEqual(decodeNeighbour(payload((w) => encodeNeighbour(w, message))), message);
    }),
  );
  fc.assert(
    fc.property(anyRule(), (rule) => {
      assert.deepEqual(decodeRule(payload((writer) => encodeRule(writer, rule))), rule);
    }),
  );
});

test('no damage to a message makes a decoder throw anything but a DecodeError, or not return', () => {
  const decoders = [decodeLink, decodeAddress, decodeRoute, decodeNeighbour, decodeRule];
  const damage = fc.record({
    vector: fc.constantFrom(...Object.values(CAPTURED)),
    changes: fc.array(fc.tuple(fc.nat(), byte()), { maxLength: 8 }),
    cut: fc.option(fc.nat()),
  });
  let refused = 0;
  fc.assert(
    fc.property(damage, ({ vector, changes, cut }) => {
      const bytes = Buffer.from(vector);
      for (const [at, value] of changes) bytes.writeUInt8(value, at % bytes.length);
      const damaged = cut === null ? bytes : bytes.subarray(0, cut % (bytes.length + 1));
      for (const decode of decoders) {
        try {
          decode(damaged);
        } catch (error) {
          assert.ok(error instanceof DecodeError, String(error));
          refused++;
        }
      }
    }),
    { numRuns: 3000 },
  );
  assert.notEqual(refused, 0, 'the damage never reached a check');
});

function anyRoute() {
  return fc.constantFrom<Family>(4, 6).chain((family) =>
    fc.record({
      destination: anyCidr(family),
      table: fc.integer({ min: 0, max: 0xffffffff }),
      type: byte(),
      scope: byte(),
      protocol: byte(),
      flags: fc.integer({ min: 0, max: 0xffffffff }),
      index: optional(fc.integer({ min: 1, max: 0x7fffffff })),
      gateway: optional(anyIp()),
      source: optional(anyIp(family)),
      metric: optional(fc.integer({ min: 0, max: 0xffffffff })),
      mtuBytes: optional(fc.integer({ min: 0, max: 65535 })),
    }),
  );
}

function anyRule() {
  return fc.constantFrom<Family>(4, 6).chain((family) =>
    fc.record(
      {
        family: fc.constant(family),
        action: byte(),
        priority: fc.integer({ min: 0, max: 0xffffffff }),
        table: fc.integer({ min: 0, max: 0xffffffff }),
        from: optional(anyCidr(family)),
        to: optional(anyCidr(family)),
        mark: optional(fc.integer({ min: 0, max: 0xffffffff })),
        markMask: optional(fc.integer({ min: 0, max: 0xffffffff })),
      },
      PLAIN,
    ),
  );
}

function anyIp(family?: Family): fc.Arbitrary<Ip> {
  const of = (f: Family) => {
    const length = bitsOf(f) / 8;
    return fc.uint8Array({ minLength: length, maxLength: length }).map(ipFromBytes);
  };
  return family === undefined ? fc.oneof(of(4), of(6)) : of(family);
}

function anyCidr(family: Family): fc.Arbitrary<Cidr> {
  return fc
    .tuple(anyIp(family), fc.integer({ min: 0, max: bitsOf(family) }))
    .map(([address, length]) => cidrOf(address, length));
}

function anyMac(): fc.Arbitrary<Mac> {
  return fc.uint8Array({ minLength: 6, maxLength: 6 }).map(macFromBytes);
}

function byte(): fc.Arbitrary<number> {
  return fc.integer({ min: 0, max: 255 });
}

function optional<T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> {
  return fc.option(value, { nil: undefined });
}

function payload(write: (writer: NetlinkWriter) => void): Buffer {
  const writer = new NetlinkWriter();
  write(writer);
  return writer.bytes();
}
