import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseBandwidth, parseRuntimeConfig } from './capabilities.ts';
import { CniError } from './error.ts';

const ports = (...portMappings: object[]) => parseRuntimeConfig({ portMappings }, 'n').portMappings;
const refused = (code: number, message: RegExp) => (error: unknown) =>
  error instanceof CniError && error.cniCode === code && message.test(error.message);

describe('parseRuntimeConfig()', () => {
  test('reads port mappings of every protocol, with and without an address', () => {
    assert.deepEqual(
      ports(
        { hostPort: 80, containerPort: 8080 },
        { hostPort: 53, containerPort: 53, protocol: 'UDP', hostIP: '192.0.2.1' },
        { hostPort: 7, containerPort: 7, protocol: 'sctp', hostIP: '' },
      ),
      [
        { hostPort: 80, containerPort: 8080, protocol: 'tcp' },
        { hostPort: 53, containerPort: 53, protocol: 'udp', hostIp: '192.0.2.1' },
        { hostPort: 7, containerPort: 7, protocol: 'sctp' },
      ],
    );
  });
  test('reads what containerd writes, with the names that fields have in Go', () => {
    // As containerd 1.6 gave it to the plugin.
    const given = parseRuntimeConfig(
      {
        bandwidth: { IngressRate: 1e8, IngressBurst: 4294967295, EgressRate: 0, EgressBurst: 0 },
        portMappings: [{ HostPort: 18080, ContainerPort: 8080, Protocol: 'tcp', HostIP: '' }],
        dns: { Servers: ['192.0.2.53'], Searches: ['a'], Options: ['ndots:2'] },
      },
      'n',
    );
    assert.deepEqual(given.portMappings, [
      { hostPort: 18080, containerPort: 8080, protocol: 'tcp' },
    ]);
    const { ingressRate, ingressBurst, egressRate } = given.bandwidth ?? {};
    assert.deepEqual([ingressRate, ingressBurst, egressRate], [1e8, 4294967295, 0]);
    const dns = { nameservers: ['192.0.2.53'], search: ['a'], options: ['ndots:2'] };
    assert.deepEqual(given.dns, dns);
  });
  test('leaves out a port that is declared and not published', () => {
    assert.deepEqual(ports({ hostPort: 0, containerPort: 80, protocol: 'tcp' }), []);
  });
  const wrong: [string, object, number, RegExp][] = [
    ['a port too high', { hostPort: 65_536, containerPort: 1 }, 7, /65536 is no port/],
    ['no container port', { hostPort: 1 }, 6, /containerPort/],
    ['an unknown protocol', { hostPort: 1, containerPort: 1, protocol: 'x' }, 7, /"x" is none of/],
    ['a bad address', { hostPort: 1, containerPort: 1, hostIP: '1.2.3' }, 7, /"1.2.3" is no IP/],
  ];
  for (const [what, mapping, code, message] of wrong)
    test(`refuses ${what}`, () => assert.throws(() => ports(mapping), refused(code, message)));

  test('reads aliases as a list and as an object by network', () => {
    assert.deepEqual(parseRuntimeConfig({ aliases: ['a', 'b', 'a'] }, 'n').aliases, ['a', 'b']);
    const byNetwork = { aliases: { n: ['a'], other: ['x'] } };
    assert.deepEqual(parseRuntimeConfig(byNetwork, 'n').aliases, ['a']);
  });
  test('reads DNS in the words of the conventions and in those of containerd', () => {
    const dns = { nameservers: ['192.0.2.53'], search: ['a'], options: ['ndots:2'] };
    assert.deepEqual(parseRuntimeConfig({ dns }, 'n').dns, dns);
    assert.deepEqual(
      parseRuntimeConfig({ dns: { servers: ['192.0.2.53'], searches: ['a'] } }, 'n').dns,
      { nameservers: ['192.0.2.53'], search: ['a'] },
    );
    assert.equal(parseRuntimeConfig({ dns: {} }, 'n').dns, undefined);
  });
});

describe('parseBandwidth()', () => {
  test('reads one direction and leaves the other without a limit', () => {
    assert.deepEqual(parseBandwidth({ ingressRate: 1000, ingressBurst: 80 }, 'x'), {
      ingressRate: 1000,
      ingressBurst: 80,
      egressRate: 0,
      egressBurst: 0,
    });
  });
  test('zeros limit nothing', () =>
    assert.equal(parseBandwidth({ egressRate: 0 }, 'x'), undefined));
  test('refuses what the kernel could not keep', () => {
    for (const [json, message] of [
      [{ ingressRate: -1 }, /negative/],
      [{ egressBurst: 8 }, /egressRate must be too/],
      [{ egressRate: 1, egressBurst: 2 ** 36 }, /4 GB/],
    ] as const)
      assert.throws(() => parseBandwidth(json, 'x'), refused(7, message));
  });
});
