/**
 * The DNS configuration: the ConfigMap `kube-system/tulle-dns`, read anew whenever it changes. `docs/dns.md` is the
 * operator's page of this file; change both together.
 *
 * ```yaml
 * data:
 *   config.yaml: |
 *     pods: insecure            # or verified, disabled
 *     searchPath: true          # walk a pod's search list here, in one query
 *     upstreams: [192.0.2.53, "tls://192.0.2.54#dns.example"]
 *     policy: sequential        # or random, roundRobin
 *     zones:
 *       - { zone: corp.example, upstreams: ["192.0.2.55:5353"], policy: random }
 *   hosts: |
 *     192.0.2.7  db.legacy.example  db
 * ```
 */
import { isIP } from 'node:net';
import { parse as parseYaml } from 'yaml';
import { type Ip, parseIp } from '#lib/ip.ts';
import { canonicalName, type Name, parseName, ROOT_NAME } from '#wire/dns/name.ts';
import type { Upstream } from './upstream.ts';

export const DNS_CONFIG_MAP = { namespace: 'kube-system', name: 'tulle-dns' } as const;
export const CONFIG_KEY = 'config.yaml';
export const HOSTS_KEY = 'hosts';

/** As CoreDNS; a client that waits through fifteen is gone. */
const MAX_UPSTREAMS = 15;
const MAX_ZONES = 1000;
/** A ConfigMap holds a megabyte; this many lines of it are still read in milliseconds. */
const MAX_HOSTS = 50_000;
const DNS_PORT = 53;
/** RFC 7858 */
const DNS_TLS_PORT = 853;

export const POD_MODES = ['disabled', 'insecure', 'verified'] as const;
export type PodMode = (typeof POD_MODES)[number];
export const POLICIES = ['sequential', 'random', 'roundRobin'] as const;
export type ForwardPolicy = (typeof POLICIES)[number];

/** Names below `zone` are asked at these servers. */
export interface ForwardRule {
  readonly zone: Name;
  /** Empty, for the root only: the host's resolv.conf. */
  readonly upstreams: readonly Upstream[];
  readonly policy: ForwardPolicy;
}

export interface HostEntry {
  readonly address: Ip;
  readonly names: readonly Name[];
}

export interface DnsConfig {
  readonly pods: PodMode;
  readonly searchPath: boolean;
  /** The rule for everything else; its zone is the root. */
  readonly forward: ForwardRule;
  readonly zones: readonly ForwardRule[];
  readonly hosts: readonly HostEntry[];
  /** Questions on their way to upstreams at once. */
  readonly maxConcurrent: number;
  /** Random case of letters in forwarded names, as another secret against forgers (draft-vixie-dnsext-dns0x20). */
  readonly randomizeCase: boolean;
  /** Answers kept, and as many denials. */
  readonly cacheEntries: number;
  /** How long after its end an answer may be given when no upstream answers; 0: never. */
  readonly serveStaleS: number;
  readonly prefetch: boolean;
  /** Whether DNS cookies are answered (RFC 7873). */
  readonly cookies: boolean;
  /** Queries a second of one client; 0: any number. */
  readonly queriesPerSecond: number;
  /** The same for the pods of a namespace, instead. */
  readonly namespaceQueriesPerSecond: Readonly<Record<string, number>>;
}

/**
 * What holds where nothing is configured. `pods: insecure` is what Kubernetes' own CoreDNS manifest says, so that
 * names which work there work here.
 */
export const DEFAULT_CONFIG: DnsConfig = {
  pods: 'insecure',
  searchPath: true,
  forward: { zone: ROOT_NAME, upstreams: [], policy: 'sequential' },
  zones: [],
  hosts: [],
  maxConcurrent: 1000,
  randomizeCase: false,
  cacheEntries: 10_000,
  serveStaleS: 3600,
  prefetch: true,
  cookies: true,
  queriesPerSecond: 0,
  namespaceQueriesPerSecond: {},
};

/**
 * Reads the ConfigMap's data. What is wrong is left out and told; the rest holds.
 * @param base what holds for what is not said
 */
export function parseDnsConfig(
  data: Readonly<Record<string, string>>,
  base: DnsConfig = DEFAULT_CONFIG,
): { config: DnsConfig; problems: string[] } {
  const problems: string[] = [];
  for (const key of Object.keys(data))
    if (key !== CONFIG_KEY && key !== HOSTS_KEY)
      problems.push(`key "${key}" is not known: there are "${CONFIG_KEY}" and "${HOSTS_KEY}"`);
  const hosts = parseHosts(data[HOSTS_KEY] ?? '', problems);
  let document: unknown;
  try {
    // Aliases could grow without bound.
    document = parseYaml(data[CONFIG_KEY] ?? '', { maxAliasCount: 0 });
  } catch (error) {
    problems.push(`${CONFIG_KEY} is no YAML: ${(error as Error).message}`);
  }
  if (document === null || document === undefined) return { config: { ...base, hosts }, problems };
  const fields = new Fields(document, CONFIG_KEY, problems);
  const zones = fields
    .list('zones', MAX_ZONES)
    .flatMap((item, i) => parseZone(item, `${CONFIG_KEY}: zones[${i}]`, problems));
  const upstreams = parseUpstreams(fields.list('upstreams', MAX_UPSTREAMS), CONFIG_KEY, problems);
  const limits = new Fields(fields.take('rateLimit') ?? {}, `${CONFIG_KEY}: rateLimit`, problems);
  const config: DnsConfig = {
    pods: fields.choice('pods', POD_MODES, base.pods),
    searchPath: fields.boolean('searchPath', base.searchPath),
    forward: {
      zone: ROOT_NAME,
      upstreams: upstreams.length > 0 ? upstreams : base.forward.upstreams,
      policy: fields.choice('policy', POLICIES, base.forward.policy),
    },
    zones,
    hosts,
    maxConcurrent: fields.integer('maxConcurrent', base.maxConcurrent, 1, 100_000),
    randomizeCase: fields.boolean('randomizeCase', base.randomizeCase),
    cacheEntries: fields.integer('cacheEntries', base.cacheEntries, 0, 1_000_000),
    serveStaleS: fields.integer('serveStaleSeconds', base.serveStaleS, 0, 7 * 86_400),
    prefetch: fields.boolean('prefetch', base.prefetch),
    cookies: fields.boolean('cookies', base.cookies),
    queriesPerSecond: limits.integer('queriesPerSecond', base.queriesPerSecond, 0, 10_000_000),
    namespaceQueriesPerSecond: parseLimits(limits.take('namespaces'), problems),
  };
  limits.end();
  fields.end();
  return { config, problems };
}

/**
 * Reads an upstream: `192.0.2.53`, `192.0.2.53:5353`, `[2001:db8::53]:53`, `tls://192.0.2.53#dns.example`.
 * @returns `undefined` for anything else
 */
export function parseUpstream(text: string): Upstream | undefined {
  const match = /^(tls:\/\/)?([^#]+?)(?:#([a-zA-Z0-9.-]+))?$/.exec(text.trim());
  if (match === null) return undefined;
  const [, tls, place = '', serverName] = match;
  if (tls === undefined && serverName !== undefined) return undefined;
  const parts = /^\[(.+)\](?::(\d+))?$/.exec(place) ?? /^([^:]+)(?::(\d+))?$/.exec(place);
  const address = parts?.[1] ?? place;
  const port = Number(parts?.[2] ?? (tls === undefined ? DNS_PORT : DNS_TLS_PORT));
  if (isIP(address) === 0 || port < 1 || port > 65_535) return undefined;
  if (tls === undefined) return { address, port };
  return { address, port, tls: serverName === undefined ? {} : { serverName } };
}

/** Lines as in /etc/hosts: an address and its names. */
function parseHosts(text: string, problems: string[]): HostEntry[] {
  const entries: HostEntry[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    const [first, ...rest] = line.replace(/#.*/, '').trim().split(/\s+/);
    if (first === undefined || first === '') continue;
    const where = `${HOSTS_KEY} line ${index + 1}`;
    if (entries.length >= MAX_HOSTS) {
      problems.push(`${where}: there are more than ${MAX_HOSTS} lines; the rest is left out`);
      break;
    }
    const address = parseIp(first);
    const names = rest.map(parseName);
    if (address === undefined) problems.push(`${where}: "${first}" is no IP address`);
    else if (names.length === 0) problems.push(`${where}: ${first} has no name`);
    else if (names.includes(undefined)) problems.push(`${where}: a name in "${line}" is none`);
    else
      entries.push({
        address,
        names: names.filter((it) => it !== undefined).map(canonicalName),
      });
  }
  return entries;
}

function parseZone(item: unknown, where: string, problems: string[]): ForwardRule[] {
  const fields = new Fields(item, where, problems);
  const text = fields.take('zone');
  const zone = typeof text === 'string' ? parseName(text) : undefined;
  const upstreams = parseUpstreams(fields.list('upstreams', MAX_UPSTREAMS), where, problems);
  const policy = fields.choice('policy', POLICIES, 'sequential');
  fields.end();
  if (zone === undefined || zone === ROOT_NAME) {
    problems.push(`${where}: "zone" must be a domain name, not ${JSON.stringify(text)}`);
    return [];
  }
  if (upstreams.length === 0) {
    problems.push(`${where}: "upstreams" of ${zone} names no server`);
    return [];
  }
  return [{ zone: canonicalName(zone), upstreams, policy }];
}

function parseUpstreams(items: unknown[], where: string, problems: string[]): Upstream[] {
  return items.flatMap((item) => {
    const upstream = typeof item === 'string' ? parseUpstream(item) : undefined;
    if (upstream === undefined)
      problems.push(
        `${where}: upstream ${JSON.stringify(item)} is wrong: expected an address, address:port, or tls://address#name`,
      );
    return upstream ?? [];
  });
}

function parseLimits(value: unknown, problems: string[]): Record<string, number> {
  if (value === undefined) return {};
  const where = `${CONFIG_KEY}: rateLimit.namespaces`;
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    problems.push(`${where} must map names of namespaces to numbers`);
    return {};
  }
  const limits: Record<string, number> = {};
  for (const [namespace, limit] of Object.entries(value)) {
    if (Number.isInteger(limit) && limit >= 0) limits[namespace] = limit;
    else problems.push(`${where}: ${namespace}: ${JSON.stringify(limit)} is no count`);
  }
  return limits;
}

/** Takes the fields of a mapping one by one, and tells of those that nobody took. */
class Fields {
  readonly #values: Map<string, unknown>;
  readonly #where: string;
  readonly #problems: string[];

  constructor(value: unknown, where: string, problems: string[]) {
    const isMapping = typeof value === 'object' && value !== null && !Array.isArray(value);
    if (!isMapping) problems.push(`${where} must be a mapping`);
    this.#values = new Map(isMapping ? Object.entries(value) : []);
    this.#where = where;
    this.#problems = problems;
  }

  take(key: string): unknown {
    const value = this.#values.get(key);
    this.#values.delete(key);
    return value ?? undefined;
  }

  list(key: string, max: number): unknown[] {
    const value = this.take(key) ?? [];
    if (!Array.isArray(value)) return this.#wrong(key, value, 'a list', []);
    if (value.length > max) return this.#wrong(key, value.length, `at most ${max}`, []);
    return value;
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.take(key) ?? fallback;
    return typeof value === 'boolean' ? value : this.#wrong(key, value, 'true or false', fallback);
  }

  choice<T extends string>(key: string, choices: readonly T[], fallback: T): T {
    const value = this.take(key) ?? fallback;
    const found = choices.find((choice) => choice === value);
    return found ?? this.#wrong(key, value, `one of ${choices.join(', ')}`, fallback);
  }

  integer(key: string, fallback: number, min: number, max: number): number {
    const value = this.take(key) ?? fallback;
    if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max)
      return value;
    return this.#wrong(key, value, `a whole number from ${min} to ${max}`, fallback);
  }

  end(): void {
    for (const key of this.#values.keys())
      this.#problems.push(`${this.#where}: there is no field "${key}"`);
  }

  #wrong<T>(key: string, value: unknown, expected: string, fallback: T): T {
    this.#problems.push(
      `${this.#where}: ${key} ${JSON.stringify(value)} is wrong: expected ${expected}`,
    );
    return fallback;
  }
}
