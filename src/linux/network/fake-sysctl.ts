/** Settings of the fake network: those below `net/` that a container network reads or writes, with the kernel's defaults. */
import { EINVAL, ENOENT, KernelError } from '#lib/errors.ts';
import type { FakeNamespace } from './fake-namespace.ts';
import type { NetworkStack } from './port.ts';

export const DEFAULT_SYSCTLS: Readonly<Record<string, string>> = {
  'net/bridge/bridge-nf-call-iptables': '1',
  'net/core/rmem_max': '212992',
  'net/core/somaxconn': '4096',
  'net/ipv4/ip_forward': '0',
  'net/ipv4/ip_local_port_range': '32768\t60999',
  'net/ipv4/ip_nonlocal_bind': '0',
  'net/ipv4/ping_group_range': '1\t0',
  'net/ipv4/neigh/default/gc_thresh1': '128',
  'net/ipv4/neigh/default/gc_thresh2': '512',
  'net/ipv4/neigh/default/gc_thresh3': '1024',
  'net/ipv6/neigh/default/gc_thresh3': '1024',
  'net/netfilter/nf_conntrack_max': '65536',
  'net/netfilter/nf_conntrack_tcp_be_liberal': '0',
};

/** Settings that every link has, and `all` and `default`: `net/ipv4/conf/<link>/<setting>`. */
const LINK_SYSCTLS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'net/ipv4/conf': {
    accept_local: '0',
    accept_redirects: '1',
    arp_announce: '0',
    arp_ignore: '0',
    forwarding: '0',
    log_martians: '0',
    proxy_arp: '0',
    proxy_arp_pvlan: '0',
    route_localnet: '0',
    rp_filter: '0',
    send_redirects: '1',
    src_valid_mark: '0',
  },
  'net/ipv6/conf': {
    accept_dad: '1',
    accept_ra: '1',
    accept_redirects: '1',
    addr_gen_mode: '0',
    autoconf: '1',
    dad_transmits: '1',
    disable_ipv6: '0',
    forwarding: '0',
    keep_addr_on_down: '0',
    proxy_ndp: '0',
  },
  'net/ipv4/neigh': { base_reachable_time_ms: '30000', gc_stale_time: '60', proxy_delay: '80' },
  'net/ipv6/neigh': { base_reachable_time_ms: '30000', gc_stale_time: '60', proxy_delay: '80' },
};

export function fakeSysctl(namespace: FakeNamespace): NetworkStack['sysctl'] {
  const current = (name: string, op: string): string | undefined => {
    if (name.startsWith('/') || name.split('/').some((part) => part === '' || part === '..'))
      throw new KernelError(op, EINVAL);
    const perLink = /^(net\/ipv[46]\/(?:conf|neigh))\/([^/]+)\/([^/]+)$/.exec(name);
    if (perLink === null) return namespace.sysctls.get(name) ?? namespace.world.sysctls.get(name);
    const [, group = '', link = '', setting = ''] = perLink;
    // Kept by index: a new link of the same name starts afresh.
    const key = linkKey(namespace, name);
    if (key === undefined) return undefined;
    return (
      namespace.sysctls.get(key) ??
      (link === 'default' ? namespace.world.sysctls.get(name) : undefined) ??
      LINK_SYSCTLS[group]?.[setting]
    );
  };
  return {
    get: (name) => current(name, `read sysctl "${name}"`),
    set(name, value) {
      const op = `set sysctl "${name}" to "${value}"`;
      namespace.world.check(op);
      if (current(name, op) === undefined) throw new KernelError(op, ENOENT);
      const was = current(name, op);
      namespace.sysctls.set(linkKey(namespace, name) ?? name, value);
      if (was !== value) tell(namespace, name, value);
    },
  };
}

/** @returns undefined if the name is of a link's setting and there is no such link */
function linkKey(namespace: FakeNamespace, name: string): string | undefined {
  const parts = /^(net\/ipv[46]\/(?:conf|neigh)\/)([^/]+)(\/[^/]+)$/.exec(name);
  if (parts === null) return name;
  const [, group = '', link = '', setting = ''] = parts;
  if (link === 'all' || link === 'default') return name;
  const found = namespace.linkNamed(link);
  return found === undefined ? undefined : `${group}#${found.index}${setting}`;
}

/** The kernel tells of these alone. `ip_forward` is another name for `all/forwarding`. */
function tell(namespace: FakeNamespace, name: string, value: string): void {
  const alias = name === 'net/ipv4/ip_forward' ? 'net/ipv4/conf/all/forwarding' : name;
  const parts = /^net\/ipv([46])\/conf\/([^/]+)\/(forwarding|rp_filter|proxy_arp|proxy_ndp)$/.exec(
    alias,
  );
  if (parts === null) return;
  const [, family, where = '', setting] = parts;
  const link = where === 'all' || where === 'default' ? where : namespace.linkNamed(where)?.index;
  if (link === undefined) return;
  namespace.emit({
    type: 'setting',
    family: family === '4' ? 4 : 6,
    link,
    setting: setting === 'forwarding' || setting === 'rp_filter' ? setting : 'proxy_neigh',
    value: Number(value),
  });
}
