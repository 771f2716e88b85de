import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ip } from '#lib/ip.ts';
import { CONNTRACK_STATUS, type ConntrackEntry } from '#wire/conntrack/codec.ts';
import { type KnownTargets, staleEntries } from './stale.ts';

const [TCP, UDP] = [6, 17];
const targets: KnownTargets = {
  present: new Set(['10.0.0.1|8080', '10.0.0.2|8080']),
  serving: new Set(['10.0.0.1|8080']),
};

/** A client's connection to the service that went to this endpoint. */
function entry(
  protocol: number,
  endpoint: string,
  endpointPort = 8080,
  status: number = CONNTRACK_STATUS.seenReply,
): ConntrackEntry {
  const [client, service] = [ip('192.0.2.9'), ip('10.96.0.7')];
  return {
    original: {
      source: client,
      destination: service,
      protocol,
      sourcePort: 4000,
      destinationPort: 80,
    },
    reply: {
      ...{ source: ip(endpoint), destination: client, protocol },
      ...{ sourcePort: endpointPort, destinationPort: 4000 },
    },
    ...{ family: 4, status, timeoutSeconds: 30, mark: 0, id: 1, zone: 0 },
  };
}

const isStale = (candidate: ConntrackEntry, known: KnownTargets | undefined = targets) =>
  staleEntries([candidate], (frontend) =>
    frontend.startsWith('10.96.0.7|') && frontend.endsWith('|80') ? known : undefined,
  ).length === 1;

for (const [what, candidate, expected] of [
  ['UDP to an endpoint that answers', entry(UDP, '10.0.0.1'), false],
  ['UDP to an endpoint that does not answer any more', entry(UDP, '10.0.0.2'), true],
  ['UDP to an endpoint that is gone', entry(UDP, '10.0.0.3'), true],
  ['UDP to another port of an endpoint', entry(UDP, '10.0.0.1', 9090), true],
  ['UDP from before the rules', entry(UDP, '10.96.0.7', 80), true],
  ['TCP to an endpoint that is only not ready', entry(TCP, '10.0.0.2'), false],
  ['TCP to an endpoint that is gone', entry(TCP, '10.0.0.3'), true],
  ['TCP from before the rules', entry(TCP, '10.96.0.7', 80), false],
  ['TCP from before the rules that nobody answered', entry(TCP, '10.96.0.7', 80, 0), true],
  ['TCP to an endpoint that has not answered yet', entry(TCP, '10.0.0.1', 8080, 0), false],
  ['ICMP', entry(1, '10.0.0.3'), false],
] as const)
  test(`staleEntries(): ${what} is ${expected ? 'stale' : 'left alone'}`, () => {
    assert.equal(isStale(candidate), expected);
  });

test('staleEntries() leaves alone what is no service, and TCP of a service that is gone', () => {
  assert.equal(staleEntries([entry(UDP, '10.0.0.3')], () => undefined).length, 0);
  const gone: KnownTargets = { present: undefined, serving: new Set() };
  assert.equal(isStale(entry(TCP, '10.0.0.1'), gone), false);
  assert.equal(isStale(entry(UDP, '10.0.0.1'), gone), true);
});

test('staleEntries() after a repair takes what was never answered, and leaves what was', () => {
  const [asked, answered] = [entry(TCP, '10.0.0.1', 8080, 0), entry(TCP, '10.0.0.1')];
  const stale = staleEntries([asked, answered, entry(UDP, '10.0.0.1', 8080, 0)], () => targets, {
    unanswered: true,
  });
  assert.equal(stale.length, 2);
  assert.ok(!stale.includes(answered));
});
