/** The options of `tulle server` and `tulle agent`, from flags and from a configuration file, checked. */
import { readFileSync } from 'node:fs';
import { isMap, isScalar, LineCounter, parseDocument } from 'yaml';
import { UserError } from '#lib/errors.ts';
import { type Cidr, type Ip, parseCidr, parseIp, splitCidr } from '#lib/ip.ts';
import { LOG_LEVELS, type LogLevel } from '#lib/log.ts';

export interface ServerOptions {
  dataDirectory: string;
  listen: { host: string; port: number };
  /** Address that agents and pods reach this server at; undefined: the listen address, or the default route's. */
  advertise: Ip | undefined;
  podCidrs: readonly Cidr[];
  serviceCidrs: readonly Cidr[];
  /** Both ends included. */
  nodePortRange: { first: number; last: number };
  clusterDomain: string;
  /** The store is an etcd instead of a file in the data directory. */
  etcd: EtcdOptions | undefined;
  /** An authority that the operator has, instead of one made at the first start. */
  ca: GivenCaOptions | undefined;
  /** Tokens of service accounts that other keys signed are refused. */
  forgetTokenKeys: boolean;
  logLevel: LogLevel;
}

/** Paths, not contents. */
export interface GivenCaOptions {
  certificateFile: string;
  keyFile: string;
  replaces: boolean;
}

/** Paths, not contents: they are read where they are used. */
export interface EtcdOptions {
  endpoints: readonly string[];
  prefix: string | undefined;
  caFile: string | undefined;
  certificateFile: string | undefined;
  keyFile: string | undefined;
  user: string | undefined;
  passwordFile: string | undefined;
  /** What the servers seal with that they share. */
  clusterSecretFile: string;
}

export interface AgentOptions {
  dataDirectory: string;
  /** URLs, tried in turn. Empty with `kubeconfig` and `isInCluster`. */
  servers: readonly string[];
  token: string | undefined;
  kubeconfig: string | undefined;
  /** No server was named, and this is a pod of Kubernetes: its service account is used. */
  isInCluster: boolean;
  nodeName: string | undefined;
  nodeIp: Ip | undefined;
  nodePortAddresses: Cidr[];
  zone: string | undefined;
  clusterDomain: string;
  cniBinDirectory: string;
  cniConfDirectory: string;
  /** Where names outside the cluster are asked; empty: the host's resolv.conf. */
  upstreams: readonly string[];
  /** The machine's own resolver is to ask the node's DNS server. */
  hostResolver: boolean;
  /** Pods' traffic gets rules in other programs' firewalls that would stop it. */
  openFirewalls: boolean;
  /** Connections between pods pass the host's routing and rules by, once let through. */
  fastPath: boolean;
  statusAddress: { host: string; port: number };
  logLevel: LogLevel;
}

/** Raw values as commander or a file gives them: flags in camelCase. */
export type RawOptions = Readonly<Record<string, unknown>>;

const SERVER_KEYS = [
  ...['dataDir', 'listen', 'advertiseAddress', 'podCidr', 'serviceCidr', 'clusterDomain'],
  ...['etcd', 'etcdPrefix', 'etcdCa', 'etcdCert', 'etcdKey', 'etcdUser', 'etcdPasswordFile'],
  ...[
    'clusterSecretFile',
    'serviceNodePortRange',
    'caCert',
    'caKey',
    'replaceCa',
    'forgetTokenKeys',
    'logLevel',
  ],
];
const AGENT_KEYS = [
  ...['dataDir', 'server', 'token', 'tokenFile', 'kubeconfig', 'nodeName', 'nodeIp'],
  ...[
    'nodePortAddresses',
    'zone',
    'clusterDomain',
    'cniBinDir',
    'cniConfDir',
    'upstreamDns',
    'hostResolver',
    'openFirewalls',
    'fastPath',
    'statusAddress',
    'logLevel',
  ],
];
/** Kubernetes' own choices, so that what people have written down elsewhere holds here. */
const DEFAULT_POD_CIDR = '10.244.0.0/16';
const DEFAULT_SERVICE_CIDR = '10.96.0.0/16';
const DEFAULT_NODE_PORT_RANGE = '30000-32767';
const DNS_1123_SUBDOMAIN = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/;
/** Below are the well-known ports of the machines themselves. */
const MIN_NODE_PORT = 1024;
const MAX_CONFIG_BYTES = 1024 * 1024;
/** Kubernetes sets it in every container. */
const POD_MARK = 'KUBERNETES_SERVICE_HOST';

/**
 * @param flags what was given on the command line; wins over the file
 * @throws UserError that names the option, its value and where it came from
 */
export function serverOptions(flags: RawOptions, configFile?: string): ServerOptions {
  const get = sources(flags, configFile, SERVER_KEYS);
  const podCidrs = cidrs(get.list('podCidr', [DEFAULT_POD_CIDR]), '--pod-cidr');
  const serviceCidrs = cidrs(get.list('serviceCidr', [DEFAULT_SERVICE_CIDR]), '--service-cidr');
  return {
    dataDirectory: get.text('dataDir') ?? '/var/lib/tulle/server',
    listen: hostPort(get.text('listen') ?? '0.0.0.0:6443', '--listen'),
    advertise: address(get.text('advertiseAddress'), '--advertise-address'),
    podCidrs,
    serviceCidrs,
    nodePortRange: portRange(get.text('serviceNodePortRange') ?? DEFAULT_NODE_PORT_RANGE),
    clusterDomain: domain(get.text('clusterDomain') ?? 'cluster.local'),
    etcd: etcdOptions(get),
    ca: caOptions(get),
    forgetTokenKeys: get.flag('forgetTokenKeys'),
    logLevel: logLevel(get.text('logLevel') ?? 'info'),
  };
}

function caOptions(get: Sources): GivenCaOptions | undefined {
  const [certificateFile, keyFile] = [get.text('caCert'), get.text('caKey')];
  const replaces = get.flag('replaceCa');
  if (certificateFile !== undefined && keyFile !== undefined)
    return { certificateFile, keyFile, replaces };
  if (certificateFile === undefined && keyFile === undefined && !replaces) return undefined;
  throw new UserError('--ca-cert and --ca-key belong together, and one of them is missing', {
    hint: 'Give both files, or neither: then the server makes its own certificate authority.',
    exitCode: 2,
  });
}

function etcdOptions(get: Sources): EtcdOptions | undefined {
  const endpoints = get.list('etcd', []).map(etcdUrl);
  const part = (key: string) => get.text(key);
  const options = {
    prefix: part('etcdPrefix'),
    caFile: part('etcdCa'),
    certificateFile: part('etcdCert'),
    keyFile: part('etcdKey'),
    user: part('etcdUser'),
    passwordFile: part('etcdPasswordFile'),
  };
  const clusterSecretFile = part('clusterSecretFile');
  if (endpoints.length === 0) {
    const given = [...Object.values(options), clusterSecretFile].some((it) => it !== undefined);
    if (!given) return undefined;
    throw new UserError('There are options for etcd, but no --etcd', {
      hint: "Give the URLs of etcd's members, --etcd https://192.0.2.1:2379,…, or leave the other options out.",
      exitCode: 2,
    });
  }
  for (const [one, other, flags] of [
    [options.certificateFile, options.keyFile, '--etcd-cert and --etcd-key'],
    [options.user, options.passwordFile, '--etcd-user and --etcd-password-file'],
  ] as const)
    if ((one === undefined) !== (other === undefined))
      throw new UserError(`${flags} belong together, and one of them is missing`, { exitCode: 2 });
  if (clusterSecretFile === undefined)
    throw new UserError('--etcd needs --cluster-secret-file', {
      hint: 'Write a random text into a file (openssl rand -hex 32) and give the same to every server: it seals the certificate authority that they share.',
      exitCode: 2,
    });
  return { endpoints, ...options, clusterSecretFile };
}

function etcdUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !['http:', 'https:'].includes(url.protocol) || url.pathname !== '/')
    throw wrong('--etcd', text, 'a URL such as https://192.0.2.1:2379');
  return url.origin;
}

/** @throws UserError */
export function agentOptions(
  flags: RawOptions,
  configFile?: string,
  env: Readonly<Record<string, string | undefined>> = process.env,
): AgentOptions {
  const get = sources(flags, configFile, AGENT_KEYS);
  const servers = get.list('server', []).map(serverUrl);
  const kubeconfig = get.text('kubeconfig');
  const isNamed = servers.length > 0 || kubeconfig !== undefined;
  const isInCluster = !isNamed && (env[POD_MARK] ?? '') !== '';
  if (!isNamed && !isInCluster)
    throw new UserError('The agent does not know its server', {
      hint: 'Give --server https://ADDRESS:6443 and --token TOKEN (the server writes it to /var/lib/tulle/server/join-token), or --kubeconfig FILE for a Kubernetes cluster. In a pod of Kubernetes nothing is needed.',
      exitCode: 2,
    });
  const nodeName = get.text('nodeName');
  if (nodeName !== undefined && !DNS_1123_SUBDOMAIN.test(nodeName))
    throw wrong('--node-name', nodeName, 'a host name in lower case (RFC 1123)');
  return {
    dataDirectory: get.text('dataDir') ?? '/var/lib/tulle/agent',
    servers,
    token: get.text('token') ?? readToken(get.text('tokenFile')),
    kubeconfig,
    isInCluster,
    nodeName,
    nodeIp: address(get.text('nodeIp'), '--node-ip'),
    nodePortAddresses: cidrs(get.list('nodePortAddresses', []), '--node-port-addresses'),
    zone: get.text('zone'),
    clusterDomain: domain(get.text('clusterDomain') ?? 'cluster.local'),
    cniBinDirectory: get.text('cniBinDir') ?? '/opt/cni/bin',
    cniConfDirectory: get.text('cniConfDir') ?? '/etc/cni/net.d',
    upstreams: get.list('upstreamDns', []).map((text) => {
      const place = text.replace(/^tls:\/\/|#[a-zA-Z0-9.-]+$/g, '');
      if (
        parseIp(place.replace(/^\[|\](:\d+)?$|:\d+$/g, '')) === undefined &&
        parseIp(place) === undefined
      )
        throw wrong('--upstream-dns', text, 'an address, address:port, or tls://address#name');
      return text;
    }),
    hostResolver: get.flag('hostResolver'),
    openFirewalls: get.flag('openFirewalls', true),
    fastPath: get.flag('fastPath', true),
    statusAddress: hostPort(get.text('statusAddress') ?? '127.0.0.1:9963', '--status-address'),
    logLevel: logLevel(get.text('logLevel') ?? 'info'),
  };
}

interface Sources {
  text(key: string): string | undefined;
  list(key: string, fallback: readonly string[]): string[];
  /** Off unless it is given. */
  flag(key: string, otherwise?: boolean): boolean;
}

function sources(
  flags: RawOptions,
  configFile: string | undefined,
  known: readonly string[],
): Sources {
  const file = configFile === undefined ? {} : readConfig(configFile, known);
  const raw = (key: string) => flags[key] ?? file[key];
  return {
    text(key) {
      const value = raw(key);
      if (value === undefined || typeof value === 'string') return value;
      if (typeof value === 'number') return String(value);
      throw wrong(flagOf(key), JSON.stringify(value), 'one value');
    },
    flag(key, otherwise = false) {
      const value = raw(key) ?? otherwise;
      if (typeof value === 'boolean') return value;
      throw wrong(flagOf(key), JSON.stringify(value), 'true or false');
    },
    list(key, fallback) {
      const value = raw(key);
      if (value === undefined) return [...fallback];
      const items = Array.isArray(value) ? value : [value];
      return items.flatMap((item) => String(item).split(',')).map((item) => item.trim());
    },
  };
}

/** Reads a YAML file whose keys are the flags' names (`podCidr` or `pod-cidr`). */
function readConfig(path: string, known: readonly string[]): RawOptions {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new UserError(`Cannot read the configuration file "${path}"`, {
      cause,
      hint: 'Check the path and the permissions, or leave --config out.',
    });
  }
  if (text.length > MAX_CONFIG_BYTES)
    throw new UserError(
      `The configuration file "${path}" is larger than ${MAX_CONFIG_BYTES} bytes`,
    );
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const [error] = document.errors;
  if (error !== undefined) {
    const { line, col } = lines.linePos(error.pos[0]);
    throw new UserError(`${path}:${line}:${col}: ${error.message.split('\n')[0]}`, {
      hint: 'The configuration file is YAML: one "option: value" a line.',
    });
  }
  if (document.contents === null) return {};
  if (!isMap(document.contents))
    throw new UserError(`${path}: expected "option: value" lines at the top level`);
  const values: Record<string, unknown> = {};
  for (const pair of document.contents.items) {
    const written = isScalar(pair.key) ? String(pair.key.value) : '';
    const key = written.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
    if (!known.includes(key)) {
      const at = isScalar(pair.key) ? lines.linePos(pair.key.range?.[0] ?? 0).line : 1;
      throw new UserError(`${path}:${at}: unknown option "${written}"`, {
        hint: `There are ${known.map((name) => flagOf(name).slice(2)).join(', ')}.`,
      });
    }
    values[key] = document.get(pair.key, false);
    const node: unknown = pair.value;
    if (node !== null && typeof node === 'object' && 'toJSON' in node)
      values[key] = (node as { toJSON(): unknown }).toJSON();
  }
  return values;
}

function cidrs(texts: readonly string[], flag: string): Cidr[] {
  return texts.map((text) => {
    const parsed = parseCidr(text);
    if (parsed !== undefined) return parsed;
    const loose = splitCidr(text);
    throw wrong(
      flag,
      text,
      loose === undefined ? 'a network prefix such as 10.244.0.0/16' : 'a prefix without host bits',
    );
  });
}

function address(text: string | undefined, flag: string): Ip | undefined {
  if (text === undefined) return undefined;
  const parsed = parseIp(text);
  if (parsed === undefined) throw wrong(flag, text, 'an IP address');
  return parsed;
}

/** `192.0.2.1:6443`, `[2001:db8::1]:6443`, `:6443`. */
function hostPort(text: string, flag: string): { host: string; port: number } {
  const match = /^(?:\[([^\]]+)\]|([^:]*)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? '';
  const port = Number(match?.[3]);
  if (match === null || (host !== '' && parseIp(host) === undefined))
    throw wrong(flag, text, 'address:port, for example 192.0.2.1:6443');
  if (port < 1 || port > 65535) throw wrong(flag, text, 'a port between 1 and 65535');
  return { host: host === '' ? '0.0.0.0' : host, port };
}

/** `30000-32767`. Low numbers are refused: a service on port 22 would cut people off from their machines. */
function portRange(text: string): { first: number; last: number } {
  const [, from, to] = /^(\d{1,5})-(\d{1,5})$/.exec(text) ?? [];
  const [first, last] = [Number(from), Number(to)];
  if (!(first >= MIN_NODE_PORT && first <= last && last <= 65535))
    throw wrong(
      '--service-node-port-range',
      text,
      `FIRST-LAST between ${MIN_NODE_PORT} and 65535, for example ${DEFAULT_NODE_PORT_RANGE}`,
    );
  return { first, last };
}

function serverUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'https:')
    throw wrong('--server', text, 'a URL such as https://192.0.2.1:6443');
  return url.origin;
}

function domain(text: string): string {
  if (!DNS_1123_SUBDOMAIN.test(text))
    throw wrong('--cluster-domain', text, 'a domain such as cluster.local');
  return text;
}

function logLevel(text: string): LogLevel {
  const level = LOG_LEVELS.find((candidate) => candidate === text);
  if (level === undefined) throw wrong('--log-level', text, `one of ${LOG_LEVELS.join(', ')}`);
  return level;
}

function readToken(path: string | undefined): string | undefined {
  if (path === undefined) return undefined;
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (cause) {
    throw new UserError(`Cannot read the token file "${path}"`, { cause });
  }
}

function wrong(flag: string, value: string, expected: string): UserError {
  return new UserError(`${flag} "${value}" is wrong: expected ${expected}`, { exitCode: 2 });
}

function flagOf(key: string): string {
  return `--${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}
