import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEFAULT_CONFIG, parseDnsConfig, parseUpstream } from './config.ts';

test('parseDnsConfig() reads every field', () => {
  const { config, problems } = parseDnsConfig({
    'config.yaml': `
pods: verified
searchPath: false
upstreams: [192.0.2.53, "tls://192.0.2.54#dns.example"]
policy: random
zones:
  - { zone: Corp.Example, upstreams: ["192.0.2.55:5353"], policy: roundRobin }
maxConcurrent: 10
randomizeCase: true
cacheEntries: 0
serveStaleSeconds: 60
prefetch: false
cookies: false
rateLimit: { queriesPerSecond: 1000, namespaces: { noisy: 10 } }
`,
    hosts: '# the old ones\n192.0.2.7 DB.legacy.example db # two names\n\n2001:db8::7 db\n',
  });
  assert.deepEqual(problems, []);
  assert.deepEqual(config, {
    pods: 'verified',
    searchPath: false,
    forward: {
      zone: '.',
      upstreams: [
        { address: '192.0.2.53', port: 53 },
        { address: '192.0.2.54', port: 853, tls: { serverName: 'dns.example' } },
      ],
      policy: 'random',
    },
    zones: [
      {
        zone: 'corp.example.',
        upstreams: [{ address: '192.0.2.55', port: 5353 }],
        policy: 'roundRobin',
      },
    ],
    hosts: [
      { address: '192.0.2.7', names: ['db.legacy.example.', 'db.'] },
      { address: '2001:db8::7', names: ['db.'] },
    ],
    maxConcurrent: 10,
    randomizeCase: true,
    cacheEntries: 0,
    serveStaleS: 60,
    prefetch: false,
    cookies: false,
    queriesPerSecond: 1000,
    namespaceQueriesPerSecond: { noisy: 10 },
  });
});

for (const [what, data, problem] of [
  ['a broken document', { 'config.yaml': 'pods: [' }, /config.yaml is no YAML/],
  ['a list for a mapping', { 'config.yaml': '- pods' }, /config.yaml must be a mapping/],
  ['an unknown field', { 'config.yaml': 'pod: verified' }, /no field "pod"/],
  ['an unknown key', { Corefile: '.:53 {}' }, /key "Corefile" is not known/],
  ['a wrong choice', { 'config.yaml': 'pods: some' }, /pods "some" is wrong: expected one of/],
  ['a name as upstream', { 'config.yaml': 'upstreams: [dns.example]' }, /"dns.example" is wrong/],
  ['a zone without servers', { 'config.yaml': 'zones: [{zone: a.b}]' }, /names no server/],
  ['no zone', { 'config.yaml': 'zones: [{upstreams: [192.0.2.1]}]' }, /must be a domain name/],
  ['a bad host line', { hosts: 'db 192.0.2.1' }, /hosts line 1: "db" is no IP address/],
  ['a negative limit', { 'config.yaml': 'rateLimit: {queriesPerSecond: -1}' }, /expected a whole/],
  ['aliases', { 'config.yaml': 'a: &a [1]\nzones: [*a, *a]' }, /is no YAML/],
] as const)
  test(`parseDnsConfig() tells of ${what} and goes on`, () => {
    const { config, problems } = parseDnsConfig({ ...data });
    assert.match(problems.join('\n'), problem);
    assert.deepEqual(config, DEFAULT_CONFIG);
  });

test('parseUpstream() knows addresses with ports, zones and TLS, and nothing else', () => {
  assert.deepEqual(parseUpstream('[2001:db8::53]:5353'), { address: '2001:db8::53', port: 5353 });
  assert.deepEqual(parseUpstream('2001:db8::53'), { address: '2001:db8::53', port: 53 });
  assert.deepEqual(parseUpstream('tls://[2001:db8::53]:8853'), {
    address: '2001:db8::53',
    port: 8853,
    tls: {},
  });
  for (const text of [
    '',
    'x',
    '192.0.2.1#name',
    '192.0.2.1:0',
    '192.0.2.1:70000',
    'udp://192.0.2.1',
  ])
    assert.equal(parseUpstream(text), undefined, text);
});
