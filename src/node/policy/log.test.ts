import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Ip, ip, ipToBytes } from '#lib/ip.ts';
import type { CompiledPolicy } from '#policy/model.ts';
import { compilePolicy } from '#policy/world.ts';
import type { LoggedPacket } from '#wire/nflog/codec.ts';
import { describePacket, indexByHash, type LogContext, PolicyLog } from './log.ts';
import { type LogMark, logPrefix, shortHash } from './names.ts';
import { clusterPolicy, networkPolicy } from './testing.ts';

const isolating = compilePolicy(networkPolicy('shop/db', { podSelector: {} }));
const staged = compilePolicy(
  networkPolicy('shop/trial', { podSelector: {} }, { 'tulle.dev/enforcement': 'staged' }),
);
const guard = compilePolicy(
  clusterPolicy('guard', { ...{ tier: 'Admin', priority: 1, subject: { namespaces: {} } } }),
);
const byHash = indexByHash([isolating, staged, guard]);
const NAMES: Readonly<Record<string, string>> = {
  '10.0.0.1': 'pod shop/web',
  'fd00::2': 'pod shop/db',
  '192.0.2.11': 'node n1',
};
const context: LogContext = {
  nameOf: (address) => NAMES[address],
  servicesOf: (address) => (address === 'fd00::2' || address === '10.0.0.2' ? ['shop/db'] : []),
  policyByHash: (hash) => byHash.get(hash),
  ruleSetByHash: (hash) =>
    hash === shortHash('set')
      ? { id: '', direction: 'ingress', policies: [guard, isolating, staged], bundles: [] }
      : undefined,
};

const TCP = 6;
const ICMP = 1;

/** An IPv4 or IPv6 packet as far as its ports. */
function packet(mark: LogMark, from: Ip, to: Ip, protocol = TCP): LoggedPacket {
  const isV6 = from.includes(':');
  const header = Buffer.alloc(isV6 ? 40 : 20);
  header[0] = isV6 ? 0x60 : 0x45;
  header[isV6 ? 6 : 9] = protocol;
  header.set(ipToBytes(from), isV6 ? 8 : 12);
  header.set(ipToBytes(to), isV6 ? 24 : 16);
  const rest = Buffer.alloc(8);
  if (protocol === ICMP) rest[0] = 8;
  else {
    rest.writeUInt16BE(40_000, 0);
    rest.writeUInt16BE(5432, 2);
  }
  const payload = Buffer.concat([header, rest]);
  return { prefix: logPrefix(mark), payload } as LoggedPacket;
}

const mark = (verdict: LogMark['verdict'], source: string, rule = -1): LogMark => ({
  ...{ verdict, direction: 'ingress', source, rule },
});
const hashOf = ({ id }: CompiledPolicy) => shortHash(id);

describe('describePacket()', () => {
  const CASES: readonly (readonly [string, LogMark, readonly string[], number | undefined])[] = [
    ['a denial', mark('deny', hashOf(guard), 3), [guard.id], 3],
    ['an accepted one', mark('accept', hashOf(isolating), 0), [isolating.id], 0],
    [
      'an isolated pod: its policies',
      mark('isolated', shortHash('set')),
      [isolating.id],
      undefined,
    ],
    ['staged policies of several', mark('staged', shortHash('set')), [staged.id], undefined],
    ['a closed pod: no policy', mark('closed', ''), [], undefined],
    ['a policy that is gone', mark('deny', shortHash('gone'), 1), [], 1],
  ];
  for (const [what, its, policies, rule] of CASES)
    test(`names the policy and the rule of ${what}`, () => {
      const record = describePacket(packet(its, ip('10.0.0.1'), ip('192.0.2.11')), context, 0);
      assert.deepEqual(
        [record?.verdict, record?.policies, record?.rule],
        [its.verdict, policies, rule],
      );
    });

  test('names both ends, services behind an address, ports, in both families', () => {
    const told = (from: string, to: string) => {
      const record = describePacket(packet(mark('closed', ''), ip(from), ip(to)), context, 0);
      return [record?.source, record?.destination];
    };
    assert.deepEqual(told('10.0.0.1', '10.0.0.2'), [
      { ip: '10.0.0.1', port: 40_000, name: 'pod shop/web', services: [] },
      { ip: '10.0.0.2', port: 5432, name: undefined, services: ['shop/db'] },
    ]);
    assert.deepEqual(told('2001:db8::9', 'fd00::2'), [
      { ip: '2001:db8::9', port: 40_000, name: undefined, services: [] },
      { ip: 'fd00::2', port: 5432, name: 'pod shop/db', services: ['shop/db'] },
    ]);
    const ping = packet(mark('closed', ''), ip('10.0.0.1'), ip('10.0.0.2'), ICMP);
    const record = describePacket(ping, context, 0);
    assert.deepEqual([record?.protocol, record?.icmpType], ['ICMP', 8]);
  });

  test('leaves out what is not ours or cannot be read', () => {
    const ours = packet(mark('closed', ''), ip('10.0.0.1'), ip('10.0.0.2'));
    assert.equal(describePacket({ ...ours, prefix: 'other: ' }, context, 0), undefined);
    assert.equal(describePacket({ ...ours, payload: Buffer.alloc(3) }, context, 0), undefined);
  });
});

describe('PolicyLog', () => {
  const record = describePacket(
    packet(mark('closed', ''), ip('10.0.0.1'), ip('10.0.0.2')),
    context,
    0,
  );
  assert.ok(record);

  test('keeps so many of a second, and counts the others; the next second is another', () => {
    const log = new PolicyLog();
    let followed = 0;
    const stop = log.follow(() => followed++);
    for (let i = 0; i < 250; i++) log.add(record, 1000 + i);
    assert.deepEqual([log.recent.length, followed, log.suppressed], [200, 200, 50]);
    stop();
    log.add(record, 2000);
    assert.deepEqual([log.recent.length, followed, log.suppressed], [201, 200, 50]);
  });

  test('keeps the last thousand for who comes later', () => {
    const log = new PolicyLog();
    for (let i = 0; i < 1500; i++) log.add({ ...record, rule: i }, i * 10);
    assert.equal(log.recent.length, 1000);
    assert.equal(log.recent[0]?.rule, 500);
  });
});
