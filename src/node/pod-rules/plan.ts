/**
 * Rules for each pod of this node: it sends only from its own addresses and MAC, and ports of the node lead to it.
 * Pure. A pod costs elements of sets, never a rule.
 *
 * ```text
 *  prerouting (raw)   iifname . MAC . source @pod-sources accept, if it is a `tl…` link
 *                     iifname vmap @pod-links            a link of ours ─► check-source
 *  check-source       iifname . MAC . source @pod-sources return, everything else drop
 *  nat (dstnat)       to this machine: address . protocol . port @host-ports, else protocol . port @host-ports-any
 *  nat (srcnat)       source . pod @host-port-hairpin     who would get its answer past this machine is masqueraded
 * ```
 * A port of a bridge does not come by the hook `prerouting` of IPv4 under its own name, so what pods on a bridge send is
 * looked at in a table of the family `bridge`, as the reference plugin does (`macspoofchk`), and there also ARP.
 */
import {
  type Cidr,
  cidr,
  cidrOf,
  type Family,
  familyOf,
  hostCidr,
  type Ip,
  ipToBytes,
  linkLocalAddress,
  macToBytes,
  parseIp,
  splitCidr,
} from '#lib/ip.ts';
import { POD_LINK_PREFIX, VXLAN_LINK } from '#lib/kernel-objects.ts';
import type { PortProtocol } from '#wire/cni/capabilities.ts';
import {
  accept,
  CT_STATUS,
  counter,
  dnat,
  drop,
  FIB_ADDRESS_TYPE,
  goTo,
  jump,
  masquerade,
  returnToCaller,
} from '#wire/nftables/expressions.ts';
import {
  anyBit,
  ct,
  equals,
  fibType,
  IPPROTO,
  inPrefix,
  inSet,
  ip,
  ip6,
  loadConcat,
  mapTo,
  meta,
  payload,
  type Source,
  th,
  verdictMap,
} from '#wire/nftables/match.ts';
import { PRIORITY, type SetElement } from '#wire/nftables/objects.ts';
import {
  concat,
  hostU32,
  ifnameBytes,
  portBytes,
  prefixBounds,
  protocolBytes,
  tableFamilyOf,
} from '#wire/nftables/values.ts';
import type { Attachment } from '../attachment.ts';
import { ipsOf } from '../attachment.ts';
import type { RulesetPart } from '../ruleset.ts';
import { RAW_ORDER_LAST, RAW_PREROUTING } from '../shared-chains.ts';

/** Interface name → check its packets. */
export const POD_LINKS = 'pod-links';
/** Interface name . MAC . address. */
export const POD_SOURCES = 'pod-sources';
/** Interface name . MAC: for link-local addresses, which a pod makes itself. */
export const POD_MACS = 'pod-macs';
export const HOST_PORTS = 'host-ports';
export const HOST_PORTS_ANY = 'host-ports-any';
export const HOST_PORT_HAIRPIN = 'host-port-hairpin';
/** Bridge networks with `ipMasq`: source . destination that stays as it is. */
export const BRIDGE_LOCAL = 'bridge-local';
/** Sources of bridge networks with `ipMasq`. */
export const BRIDGE_MASQUERADED = 'bridge-masqueraded';
/** In the family `bridge`: interface name . sender's MAC . sender's address of ARP. */
export const POD_ARP = 'pod-arp';

const CHECK_SOURCE = 'check-source';
const CHECK_SOURCE_V4 = 'check-source-v4';
const CHECK_SOURCE_V6 = 'check-source-v6';
const CHECK_ARP = 'check-arp';
const CHECK_DISCOVERY = 'check-neighbour-discovery';
const HOST_PORT_CHAIN = 'to-host-port';

export type PodRulesFamily = 'ip' | 'ip6' | 'bridge';
/** An element and the set it is for. */
export interface PlacedElement {
  readonly set: string;
  readonly element: SetElement;
}

const ether = { saddr: payload('link', 6, 6) } as const;
/** RFC 826; for Ethernet and IPv4. */
const arp = { sourceMac: payload('network', 8, 6), sourceIp: payload('network', 14, 4) } as const;
/** RFC 4861; after the header of IPv6 alone. */
const icmpv6 = { type: payload('transport', 0, 1), target: payload('transport', 8, 16) } as const;
const IPPROTO_ICMPV6 = 58;
const ICMPV6_TYPE = {
  routerAdvertisement: 134,
  neighbourAdvertisement: 136,
  redirect: 137,
} as const;
const ETHERTYPE = {
  ip: Uint8Array.of(0x08, 0x00),
  arp: Uint8Array.of(0x08, 0x06),
  ip6: Uint8Array.of(0x86, 0xdd),
} as const;
const POD_LINK_BYTES = new TextEncoder().encode(POD_LINK_PREFIX);
const LOOPBACK_V4 = cidr('127.0.0.0/8');
const MULTICAST: Readonly<Record<Family, Cidr>> = {
  4: cidr('224.0.0.0/4'),
  6: cidr('ff00::/8'),
};
const LINK_LOCAL_V6 = cidr('fe80::/10');
const UNSPECIFIED_V6 = cidr('::/128');

/** The part of one family's table, elements aside. */
export function podRulesPart(family: PodRulesFamily): RulesetPart {
  return family === 'bridge' ? bridgePart() : networkPart(family);
}

/** Everything that the attachment puts into one family's sets. */
export function podElements(attachment: Attachment, family: PodRulesFamily): PlacedElement[] {
  const elements: PlacedElement[] = [];
  if ((family === 'bridge') === isOnBridge(attachment))
    elements.push(...sourceElements(attachment, family));
  if (family !== 'bridge')
    elements.push(...hostPortElements(attachment, family), ...bridgeMasquerade(attachment, family));
  return elements;
}

/** The host ports of the attachment as its family's addresses can be reached at. */
export function hostPortsOf(attachment: Attachment, family: 'ip' | 'ip6') {
  const address = addressesOf(attachment).find((it) => tableFamilyOf(it) === family);
  if (address === undefined) return [];
  return (attachment.portMappings ?? [])
    .filter(({ hostIp }) => hostIp === undefined || tableFamilyOf(hostIp) === family)
    .map((mapping) => ({
      ...mapping,
      address,
      protocolNumber: IPPROTO[mapping.protocol satisfies PortProtocol],
      // "0.0.0.0" and "::" are how some runtimes say "any".
      hostIp: isUnspecified(mapping.hostIp) ? undefined : mapping.hostIp,
    }));
}

/** Addresses that the container has, whoever gave them. */
export function addressesOf(attachment: Attachment): readonly Ip[] {
  const given = attachment.bridge?.ips ?? attachment.chained?.ips;
  if (given === undefined) return ipsOf(attachment);
  return given.flatMap(({ address }) => parseIp(address.split('/')[0] ?? '') ?? []);
}

function networkPart(family: 'ip' | 'ip6'): RulesetPart {
  const address = family === 'ip' ? ('ipv4_addr' as const) : ('ipv6_addr' as const);
  const { saddr, daddr } = family === 'ip' ? ip : ip6;
  const check = verdictMap([meta.iifname], POD_LINKS);
  const isOwn = inSet([meta.iifname, ether.saddr, saddr], POD_SOURCES);
  const toThisMachine = equals(fibType('daddr'), hostU32(FIB_ADDRESS_TYPE.local));
  return {
    sets: [
      { set: POD_LINKS, key: ['ifname'], data: 'verdict' },
      { set: POD_SOURCES, key: ['ifname', 'ether_addr', address] },
      ...(family === 'ip6' ? [{ set: POD_MACS, key: ['ifname', 'ether_addr'] } as const] : []),
      {
        set: HOST_PORTS,
        key: [address, 'inet_proto', 'inet_service'],
        data: [address, 'inet_service'],
      },
      { set: HOST_PORTS_ANY, key: ['inet_proto', 'inet_service'], data: [address, 'inet_service'] },
      { set: HOST_PORT_HAIRPIN, key: [address, address], interval: true },
      { set: BRIDGE_LOCAL, key: [address, address], interval: true },
      { set: BRIDGE_MASQUERADED, key: [address] },
    ],
    chains: [
      {
        name: CHECK_SOURCE,
        rules: [
          // With route_localnet, which host ports need, nothing else keeps a pod from the machine's own loopback.
          ...(family === 'ip' ? [{ expressions: [...inPrefix(daddr, LOOPBACK_V4), drop] }] : []),
          { expressions: [...isOwn, returnToCaller] },
          // A routed pod has nobody beside it on its link whose link-local address it could take.
          ...(family === 'ip6' ? [LINK_LOCAL_V6, UNSPECIFIED_V6] : []).map((prefix) =>
            fromPrefix(prefix, [meta.iifname, ether.saddr]),
          ),
          { expressions: [counter(), drop], comment: 'not an address or MAC of this pod' },
        ],
      },
      {
        ...RAW_PREROUTING,
        rules: [
          // What there is to find in a map is dear, and nearly all packets of pods are as they should be.
          ...(family === 'ip' ? [[...inPrefix(daddr, LOOPBACK_V4), ...check]] : []),
          [...equals(meta.iifname, POD_LINK_BYTES), ...isOwn, accept],
          [...equals(meta.iifname, ifnameBytes(VXLAN_LINK)), accept],
          check,
        ].map((expressions) => ({ expressions, order: RAW_ORDER_LAST })),
      },
      {
        name: HOST_PORT_CHAIN,
        rules: [
          { expressions: translate(family, [daddr, meta.l4proto, th.dport], HOST_PORTS) },
          { expressions: translate(family, [meta.l4proto, th.dport], HOST_PORTS_ANY) },
        ],
      },
      ...(['prerouting', 'output'] as const).map((hook) => ({
        name: `host-ports-${hook}`,
        // After the services': a node port is a service's, whatever a pod asks for.
        base: { type: 'nat' as const, hook, priority: PRIORITY.dstnat + 1 },
        rules: [{ expressions: [...toThisMachine, jump(HOST_PORT_CHAIN)] }],
      })),
      {
        name: 'host-ports-postrouting',
        base: { type: 'nat', hook: 'postrouting', priority: PRIORITY.srcnat - 1 },
        rules: [
          {
            expressions: [
              ...anyBit(ct('status'), CT_STATUS.dnat),
              ...inSet([saddr, daddr], HOST_PORT_HAIRPIN),
              masquerade({ fullyRandom: true }),
            ],
            comment: 'the answer must come back by this machine',
          },
          { expressions: [...inPrefix(daddr, MULTICAST[family === 'ip' ? 4 : 6]), returnToCaller] },
          { expressions: [...inSet([saddr, daddr], BRIDGE_LOCAL), returnToCaller] },
          {
            expressions: [...inSet([saddr], BRIDGE_MASQUERADED), masquerade({ fullyRandom: true })],
            comment: 'bridge networks with ipMasq',
          },
        ],
      },
    ],
  };
}

function bridgePart(): RulesetPart {
  const { iifname } = meta;
  return {
    sets: [
      { set: POD_LINKS, key: ['ifname'], data: 'verdict' },
      { set: POD_MACS, key: ['ifname', 'ether_addr'] },
      { set: 'pod-sources-v4', key: ['ifname', 'ether_addr', 'ipv4_addr'] },
      { set: 'pod-sources-v6', key: ['ifname', 'ether_addr', 'ipv6_addr'] },
      { set: POD_ARP, key: ['ifname', 'ether_addr', 'ipv4_addr'] },
    ],
    chains: [
      {
        name: CHECK_SOURCE_V4,
        rules: [
          { expressions: [...inPrefix(ip.daddr, LOOPBACK_V4), drop] },
          { expressions: [...inSet([iifname, ether.saddr, ip.saddr], 'pod-sources-v4'), accept] },
          { expressions: [counter(), drop] },
        ],
      },
      {
        name: CHECK_DISCOVERY,
        rules: [
          // Whoever believed one of these would send what is for others, or all, to this container.
          ...(['routerAdvertisement', 'redirect'] as const).map((type) => ({
            expressions: [...isType(type), counter(), drop],
          })),
          {
            expressions: [
              ...isType('neighbourAdvertisement'),
              ...inSet([iifname, ether.saddr, icmpv6.target], 'pod-sources-v6'),
              returnToCaller,
            ],
          },
          { expressions: [...isType('neighbourAdvertisement'), counter(), drop] },
        ],
      },
      {
        name: CHECK_SOURCE_V6,
        rules: [
          {
            expressions: [
              ...equals(meta.l4proto, Uint8Array.of(IPPROTO_ICMPV6)),
              jump(CHECK_DISCOVERY),
            ],
          },
          { expressions: [...inSet([iifname, ether.saddr, ip6.saddr], 'pod-sources-v6'), accept] },
          fromPrefix(UNSPECIFIED_V6, [iifname, ether.saddr]),
          { expressions: [counter(), drop] },
        ],
      },
      {
        name: CHECK_ARP,
        rules: [
          { expressions: [...inSet([iifname, arp.sourceMac, arp.sourceIp], POD_ARP), accept] },
          // RFC 5227: a probe has no address yet.
          {
            expressions: [
              ...equals(arp.sourceIp, new Uint8Array(4)),
              ...inSet([iifname, arp.sourceMac], POD_MACS),
              accept,
            ],
          },
          { expressions: [counter(), drop] },
        ],
      },
      {
        name: CHECK_SOURCE,
        rules: [
          { expressions: [...equals(meta.protocol, ETHERTYPE.ip), jump(CHECK_SOURCE_V4)] },
          { expressions: [...equals(meta.protocol, ETHERTYPE.ip6), jump(CHECK_SOURCE_V6)] },
          { expressions: [...equals(meta.protocol, ETHERTYPE.arp), jump(CHECK_ARP)] },
          { expressions: [...inSet([iifname, ether.saddr], POD_MACS), accept] },
          { expressions: [counter(), drop], comment: 'not a MAC of this pod' },
        ],
      },
      {
        name: 'pod-sources',
        base: { type: 'filter', hook: 'prerouting', priority: PRIORITY.raw },
        rules: [{ expressions: verdictMap([iifname], POD_LINKS) }],
      },
    ],
  };
}

function isType(type: keyof typeof ICMPV6_TYPE) {
  return equals(icmpv6.type, Uint8Array.of(ICMPV6_TYPE[type]));
}

/** Neighbour discovery speaks from link-local addresses and, while it looks for duplicates, from none. */
function fromPrefix(
  prefix: Cidr,
  link: readonly Source[],
): RulesetPart['chains'][number]['rules'][number] {
  return {
    expressions: [...inPrefix(ip6.saddr, prefix), ...inSet(link, POD_MACS), returnToCaller],
  };
}

function translate(family: 'ip' | 'ip6', key: readonly Source[], map: string) {
  const { register } = loadConcat(key);
  return [
    ...mapTo(key, map, register),
    dnat(family, { address: register, port: register + (family === 'ip' ? 1 : 4) }),
  ];
}

function sourceElements(attachment: Attachment, family: PodRulesFamily): PlacedElement[] {
  const { mac, hostLink, bridge } = attachment;
  if (bridge?.options.macSpoofCheck === false || bridge?.options.disableContainerInterface === true)
    return [];
  // What another plugin made may have no end on this machine's side.
  if (hostLink === '') return [];
  const link = ifnameBytes(hostLink);
  const macBytes = macToBytes(mac);
  const key = (address: Ip) => ({ key: concat([link, macBytes, ipToBytes(address)]) });
  const addresses = addressesOf(attachment);
  const linkElement = { set: POD_LINKS, element: { key: link, verdict: goTo(CHECK_SOURCE) } };
  const macElement = { set: POD_MACS, element: { key: concat([link, macBytes]) } };
  if (family !== 'bridge')
    return [
      linkElement,
      ...(family === 'ip6' ? [macElement] : []),
      ...addresses
        .filter((it) => tableFamilyOf(it) === family)
        .map((it) => ({ set: POD_SOURCES, element: key(it) })),
    ];
  // Without an address plugin nobody knows the addresses; then the MAC is all there is to check.
  if (addresses.length === 0) return [];
  return [
    linkElement,
    macElement,
    { set: 'pod-sources-v6', element: key(linkLocalAddress(mac)) },
    ...addresses.flatMap((it) =>
      familyOf(it) === 4
        ? [
            { set: 'pod-sources-v4', element: key(it) },
            { set: POD_ARP, element: key(it) },
          ]
        : [{ set: 'pod-sources-v6', element: key(it) }],
    ),
  ];
}

function hostPortElements(attachment: Attachment, family: 'ip' | 'ip6'): PlacedElement[] {
  const ports = hostPortsOf(attachment, family);
  const first = ports[0];
  if (first === undefined) return [];
  return [
    ...ports.map(({ hostIp, protocolNumber, hostPort, containerPort, address }) => ({
      set: hostIp === undefined ? HOST_PORTS_ANY : HOST_PORTS,
      element: {
        key: concat([
          ...(hostIp === undefined ? [] : [ipToBytes(hostIp)]),
          protocolBytes(protocolNumber),
          portBytes(hostPort),
        ]),
        data: concat([ipToBytes(address), portBytes(containerPort)]),
      },
    })),
    ...hairpinSources(attachment, first.address).map((prefix) => {
      const from = prefixBounds(prefix);
      const to = ipToBytes(first.address);
      return {
        set: HOST_PORT_HAIRPIN,
        element: { key: concat([from.first, to]), keyEnd: concat([from.last, to]) },
      };
    }),
  ];
}

/**
 * Who sees another answer than it asked: the pod itself; on a bridge everybody there, because the bridge takes the
 * answer straight to them; and programs of this machine that ask 127.0.0.1.
 */
function hairpinSources(attachment: Attachment, pod: Ip): Cidr[] {
  const loopback = familyOf(pod) === 4 ? [LOOPBACK_V4] : [];
  const network = networksOf(attachment).find((it) => familyOf(it) === familyOf(pod));
  return [network ?? hostCidr(pod), ...loopback];
}

function bridgeMasquerade(attachment: Attachment, family: 'ip' | 'ip6'): PlacedElement[] {
  if (attachment.bridge?.options.ipMasq !== true) return [];
  const networks = networksOf(attachment).filter(
    (it) => familyOf(it) === (family === 'ip' ? 4 : 6),
  );
  return addressesOf(attachment)
    .filter((it) => tableFamilyOf(it) === family)
    .flatMap((address) => {
      const bytes = ipToBytes(address);
      return [
        { set: BRIDGE_MASQUERADED, element: { key: bytes } },
        ...networks.map((network) => {
          const to = prefixBounds(network);
          return {
            set: BRIDGE_LOCAL,
            element: { key: concat([bytes, to.first]), keyEnd: concat([bytes, to.last]) },
          };
        }),
      ];
    });
}

/** The networks that addresses on a bridge are in. */
function networksOf({ bridge, chained }: Attachment): Cidr[] {
  return (bridge?.ips ?? chained?.ips ?? []).flatMap(({ address }) => {
    const parts = splitCidr(address);
    return parts === undefined ? [] : [cidrOf(parts.address, parts.prefixLength)];
  });
}

function isUnspecified(address: Ip | undefined): boolean {
  return address === '0.0.0.0' || address === '::';
}

function isOnBridge({ bridge, onBridge }: Attachment): boolean {
  return bridge !== undefined || onBridge === true;
}
