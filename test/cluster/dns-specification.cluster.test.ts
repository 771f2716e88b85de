/**
 * The Kubernetes DNS specification 1.1.0, record by record, as a pod sees it: objects in the API, an agent that follows
 * it, and `dig`, `kdig` and `drill` in a pod's network, asking at the addresses of both families.
 *
 * @see https://github.com/kubernetes/dns/blob/master/docs/specification.md
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { SERVICE, type ServiceSpec } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE, type EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { type LabCluster, until } from '#lab/cluster.ts';
import { containerPid, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { ip } from '#lib/ip.ts';
import { reverseName } from '#node/dns/records.ts';
import { DUAL_STACK, startCluster } from './start-cluster.ts';

const WAIT_MS = 20_000;
const LAB = 'test-dns-spec';
const ZONE = 'cluster.local.';
const WEB = `web.default.svc.${ZONE}`;
const HEAD = `head.default.svc.${ZONE}`;
const SERVERS = ['10.96.0.10', 'fd00:10:96::a', '169.254.20.10'];
const PORTS = [
  { name: 'http', port: 80, protocol: 'TCP' as const },
  { name: 'dns', port: 53, protocol: 'UDP' as const },
];
const V4 = '10.96.0.77';
const V6 = 'fd00:10:96::77';

const DUAL: Pick<ServiceSpec, 'ipFamilyPolicy' | 'ipFamilies'> = {
  ipFamilyPolicy: 'RequireDualStack',
  ipFamilies: ['IPv4', 'IPv6'],
};
const SERVICES: Readonly<Record<string, ServiceSpec>> = {
  web: { ...DUAL, clusterIP: V4, clusterIPs: [V4, V6], ports: PORTS },
  plain: { clusterIP: '10.96.0.78', ports: [{ port: 80, protocol: 'TCP' }] },
  head: { ...DUAL, clusterIP: 'None', ports: PORTS },
  idle: { clusterIP: 'None', ports: PORTS },
  outside: { type: 'ExternalName', externalName: 'www.example.com' },
  inside: { type: 'ExternalName', externalName: WEB.slice(0, -1) },
};

const SLICES: readonly EndpointSlice[] = [
  sliceOfHead('IPv4', [
    { addresses: ['198.51.100.1'], hostname: 'db-0', conditions: { ready: true } },
    { addresses: ['198.51.100.2'], conditions: { ready: true } },
    { addresses: ['198.51.100.3'], hostname: 'db-3', conditions: { ready: false } },
  ]),
  sliceOfHead('IPv6', [
    { addresses: ['2001:db8::1'], hostname: 'db-0', conditions: { ready: true } },
    { addresses: ['2001:db8::2'], conditions: { ready: true } },
  ]),
];

function sliceOfHead(
  addressType: 'IPv4' | 'IPv6',
  endpoints: NonNullable<EndpointSlice['endpoints']>,
): EndpointSlice {
  const name = `head-${addressType.toLowerCase()}`;
  const labels = { 'kubernetes.io/service-name': 'head' };
  return {
    ...{ apiVersion: 'discovery.k8s.io/v1', kind: 'EndpointSlice' },
    metadata: { name, namespace: 'default', labels },
    ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
    ...{ addressType, endpoints },
  };
}

const SOA = `${ZONE} SOA ns.dns.${ZONE} hostmaster.${ZONE}`;
const NODATA = ['NOERROR', SOA];
const NXDOMAIN = ['NXDOMAIN', SOA];
const reverse = (address: string) => reverseName(ip(address));
const WEB_ADDRESSES = [`${WEB} A ${V4}`, `${WEB} AAAA ${V6}`];

/** The section of the specification, the question, and what it says; of every record name, type and data. */
const CASES: readonly (readonly [section: string, name: string, type: string, string[]])[] = [
  [
    '2.2 schema version',
    `dns-version.${ZONE}`,
    'TXT',
    ['NOERROR', `dns-version.${ZONE} TXT "1.1.0"`],
  ],
  ['2.3.1 A', WEB, 'A', ['NOERROR', `${WEB} A ${V4}`]],
  ['2.3.1 AAAA', WEB, 'AAAA', ['NOERROR', `${WEB} AAAA ${V6}`]],
  ['2.3.1 AAAA of a service of one family', `plain.default.svc.${ZONE}`, 'AAAA', NODATA],
  [
    '2.3.2 SRV',
    `_http._tcp.${WEB}`,
    'SRV',
    ['NOERROR', `_http._tcp.${WEB} SRV 0 100 80 ${WEB}`, ...WEB_ADDRESSES],
  ],
  [
    '2.3.2 SRV, UDP',
    `_dns._udp.${WEB}`,
    'SRV',
    ['NOERROR', `_dns._udp.${WEB} SRV 0 100 53 ${WEB}`, ...WEB_ADDRESSES],
  ],
  ['2.3.2 SRV of a port without a name', `_._tcp.plain.default.svc.${ZONE}`, 'SRV', NXDOMAIN],
  ['2.3.2 SRV of another protocol', `_http._udp.${WEB}`, 'SRV', NXDOMAIN],
  ['2.3.3 PTR, IPv4', reverse(V4), 'PTR', ['NOERROR', `${reverse(V4)} PTR ${WEB}`]],
  ['2.3.3 PTR, IPv6', reverse(V6), 'PTR', ['NOERROR', `${reverse(V6)} PTR ${WEB}`]],
  [
    '2.4.1 A of ready endpoints',
    HEAD,
    'A',
    ['NOERROR', `${HEAD} A 198.51.100.1`, `${HEAD} A 198.51.100.2`],
  ],
  [
    '2.4.1 AAAA of ready endpoints',
    HEAD,
    'AAAA',
    ['NOERROR', `${HEAD} AAAA 2001:db8::1`, `${HEAD} AAAA 2001:db8::2`],
  ],
  ['2.4.1 no ready endpoint', `idle.default.svc.${ZONE}`, 'A', NXDOMAIN],
  ['2.4.1 hostname, A', `db-0.${HEAD}`, 'A', ['NOERROR', `db-0.${HEAD} A 198.51.100.1`]],
  ['2.4.1 hostname, AAAA', `db-0.${HEAD}`, 'AAAA', ['NOERROR', `db-0.${HEAD} AAAA 2001:db8::1`]],
  ['2.4.1 hostname of an endpoint that is not ready', `db-3.${HEAD}`, 'A', NXDOMAIN],
  [
    '2.4.1 endpoint without a hostname',
    `198-51-100-2.${HEAD}`,
    'A',
    ['NOERROR', `198-51-100-2.${HEAD} A 198.51.100.2`],
  ],
  [
    '2.4.2 SRV of ready endpoints',
    `_http._tcp.${HEAD}`,
    'SRV',
    [
      'NOERROR',
      // One for each name, whatever the number of its addresses.
      ...['db-0', '198-51-100-2', '2001-db8--2'].map(
        (host) => `_http._tcp.${HEAD} SRV 0 33 8080 ${host}.${HEAD}`,
      ),
      `db-0.${HEAD} A 198.51.100.1`,
      `db-0.${HEAD} AAAA 2001:db8::1`,
      `198-51-100-2.${HEAD} A 198.51.100.2`,
      `2001-db8--2.${HEAD} AAAA 2001:db8::2`,
    ],
  ],
  ['2.4.2 SRV, no ready endpoint', `_http._tcp.idle.default.svc.${ZONE}`, 'SRV', NXDOMAIN],
  [
    '2.4.3 PTR, IPv4',
    reverse('198.51.100.1'),
    'PTR',
    ['NOERROR', `${reverse('198.51.100.1')} PTR db-0.${HEAD}`],
  ],
  [
    '2.4.3 PTR, IPv6',
    reverse('2001:db8::1'),
    'PTR',
    ['NOERROR', `${reverse('2001:db8::1')} PTR db-0.${HEAD}`],
  ],
  [
    '2.5.1 CNAME',
    `outside.default.svc.${ZONE}`,
    'CNAME',
    ['NOERROR', `outside.default.svc.${ZONE} CNAME www.example.com.`],
  ],
  [
    '2.5.1 CNAME that leads to a service, resolved',
    `inside.default.svc.${ZONE}`,
    'A',
    ['NOERROR', `inside.default.svc.${ZONE} CNAME ${WEB}`, `${WEB} A ${V4}`],
  ],
  ['names that exist by what is below', `default.svc.${ZONE}`, 'A', NODATA],
  ['names that do not exist', `none.default.svc.${ZONE}`, 'A', NXDOMAIN],
  ['case of letters', WEB.toUpperCase(), 'A', ['NOERROR', `${WEB} A ${V4}`]],
];

describe('the DNS specification, in a pod', () => {
  let cluster: LabCluster;
  let m1: Machine;
  let pid = 0;

  before(async () => {
    const started = await startCluster({ name: LAB, machines: 1, serverFlags: DUAL_STACK });
    cluster = started.cluster;
    m1 = started.lab.machine('m1');
    await runContainer(m1, { name: 'client', role: 'client' });
    pid = await containerPid(m1, 'client');
    for (const [name, spec] of Object.entries(SERVICES))
      await cluster.client.create(SERVICE, {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name, namespace: 'default' },
        spec,
      });
    for (const slice of SLICES) await cluster.client.create(ENDPOINT_SLICE, slice);
    const last = reverse('2001:db8::2');
    await until(
      'all is known',
      WAIT_MS,
      async () => (await dig(SERVERS[0], last, 'PTR')).length > 1,
    );
  });
  after(() => Lab.remove(LAB));

  /** Runs a tool of the machine in the pod's network. */
  const inPod = async (...argv: string[]) =>
    (await m1.run(['nsenter', `--net=/proc/${pid}/ns/net`, ...argv])).stdout;

  /** @returns the rcode, then the records of all sections, sorted; of a SOA only what does not change */
  async function dig(server = '', name = '', type = '', ...more: string[]): Promise<string[]> {
    const shown = ['+noall', '+comments', '+answer', '+authority', '+additional'];
    const output = await inPod('dig', `@${server}`, ...shown, '+nosplit', ...more, name, type);
    const rcode = /status: (\w+)/.exec(output)?.[1] ?? output;
    const records = output
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith(';'))
      .map((line) => {
        const [owner = '', , , kind = '', ...data] = line.split(/\s+/);
        const lowered = kind === 'TXT' ? data : data.map((part) => part.toLowerCase());
        const kept = kind === 'SOA' ? lowered.slice(0, 2) : lowered;
        return [owner.toLowerCase(), kind, ...kept].join(' ');
      });
    return [rcode, ...records.sort()];
  }

  for (const server of SERVERS)
    for (const transport of ['+notcp', '+tcp'])
      test(`at ${server}, ${transport}`, async () => {
        for (const [section, name, type, [rcode = '', ...records]] of CASES) {
          const got = await dig(server, name, type, transport);
          const of = `${section}: ${type} ${name}`;
          assert.deepEqual(got, [rcode, ...records.sort()], of);
        }
      });

  test('an ExternalName that leads outside keeps its alias when nobody outside answers', async () => {
    const output = await inPod('dig', `@${SERVERS[0]}`, '+tries=1', `outside.default.svc.${ZONE}`);
    assert.match(output, /status: SERVFAIL/);
  });

  for (const tool of ['kdig', 'drill'])
    test(`${tool} takes the answers, over both families and transports`, async (t) => {
      if (!['/usr/bin', '/bin'].some((folder) => existsSync(join(folder, tool))))
        return t.skip(`${tool} is not installed (Debian: knot-dnsutils, ldnsutils)`);
      const tcp = tool === 'kdig' ? '+tcp' : '-t';
      for (const server of SERVERS)
        for (const more of [[], [tcp]]) {
          const output = await inPod(tool, ...more, `_http._tcp.${HEAD}`, `@${server}`, 'SRV');
          assert.match(output, /SRV\s+0 33 8080 db-0\.head\./, `${server} ${more}`);
        }
    });
});
