/**
 * Questions about the example cluster of `testing.ts` and their whole answers: rcode and "aa", then every record.
 * The behaviour is that of the Kubernetes DNS specification 1.1.0 and of CoreDNS's `kubernetes` plugin.
 */
const SOA = 'ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 5';
const AUTHORITY = `authority cluster.local. 5 SOA ${SOA}`;
const NODATA = ['NOERROR aa', AUTHORITY];
const NXDOMAIN = ['NXDOMAIN aa', AUTHORITY];
const WEB = 'web.default.svc.cluster.local.';
const HEAD = 'head.db.svc.cluster.local.';
const WEB_ADDRESSES = [
  `additional ${WEB} 5 A 10.96.0.1`,
  `additional ${WEB} 5 AAAA 2001:db8:96::1`,
];
/** Of 2001:db8:96::1 and 5678:abcd::1. */
const WEB_V6_REVERSE = '1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.0.0.8.b.d.0.1.0.0.2.ip6.arpa.';
const HEAD_V6_REVERSE = '1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.c.b.a.8.7.6.5.ip6.arpa.';

export interface Vector {
  readonly question: string;
  readonly type: string;
  /** `['forward']` for what is asked elsewhere. */
  readonly expected: readonly string[];
}

export const VECTORS: readonly Vector[] = [
  // Services with addresses.
  { question: WEB, type: 'A', expected: ['NOERROR aa', `${WEB} 5 A 10.96.0.1`] },
  { question: WEB, type: 'AAAA', expected: ['NOERROR aa', `${WEB} 5 AAAA 2001:db8:96::1`] },
  { question: WEB, type: 'ANY', expected: ['NOERROR aa', `${WEB} 5 A 10.96.0.1`] },
  { question: WEB, type: 'MX', expected: NODATA },
  { question: WEB, type: 'HTTPS', expected: NODATA },
  { question: 'plain.default.svc.cluster.local.', type: 'AAAA', expected: NODATA },
  { question: 'portless.default.svc.cluster.local.', type: 'A', expected: NXDOMAIN },
  { question: 'no.default.svc.cluster.local.', type: 'A', expected: NXDOMAIN },
  { question: 'web.nowhere.svc.cluster.local.', type: 'A', expected: NXDOMAIN },
  { question: `x.${WEB}`, type: 'A', expected: NXDOMAIN },

  // Named ports, and all ports at the service's own name.
  {
    question: `_http._tcp.${WEB}`,
    type: 'SRV',
    expected: ['NOERROR aa', `_http._tcp.${WEB} 5 SRV 0 100 80 ${WEB}`, ...WEB_ADDRESSES],
  },
  {
    question: `_dns._udp.${WEB}`,
    type: 'SRV',
    expected: ['NOERROR aa', `_dns._udp.${WEB} 5 SRV 0 100 53 ${WEB}`, ...WEB_ADDRESSES],
  },
  {
    question: WEB,
    type: 'SRV',
    expected: [
      'NOERROR aa',
      `${WEB} 5 SRV 0 50 80 ${WEB}`,
      `${WEB} 5 SRV 0 50 53 ${WEB}`,
      ...WEB_ADDRESSES,
    ],
  },
  { question: `_http._udp.${WEB}`, type: 'SRV', expected: NXDOMAIN },
  { question: `_none._tcp.${WEB}`, type: 'SRV', expected: NXDOMAIN },
  { question: `_tcp.${WEB}`, type: 'SRV', expected: NODATA },
  { question: `_http._tcp.${WEB}`, type: 'A', expected: NODATA },

  // Headless services: ready endpoints by hostname or by address.
  {
    question: HEAD,
    type: 'A',
    expected: ['NOERROR aa', `${HEAD} 5 A 192.0.2.1`, `${HEAD} 5 A 192.0.2.2`],
  },
  { question: HEAD, type: 'AAAA', expected: ['NOERROR aa', `${HEAD} 5 AAAA 5678:abcd::1`] },
  {
    question: `db-0.${HEAD}`,
    type: 'A',
    expected: ['NOERROR aa', `db-0.${HEAD} 5 A 192.0.2.1`],
  },
  { question: `192-0-2-1.${HEAD}`, type: 'A', expected: NXDOMAIN },
  {
    question: `192-0-2-2.${HEAD}`,
    type: 'A',
    expected: ['NOERROR aa', `192-0-2-2.${HEAD} 5 A 192.0.2.2`],
  },
  { question: `192-0-2-3.${HEAD}`, type: 'A', expected: NXDOMAIN },
  { question: `db-0.${HEAD}`, type: 'AAAA', expected: NODATA },
  {
    question: `5678-abcd--1.${HEAD}`,
    type: 'AAAA',
    expected: ['NOERROR aa', `5678-abcd--1.${HEAD} 5 AAAA 5678:abcd::1`],
  },
  {
    question: `_http._tcp.${HEAD}`,
    type: 'SRV',
    expected: [
      'NOERROR aa',
      `_http._tcp.${HEAD} 5 SRV 0 33 8080 db-0.${HEAD}`,
      `_http._tcp.${HEAD} 5 SRV 0 33 8080 192-0-2-2.${HEAD}`,
      `_http._tcp.${HEAD} 5 SRV 0 33 8080 5678-abcd--1.${HEAD}`,
      `additional db-0.${HEAD} 5 A 192.0.2.1`,
      `additional 192-0-2-2.${HEAD} 5 A 192.0.2.2`,
      `additional 5678-abcd--1.${HEAD} 5 AAAA 5678:abcd::1`,
    ],
  },
  { question: 'idle.db.svc.cluster.local.', type: 'A', expected: NXDOMAIN },

  // Names with nothing but other names below them.
  { question: 'cluster.local.', type: 'A', expected: NODATA },
  { question: 'svc.cluster.local.', type: 'A', expected: NODATA },
  { question: 'pod.cluster.local.', type: 'A', expected: NODATA },
  { question: 'default.svc.cluster.local.', type: 'A', expected: NODATA },
  { question: 'dns.cluster.local.', type: 'A', expected: NODATA },
  { question: '192-0-2-1.default.pod.cluster.local.', type: 'A', expected: NXDOMAIN },
  { question: 'nothing.cluster.local.', type: 'A', expected: NXDOMAIN },

  // The zone itself.
  {
    question: 'cluster.local.',
    type: 'SOA',
    expected: ['NOERROR aa', `cluster.local. 5 SOA ${SOA}`],
  },
  {
    question: 'cluster.local.',
    type: 'NS',
    expected: [
      'NOERROR aa',
      'cluster.local. 5 NS ns.dns.cluster.local.',
      'additional ns.dns.cluster.local. 5 A 10.96.0.10',
      'additional ns.dns.cluster.local. 5 AAAA 2001:db8:96::a',
    ],
  },
  {
    question: 'ns.dns.cluster.local.',
    type: 'A',
    expected: ['NOERROR aa', 'ns.dns.cluster.local. 5 A 10.96.0.10'],
  },
  {
    question: 'dns-version.cluster.local.',
    type: 'TXT',
    expected: ['NOERROR aa', 'dns-version.cluster.local. 28800 TXT "1.1.0"'],
  },

  // Reverse names: ours answered, the others asked elsewhere.
  {
    question: '1.0.96.10.in-addr.arpa.',
    type: 'PTR',
    expected: ['NOERROR aa', `1.0.96.10.in-addr.arpa. 5 PTR ${WEB}`],
  },
  {
    question: '1.2.0.192.in-addr.arpa.',
    type: 'PTR',
    expected: ['NOERROR aa', `1.2.0.192.in-addr.arpa. 5 PTR db-0.${HEAD}`],
  },
  {
    question: '2.2.0.192.in-addr.arpa.',
    type: 'PTR',
    expected: ['NOERROR aa', `2.2.0.192.in-addr.arpa. 5 PTR 192-0-2-2.${HEAD}`],
  },
  {
    question: WEB_V6_REVERSE,
    type: 'PTR',
    expected: ['NOERROR aa', `${WEB_V6_REVERSE} 5 PTR ${WEB}`],
  },
  {
    question: HEAD_V6_REVERSE,
    type: 'PTR',
    expected: ['NOERROR aa', `${HEAD_V6_REVERSE} 5 PTR 5678-abcd--1.${HEAD}`],
  },
  // Not ready.
  { question: '3.2.0.192.in-addr.arpa.', type: 'PTR', expected: ['forward'] },
  {
    question: '1.0.96.10.in-addr.arpa.',
    type: 'A',
    expected: [
      'NOERROR aa',
      'authority 1.0.96.10.in-addr.arpa. 5 SOA ns.dns.1.0.96.10.in-addr.arpa. hostmaster.1.0.96.10.in-addr.arpa. 7 7200 1800 86400 5',
    ],
  },

  // ExternalName.
  { question: 'out.default.svc.cluster.local.', type: 'A', expected: ['forward'] },
  {
    question: 'out.default.svc.cluster.local.',
    type: 'CNAME',
    expected: ['NOERROR aa', 'out.default.svc.cluster.local. 5 CNAME www.example.com.'],
  },
  {
    question: 'out.default.svc.cluster.local.',
    type: 'TXT',
    expected: ['NOERROR aa', 'out.default.svc.cluster.local. 5 CNAME www.example.com.'],
  },
  { question: 'x.out.default.svc.cluster.local.', type: 'A', expected: NXDOMAIN },
  {
    question: 'alias.default.svc.cluster.local.',
    type: 'A',
    expected: [
      'NOERROR aa',
      `alias.default.svc.cluster.local. 5 CNAME ${WEB}`,
      `${WEB} 5 A 10.96.0.1`,
    ],
  },
  {
    question: 'alias.default.svc.cluster.local.',
    type: 'MX',
    expected: ['NOERROR aa', `alias.default.svc.cluster.local. 5 CNAME ${WEB}`, AUTHORITY],
  },
  {
    question: 'dangling.default.svc.cluster.local.',
    type: 'A',
    expected: [
      'NXDOMAIN aa',
      'dangling.default.svc.cluster.local. 5 CNAME nothing.default.svc.cluster.local.',
      AUTHORITY,
    ],
  },
  { question: 'ping.default.svc.cluster.local.', type: 'A', expected: ['SERVFAIL'] },

  // Everything else.
  { question: 'www.example.com.', type: 'A', expected: ['forward'] },
  { question: 'notcluster.local.', type: 'A', expected: ['forward'] },
  { question: 'local.', type: 'A', expected: ['forward'] },
  { question: '.', type: 'NS', expected: ['forward'] },
];
