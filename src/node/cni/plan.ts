/**
 * What a routed attachment consists of in the kernel. Pure.
 *
 * ```
 *   pod's namespace                             host
 *   eth0  10.244.1.7/32  ◄──── veth ────►  tl0123456789a  (no IPv4 address; fe80::1/64)
 *   default via 169.254.1.1 dev eth0            10.244.1.7/32 dev tl0123456789a proto 84
 *   169.254.1.1 lladdr ee:ee:ee:ee:ee:ee PERM   10.244.1.7 lladdr <pod's MAC> PERM
 * ```
 *
 * There is no bridge: the pod thinks that a neighbour routes everything, and that neighbour is the host, whose
 * routing table has the pod. Both neighbour entries are permanent, so nothing has to be resolved and the first packet
 * goes out at once.
 */
import { createHash } from 'node:crypto';
import {
  cidr,
  type Family,
  familyOf,
  hostCidr,
  type Ip,
  type Mac,
  macFromBytes,
  parseIp,
} from '#lib/ip.ts';
import {
  GATEWAY_V4,
  GATEWAY_V6,
  HOST_VETH_MAC,
  POD_LINK_PREFIX,
  ROUTE_PROTOCOL,
} from '#lib/kernel-objects.ts';
import type { Address, LinkSpec, Neighbour, Route } from '#linux/network/port.ts';
import type { CniDns, CniResult } from '#wire/cni/result.ts';
import type { Ipv4LinkSettings } from '#wire/rtnetlink/link.ts';
import { type Attachment, ipsOf } from '../attachment.ts';

/** `RT_SCOPE_LINK`, `include/uapi/linux/rtnetlink.h` */
const SCOPE_LINK = 253;
const LINK_LOCAL_PREFIX_LENGTH = 64;

/** One end of the veth. What names the link is filled in when its index is known. */
export interface EndPlan {
  /** Set before the link comes up. */
  readonly ipv4?: Ipv4LinkSettings;
  /** Set before the link comes up, in this order. */
  readonly sysctls: readonly (readonly [name: string, value: string])[];
  readonly addresses: readonly Omit<Address, 'link'>[];
  readonly neighbours: readonly Omit<Neighbour, 'link'>[];
  /** In order: a gateway must be reachable when a route through it is added. */
  readonly routes: readonly Omit<Route, 'link'>[];
}

export interface AttachPlan {
  readonly link: LinkSpec & { kind: 'veth' };
  readonly host: EndPlan;
  readonly pod: EndPlan;
}

/** `<network>.<containerId>.<ifName>`: names an attachment in records and blocks. */
export function handleOf(network: string, containerId: string, ifName: string): string {
  return `${network}.${containerId}.${ifName}`;
}

/** The host's end: always the same for a container and interface, so that it is found without any record. */
export function hostLinkName(containerId: string, ifName: string): string {
  const digest = createHash('sha256').update(`${containerId}/${ifName}`).digest('hex');
  return `${POD_LINK_PREFIX}${digest.slice(0, 11)}`;
}

/** The pod's MAC when nobody asks for one: of the attachment, locally administered, unicast. */
export function podMac(handle: string): Mac {
  const bytes = createHash('sha256').update(handle).digest().subarray(0, 6);
  bytes[0] = ((bytes[0] ?? 0) & 0xfc) | 0x02;
  return macFromBytes(bytes);
}

export function gatewayOf(family: Family): Ip {
  return family === 4 ? GATEWAY_V4 : GATEWAY_V6;
}

/** @param source the address from which the host talks to its pods, by family; the kernel chooses if there is none */
export function planAttach(
  attachment: Attachment,
  source: (family: Family) => Ip | undefined,
): AttachPlan {
  const { hostLink, ifName, mac, mtuBytes } = attachment;
  const ips = ipsOf(attachment);
  const families = ([4, 6] as const).filter((family) => ips.some((it) => familyOf(it) === family));
  return {
    link: {
      kind: 'veth',
      name: hostLink,
      mac: HOST_VETH_MAC,
      mtuBytes,
      peer: { name: ifName, netns: attachment.netns, mac, mtuBytes },
    },
    host: planHost(attachment, families, source),
    pod: {
      sysctls: families.includes(6)
        ? [
            [`net/ipv6/conf/${ifName}/disable_ipv6`, '0'],
            [`net/ipv6/conf/${ifName}/accept_ra`, '0'],
            // The address is ours alone; waiting a second for nobody to object delays the pod.
            [`net/ipv6/conf/${ifName}/accept_dad`, '0'],
          ]
        : [],
      addresses: ips.map((address) => ({
        address,
        prefixLength: familyOf(address) === 4 ? 32 : 128,
        ...(familyOf(address) === 6 ? { nodad: true } : {}),
      })),
      neighbours: families.map((family) => ({
        address: gatewayOf(family),
        mac: HOST_VETH_MAC,
        permanent: true,
      })),
      routes: families.flatMap(podRoutes),
    },
  };
}

function planHost(
  { hostLink, addresses, mac, portMappings }: Attachment,
  families: readonly Family[],
  sourceOf: (family: Family) => Ip | undefined,
): EndPlan {
  const v6 = `net/ipv6/conf/${hostLink}`;
  const sysctls: [string, string][] = [];
  const ipv4 = {
    forwarding: 1,
    // For a pod that lost its permanent neighbour.
    proxy_arp: 1,
    // Strict: what comes out of the pod must come from the pod's address.
    rp_filter: 1,
    // Programs of this machine ask a host port at 127.0.0.1; the rules of pods keep the pod itself away from there.
    ...(portMappings === undefined ? {} : { route_localnet: 1 }),
  };
  if (families.includes(4))
    // Nobody else can answer.
    sysctls.push([`net/ipv4/neigh/${hostLink}/proxy_delay`, '0']);
  if (families.includes(6))
    sysctls.push(
      [`${v6}/disable_ipv6`, '0'],
      [`${v6}/forwarding`, '1'],
      [`${v6}/accept_ra`, '0'],
      [`${v6}/accept_dad`, '0'],
      // All host ends have one MAC, so the kernel's own link-local address would be the same everywhere; fe80::1 is ours.
      [`${v6}/addr_gen_mode`, '1'],
    );
  return {
    ...(families.includes(4) ? { ipv4 } : {}),
    sysctls,
    addresses: families.includes(6)
      ? [
          {
            address: GATEWAY_V6,
            prefixLength: LINK_LOCAL_PREFIX_LENGTH,
            scope: SCOPE_LINK,
            nodad: true,
          },
        ]
      : [],
    neighbours: addresses.map(({ address }) => ({ address, mac, permanent: true })),
    routes: addresses.map(({ address, family }) => {
      const source = sourceOf(family);
      return {
        destination: hostCidr(address),
        protocol: ROUTE_PROTOCOL,
        ...(family === 4 ? { scope: SCOPE_LINK } : {}),
        ...(source === undefined ? {} : { source }),
      };
    }),
  };
}

function podRoutes(family: Family): Omit<Route, 'link'>[] {
  const gateway = gatewayOf(family);
  // fe80::1 is reachable as every link-local address is; 169.254.1.1 needs a route of its own.
  if (family === 6) return [{ destination: cidr('::/0'), gateway, protocol: ROUTE_PROTOCOL }];
  return [
    { destination: hostCidr(gateway), scope: SCOPE_LINK, protocol: ROUTE_PROTOCOL },
    { destination: cidr('0.0.0.0/0'), gateway, protocol: ROUTE_PROTOCOL },
  ];
}

/** How pods find names. */
export interface DnsSettings {
  readonly nameservers: readonly Ip[];
  /** `cluster.local` */
  readonly clusterDomain: string;
}

/** @returns an empty object if there is no name server */
export function planDns(namespace: string, settings: DnsSettings): CniDns {
  const { nameservers, clusterDomain } = settings;
  if (nameservers.length === 0) return {};
  return {
    nameservers,
    search: [`${namespace}.svc.${clusterDomain}`, `svc.${clusterDomain}`, clusterDomain],
    // As a kubelet sets it: names with less than five dots go through the search list first.
    options: ['ndots:5'],
  };
}

/** The answer to ADD. */
export function planResult(attachment: Attachment, dns: DnsSettings): CniResult {
  const { hostLink, ifName, mac, mtuBytes, netns } = attachment;
  const families = new Set(attachment.addresses.map((it) => it.family));
  return {
    interfaces: [
      { name: hostLink, mac: HOST_VETH_MAC, mtu: mtuBytes },
      { name: ifName, mac, mtu: mtuBytes, sandbox: netns },
    ],
    ips: ipsOf(attachment).map((address) => ({
      address: hostCidr(address),
      gateway: gatewayOf(familyOf(address)),
      interface: 1,
    })),
    routes: [...families].map((family) => ({
      dst: family === 4 ? '0.0.0.0/0' : '::/0',
      gw: gatewayOf(family),
    })),
    dns: { ...planDns(attachment.pod.namespace, dns), ...attachment.dns },
  };
}

/**
 * Compares a runtime's `prevResult` with the attachment it should be the result of.
 * @returns one sentence per difference
 */
export function comparePrevResult(prev: CniResult, attachment: Attachment): string[] {
  const differences: string[] = [];
  const given = (attachment.bridge ?? attachment.chained)?.ips;
  const wanted = new Set(
    given?.flatMap((it) => parseIp(it.address.split('/')[0] ?? '') ?? []) ?? ipsOf(attachment),
  );
  for (const { address } of prev.ips) {
    const bare = address.split('/')[0] ?? '';
    const known = [...wanted].find((it) => it === parseIp(bare));
    if (known === undefined)
      differences.push(`prevResult has address ${address}, which is not the attachment's`);
    else wanted.delete(known);
  }
  for (const missing of wanted) differences.push(`prevResult lacks address ${missing}`);
  const pod = prev.interfaces.find((it) => it.sandbox !== undefined && it.sandbox !== '');
  if (pod !== undefined && pod.name !== attachment.ifName)
    differences.push(`prevResult has interface "${pod.name}", not "${attachment.ifName}"`);
  if (pod?.mac !== undefined && pod.mac.toLowerCase() !== attachment.mac)
    differences.push(`prevResult has MAC ${pod.mac}, not ${attachment.mac}`);
  return differences;
}
