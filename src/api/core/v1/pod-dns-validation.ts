/** What a pod says of names and addresses of its own. `validatePodDNSConfig`, `ValidateHostAliases` of `pkg/apis/core/validation`. */
import { parseIp } from '#lib/ip.ts';
import type { FieldError } from '../../kind.ts';
import { NOT_AN_IP } from '../../machinery/addresses.ts';
import { invalid, required } from '../../machinery/field-errors.ts';
import {
  checkDns1123Subdomain,
  checkDns1123SubdomainWithUnderscore,
} from '../../machinery/names.ts';
import type { HostAlias, PodDnsConfig } from './pod.ts';

/** What the resolver of the C library reads of `/etc/resolv.conf`. */
const MAX_NAMESERVERS = 3;
const MAX_SEARCHES = 32;
const MAX_SEARCHES_LENGTH = 2048;

export function validateDnsConfig(
  config: PodDnsConfig | undefined,
  policy: string | undefined,
): FieldError[] {
  const field = 'spec.dnsConfig';
  if (policy === 'None' && config === undefined)
    return [required(field, 'must provide `dnsConfig` when `dnsPolicy` is None')];
  const { nameservers = [], searches = [], options = [] } = config ?? {};
  if (policy === 'None' && nameservers.length === 0)
    return [
      required(
        `${field}.nameservers`,
        'must provide at least one DNS nameserver when `dnsPolicy` is None',
      ),
    ];
  const errors: FieldError[] = [];
  if (nameservers.length > MAX_NAMESERVERS)
    errors.push(
      invalid(
        `${field}.nameservers`,
        nameservers,
        `must not have more than ${MAX_NAMESERVERS} nameservers`,
      ),
    );
  nameservers.forEach((address, i) => {
    if (parseIp(address) === undefined)
      errors.push(invalid(`${field}.nameservers[${i}]`, address, NOT_AN_IP));
  });
  errors.push(...validateSearches(searches, `${field}.searches`));
  options.forEach(({ name }, i) => {
    if (!name) errors.push(required(`${field}.options[${i}]`, 'must not be empty'));
  });
  return errors;
}

function validateSearches(searches: readonly string[], field: string): FieldError[] {
  const errors: FieldError[] = [];
  if (searches.length > MAX_SEARCHES)
    errors.push(invalid(field, searches, `must not have more than ${MAX_SEARCHES} search paths`));
  if (searches.join(' ').length > MAX_SEARCHES_LENGTH)
    errors.push(
      invalid(
        field,
        searches,
        `must not have more than ${MAX_SEARCHES_LENGTH} characters (including spaces) in the search list`,
      ),
    );
  searches.forEach((search, i) => {
    // The root alone is a domain too.
    const wrong =
      search === '.' ? undefined : checkDns1123SubdomainWithUnderscore(search.replace(/\.$/, ''));
    if (wrong !== undefined) errors.push(invalid(`${field}[${i}]`, search, wrong));
  });
  return errors;
}

export function validateHostAliases(aliases: readonly HostAlias[]): FieldError[] {
  return aliases.flatMap(({ ip, hostnames = [] }, i) => {
    const field = `spec.hostAliases[${i}]`;
    return [
      ...(parseIp(ip ?? '') === undefined ? [invalid(`${field}.ip`, ip, NOT_AN_IP)] : []),
      ...hostnames.flatMap((name, j) => {
        const wrong = checkDns1123Subdomain(name);
        return wrong === undefined ? [] : [invalid(`${field}.hostnames[${j}]`, name, wrong)];
      }),
    ];
  });
}
