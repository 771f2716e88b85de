/** An address or a name at which a load balancer is reached, in the status of who has one. */
import { parseIp } from '#lib/ip.ts';
import type { FieldError } from '../../kind.ts';
import { NOT_AN_IP } from '../../machinery/addresses.ts';
import { invalid } from '../../machinery/field-errors.ts';
import { checkDns1123Subdomain } from '../../machinery/names.ts';

export function validateIngressPoint(
  { ip, hostname }: { ip?: string; hostname?: string },
  field: string,
): FieldError[] {
  const errors: FieldError[] = [];
  if (ip && parseIp(ip) === undefined) errors.push(invalid(`${field}.ip`, ip, NOT_AN_IP));
  if (!hostname) return errors;
  const wrong =
    parseIp(hostname) === undefined
      ? checkDns1123Subdomain(hostname)
      : 'must be a DNS name, not an IP address';
  if (wrong !== undefined) errors.push(invalid(`${field}.hostname`, hostname, wrong));
  return errors;
}
