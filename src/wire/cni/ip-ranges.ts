/**
 * The capability `ipRanges`: a list of range sets, each a list of ranges, of which the interface gets one address a set
 * (https://www.cni.dev/docs/conventions/#dynamic-plugin-specific-fields-capabilities--runtime-configuration).
 */

import { cidrOf, familyOf, type Ip, ipToBigInt, parseIp, splitCidr } from '#lib/ip.ts';
import { type IpRange, rangeContains, rangeOf } from '#lib/ip-range.ts';
import { CNI_ERROR, CniError } from './error.ts';
import { nameAsGo } from './go-fields.ts';

/** More than any runtime gives; each is compared with each address that is free. */
const MAX_RANGES = 64;
const FIELDS = ['subnet', 'rangeStart', 'rangeEnd', 'gateway'];

/**
 * Reads the ranges of one address of each family.
 *
 * A range is all of its `subnet`, or its part from `rangeStart` to `rangeEnd`; its `gateway` is given to nobody.
 * @returns an empty list if there is none
 * @throws CniError 6 for a wrong shape, 7 for ranges that cannot be
 */
export function parseIpRanges(json: readonly unknown[] | undefined): readonly IpRange[] {
  const sets = (json ?? []).map((set, i) => {
    const where = `runtimeConfig.ipRanges[${i}]`;
    if (!Array.isArray(set)) throw wrongType(where, 'a list of ranges');
    const ranges = set.flatMap((range: unknown, at) => parseRange(range, `${where}[${at}]`));
    const families = new Set(ranges.map(({ family }) => family));
    if (families.size > 1) throw invalid(`${where} mixes IPv4 and IPv6; make it two sets`);
    return ranges;
  });
  const families = sets.flatMap((set) => set[0]?.family ?? []);
  if (new Set(families).size < families.length)
    throw invalid('runtimeConfig.ipRanges asks for more than one address of a family', {
      details: 'an interface has one address of each family; make it one set of several ranges',
    });
  const ranges = sets.flat();
  if (ranges.length > MAX_RANGES)
    throw invalid(`${ranges.length} ranges are more than ${MAX_RANGES}`);
  return ranges;
}

function parseRange(json: unknown, where: string): IpRange[] {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw wrongType(where, 'an object with a "subnet"');
  const { subnet, rangeStart, rangeEnd, gateway } = nameAsGo({ ...json }, FIELDS);
  if (typeof subnet !== 'string') throw wrongType(`${where}.subnet`, 'a string');
  const parts = splitCidr(subnet);
  if (parts === undefined) throw invalid(`${where}: subnet "${subnet}" is no network prefix`);
  const whole = rangeOf(cidrOf(parts.address, parts.prefixLength));
  const end = (key: string, value: unknown): bigint | undefined => {
    const ip = addressIn(whole, value, `${where}.${key}`);
    return ip === undefined ? undefined : ipToBigInt(ip);
  };
  const first = end('rangeStart', rangeStart) ?? whole.first;
  const last = end('rangeEnd', rangeEnd) ?? whole.last;
  if (first > last)
    throw invalid(`${where}: rangeStart ${rangeStart} is after rangeEnd ${rangeEnd}`);
  const taken = end('gateway', gateway);
  const { family } = whole;
  if (taken === undefined || taken < first || taken > last) return [{ family, first, last }];
  return [
    { family, first, last: taken - 1n },
    { family, first: taken + 1n, last },
  ].filter((it) => it.first <= it.last);
}

function addressIn(subnet: IpRange, value: unknown, where: string): Ip | undefined {
  if (value === undefined || value === null || value === '') return undefined;
  if (typeof value !== 'string') throw wrongType(where, 'a string');
  const address = parseIp(value);
  if (address === undefined) throw invalid(`${where} "${value}" is no IP address`);
  if (familyOf(address) !== subnet.family || !rangeContains(subnet, address))
    throw invalid(`${where} ${address} is not in the subnet`);
  return address;
}

function wrongType(where: string, expected: string): CniError {
  return new CniError(CNI_ERROR.decode, `failed to decode network configuration: "${where}"`, {
    details: `"${where}" must be ${expected}`,
  });
}

function invalid(message: string, more: { details?: string } = {}): CniError {
  return new CniError(CNI_ERROR.invalidConfig, message, more);
}
