/**
 * Results of ADD in every version of the specification (https://www.cni.dev/docs/spec/#add-success).
 *
 * Inside they have the newest shape; {@link encodeCniResult} and {@link decodeCniResult} convert.
 *
 * | version | shape |
 * | --- | --- |
 * | 0.1.0, 0.2.0 | `{ip4: {ip, gateway, routes}, ip6: {…}, dns}`: one address of each family, no interfaces |
 * | 0.3.0 to 0.4.0 | `{interfaces, ips: [{version: "4", address, gateway, interface}], routes, dns}` |
 * | 1.0.0 | the same without `ips[].version` |
 * | 1.1.0 | more: `interfaces[].{mtu,socketPath,pciID}`, `routes[].{mtu,advmss,priority,table,scope}` |
 */
import { CNI_ERROR, CniError } from './error.ts';
import { type CniVersion, isAtLeast, parseCniVersion } from './version.ts';

export interface CniInterface {
  readonly name: string;
  readonly mac?: string;
  readonly mtu?: number;
  /** Path of the network namespace; missing on the host's side. */
  readonly sandbox?: string;
  readonly socketPath?: string;
  readonly pciID?: string;
}

export interface CniIp {
  /** With prefix length: `10.244.1.7/32`. */
  readonly address: string;
  readonly gateway?: string;
  /** Index in `interfaces`. */
  readonly interface?: number;
}

export interface CniRoute {
  readonly dst: string;
  readonly gw?: string;
  readonly mtu?: number;
  readonly advmss?: number;
  readonly priority?: number;
  readonly table?: number;
  readonly scope?: number;
}

export interface CniDns {
  readonly nameservers?: readonly string[];
  readonly domain?: string;
  readonly search?: readonly string[];
  readonly options?: readonly string[];
}

export interface CniResult {
  readonly interfaces: readonly CniInterface[];
  readonly ips: readonly CniIp[];
  readonly routes: readonly CniRoute[];
  readonly dns: CniDns;
}

/**
 * @returns the JSON for standard output
 * @throws CniError 1 if the version cannot say it: 0.1.0 and 0.2.0 know one address of each family
 */
export function encodeCniResult(result: CniResult, version: CniVersion): string {
  return JSON.stringify(toVersion(result, version));
}

/**
 * Reads a `prevResult`.
 * @param configVersion counts if the result itself names no version
 * @throws CniError 6 for a wrong shape, 1 for an unknown version
 */
export function decodeCniResult(json: unknown, configVersion: CniVersion): CniResult {
  if (!isObject(json)) throw wrongResult('it is not an object');
  const version =
    typeof json.cniVersion === 'string' && json.cniVersion !== ''
      ? parseCniVersion(json.cniVersion)
      : configVersion;
  return isAtLeast(version, '0.3.0') ? decodeModern(json) : decodeLegacy(json);
}

type Json = Readonly<Record<string, unknown>>;

function toVersion(result: CniResult, cniVersion: CniVersion): Json {
  if (!isAtLeast(cniVersion, '0.3.0')) return toLegacy(result, cniVersion);
  if (isAtLeast(cniVersion, '1.1.0')) return withoutEmptyLists({ cniVersion, ...result });
  const withFamily = !isAtLeast(cniVersion, '1.0.0');
  return withoutEmptyLists({
    cniVersion,
    interfaces: result.interfaces.map(({ name, mac, sandbox }) =>
      withoutUndefined({ name, mac, sandbox }),
    ),
    ips: result.ips.map((ip) => (withFamily ? { version: familyName(ip.address), ...ip } : ip)),
    routes: result.routes.map(({ dst, gw }) => withoutUndefined({ dst, gw })),
    dns: result.dns,
  });
}

/** As the reference library writes results; there are programs that compare. */
function withoutEmptyLists(result: Json): Json {
  return Object.fromEntries(
    Object.entries(result).filter(([, value]) => !Array.isArray(value) || value.length > 0),
  );
}

function toLegacy(result: CniResult, cniVersion: CniVersion): Json {
  const family = (version: '4' | '6') => {
    const [ip, second] = result.ips.filter((it) => familyName(it.address) === version);
    if (second !== undefined)
      throw new CniError(
        CNI_ERROR.incompatibleVersion,
        `CNI version ${cniVersion} cannot express more than one IPv${version} address`,
        { details: `use a cniVersion of 0.3.0 or later in the network configuration` },
      );
    if (ip === undefined) return undefined;
    const routes = result.routes
      .filter((route) => familyName(route.dst) === version)
      .map(({ dst, gw }) => withoutUndefined({ dst, gw }));
    return withoutEmptyLists(withoutUndefined({ ip: ip.address, gateway: ip.gateway, routes }));
  };
  return withoutUndefined({ cniVersion, ip4: family('4'), ip6: family('6'), dns: result.dns });
}

function decodeLegacy(json: Json): CniResult {
  const ips: CniIp[] = [];
  const routes: CniRoute[] = [];
  for (const key of ['ip4', 'ip6'] as const) {
    const part = json[key];
    if (part === undefined || part === null) continue;
    if (!isObject(part)) throw wrongResult(`"${key}" is not an object`);
    ips.push(
      withoutUndefined({
        address: requiredString(part, 'ip', key),
        gateway: text(part, 'gateway', key),
      }) as unknown as CniIp,
    );
    routes.push(...list(part, 'routes').map((route) => decodeRoute(route, `${key}.routes`)));
  }
  return { interfaces: [], ips, routes, dns: decodeCniDns(json.dns) };
}

function decodeModern(json: Json): CniResult {
  return {
    interfaces: list(json, 'interfaces').map(decodeInterface),
    ips: list(json, 'ips').map(decodeIp),
    routes: list(json, 'routes').map((route) => decodeRoute(route, 'routes')),
    dns: decodeCniDns(json.dns),
  };
}

function decodeInterface(json: Json): CniInterface {
  const where = 'interfaces';
  return withoutUndefined({
    name: requiredString(json, 'name', where),
    mac: text(json, 'mac', where),
    mtu: number(json, 'mtu', where),
    sandbox: text(json, 'sandbox', where),
    socketPath: text(json, 'socketPath', where),
    pciID: text(json, 'pciID', where),
  }) as unknown as CniInterface;
}

function decodeIp(json: Json): CniIp {
  return withoutUndefined({
    address: requiredString(json, 'address', 'ips'),
    gateway: text(json, 'gateway', 'ips'),
    interface: number(json, 'interface', 'ips'),
  }) as unknown as CniIp;
}

function decodeRoute(json: Json, where: string): CniRoute {
  return withoutUndefined({
    dst: requiredString(json, 'dst', where),
    gw: text(json, 'gw', where),
    mtu: number(json, 'mtu', where),
    advmss: number(json, 'advmss', where),
    priority: number(json, 'priority', where),
    table: number(json, 'table', where),
    scope: number(json, 'scope', where),
  }) as unknown as CniRoute;
}

/** Reads `dns` of a result or a configuration. @throws CniError 6 for a wrong shape */
export function decodeCniDns(json: unknown): CniDns {
  if (json === undefined || json === null) return {};
  if (!isObject(json)) throw wrongResult('"dns" is not an object');
  return withoutUndefined({
    nameservers: strings(json, 'nameservers'),
    domain: text(json, 'domain', 'dns'),
    search: strings(json, 'search'),
    options: strings(json, 'options'),
  }) as CniDns;
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function list(json: Json, key: string): readonly Json[] {
  const value = json[key] ?? [];
  if (!Array.isArray(value) || !value.every(isObject))
    throw wrongResult(`"${key}" is not a list of objects`);
  return value;
}

function strings(json: Json, key: string): readonly string[] | undefined {
  const value = json[key] ?? undefined;
  if (value === undefined) return undefined;
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'string'))
    throw wrongResult(`"dns.${key}" is not a list of strings`);
  return value;
}

function requiredString(json: Json, key: string, where: string): string {
  const value = text(json, key, where);
  if (value === undefined) throw wrongResult(`"${where}" has an entry without "${key}"`);
  return value;
}

function text(json: Json, key: string, where: string): string | undefined {
  const value = json[key] ?? undefined;
  if (value === undefined || typeof value === 'string') return value === '' ? undefined : value;
  throw wrongResult(`"${key}" in "${where}" is not a string`);
}

function number(json: Json, key: string, where: string): number | undefined {
  const value = json[key] ?? undefined;
  if (value === undefined || typeof value === 'number') return value;
  throw wrongResult(`"${key}" in "${where}" is not a number`);
}

function familyName(address: string): '4' | '6' {
  return address.includes(':') ? '6' : '4';
}

function withoutUndefined(fields: Json): Json {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

function wrongResult(details: string): CniError {
  return new CniError(CNI_ERROR.decode, 'failed to decode a CNI result', { details });
}
