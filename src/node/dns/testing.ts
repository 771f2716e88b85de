/** Objects and queries for the tests of this folder. */
import type { Service, ServiceSpec } from '#api/core/v1/service.ts';
import type { Endpoint, EndpointPort, EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { SERVICE_NAME_LABEL } from '#api/discovery/v1/endpoint-slice.ts';
import { ip } from '#lib/ip.ts';
import { RCODE_NAMES, TYPE_NAMES } from '#wire/dns/constants.ts';
import {
  decodeMessage,
  encodeMessage,
  type Message,
  makeQuery,
  type ResourceRecord,
} from '#wire/dns/message.ts';
import { name } from '#wire/dns/name.ts';
import { type Answerer, answerQuery, DROP, FORWARD, newAnswerer } from './answer.ts';
import type { RandomBelow } from './random-below.ts';
import { NameTable } from './table.ts';
import { Zone } from './zone.ts';

export const DOMAIN = name('cluster.local.');

export function service(key: string, spec: ServiceSpec): Service {
  const [namespace = '', serviceName = ''] = key.split('/');
  return { apiVersion: 'v1', kind: 'Service', metadata: { name: serviceName, namespace }, spec };
}

export function slice(
  serviceKey: string,
  endpoints: Endpoint[],
  options: { name?: string; ports?: EndpointPort[]; addressType?: 'IPv4' | 'IPv6' } = {},
): EndpointSlice {
  const [namespace = '', serviceName = ''] = serviceKey.split('/');
  return {
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: {
      name: options.name ?? `${serviceName}-1`,
      namespace,
      labels: { [SERVICE_NAME_LABEL]: serviceName },
    },
    addressType: options.addressType ?? 'IPv4',
    endpoints,
    ports: options.ports ?? [],
  };
}

/** The cluster that the vectors ask about. */
export function exampleZone(): Zone {
  const zone = new Zone(DOMAIN, [ip('10.96.0.10'), ip('2001:db8:96::a')]);
  const http = { name: 'http', port: 80, protocol: 'TCP' } as const;
  zone.setService(
    'default/web',
    service('default/web', {
      clusterIP: '10.96.0.1',
      clusterIPs: ['10.96.0.1', '2001:db8:96::1'],
      ports: [http, { name: 'dns', port: 53, protocol: 'UDP' }],
    }),
    [],
  );
  zone.setService(
    'default/plain',
    service('default/plain', { clusterIP: '10.96.0.2', ports: [{ port: 80 }] }),
    [],
  );
  zone.setService('default/portless', service('default/portless', { clusterIP: '10.96.0.3' }), []);
  zone.setService('db/head', service('db/head', { clusterIP: 'None', ports: [http] }), [
    slice(
      'db/head',
      [
        { addresses: ['192.0.2.1'], hostname: 'db-0' },
        { addresses: ['192.0.2.2'], conditions: { ready: true } },
        { addresses: ['192.0.2.3'], conditions: { ready: false, serving: true } },
      ],
      { ports: [{ name: 'http', port: 8080, protocol: 'TCP' }] },
    ),
    slice('db/head', [{ addresses: ['5678:abcd::1'] }], {
      name: 'head-6',
      addressType: 'IPv6',
      ports: [{ name: 'http', port: 8080 }],
    }),
  ]);
  zone.setService('db/idle', service('db/idle', { clusterIP: 'None', ports: [http] }), [
    slice('db/idle', [{ addresses: ['192.0.2.9'], conditions: { ready: false } }]),
  ]);
  zone.setService(
    'default/out',
    service('default/out', { type: 'ExternalName', externalName: 'www.example.com' }),
    [],
  );
  zone.setService(
    'default/alias',
    service('default/alias', {
      type: 'ExternalName',
      externalName: 'web.default.svc.cluster.local',
    }),
    [],
  );
  zone.setService(
    'default/dangling',
    service('default/dangling', {
      type: 'ExternalName',
      externalName: 'nothing.default.svc.cluster.local',
    }),
    [],
  );
  zone.setService(
    'default/ping',
    service('default/ping', {
      type: 'ExternalName',
      externalName: 'pong.default.svc.cluster.local',
    }),
    [],
  );
  zone.setService(
    'default/pong',
    service('default/pong', {
      type: 'ExternalName',
      externalName: 'ping.default.svc.cluster.local',
    }),
    [],
  );
  return zone;
}

/** @param random by default the last place, which leaves addresses in order */
export function answererOf(zone: Zone, random: RandomBelow = (end) => end - 1): Answerer {
  const table = new NameTable({ zone: zone.domain, seed: 12345 });
  table.apply(zone.all());
  table.synced = true;
  table.serial = 7;
  return newAnswerer(table, random);
}

/** Asks the pure answerer. */
export function ask(
  answerer: Answerer,
  query: Uint8Array,
  transport: 'udp' | 'tcp' = 'udp',
): Message | 'drop' | 'forward' {
  const reply = new Uint8Array(transport === 'udp' ? 1232 : 65_535);
  const bytes = new Uint8Array(1280);
  bytes.set(query);
  const length = answerQuery(answerer, bytes, { length: query.length, reply, transport });
  if (length === DROP) return 'drop';
  return length === FORWARD ? 'forward' : decodeMessage(reply.subarray(0, length));
}

export function typeNumber(mnemonic: string): number {
  const found = Object.entries(TYPE_NAMES).find(([, text]) => text === mnemonic);
  if (found === undefined) throw new TypeError(`"${mnemonic}" is no record type of ours`);
  return Number(found[0]);
}

export function queryBytes(
  owner: string,
  type: string,
  edns?: { udpPayloadBytes?: number; dnssecOk?: boolean },
): Uint8Array {
  return encodeMessage(makeQuery(0x4d2, { name: name(owner), type: typeNumber(type) }, edns));
}

/** A response in a few lines, like dig's: rcode and flags, then the records by section. */
export function describeMessage(message: Message): string[] {
  const flags = [message.authoritative ? 'aa' : '', message.truncated ? 'tc' : ''].filter(Boolean);
  return [
    [RCODE_NAMES[message.rcode] ?? message.rcode, ...flags].join(' '),
    ...message.answers.map(describeRecord),
    ...message.authorities.map((r) => `authority ${describeRecord(r)}`),
    ...message.additionals.map((r) => `additional ${describeRecord(r)}`),
  ];
}

export function describeRecord(record: ResourceRecord): string {
  return `${record.name} ${record.ttlS} ${TYPE_NAMES[record.type] ?? record.type} ${describeData(record)}`;
}

function describeData({ data }: ResourceRecord): string {
  switch (data.kind) {
    case 'A':
    case 'AAAA':
      return data.address;
    case 'SRV':
      return `${data.priority} ${data.weight} ${data.port} ${data.target}`;
    case 'SOA':
      return `${data.primary} ${data.mailbox} ${data.serial} ${data.refreshS} ${data.retryS} ${data.expireS} ${data.minimumS}`;
    case 'TXT':
      return data.strings.map((s) => `"${Buffer.from(s)}"`).join(' ');
    case 'raw':
      return Buffer.from(data.bytes).toString('hex');
    default:
      return data.target;
  }
}
