/**
 * What names and records one Service makes: the Kubernetes DNS specification 1.1.0, and beyond it what clients have
 * come to rely on in CoreDNS (endpoint names of dashed addresses, SRV at the service's own name, SOA and NS).
 *
 * ```text
 *   ClusterIP     <svc>.<ns>.svc.<zone>                     A, AAAA, SRV of all ports
 *                 _<port>._<proto>.<svc>.<ns>.svc.<zone>    SRV, for ports with a name
 *   headless      the same from the ready endpoints, and    <hostname | dashed address>.<svc>.…   A, AAAA
 *   ExternalName  <svc>.<ns>.svc.<zone>                     CNAME
 *   reverse       PTR of cluster addresses to the service, of a headless service's ready endpoints to their names
 * ```
 */
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { familyOf, type Ip, ipFromBytes, ipToBytes, parseIp } from '#lib/ip.ts';
import {
  CLASS_IN,
  TYPE_A,
  TYPE_AAAA,
  TYPE_CNAME,
  TYPE_NS,
  TYPE_PTR,
  TYPE_SOA,
  TYPE_SRV,
  TYPE_TXT,
} from '#wire/dns/constants.ts';
import type { ResourceRecord } from '#wire/dns/message.ts';
import { canonicalName, type Name, name, parseName } from '#wire/dns/name.ts';
import type { RecordData, Soa, Srv } from '#wire/dns/rdata.ts';
import type { HostEntry } from './config.ts';

/** Short, because a name's endpoints change; the kernel's balancing makes service addresses themselves long lived. */
export const RECORD_TTL_S = 5;
const SCHEMA_VERSION = '1.1.0';
/** Never changes within a version of the specification; CoreDNS's value. */
const SCHEMA_VERSION_TTL_S = 28_800;
/** The weights of SRV records of one name add up to about this. */
const SRV_WEIGHT_SUM = 100;

/** The records of one type at one name. */
export interface RecordSet {
  readonly type: number;
  readonly ttlS: number;
  readonly data: readonly RecordData[];
  /** Records that spare the client its next question: the addresses of SRV and NS targets. */
  readonly additionals?: readonly ResourceRecord[];
}

/** Sets by canonical name. A name with an empty list exists and has no records. */
export type Records = Map<Name, RecordSet[]>;

/** The names that exist whatever services there are. */
export function recordsOfZone(zone: Name, serverAddresses: readonly Ip[]): Records {
  const records: Records = new Map();
  const server = name(`ns.dns.${zone}`);
  addAddresses(records, server, serverAddresses);
  records.set(zone, [
    { type: TYPE_SOA, ttlS: RECORD_TTL_S, data: [{ kind: 'SOA', ...soaOf(zone, 0) }] },
    {
      type: TYPE_NS,
      ttlS: RECORD_TTL_S,
      data: [{ kind: 'NS', target: server }],
      additionals: addressRecords(server, serverAddresses),
    },
  ]);
  records.set(name(`dns-version.${zone}`), [
    {
      type: TYPE_TXT,
      ttlS: SCHEMA_VERSION_TTL_S,
      data: [{ kind: 'TXT', strings: [Buffer.from(SCHEMA_VERSION)] }],
    },
  ]);
  records.set(name(`svc.${zone}`), []);
  records.set(name(`pod.${zone}`), []);
  return records;
}

/** @param serial grows with each change of the zone */
export function soaOf(zone: Name, serial: number): Soa {
  return {
    primary: name(`ns.dns.${zone}`),
    mailbox: name(`hostmaster.${zone}`),
    serial,
    refreshS: 7200,
    retryS: 1800,
    expireS: 86_400,
    minimumS: RECORD_TTL_S,
  };
}

/**
 * The names and records of one service.
 * @param slices all of the service's EndpointSlices
 * @returns for a service that has no address yet the namespace's name
 */
export function recordsOfService(
  zone: Name,
  service: Service,
  slices: readonly EndpointSlice[],
): Records {
  const { name: serviceName, namespace = 'default' } = service.metadata;
  const records: Records = new Map();
  const owner = parseName(`${serviceName}.${namespace}.svc.${zone}`);
  const parent = parseName(`${namespace}.svc.${zone}`);
  // Both are checked by the API; only an absurdly long cluster domain gets here.
  if (owner === undefined || parent === undefined) return records;
  const at = canonicalName(owner);
  if (service.spec.type === 'ExternalName') addExternalName(records, at, service);
  else if (service.spec.clusterIP === 'None') addHeadless(records, at, slices);
  else addClusterIp(records, at, service);
  // Whatever is below a name makes it exist; to say so again would cost every service memory.
  if (!records.has(at)) records.set(canonicalName(parent), []);
  return records;
}

/** What exists of a namespace whatever is in it: `<namespace>.svc.<zone>`, and `.pod` where pods have names. */
export function recordsOfNamespace(
  zone: Name,
  namespace: string,
  branches: readonly string[],
): Records {
  const records: Records = new Map();
  for (const branch of branches) {
    const owner = parseName(`${namespace}.${branch}.${zone}`);
    if (owner !== undefined) records.set(canonicalName(owner), []);
  }
  return records;
}

/** Static entries as in /etc/hosts: the first name of a line is the address's own. */
export function recordsOfHosts(hosts: readonly HostEntry[]): Records {
  const records: Records = new Map();
  const seen = new Set<string>();
  const first = (key: string) => !seen.has(key) && seen.add(key);
  for (const { address, names } of hosts) {
    for (const owner of names)
      if (first(`${owner} ${address}`)) addAddresses(records, owner, [address]);
    const [target] = names;
    if (target !== undefined && first(address))
      add(records, reverseName(address), TYPE_PTR, { kind: 'PTR', target });
  }
  return records;
}

/** `192-0-2-1.<namespace>.pod.<zone>` for each address of a pod. */
export function recordsOfPod(zone: Name, namespace: string, addresses: readonly Ip[]): Records {
  const records: Records = new Map();
  for (const address of addresses) {
    const owner = parseName(`${dashedAddress(address)}.${namespace}.pod.${zone}`);
    if (owner !== undefined) addAddresses(records, canonicalName(owner), [address]);
  }
  return records;
}

/** `<alias>.<namespace>.svc.<zone>`, where the search list of the namespace's pods finds it. */
export function recordsOfAliases(
  zone: Name,
  namespace: string,
  aliases: readonly string[],
  addresses: readonly Ip[],
): Records {
  const records: Records = new Map();
  for (const alias of addresses.length === 0 ? [] : aliases) {
    const owner = parseName(`${alias}.${namespace}.svc.${zone}`);
    if (owner !== undefined) addAddresses(records, canonicalName(owner), addresses);
  }
  return records;
}

/** An address as one label: `192-0-2-1`, `2001-db8--1`. */
function dashedAddress(address: Ip): string {
  const label = address.replace(/[.:]/g, '-');
  // A label of a host name may not begin or end with a dash; `0` changes nothing in an address.
  return label.replace(/^-/, '0-').replace(/-$/, '-0');
}

/** The address that a dashed label stands for: `192-0-2-1`, `2001-db8--1`. */
export function addressOfDashed(label: string): Ip | undefined {
  const isV4 = /^\d{1,3}(-\d{1,3}){3}$/.test(label);
  return parseIp(label.replaceAll('-', isV4 ? '.' : ':'));
}

/** `7.2.0.192.in-addr.arpa.`, or the nibbles under `ip6.arpa.` (RFC 3596 section 2.5). */
export function reverseName(address: Ip): Name {
  const bytes = ipToBytes(address);
  const [a, b, c, d] = bytes;
  if (bytes.length === 4) return name(`${d}.${c}.${b}.${a}.in-addr.arpa.`);
  const nibbles = Buffer.from(bytes).toString('hex').split('').reverse();
  return name(`${nibbles.join('.')}.ip6.arpa.`);
}

/** The address that a reverse name stands for; `undefined` for any other name, also for that of a network. */
export function addressOfReverseName(value: Name): Ip | undefined {
  const v4 = /^((?:\d{1,3}\.){4})in-addr\.arpa\.$/i.exec(value);
  if (v4?.[1] !== undefined) return parseIp(v4[1].slice(0, -1).split('.').reverse().join('.'));
  const v6 = /^((?:[0-9a-f]\.){32})ip6\.arpa\.$/i.exec(value);
  if (v6?.[1] === undefined) return undefined;
  const hex = v6[1].replaceAll('.', '').split('').reverse().join('');
  return ipFromBytes(Buffer.from(hex, 'hex'));
}

function addExternalName(records: Records, owner: Name, service: Service): void {
  const target = parseName(service.spec.externalName ?? '');
  if (target === undefined) return;
  add(records, owner, TYPE_CNAME, { kind: 'CNAME', target: canonicalName(target) });
}

function addClusterIp(records: Records, owner: Name, service: Service): void {
  const { clusterIPs, clusterIP, ports = [] } = service.spec;
  const addresses = parseAddresses(clusterIPs ?? (clusterIP === undefined ? [] : [clusterIP]));
  // A service without ports has no record in CoreDNS either; its address answers nothing.
  if (addresses.length === 0 || ports.length === 0) return;
  addAddresses(records, owner, addresses);
  for (const address of addresses)
    add(records, reverseName(address), TYPE_PTR, { kind: 'PTR', target: owner });
  const additionals = addressRecords(owner, addresses);
  addServices(
    records,
    owner,
    ports.map((port) => ({ ...port, target: owner, additionals })),
  );
}

function addHeadless(records: Records, owner: Name, slices: readonly EndpointSlice[]): void {
  const services: ServiceTarget[] = [];
  // Pods whose named ports differ stand in several slices, so an address may come more than once.
  const seen = new Set<string>();
  const first = (key: string) => !seen.has(key) && seen.add(key);
  // In the order of their names, so that the order of arrival changes nothing.
  const sorted = slices
    .filter((slice) => slice.addressType !== 'FQDN')
    .sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
  for (const slice of sorted) {
    for (const { target, address } of readyTargets(owner, slice)) {
      if (first(address)) addAddresses(records, owner, [address]);
      if (first(`${target} ${address}`)) {
        addAddresses(records, target, [address]);
        add(records, reverseName(address), TYPE_PTR, { kind: 'PTR', target });
      }
      const additionals = addressRecords(target, [address]);
      for (const { name: portName, protocol, port } of slice.ports ?? []) {
        if (port === undefined) continue;
        services.push({ name: portName, protocol, port, target, additionals });
      }
    }
  }
  addServices(records, owner, services);
}

/** The ready endpoints of a slice with the name each has below the service. */
function* readyTargets(
  owner: Name,
  slice: EndpointSlice,
): IterableIterator<{ target: Name; address: Ip }> {
  for (const endpoint of slice.endpoints ?? []) {
    // A missing condition means ready. "serving" and "terminating" do not count: a name leads to what is ready.
    if (endpoint.conditions?.ready === false) continue;
    const hasHostname = endpoint.hostname !== undefined && endpoint.hostname !== '';
    for (const address of parseAddresses(endpoint.addresses)) {
      const label = hasHostname ? endpoint.hostname : dashedAddress(address);
      const target = parseName(`${label}.${owner}`);
      if (target !== undefined) yield { target: canonicalName(target), address };
    }
  }
}

/** One port at one target. */
interface ServiceTarget {
  readonly name?: string | undefined;
  readonly protocol?: string | undefined;
  readonly port: number;
  readonly target: Name;
  readonly additionals: readonly ResourceRecord[];
}

function addServices(records: Records, owner: Name, targets: readonly ServiceTarget[]): void {
  const byName = new Map<Name, ServiceTarget[]>();
  const put = (at: Name, target: ServiceTarget) => {
    const list = byName.get(at);
    if (list === undefined) byName.set(at, [target]);
    else list.push(target);
  };
  for (const target of targets) {
    put(owner, target);
    if (!target.name) continue;
    const protocol = (target.protocol ?? 'TCP').toLowerCase();
    const at = parseName(`_${target.name}._${protocol}.${owner}`);
    if (at !== undefined) put(canonicalName(at), target);
  }
  for (const [at, list] of byName) pushSet(records, at, serviceSet(list));
}

function serviceSet(targets: readonly ServiceTarget[]): RecordSet {
  const unique = new Map<string, ServiceTarget>();
  const additionals = new Map<string, ResourceRecord>();
  for (const target of targets) {
    unique.set(`${target.port} ${target.target}`, target);
    for (const record of target.additionals)
      if (record.data.kind === 'A' || record.data.kind === 'AAAA')
        additionals.set(`${record.data.address} ${record.name}`, record);
  }
  const weight = Math.max(1, Math.floor(SRV_WEIGHT_SUM / unique.size));
  const data = [...unique.values()].map(({ port, target }): { kind: 'SRV' } & Srv => ({
    kind: 'SRV',
    priority: 0,
    weight,
    port,
    target,
  }));
  return { type: TYPE_SRV, ttlS: RECORD_TTL_S, data, additionals: [...additionals.values()] };
}

function parseAddresses(texts: readonly string[]): Ip[] {
  return texts.map(parseIp).filter((address) => address !== undefined);
}

function addAddresses(records: Records, owner: Name, addresses: readonly Ip[]): void {
  for (const address of addresses) {
    const { type, data } = addressData(address);
    add(records, owner, type, data);
  }
}

function addressRecords(owner: Name, addresses: readonly Ip[]): ResourceRecord[] {
  return addresses.map((address) => ({
    name: owner,
    class: CLASS_IN,
    ttlS: RECORD_TTL_S,
    ...addressData(address),
  }));
}

function addressData(address: Ip): { type: number; data: RecordData } {
  return familyOf(address) === 4
    ? { type: TYPE_A, data: { kind: 'A', address } }
    : { type: TYPE_AAAA, data: { kind: 'AAAA', address } };
}

/** Adds a record to the set of its type, once. */
function add(records: Records, owner: Name, type: number, data: RecordData): void {
  const set = records.get(owner)?.find((existing) => existing.type === type);
  if (set === undefined) {
    pushSet(records, owner, { type, ttlS: RECORD_TTL_S, data: [data] });
    return;
  }
  (set.data as RecordData[]).push(data);
}

function pushSet(records: Records, owner: Name, set: RecordSet): void {
  const sets = records.get(owner);
  if (sets === undefined) records.set(owner, [set]);
  else sets.push(set);
}
