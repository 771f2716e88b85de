import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CniError } from './error.ts';
import { type CniResult, decodeCniResult, encodeCniResult } from './result.ts';
import { CNI_VERSIONS, encodeVersionAnswer } from './version.ts';

const RESULT: CniResult = {
  interfaces: [
    { name: 'tl0123456789a', mac: 'ee:ee:ee:ee:ee:ee', mtu: 1450 },
    { name: 'eth0', mac: '02:00:00:00:00:01', mtu: 1450, sandbox: '/run/netns/c1' },
  ],
  ips: [
    { address: '192.0.2.7/32', gateway: '169.254.1.1', interface: 1 },
    { address: '2001:db8::7/128', gateway: 'fe80::1', interface: 1 },
  ],
  routes: [
    { dst: '0.0.0.0/0', gw: '169.254.1.1' },
    { dst: '::/0', gw: 'fe80::1' },
  ],
  dns: { nameservers: ['192.0.2.53'], search: ['default.svc.cluster.local'], options: ['ndots:5'] },
};

describe('encodeCniResult()', () => {
  const v4 = {
    ip: '192.0.2.7/32',
    gateway: '169.254.1.1',
    routes: [{ dst: '0.0.0.0/0', gw: '169.254.1.1' }],
  };
  const v6 = {
    ip: '2001:db8::7/128',
    gateway: 'fe80::1',
    routes: [{ dst: '::/0', gw: 'fe80::1' }],
  };
  const oldInterfaces = RESULT.interfaces.map(({ mtu: _, ...rest }) => rest);
  const withVersion = RESULT.ips.map((ip, i) => ({ version: i === 0 ? '4' : '6', ...ip }));
  const modern = {
    interfaces: oldInterfaces,
    ips: withVersion,
    routes: RESULT.routes,
    dns: RESULT.dns,
  };
  const expected: Record<string, object> = {
    '0.1.0': { ip4: v4, ip6: v6, dns: RESULT.dns },
    '0.2.0': { ip4: v4, ip6: v6, dns: RESULT.dns },
    '0.3.0': modern,
    '0.3.1': modern,
    '0.4.0': modern,
    '1.0.0': { ...modern, ips: RESULT.ips },
    '1.1.0': RESULT,
  };
  for (const version of CNI_VERSIONS)
    test(`writes version ${version} as its specification says`, () => {
      assert.deepEqual(JSON.parse(encodeCniResult(RESULT, version)), {
        cniVersion: version,
        ...expected[version],
      });
    });

  test('refuses two addresses of a family in 0.2.0 with code 1', () => {
    const two = { ...RESULT, ips: [...RESULT.ips, { address: '192.0.2.8/32' }] };
    assert.throws(
      () => encodeCniResult(two, '0.2.0'),
      (error) => error instanceof CniError && error.cniCode === 1,
    );
  });
});

describe('decodeCniResult()', () => {
  for (const version of CNI_VERSIONS)
    test(`reads what version ${version} can say, whatever version the configuration has`, () => {
      const json = JSON.parse(encodeCniResult(RESULT, version)) as unknown;
      const decoded = decodeCniResult(json, '0.4.0');
      assert.deepEqual(
        decoded.ips.map((it) => it.address),
        RESULT.ips.map((it) => it.address),
      );
      assert.deepEqual(decoded.routes, RESULT.routes);
      assert.deepEqual(decoded.dns, RESULT.dns);
      if (version === '1.1.0') assert.deepEqual(decoded, RESULT);
    });

  test('follows the version of the configuration if the result names none', () => {
    assert.equal(decodeCniResult({ ip4: { ip: '192.0.2.7/24' } }, '0.2.0').ips.length, 1);
    assert.equal(decodeCniResult({ ips: [{ address: '192.0.2.7/24' }] }, '1.0.0').ips.length, 1);
  });

  for (const bad of [
    null,
    [],
    { ips: {} },
    { ips: [{}] },
    { interfaces: [{ name: 1 }] },
    { dns: [] },
  ])
    test(`refuses ${JSON.stringify(bad)} with code 6`, () => {
      assert.throws(
        () => decodeCniResult(bad, '1.0.0'),
        (error) => error instanceof CniError && error.cniCode === 6,
      );
    });
});

test('encodeVersionAnswer() repeats the version that asked and lists all', () => {
  assert.deepEqual(JSON.parse(encodeVersionAnswer('0.4.0')), {
    cniVersion: '0.4.0',
    supportedVersions: CNI_VERSIONS,
  });
});
