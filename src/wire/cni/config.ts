/**
 * The network configuration that a runtime writes to a plugin's standard input
 * (https://www.cni.dev/docs/spec/#plugin-configuration-objects).
 */
import { CNI_ERROR, CniError } from './error.ts';
import { type CniResult, decodeCniResult } from './result.ts';
import { type CniVersion, parseCniVersion } from './version.ts';

/** The specification's rule for network names and container ids. */
export const CNI_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

/** An attachment that still exists, of GC's `cni.dev/valid-attachments`. */
export interface ValidAttachment {
  readonly containerID: string;
  readonly ifname: string;
}

export interface CniConfig {
  readonly cniVersion: CniVersion;
  readonly name: string;
  readonly type: string;
  /** `runtimeConfig`: what the runtime gives for the capabilities that the conflist declares. */
  readonly runtime: { readonly ips: readonly string[]; readonly mac: string | undefined };
  /** `args.cni.ips`; the older way to ask for addresses. */
  readonly argIps: readonly string[];
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
    runtime: { ips: stringList(runtime, 'ips'), mac: optionalString(runtime, 'mac') },
    argIps: stringList(args, 'ips'),
    prevResult: prevResult === undefined ? undefined : decodeCniResult(prevResult, version),
    validAttachments: readValidAttachments(json),
  };
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
