import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ip } from '#lib/ip.ts';
import { decodeMessage } from '#wire/dns/message.ts';
import { name } from '#wire/dns/name.ts';
import { answerQuery, FORWARD, planForward } from './answer.ts';
import { searchSuffixOf } from './search.ts';
import { answererOf, describeMessage, exampleZone, queryBytes } from './testing.ts';

const zone = exampleZone();
zone.setHosts([{ address: ip('192.0.2.7'), names: [name('legacy.example.')] }]);
const answerer = answererOf(zone);
const LIST = 'default.svc.cluster.local.';
const SOA = 'ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 5';

function askAs(namespace: string | undefined, owner: string, type = 'A'): string[] {
  const query = queryBytes(owner, type);
  const bytes = new Uint8Array(1280);
  bytes.set(query);
  const reply = new Uint8Array(1232);
  const searchSuffix =
    namespace === undefined ? undefined : searchSuffixOf(namespace, 'cluster.local.');
  const options = { length: query.length, reply, transport: 'udp', searchSuffix } as const;
  const length = answerQuery(answerer, bytes, options);
  if (length === FORWARD) {
    const { name, aliases } = planForward(answerer, bytes);
    return [`forward ${name}`, ...aliases.map((alias) => alias.name)];
  }
  return describeMessage(decodeMessage(reply.subarray(0, length)));
}

const NXDOMAIN = ['NXDOMAIN aa', `authority cluster.local. 5 SOA ${SOA}`];

for (const [what, namespace, question, type, expected] of [
  [
    'a service of another namespace by its short name',
    'default',
    `head.db.${LIST}`,
    'A',
    [
      'NOERROR aa',
      `head.db.${LIST} 5 CNAME head.db.svc.cluster.local.`,
      'head.db.svc.cluster.local. 5 A 192.0.2.1',
      'head.db.svc.cluster.local. 5 A 192.0.2.2',
    ],
  ],
  [
    'a service by its whole name, the other family, in another case',
    'default',
    `WEB.Default.svc.Cluster.local.${LIST}`,
    'AAAA',
    [
      'NOERROR aa',
      `WEB.Default.svc.Cluster.local.${LIST} 5 CNAME web.default.svc.cluster.local.`,
      'web.default.svc.cluster.local. 5 AAAA 2001:db8:96::1',
    ],
  ],
  [
    'a name that has nothing of the type: as the client would learn',
    'default',
    `plain.default.svc.cluster.local.${LIST}`,
    'AAAA',
    [
      'NOERROR aa',
      `plain.default.svc.cluster.local.${LIST} 5 CNAME plain.default.svc.cluster.local.`,
      `authority cluster.local. 5 SOA ${SOA}`,
    ],
  ],
  [
    'the second item of the list',
    'default',
    `dns-version.${LIST}`,
    'A',
    [
      'NOERROR aa',
      `dns-version.${LIST} 5 CNAME dns-version.cluster.local.`,
      `authority cluster.local. 5 SOA ${SOA}`,
    ],
  ],
  [
    'a static name',
    'default',
    `legacy.example.${LIST}`,
    'A',
    [
      'NOERROR aa',
      `legacy.example.${LIST} 5 CNAME legacy.example.`,
      'legacy.example. 5 A 192.0.2.7',
    ],
  ],
  [
    'a name outside',
    'default',
    `www.example.com.${LIST}`,
    'A',
    ['forward www.example.com.', `www.example.com.${LIST}`],
  ],
  ['a type that is not for hosts', 'default', `www.example.com.${LIST}`, 'MX', NXDOMAIN],
  ['a single label', 'default', `router.${LIST}`, 'A', NXDOMAIN],
  ['a pod of another namespace', 'db', `head.db.${LIST}`, 'A', NXDOMAIN],
  ['no pod', undefined, `www.example.com.${LIST}`, 'A', NXDOMAIN],
  [
    'a name of the zone that does not exist',
    'default',
    `no.svc.cluster.local.${LIST}`,
    'A',
    NXDOMAIN,
  ],
  ['the item itself', 'default', LIST, 'A', ['NOERROR aa', NXDOMAIN[1]]],
  [
    'a name that exists',
    'default',
    `web.${LIST}`,
    'A',
    ['NOERROR aa', `web.${LIST} 5 A 10.96.0.1`],
  ],
] as const)
  test(`search path: ${what}`, () => {
    assert.deepEqual(askAs(namespace, question, type), expected);
  });

test('search path: off by its switch', () => {
  answerer.table.searchPath = false;
  try {
    assert.deepEqual(askAs('default', `head.db.${LIST}`), NXDOMAIN);
  } finally {
    answerer.table.searchPath = true;
  }
});

test('search path: a name too long for the packet is left to the client', () => {
  const long = Array.from({ length: 3 }, () => 'x'.repeat(60)).join('.');
  assert.deepEqual(askAs('default', `${long}.${LIST}`)[0], `forward ${long}.`);
});

test('searchSuffixOf() is undefined for a namespace that no name can hold', () => {
  assert.equal(searchSuffixOf('x'.repeat(64), 'cluster.local.'), undefined);
});
