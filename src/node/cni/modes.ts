/**
 * The kinds of attachment behind one set of functions: routed, on a bridge, or another plugin's interface that we only
 * add to (`chained`).
 */
import { ENOENT, isErrno } from '#lib/errors.ts';
import { type Family, type Ip, parseIp, splitCidr } from '#lib/ip.ts';
import type { Link, NetworkStack, OpenNetworkStack } from '#linux/network/port.ts';
import type { TrafficControl } from '#linux/tc/port.ts';
import { CNI_ERROR, CniError } from '#wire/cni/error.ts';
import type { CniResult } from '#wire/cni/result.ts';
import { type Attachment, ipsOf, mayTakeFastPath } from '../attachment.ts';
import { checkBandwidth, limitBandwidth, unlimitBandwidth } from './bandwidth.ts';
import {
  bridgeResult,
  checkBridgeLink,
  createBridgeLink,
  type OnBridge,
  refillContainer,
  repairBridgeLink,
} from './bridge.ts';
import { removePoolSide, type SourceOf } from './bridge-pools.ts';
import {
  beginLink,
  changeMtu,
  checkLink,
  createLink,
  refillLink,
  removeLink,
  repairHostEnd,
} from './link.ts';
import type { LinkRemover } from './link-remover.ts';
import { type DnsSettings, planAttach, planDns, planResult } from './plan.ts';

export interface ModeParts {
  readonly host: NetworkStack;
  readonly openStack: OpenNetworkStack;
  /** Needed for attachments with a limit. */
  readonly tc?: TrafficControl;
  readonly hostSource?: (family: Family) => Ip | undefined;
  readonly dns: DnsSettings;
  /** Whether the host's end may get room for the fast path's program. Missing: it may not. */
  readonly isIngressFree?: (network: string) => boolean;
}

/**
 * Begins what {@link make} will do, as far as no packet can pass by it, while the event loop goes on.
 * @returns undefined if there is nothing to begin with
 */
export async function begin(parts: ModeParts, attachment: Attachment): Promise<Link | undefined> {
  if (isOnBridge(attachment) || attachment.chained !== undefined) return undefined;
  return beginLink(parts.host, planOf(parts, attachment));
}

/**
 * Makes the interface with all that belongs to it.
 * @param begun what {@link begin} has made
 * @throws KernelError or CniError; then call {@link unmake}
 */
export function make(parts: ModeParts, attachment: Attachment, begun?: Link): void {
  const { host, openStack } = parts;
  if (isOnBridge(attachment)) {
    removeLink(host, attachment);
    createBridgeLink(host, openStack, attachment, sourceOf(parts));
  } else if (attachment.chained === undefined) {
    const classified =
      mayTakeFastPath(attachment) && parts.isIngressFree?.(attachment.network) === true;
    createLink(host, openStack, attachment, { plan: planOf(parts, attachment), begun, classified });
  }
  if (attachment.chained !== undefined && attachment.portMappings !== undefined)
    allowLoopback(host, attachment);
  if (attachment.bandwidth !== undefined)
    limitBandwidth(host, requireTc(parts, attachment), attachment);
}

/** Removes it from the host's side. Removing what is gone succeeds. */
export function unmake(parts: ModeParts, attachment: Attachment): void {
  unlimitBandwidth(parts.host, parts.tc, attachment);
  removeRoutes(parts, attachment);
  if (attachment.chained === undefined) removeLink(parts.host, attachment);
}

/** Like {@link unmake}, together with others that are being removed. */
export async function unmakeTogether(
  parts: ModeParts,
  remover: LinkRemover,
  attachment: Attachment,
): Promise<void> {
  unlimitBandwidth(parts.host, parts.tc, attachment);
  removeRoutes(parts, attachment);
  if (attachment.chained === undefined) await remover.remove(attachment.hostLink);
}

/** Sets the host's side right again. @returns false if the link is gone */
export function repair(parts: ModeParts, attachment: Attachment): boolean {
  const { host } = parts;
  const isThere =
    attachment.chained !== undefined
      ? attachment.hostLink === '' || host.links.get(attachment.hostLink) !== undefined
      : isOnBridge(attachment)
        ? repairBridgeLink(host, attachment, sourceOf(parts))
        : repairHostEnd(host, attachment, planOf(parts, attachment));
  if (isThere && attachment.bandwidth !== undefined && parts.tc !== undefined)
    limitBandwidth(host, parts.tc, attachment);
  return isThere;
}

/** Whether the interface's MTU is the fabric's, and not somebody's who configured or made it. */
export function followsFabricMtu({ bridge, chained }: Attachment): boolean {
  if (chained !== undefined) return false;
  return bridge === undefined || (bridge.fromPools === true && bridge.options.mtuBytes === 0);
}

/**
 * Gives an interface the MTU that `attachment` says now.
 * @param wasBytes what it had
 * @throws KernelError; ENOENT if the container's namespace is gone
 */
export function resize(parts: ModeParts, attachment: Attachment, wasBytes: number): void {
  const { host, openStack } = parts;
  const plan = planOf(parts, attachment);
  const repairIt = () => void repair(parts, attachment);
  if (!isOnBridge(attachment)) {
    const refill = (pod: NetworkStack, link: Link) => refillLink(pod, link, plan);
    changeMtu(host, openStack, attachment, { wasBytes, refill, repair: repairIt });
    return;
  }
  const refill = (pod: NetworkStack) => refillContainer(pod, attachment);
  changeMtu(host, openStack, attachment, { wasBytes, refill, repair: repairIt });
}

/** @returns one sentence for each thing that is not as it was made; empty if all is well */
export function faultsOf(parts: ModeParts, attachment: Attachment): string[] {
  const { host, openStack, tc } = parts;
  const faults =
    attachment.chained !== undefined
      ? checkChained(openStack, attachment)
      : isOnBridge(attachment)
        ? checkBridgeLink(host, openStack, attachment, sourceOf(parts))
        : checkLink(host, openStack, attachment, planOf(parts, attachment));
  if (attachment.bandwidth !== undefined && tc !== undefined)
    faults.push(...checkBandwidth(host, tc, attachment));
  return faults;
}

/** The answer to ADD. */
export function resultOf(parts: ModeParts, attachment: Attachment): CniResult {
  if (attachment.chained !== undefined)
    return { ...attachment.chained, dns: { ...attachment.chained.dns, ...attachment.dns } };
  if (isOnBridge(attachment)) {
    const result = bridgeResult(parts.host, attachment);
    if (attachment.bridge.fromPools !== true) return result;
    return { ...result, dns: { ...planDns(attachment.pod.namespace, parts.dns), ...result.dns } };
  }
  return planResult(attachment, parts.dns);
}

/**
 * What the kernel says of an interface that a plugin before us has made.
 * @throws CniError 7 if there is no such interface
 */
export function observeChained(
  parts: ModeParts,
  attachment: Attachment,
  previous: CniResult,
): Attachment {
  const { host, openStack } = parts;
  using pod = openStack({ netns: attachment.netns });
  const link = pod.links.get(attachment.ifName);
  if (link === undefined)
    throw new CniError(
      CNI_ERROR.invalidConfig,
      `prevResult speaks of "${attachment.ifName}", which does not exist in the container`,
    );
  const hostEnd =
    link.kind === 'veth' && link.peerIndex !== undefined
      ? host.links.get(link.peerIndex)
      : undefined;
  const isPeer = hostEnd?.kind === 'veth' && hostEnd.peerIndex === link.index;
  const master =
    isPeer && hostEnd.master !== undefined ? host.links.get(hostEnd.master) : undefined;
  return {
    ...attachment,
    chained: previous,
    hostLink: isPeer ? hostEnd.name : '',
    mac: link.mac ?? attachment.mac,
    mtuBytes: link.mtuBytes,
    ...(master?.kind === 'bridge' ? { onBridge: true } : {}),
  };
}

function checkChained(openStack: OpenNetworkStack, attachment: Attachment): string[] {
  const where = `"${attachment.ifName}" in the container`;
  try {
    using pod = openStack({ netns: attachment.netns });
    const link = pod.links.get(attachment.ifName);
    if (link === undefined) return [`interface ${where} does not exist`];
    const addresses = new Set(pod.addresses.list({ link: link.index }).map((it) => it.address));
    return (attachment.chained?.ips ?? []).flatMap(({ address }) => {
      const bare = splitCidr(address)?.address ?? parseIp(address);
      return bare === undefined || addresses.has(bare)
        ? []
        : [`address ${address} is missing on ${where}`];
    });
  } catch (error) {
    if (!isErrno(error, ENOENT)) throw error;
    return [`network namespace "${attachment.netns}" does not exist`];
  }
}

/** For programs of this machine that ask a host port at 127.0.0.1. */
function allowLoopback(host: NetworkStack, attachment: Attachment): void {
  const link = host.links.get(attachment.hostLink);
  if (link === undefined) return;
  const by = link.master === undefined ? link : (host.links.get(link.master) ?? link);
  host.sysctl.set(`net/ipv4/conf/${by.name}/route_localnet`, '1');
}

function planOf(parts: ModeParts, attachment: Attachment) {
  return planAttach(attachment, sourceOf(parts));
}

function sourceOf(parts: ModeParts): SourceOf {
  return parts.hostSource ?? (() => undefined);
}

/** A pod's routes go with its link, except where they lead to a bridge. */
function removeRoutes({ host }: ModeParts, attachment: Attachment): void {
  const { bridge } = attachment;
  if (bridge?.fromPools === true) removePoolSide(host, bridge.options, ipsOf(attachment));
}

function isOnBridge(attachment: Attachment): attachment is OnBridge {
  return attachment.bridge !== undefined;
}

function requireTc({ tc }: ModeParts, { handle }: Attachment): TrafficControl {
  if (tc !== undefined) return tc;
  throw new Error(`Cannot limit the bandwidth of "${handle}": traffic control was not opened`);
}
