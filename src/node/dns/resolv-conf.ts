/** The host's resolv.conf: where names outside the cluster are asked. */
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import type { Ip } from '#lib/ip.ts';
import type { Upstream } from './upstream.ts';

const DNS_PORT = 53;
/** What the C library reads (MAXNS); more are more waiting for a client that has given up. */
const MAX_NAMESERVERS = 3;
/** systemd-resolved's stub listens on these; its real name servers stand in a file of its own. */
export const STUB_ADDRESSES: readonly string[] = ['127.0.0.53', '127.0.0.54'];

export const RESOLV_CONF = '/etc/resolv.conf';
export const RESOLVED_RESOLV_CONF = '/run/systemd/resolve/resolv.conf';

/** @returns the addresses of the `nameserver` lines, in order; a link-local one keeps its zone */
export function parseNameservers(text: string): string[] {
  return text
    .split('\n')
    .map((line) => /^\s*nameserver\s+([^\s#;]+)/.exec(line)?.[1])
    .filter((address) => address !== undefined && isIP(address) !== 0)
    .filter((address) => address !== undefined);
}

/**
 * The name servers of this host, without ourselves.
 * @param options.own our own addresses: asking them would ask us
 * @param options.readText for tests; throws if there is no such file
 * @returns none if the host has no usable name server
 */
export function hostUpstreams(options: {
  own: readonly Ip[];
  readText?: (path: string) => string;
}): Upstream[] {
  const readText = options.readText ?? ((path: string) => readFileSync(path, 'utf8'));
  const usable = (path: string) =>
    parseNameservers(textOf(path, readText)).filter(
      (address) => !(options.own as readonly string[]).includes(address),
    );
  let addresses = usable(RESOLV_CONF);
  if (addresses.some((address) => STUB_ADDRESSES.includes(address))) {
    const real = usable(RESOLVED_RESOLV_CONF);
    // The stub would send our cluster's names back to us where resolved is told to ask us; so it is the last resort.
    addresses = real.length > 0 ? real : addresses;
  }
  return [...new Set(addresses)]
    .slice(0, MAX_NAMESERVERS)
    .map((address) => ({ address, port: DNS_PORT }));
}

/** A file that is not there names no server. */
function textOf(path: string, readText: (path: string) => string): string {
  try {
    return readText(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}
