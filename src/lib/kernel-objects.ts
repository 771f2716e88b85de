/**
 * Every name, number and priority under which Tulle owns something in the kernel.
 * `docs/kernel-objects.md` is the operator's page of this file; change both together.
 * What does not carry one of these is not ours and is never touched.
 */
import { ip, mac } from './ip.ts';

/** Prefix of the links we own for the whole node. */
export const LINK_PREFIX = 'tulle';
/** Prefix of the host end of a pod's veth: `tl` and 11 hex digits. IFNAMSIZ leaves 15. */
export const POD_LINK_PREFIX = 'tl';
/** The ifb through which the output of a pod with a limit goes: `tli` and 10 hex digits of its host link's name. */
export const POD_SHAPER_PREFIX = 'tli';
/** Group (`IFLA_GROUP`) that links are put into right before they are deleted together: "tl" and a number. */
export const DELETED_LINK_GROUP = 0x746c01;
/** The VXLAN device. */
export const VXLAN_LINK = 'tulle-vxlan';
/** IANA's VXLAN port (RFC 7348). */
export const VXLAN_PORT = 4789;
/** Our VXLAN network identifier; flannel uses 1, Calico 4096. */
export const VXLAN_VNI = 5390;
/** `rtm_protocol` of the routes we own; see `/etc/iproute2/rt_protos`, where 84 is free. */
export const ROUTE_PROTOCOL = 84;
/** Priority of policy rules that we own. */
export const RULE_PRIORITY = 8400;
/** Our table in each nftables family we use (`ip`, `ip6`). */
export const NFT_TABLE = 'tulle';
/** MAC of every host end of a pod's veth. The link is point to point, so it need not be unique. */
export const HOST_VETH_MAC = mac('ee:ee:ee:ee:ee:ee');
/** The pods' gateway: link local, the same in every pod. */
export const GATEWAY_V4 = ip('169.254.1.1');
export const GATEWAY_V6 = ip('fe80::1');
/** Where each node's DNS server answers beside the DNS service's address. */
export const DNS_LINK_LOCAL_V4 = ip('169.254.20.10');
/** Bit of `ct mark`: policy does not allow this connection any more. The other bits are not ours. */
export const CT_MARK_CUT = 0x0800_0000;
/** NFLOG group to which dropped (and sampled accepted) packets go with the rule that decided. */
export const NFLOG_GROUP = 5390;
/** The unix socket on which an agent tells of one pod's DNS queries. */
export const DNS_LOG_SOCKET = '/run/tulle/dns.sock';
