/**
 * The file of ip-masq-agent, which people have: which destinations see a pod's own address.
 *
 * ```yaml
 * nonMasqueradeCIDRs: [10.0.0.0/8, 192.168.0.0/16]
 * masqLinkLocal: false
 * masqLinkLocalIPv6: false
 * resyncInterval: 60s
 * ```
 * YAML or JSON. `resyncInterval` is taken and not needed: the file is watched.
 * @see https://github.com/kubernetes-sigs/ip-masq-agent
 */
import { parse } from 'yaml';
import { explainError, UserError } from '#lib/errors.ts';
import { type Cidr, cidr, parseCidr } from '#lib/ip.ts';

export interface MasqueradeConfig {
  /** Beside the pods' own networks. */
  readonly exempt: readonly Cidr[];
}

/** What holds without a file: everything but the pod networks is masqueraded. */
export const DEFAULT_CONFIG: MasqueradeConfig = { exempt: [] };

/** ip-masq-agent's own limit, against a file that is something else. */
const MAX_CIDRS = 64;
const LINK_LOCAL_V4 = cidr('169.254.0.0/16');
const LINK_LOCAL_V6 = cidr('fe80::/10');
const KNOWN_FIELDS = [
  ...['nonMasqueradeCIDRs', 'masqLinkLocal', 'masqLinkLocalIPv6', 'resyncInterval', 'cidrLimit'],
];

/**
 * @param path for messages
 * @throws UserError that says what is wrong; the caller keeps what it had
 */
export function parseMasqueradeConfig(text: string, path: string): MasqueradeConfig {
  const fields = parseFields(text, path);
  const unknown = Object.keys(fields).filter((key) => !KNOWN_FIELDS.includes(key));
  if (unknown.length > 0)
    throw wrong(
      path,
      `unknown field "${unknown.join('", "')}"; there are ${KNOWN_FIELDS.join(', ')}`,
    );
  const list = fields.nonMasqueradeCIDRs ?? [];
  if (!Array.isArray(list)) throw wrong(path, 'nonMasqueradeCIDRs must be a list');
  const limit = typeof fields.cidrLimit === 'number' ? fields.cidrLimit : MAX_CIDRS;
  if (list.length > limit)
    throw wrong(path, `nonMasqueradeCIDRs has ${list.length} entries, at most ${limit}`);
  const cidrs = list.map((entry: unknown) => {
    const parsed = typeof entry === 'string' ? parseCidr(entry) : undefined;
    if (parsed === undefined)
      throw wrong(
        path,
        `nonMasqueradeCIDRs: ${JSON.stringify(entry)} is no network prefix in canonical form`,
      );
    return parsed;
  });
  return {
    exempt: [
      ...cidrs,
      ...(isTrue(fields, 'masqLinkLocal', path) ? [] : [LINK_LOCAL_V4]),
      ...(isTrue(fields, 'masqLinkLocalIPv6', path) ? [] : [LINK_LOCAL_V6]),
    ],
  };
}

function parseFields(text: string, path: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = parse(text, { maxAliasCount: 0 });
  } catch (cause) {
    throw wrong(path, `it is neither YAML nor JSON (${explainError(cause).split('\n')[0]})`);
  }
  if (value === null || value === undefined) return {};
  if (typeof value !== 'object' || Array.isArray(value)) throw wrong(path, 'expected fields');
  return value as Record<string, unknown>;
}

function isTrue(fields: Record<string, unknown>, name: string, path: string): boolean {
  const value = fields[name] ?? false;
  if (typeof value !== 'boolean') throw wrong(path, `${name} must be true or false`);
  return value;
}

function wrong(path: string, what: string): UserError {
  return new UserError(`The masquerade configuration ${path} is not taken: ${what}`);
}
