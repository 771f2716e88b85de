/** Checks of addresses that objects name. `k8s.io/kubernetes/pkg/apis/core/validation.ValidateNonSpecialIP`. */
import { type Cidr, cidr, cidrContains, cidrsOverlap, parseIp } from '#lib/ip.ts';

/** Prefixes in which no endpoint, service or pod can be, with what they are for. */
const SPECIAL_PREFIXES: readonly { prefix: Cidr; use: string }[] = [
  { prefix: cidr('127.0.0.0/8'), use: 'the loopback range' },
  { prefix: cidr('::1/128'), use: 'the loopback address' },
  { prefix: cidr('169.254.0.0/16'), use: 'the link-local range' },
  { prefix: cidr('fe80::/10'), use: 'the link-local range' },
  { prefix: cidr('224.0.0.0/4'), use: 'the multicast range' },
  { prefix: cidr('ff00::/8'), use: 'the multicast range' },
];

/** What a prefix that is no prefix is told. */
export const NOT_A_CIDR = 'must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)';

/** What an address that is no address is told. */
export const NOT_AN_IP = 'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)';

/** @returns what is wrong with the text as an address that packets can be sent to, or `undefined` */
export function checkUsableEndpointAddress(text: string): string | undefined {
  const address = parseIp(text);
  if (address === undefined) return NOT_AN_IP;
  if (address === '0.0.0.0' || address === '::') return `may not be unspecified (${address})`;
  const special = SPECIAL_PREFIXES.find(({ prefix }) => cidrContains(prefix, address));
  return special === undefined ? undefined : `may not be in ${special.use} (${special.prefix})`;
}

/** @returns which special prefix the prefix overlaps, or `undefined` */
export function findSpecialPrefix(prefix: Cidr): { prefix: Cidr; use: string } | undefined {
  return SPECIAL_PREFIXES.find((special) => cidrsOverlap(special.prefix, prefix));
}
