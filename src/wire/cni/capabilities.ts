/**
 * What a runtime passes for the capabilities that a network configuration declares: `runtimeConfig`
 * (https://www.cni.dev/docs/conventions/#dynamic-plugin-specific-fields-capabilities--runtime-configuration),
 * and its static counterparts in the plugin's own configuration.
 */
import { type Ip, parseIp } from '#lib/ip.ts';
import { CNI_ERROR, CniError } from './error.ts';
import { nameAsGo } from './go-fields.ts';
import type { CniDns } from './result.ts';

export type PortProtocol = 'tcp' | 'udp' | 'sctp';

/** A port of the node that leads to the container. */
export interface PortMapping {
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: PortProtocol;
  /** Only this address of the node; all of them if there is none. */
  readonly hostIp?: Ip;
}

/** Bits per second, and bits of a burst. Ingress is towards the container. 0: no limit. */
export interface Bandwidth {
  readonly ingressRate: number;
  readonly ingressBurst: number;
  readonly egressRate: number;
  readonly egressBurst: number;
}

export interface RuntimeConfig {
  readonly ips: readonly string[];
  readonly mac: string | undefined;
  readonly portMappings: readonly PortMapping[];
  readonly bandwidth: Bandwidth | undefined;
  /** As the runtime gave it: for an address plugin, or {@link parseIpRanges}. */
  readonly ipRanges: readonly unknown[] | undefined;
  readonly dns: CniDns | undefined;
  /** More names for the container. */
  readonly aliases: readonly string[];
}

/** A `tbf` qdisc counts its burst in 32 bits of bytes. */
const MAX_BURST_BITS = 0xffffffff * 8;
/** One entry is a few elements in the kernel; a pod that wants more wants something else. */
const MAX_PORT_MAPPINGS = 8192;
const MAX_ALIASES = 256;
const PORT_FIELDS = ['hostPort', 'containerPort', 'protocol', 'hostIP'];
const BANDWIDTH_FIELDS = ['ingressRate', 'ingressBurst', 'egressRate', 'egressBurst'];
const DNS_FIELDS = ['nameservers', 'servers', 'domain', 'search', 'searches', 'options'];
const PROTOCOLS: readonly PortProtocol[] = ['tcp', 'udp', 'sctp'];

type Json = Readonly<Record<string, unknown>>;

/**
 * @param network its name: podman gives aliases by network
 * @throws CniError 6 for a wrong shape, 7 for a value that is out of range
 */
export function parseRuntimeConfig(json: Json, network: string): RuntimeConfig {
  return {
    ips: strings(json.ips, 'runtimeConfig.ips'),
    mac: text(json.mac, 'runtimeConfig.mac'),
    portMappings: parsePortMappings(json.portMappings),
    bandwidth: parseBandwidth(json.bandwidth, 'runtimeConfig.bandwidth'),
    ipRanges: isGiven(json.ipRanges) ? list(json.ipRanges, 'runtimeConfig.ipRanges') : undefined,
    dns: parseDns(json.dns),
    aliases: parseAliases(json.aliases, network),
  };
}

function parsePortMappings(json: unknown): readonly PortMapping[] {
  if (!isGiven(json)) return [];
  const all = list(json, 'runtimeConfig.portMappings');
  if (all.length > MAX_PORT_MAPPINGS)
    throw invalid(`${all.length} port mappings are more than ${MAX_PORT_MAPPINGS}`);
  return all.flatMap((item, i) => {
    const where = `runtimeConfig.portMappings[${i}]`;
    const entry = nameAsGo(object(item, where), PORT_FIELDS);
    const protocol = PROTOCOLS.find(
      (it) => it === (text(entry.protocol, `${where}.protocol`) ?? 'tcp').toLowerCase(),
    );
    if (protocol === undefined)
      throw invalid(`${where}: protocol "${entry.protocol}" is none of ${PROTOCOLS.join(', ')}`);
    // A kubelet gives every declared port of a container, with host port 0 for those that are not published.
    if ((entry.hostPort ?? 0) === 0) return [];
    const hostPort = port(entry.hostPort, `${where}.hostPort`);
    const containerPort = port(entry.containerPort, `${where}.containerPort`);
    const given = text(entry.hostIP, `${where}.hostIP`);
    const hostIp = given === undefined ? undefined : parseIp(given);
    if (given !== undefined && hostIp === undefined)
      throw invalid(`${where}: hostIP "${given}" is no IP address`);
    return [{ hostPort, containerPort, protocol, ...(hostIp === undefined ? {} : { hostIp }) }];
  });
}

/**
 * Reads limits; a rate without a burst gets a burst of its own later.
 * @returns undefined if nothing is limited
 */
export function parseBandwidth(json: unknown, where: string): Bandwidth | undefined {
  if (!isGiven(json)) return undefined;
  const entry = nameAsGo(object(json, where), BANDWIDTH_FIELDS);
  const bits = (key: string) => {
    const value = entry[key] ?? 0;
    if (typeof value !== 'number' || !Number.isFinite(value))
      throw wrongType(`${where}.${key}`, 'a number');
    if (value < 0) throw invalid(`${where}: ${key} ${value} is negative`);
    return value;
  };
  const bandwidth: Bandwidth = {
    ingressRate: bits('ingressRate'),
    ingressBurst: bits('ingressBurst'),
    egressRate: bits('egressRate'),
    egressBurst: bits('egressBurst'),
  };
  for (const direction of ['ingress', 'egress'] as const) {
    const burst = bandwidth[`${direction}Burst`];
    if (burst > MAX_BURST_BITS)
      throw invalid(
        `${where}: ${direction}Burst ${burst} is more than ${MAX_BURST_BITS} bits (4 GB)`,
      );
    if (burst > 0 && bandwidth[`${direction}Rate`] === 0)
      throw invalid(`${where}: ${direction}Burst is set, so ${direction}Rate must be too`);
  }
  return bandwidth.ingressRate === 0 && bandwidth.egressRate === 0 ? undefined : bandwidth;
}

/** A list, or as podman gives it an object with the list of each network. */
function parseAliases(json: unknown, network: string): readonly string[] {
  if (!isGiven(json)) return [];
  const mine = Array.isArray(json) ? json : object(json, 'runtimeConfig.aliases')[network];
  const aliases = strings(mine, 'runtimeConfig.aliases');
  if (aliases.length > MAX_ALIASES)
    throw invalid(`${aliases.length} aliases are more than ${MAX_ALIASES}`);
  return [...new Set(aliases)];
}

function parseDns(json: unknown): CniDns | undefined {
  if (!isGiven(json)) return undefined;
  const entry = nameAsGo(object(json, 'runtimeConfig.dns'), DNS_FIELDS);
  const some = (key: string) => strings(entry[key], `runtimeConfig.dns.${key}`);
  // containerd says "servers" and "searches", the conventions "nameservers" and "search".
  const nameservers = [...some('nameservers'), ...some('servers')];
  const search = [...some('search'), ...some('searches')];
  const options = some('options');
  const domain = text(entry.domain, 'runtimeConfig.dns.domain');
  const dns: CniDns = {
    ...(nameservers.length > 0 ? { nameservers } : {}),
    ...(domain === undefined ? {} : { domain }),
    ...(search.length > 0 ? { search } : {}),
    ...(options.length > 0 ? { options } : {}),
  };
  return Object.keys(dns).length === 0 ? undefined : dns;
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}

function port(value: unknown, where: string): number {
  if (typeof value !== 'number') throw wrongType(where, 'a number');
  if (!Number.isInteger(value) || value < 1 || value > 65_535)
    throw invalid(`${where} ${value} is no port: 1 to 65535`);
  return value;
}

function text(value: unknown, where: string): string | undefined {
  if (!isGiven(value) || value === '') return undefined;
  if (typeof value !== 'string') throw wrongType(where, 'a string');
  return value;
}

function strings(value: unknown, where: string): readonly string[] {
  if (!isGiven(value)) return [];
  const all = list(value, where);
  if (!all.every((item) => typeof item === 'string')) throw wrongType(where, 'a list of strings');
  return all;
}

function list(value: unknown, where: string): readonly unknown[] {
  if (!Array.isArray(value)) throw wrongType(where, 'a list');
  return value;
}

function object(value: unknown, where: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw wrongType(where, 'an object');
  return value as Json;
}

function wrongType(where: string, expected: string): CniError {
  return new CniError(CNI_ERROR.decode, `failed to decode network configuration: "${where}"`, {
    details: `"${where}" must be ${expected}`,
  });
}

function invalid(message: string): CniError {
  return new CniError(CNI_ERROR.invalidConfig, message);
}
