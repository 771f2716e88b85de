import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { Registry } from 'prom-client';
import type { ConfigMap } from '#api/core/v1/config-map.ts';
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { HandCache } from '#client/hand-cache.ts';
import { sleep } from '#lib/clock.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { type Dns, startDns } from './dns.ts';
import { answerWith, type FakeUpstream, startFakeUpstream } from './fake-upstream.ts';
import { describeMessage, queryBytes, service, slice } from './testing.ts';
import { askTcp, askUdp, LOOPBACK, portOf, until } from './wire-testing.ts';

const run = promisify(execFile);
const dig = await run('dig', ['-v']).then(
  () => undefined,
  () => 'dig (Debian: bind9-dnsutils) is not installed',
);

const WEB = 'web.default.svc.cluster.local.';
const webService = service('default/web', {
  clusterIP: '10.96.0.1',
  ports: [{ name: 'http', port: 80 }],
});

describe('startDns() on the wire', () => {
  const services = new HandCache<Service>();
  const slices = new HandCache<EndpointSlice>();
  const registry = new Registry();
  let upstream: FakeUpstream;
  let dns: Dns;
  let udp = 0;
  let tcp = 0;

  before(async () => {
    upstream = await startFakeUpstream((query) => [answerWith(query, ['192.0.2.80'])]);
    services.put(webService);
    dns = startDns({
      services,
      slices,
      registry,
      listen: [LOOPBACK],
      port: 0,
      upstreams: [upstream.upstream],
      log: silentLogger,
    });
    await until(() => dns.status().listening.length === 2, 'UDP and TCP are open');
    udp = portOf(dns.status().listening, 'udp');
    tcp = portOf(dns.status().listening, 'tcp');
  });
  after(async () => {
    await dns[Symbol.asyncDispose]();
    await upstream[Symbol.asyncDispose]();
  });

  test('it says SERVFAIL until both caches are full, and answers then', async () => {
    assert.equal(dns.status().synced, false);
    assert.deepEqual(describeMessage(await askUdp(udp, queryBytes(WEB, 'A'))), ['SERVFAIL']);
    services.sync();
    slices.sync();
    await until(() => dns.status().synced, 'synced');
    const answer = await askUdp(udp, queryBytes(WEB, 'A'));
    assert.deepEqual(describeMessage(answer), ['NOERROR aa', `${WEB} 5 A 10.96.0.1`]);
  });

  test('it answers pipelined queries over TCP, also after the client has ended its side', async () => {
    const queries = [
      queryBytes(WEB, 'A'),
      queryBytes('no.default.svc.cluster.local', 'A'),
      queryBytes('www.example.com', 'A'),
    ];
    const answers = await askTcp(tcp, queries);
    assert.deepEqual(answers.map((a) => describeMessage(a)[0]).sort(), [
      'NOERROR',
      'NOERROR aa',
      'NXDOMAIN aa',
    ]);
  });

  test('it forwards other names, and asks the upstream once while the answer is good', async () => {
    for (let i = 0; i < 3; i++) {
      const answer = await askUdp(udp, queryBytes('Cached.example.com', 'A', {}));
      assert.match(
        describeMessage(answer)[1] ?? '',
        /^Cached\.example\.com\. \d+ A 192\.0\.2\.80$/,
      );
    }
    const asked = upstream.asked.filter(
      (a) => a.query.questions[0]?.name.toLowerCase() === 'cached.example.com.',
    );
    assert.equal(asked.length, 1);
  });

  test('it follows an ExternalName to the upstream', async () => {
    services.put(service('default/out', { type: 'ExternalName', externalName: 'www.example.net' }));
    const answer = await askUdp(udp, queryBytes('out.default.svc.cluster.local', 'A'));
    assert.deepEqual(describeMessage(answer), [
      'NOERROR',
      'out.default.svc.cluster.local. 5 CNAME www.example.net.',
      'www.example.net. 300 A 192.0.2.80',
    ]);
  });

  test('it follows changes of services and slices', async () => {
    const head = 'head.db.svc.cluster.local.';
    // A change reaches the worker by a message; the runner's time limit ends a wait in vain.
    const becomes = async (...expected: string[]) => {
      const ask = async () => describeMessage(await askUdp(udp, queryBytes(head, 'A')));
      while ((await ask()).slice(0, expected.length).join('|') !== expected.join('|'))
        await new Promise((resolve) => setImmediate(resolve));
    };
    slices.put(slice('db/head', [{ addresses: ['192.0.2.1'] }]));
    await becomes('NXDOMAIN aa');
    services.put(service('db/head', { clusterIP: 'None' }));
    await becomes('NOERROR aa', `${head} 5 A 192.0.2.1`);
    slices.put(slice('db/head', [{ addresses: ['192.0.2.2'] }]));
    await becomes('NOERROR aa', `${head} 5 A 192.0.2.2`);
    slices.remove('db/head-1');
    await becomes('NXDOMAIN aa');
  });

  test('it hands on an upstream’s refusal', async () => {
    const before = upstream.behaviour;
    upstream.behaviour = (query) => [answerWith(query, [], { rcode: 5 })];
    const answer = await askUdp(udp, queryBytes('refused.example.com', 'A'));
    upstream.behaviour = before;
    assert.deepEqual(describeMessage(answer), ['REFUSED']);
  });

  test('dig takes its answers', { skip: dig }, async () => {
    const ask = async (...words: string[]) => {
      const { stdout } = await run('dig', [
        `@${LOOPBACK}`,
        '-p',
        String(udp),
        '+tries=1',
        '+time=20',
        ...words,
      ]);
      return stdout;
    };
    assert.match(
      await ask(WEB, 'A'),
      /status: NOERROR[\s\S]*flags: qr aa rd ra;[\s\S]*web\.default\.svc\.cluster\.local\.\s+5\s+IN\s+A\s+10\.96\.0\.1/,
    );
    assert.match(
      await ask('no.svc.cluster.local', 'A'),
      /status: NXDOMAIN[\s\S]*AUTHORITY: 1[\s\S]*SOA\s+ns\.dns\.cluster\.local\. hostmaster/,
    );
    assert.match(
      await ask(`_http._tcp.${WEB}`, 'SRV'),
      /SRV\s+0 100 80 web\.default[\s\S]*ADDITIONAL SECTION/,
    );
    assert.match(await ask('www.example.com', 'A', '+nocookie'), /192\.0\.2\.80/);
    const { stdout } = await run('dig', [
      `@${LOOPBACK}`,
      '-p',
      String(tcp),
      '+tcp',
      'dns-version.cluster.local',
      'TXT',
      '+short',
    ]);
    assert.equal(stdout, '"1.1.0"\n');
  });

  test('its metrics have CoreDNS’s names and count', async () => {
    await until(() => dns.status().queries >= 10, 'counts arrive');
    const text = await registry.metrics();
    for (const pattern of [
      /coredns_dns_requests_total\{[^}]*proto="udp",family="1",type="A"\} \d+/,
      /coredns_dns_responses_total\{[^}]*rcode="NXDOMAIN",plugin="kubernetes"\} \d+/,
      /coredns_dns_request_size_bytes_bucket\{[^}]*proto="udp",le="100"\} [1-9]/,
      /coredns_dns_request_size_bytes_count\{[^}]*proto="tcp"\} [1-9]/,
      /coredns_dns_response_size_bytes_sum\{[^}]*proto="udp"\} [1-9]\d\d/,
      /coredns_dns_do_requests_total\{[^}]*\} \d/,
      /coredns_dns_request_duration_seconds_bucket\{[^}]*le="\+Inf"\} [1-9]/,
      /coredns_forward_responses_total\{to="127[^}]*rcode="NOERROR"\} [1-9]/,
      /coredns_cache_hits_total\{[^}]*\} [1-9]/,
      /coredns_kubernetes_dns_programming_duration_seconds/,
    ])
      assert.match(text, pattern);
  });
});

test('every answer under churn was right at some moment of its query', async () => {
  const services = new HandCache<Service>();
  const slices = new HandCache<EndpointSlice>();
  await using dns = startDns({
    services,
    slices,
    registry: new Registry(),
    listen: [LOOPBACK],
    port: 0,
    upstreams: [],
    log: silentLogger,
  });
  let generation = 0;
  const change = () => {
    generation++;
    const clusterIP = `10.${96 + (generation >> 16)}.${(generation >> 8) & 255}.${generation & 255}`;
    services.put(service('default/web', { clusterIP, ports: [{ port: 80 }] }));
  };
  change();
  services.sync();
  slices.sync();
  await until(() => dns.status().synced && dns.status().listening.length === 2, 'ready');
  const port = portOf(dns.status().listening, 'udp');
  let told = 1;
  let over = false;
  const churn = (async () => {
    while (!over) {
      for (let i = 0; i < 5; i++) change();
      await sleep(1);
    }
  })();
  const client = async () => {
    for (let i = 0; i < 200; i++) {
      // What somebody has been told is never taken back.
      const first = told;
      const answer = await askUdp(port, queryBytes(WEB, 'A'));
      const [record] = answer.answers;
      const [, a = 0, b = 0, c = 0] =
        record?.data.kind === 'A' ? record.data.address.split('.').map(Number) : [];
      const given = (a - 96) * 65_536 + b * 256 + c;
      told = Math.max(told, given);
      assert.ok(given >= first && given <= generation, `${first} ≤ ${given} ≤ ${generation}`);
    }
  };
  try {
    await Promise.all(Array.from({ length: 4 }, client));
  } finally {
    over = true;
    await churn;
  }
  assert.ok(generation > 100 && told > 1);
});

test('a configuration that changes loses no query, and takes effect', async () => {
  const configMaps = new HandCache<ConfigMap>();
  const services = new HandCache<Service>();
  const slices = new HandCache<EndpointSlice>();
  await using corp = await startFakeUpstream((query) => [answerWith(query, ['192.0.2.99'])]);
  await using upstream = await startFakeUpstream((query) => [answerWith(query, ['192.0.2.80'])]);
  services.put(webService);
  await using dns = startDns({
    services,
    slices,
    configMaps,
    registry: new Registry(),
    listen: [LOOPBACK],
    port: 0,
    upstreams: [upstream.upstream],
    log: silentLogger,
  });
  services.sync();
  slices.sync();
  await until(() => dns.status().synced && dns.status().listening.length === 2, 'ready');
  const port = portOf(dns.status().listening, 'udp');
  const configure = (config: string, hosts = '') =>
    configMaps.put({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'tulle-dns', namespace: 'kube-system' },
      data: { 'config.yaml': config, hosts },
    });
  const ask = async (owner: string) =>
    describeMessage(await askUdp(port, queryBytes(owner, 'A')))[1]
      ?.split(' ')
      .at(-1);
  assert.equal(await ask('www.corp.example'), '192.0.2.80');
  for (let i = 0; i < 20; i++) {
    const asking = Array.from({ length: 10 }, () => ask(WEB));
    configure(`searchPath: ${i % 2 === 0}`, `203.0.113.${i} static.example`);
    assert.deepEqual(new Set(await Promise.all(asking)), new Set(['10.96.0.1']));
    assert.equal(await ask('static.example'), `203.0.113.${i}`);
  }
  const { address, port: corpPort } = corp.upstream;
  configure(`zones: [{ zone: corp.example, upstreams: ["${address}:${corpPort}"] }]`);
  assert.equal(await ask('www.corp.example'), '192.0.2.99', 'what others said counts no more');
  assert.deepEqual(dns.status().problems, []);
  configure('pods: maybe');
  assert.match(dns.status().problems.join(), /kube-system\/tulle-dns.*pods "maybe" is wrong/);
  configMaps.remove('kube-system/tulle-dns');
  assert.equal(await ask('static.example'), '192.0.2.80');
});

test('startDns() says which address it cannot use, and why', async () => {
  const dns = startDns({
    services: new HandCache<Service>(),
    slices: new HandCache<EndpointSlice>(),
    registry: new Registry(),
    listen: [ip('192.0.2.53')],
    port: 0,
    upstreams: [],
    log: silentLogger,
  });
  await until(
    () =>
      dns
        .status()
        .failing.some((f) => f.socket.endsWith('udp') && f.reason.includes('EADDRNOTAVAIL')),
    'the reason',
  );
  assert.deepEqual(dns.status().listening, []);
  await dns[Symbol.asyncDispose]();
});

test('startDns() refuses a cluster domain that is none, and nothing to listen on', () => {
  const base = {
    services: new HandCache<Service>(),
    slices: new HandCache<EndpointSlice>(),
    registry: new Registry(),
    log: silentLogger,
  };
  assert.throws(
    () => startDns({ ...base, listen: [LOOPBACK], clusterDomain: 'a..b' }),
    /"a\.\.b" is not a domain name/,
  );
  assert.throws(() => startDns({ ...base, listen: [] }), /no address to listen on/);
});
