/**
 * The network configuration that a runtime writes to a plugin's standard input
 * (https://www.cni.dev/docs/spec/#plugin-configuration-objects).
 */
import { type BridgeOptions, parseBridgeOptions } from './bridge-options.ts';
import {
  type Bandwidth,
  parseBandwidth,
  parseRuntimeConfig,
  type RuntimeConfig,
} from './capabilities.ts';
import { CNI_ERROR, CniError } from './error.ts';
import { type CniDns, type CniResult, decodeCniDns, decodeCniResult } from './result.ts';
import { type CniVersion, parseCniVersion } from './version.ts';

/** The specification's rule for network names and container ids. */
export const CNI_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/** An attachment that still exists, of GC's `cni.dev/valid-attachments`. */
export interface ValidAttachment {
  readonly containerID: string;
  readonly ifname: string;
}

export type CniMode =
  | { readonly kind: 'routed' }
  | { readonly kind: 'bridge'; readonly options: BridgeOptions };

export interface CniConfig {
  readonly cniVersion: CniVersion;
  readonly name: string;
  readonly type: string;
  /** `runtimeConfig`: what the runtime gives for the capabilities that the conflist declares. */
  readonly runtime: RuntimeConfig;
  /** `args.cni.ips` and `args.cni.mac`; the older way to ask. */
  readonly argIps: readonly string[];
  readonly argMac: string | undefined;
  /** `routed` without a bridge, which is the default, or a bridge with everything of the reference plugin. */
  readonly mode: CniMode;
  /** Limits that stand in the configuration; they win over the runtime's. */
  readonly bandwidth: Bandwidth | undefined;
  /** The address plugin that the configuration names; undefined for our own address pools. */
  readonly ipamType: string | undefined;
  /** An `ipam` that names no plugin: a network of layer 2, as with the reference plugin. */
  readonly withoutIpam: boolean;
  /** The configuration's own `dns`, which bridge networks have. */
  readonly dns: CniDns;
  /** All of it, as an address plugin has to get it. */
  readonly json: Readonly<Record<string, unknown>>;
  readonly prevResult: CniResult | undefined;
  /** Only with GC; `undefined` if the key is missing, which is not the same as an empty list. */
  readonly validAttachments: readonly ValidAttachment[] | undefined;
}

/**
 * Reads a configuration.
 * @throws CniError 6 if it is not JSON of the right shape, 1 for an unknown version, 7 for a missing or bad name
 */
export function parseCniConfig(stdin: string): CniConfig {
  const json = parseObject(stdin);
  const version = parseCniVersion(optionalString(json, 'cniVersion') ?? '0.1.0');
  const name = optionalString(json, 'name') ?? '';
  if (name === '') throw new CniError(CNI_ERROR.invalidConfig, 'missing network name');
  if (!CNI_NAME.test(name))
    throw new CniError(CNI_ERROR.invalidConfig, 'invalid characters found in network name', {
      details: `found "${name}"; letters, digits, "_", "." and "-" are allowed, beginning with a letter or digit`,
    });
  const runtime = optionalObject(json, 'runtimeConfig') ?? {};
  const args = optionalObject(optionalObject(json, 'args') ?? {}, 'cni') ?? {};
  const prevResult = optionalObject(json, 'prevResult');
  return {
    cniVersion: version,
    name,
    type: optionalString(json, 'type') ?? '',
    runtime: parseRuntimeConfig(runtime, name),
    argIps: stringList(args, 'ips'),
    argMac: optionalString(args, 'mac'),
    mode: parseMode(json),
    bandwidth: parseBandwidth(json, 'configuration'),
    ipamType: parseIpamType(json),
    withoutIpam:
      json.ipam !== undefined &&
      (optionalString(optionalObject(json, 'ipam') ?? {}, 'type') ?? '') === '',
    dns: decodeCniDns(json.dns),
    json,
    prevResult: prevResult === undefined ? undefined : decodeCniResult(prevResult, version),
    validAttachments: readValidAttachments(json),
  };
}

function parseMode(json: Json): CniMode {
  const mode = optionalString(json, 'mode') ?? 'routed';
  if (mode === 'routed') return { kind: 'routed' };
  if (mode === 'bridge') return { kind: 'bridge', options: parseBridgeOptions(json) };
  throw new CniError(CNI_ERROR.invalidConfig, `unknown mode "${mode}"`, {
    details: 'the modes are "routed" (the default) and "bridge"',
  });
}

function parseIpamType(json: Json): string | undefined {
  const type = optionalString(optionalObject(json, 'ipam') ?? {}, 'type') ?? '';
  // It is looked for in CNI_PATH, and nowhere else.
  if (/[/\0]/.test(type) || type === '.' || type === '..')
    throw new CniError(CNI_ERROR.invalidConfig, `"${type}" is no name of an address plugin`);
  return type === '' || type === 'tulle' ? undefined : type;
}

/** The version a configuration asks for, for the answer when nothing else of it can be read. */
export function peekCniVersion(stdin: string): string {
  try {
    return optionalString(parseObject(stdin), 'cniVersion') ?? '0.1.0';
  } catch (error) {
    if (error instanceof CniError) return '0.1.0';
    throw error;
  }
}

type Json = Readonly<Record<string, unknown>>;

function parseObject(text: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new CniError(CNI_ERROR.decode, 'failed to decode network configuration', {
      details: (cause as SyntaxError).message,
      cause,
    });
  }
  if (!isObject(value))
    throw new CniError(CNI_ERROR.decode, 'failed to decode network configuration', {
      details: 'it is not a JSON object',
    });
  return value;
}

function readValidAttachments(json: Json): readonly ValidAttachment[] | undefined {
  // The second key is what libcni wrote before the specification was settled.
  const list = json['cni.dev/valid-attachments'] ?? json['cni.dev/attachments'];
  if (list === undefined || list === null) return undefined;
  if (!Array.isArray(list)) throw wrongType('cni.dev/valid-attachments', 'a list');
  return list.map((item: unknown) => {
    const entry = isObject(item) ? item : {};
    const { containerID, ifname } = entry;
    if (typeof containerID !== 'string' || typeof ifname !== 'string')
      throw wrongType('cni.dev/valid-attachments', 'a list of {containerID, ifname}');
    return { containerID, ifname };
  });
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function optionalString(json: Json, key: string): string | undefined {
  const value = json[key];
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'string') throw wrongType(key, 'a string');
  return value;
}

function optionalObject(json: Json, key: string): Json | undefined {
  const value = json[key];
  if (value === undefined || value === null) return undefined;
  if (!isObject(value)) throw wrongType(key, 'an object');
  return value;
}

function stringList(json: Json, key: string): readonly string[] {
  const value = json[key];
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'string'))
    throw wrongType(key, 'a list of strings');
  return value;
}

function wrongType(key: string, expected: string): CniError {
  return new CniError(CNI_ERROR.decode, `failed to decode network configuration: "${key}"`, {
    details: `"${key}" must be ${expected}`,
  });
}
