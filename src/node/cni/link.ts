/** Makes, checks, repairs and removes an attachment's veth, by its plan. Synchronous, as netlink is. */
import { statfsSync, statSync } from 'node:fs';
import { EEXIST, ENOENT, isErrno } from '#lib/errors.ts';
import type { Family, Ip } from '#lib/ip.ts';
import { ROUTE_PROTOCOL } from '#lib/kernel-objects.ts';
import {
  type IfIndex,
  type Link,
  type LinkSetup,
  LOOPBACK_INDEX,
  type NetworkStack,
  type OpenNetworkStack,
} from '#linux/network/port.ts';
import type { Attachment } from '../attachment.ts';
import type { AttachPlan, EndPlan } from './plan.ts';

/** `include/uapi/linux/magic.h` */
const NSFS_MAGIC = 0x6e736673;

/**
 * Makes the whole of it. What was there under the host link's name is removed first: it is ours by its name, and of
 * an earlier life of the container.
 * @param how.begun what {@link beginLink} has made of it
 * @param how.classified the host's end gets room for programs
 * @throws KernelError; then the caller calls {@link removeLink}
 */
export function createLink(
  host: NetworkStack,
  openStack: OpenNetworkStack,
  attachment: Attachment,
  how: { plan: AttachPlan; begun: Link | undefined; classified: boolean },
): void {
  const { plan, begun, classified } = how;
  const hostEnd = begun ?? createVeth(host, attachment, plan);
  const { peerIndex } = hostEnd;
  if (peerIndex === undefined)
    throw new Error(
      `Cannot find "${attachment.ifName}" in "${attachment.netns}" right after it was made`,
    );
  using pod = openStack({ netns: attachment.netns });
  // The host's end is complete before the pod can send its first packet.
  writeSysctls(host, plan.host);
  const { ipv4 } = plan.host;
  host.configure([
    { link: hostEnd.index, classified, ...(ipv4 && { ipv4 }), up: true, ...contentOf(plan.host) },
  ]);
  writeSysctls(pod, plan.pod);
  pod.configure([
    { link: LOOPBACK_INDEX, up: true },
    { link: peerIndex, up: true, ...contentOf(plan.pod) },
  ]);
}

/**
 * Makes the two ends, down, while the event loop goes on.
 * @returns undefined if something has a name already, which {@link createLink} sees to
 * @throws KernelError
 */
export async function beginLink(host: NetworkStack, plan: AttachPlan): Promise<Link | undefined> {
  try {
    return await host.links.createOnThread(plan.link);
  } catch (error) {
    if (!isErrno(error, EEXIST)) throw error;
    return undefined;
  }
}

/** What has the name already is found by the kernel's refusal: in most cases nothing has. */
function createVeth(host: NetworkStack, attachment: Attachment, plan: AttachPlan): Link {
  try {
    return host.links.create(plan.link);
  } catch (error) {
    if (!isErrno(error, EEXIST)) throw error;
    removeLink(host, attachment);
    return host.links.create(plan.link);
  }
}

/** Removes it, from the host's side: with one end of a veth goes the other. Removing what is gone succeeds. */
export function removeLink(host: NetworkStack, attachment: Attachment): void {
  const link = host.links.get(attachment.hostLink);
  if (link !== undefined) host.links.delete(link.index);
}

/**
 * Sets the host's side right again; the pod's side is the pod's own.
 * @returns false if the link is gone
 */
export function repairHostEnd(
  host: NetworkStack,
  attachment: Attachment,
  plan: AttachPlan,
): boolean {
  const link = host.links.get(attachment.hostLink);
  if (link === undefined) return false;
  setSysctls(host, plan.host, attachment.hostLink);
  const { mac, mtuBytes } = plan.link;
  if (link.mac !== mac || link.mtuBytes !== mtuBytes)
    host.links.set(link.index, {
      ...(mac === undefined ? {} : { mac }),
      ...(mtuBytes === undefined ? {} : { mtuBytes }),
    });
  host.configure([{ link: link.index, ...(link.up ? {} : { up: true }), ...contentOf(plan.host) }]);
  return true;
}

/**
 * Changes the MTU of a living pod: of both ends, so that routes, TCP's segments and what the pod reads of its interface all
 * follow. First the end that shall send less, so that nothing is sent that the other end does not take any more.
 *
 * IPv6 leaves an interface whose MTU falls below 1280, and does not come back by itself; so the pod's end is filled again.
 * A pod that has given its interface another MTU keeps it.
 * @param how.wasBytes the MTU that the pod's end was given before
 * @param how.refill fills the pod's end again
 * @param how.repair sets the host's side right
 * @throws KernelError; ENOENT if the pod's namespace is gone
 */
export function changeMtu(
  host: NetworkStack,
  openStack: OpenNetworkStack,
  attachment: Attachment,
  how: { wasBytes: number; refill: (pod: NetworkStack, link: Link) => void; repair: () => void },
): void {
  const { wasBytes } = how;
  const { hostLink, ifName, mtuBytes, netns } = attachment;
  using pod = openStack({ netns });
  const setHost = () => {
    const link = host.links.get(hostLink);
    if (link !== undefined && link.mtuBytes !== mtuBytes) host.links.set(link.index, { mtuBytes });
  };
  const setPod = () => {
    const link = pod.links.get(ifName);
    if (link === undefined || link.mtuBytes !== wasBytes) return;
    pod.links.set(link.index, { mtuBytes });
    if (mtuBytes > wasBytes) how.refill(pod, link);
  };
  for (const set of mtuBytes < wasBytes ? [setPod, setHost] : [setHost, setPod]) set();
  // The host's end has lost its IPv6 too.
  if (mtuBytes > wasBytes) how.repair();
}

/** Gives a pod's end its addresses, neighbours and routes again. */
export function refillLink(pod: NetworkStack, link: Link, plan: AttachPlan): void {
  pod.configure([{ link: link.index, ...contentOf(plan.pod) }]);
}

/** @returns one sentence for each thing that is not as it was made; empty if all is well */
export function checkLink(
  host: NetworkStack,
  openStack: OpenNetworkStack,
  attachment: Attachment,
  plan: AttachPlan,
): string[] {
  const link = host.links.get(attachment.hostLink);
  if (link === undefined) return [`host link "${attachment.hostLink}" does not exist`];
  const faults: string[] = [];
  if (!link.up) faults.push(`host link "${attachment.hostLink}" is down`);
  faults.push(...missingOf(host, link.index, plan.host, `"${attachment.hostLink}"`));
  try {
    using pod = openStack({ netns: attachment.netns });
    faults.push(...checkPodEnd(pod, attachment, plan));
  } catch (error) {
    if (!isErrno(error, ENOENT)) throw error;
    faults.push(`network namespace "${attachment.netns}" does not exist`);
  }
  return faults;
}

/**
 * Names a namespace: equal for two paths of the same one.
 * @returns undefined if there is no namespace at the path: a path whose mount is gone is an ordinary file
 */
export function netnsIdentity(path: string): string | undefined {
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined || statfsSync(path).type !== NSFS_MAGIC) return undefined;
  return `${stat.dev}:${stat.ino}`;
}

function checkPodEnd(pod: NetworkStack, attachment: Attachment, plan: AttachPlan): string[] {
  const where = `"${attachment.ifName}" in the container`;
  const link = pod.links.get(attachment.ifName);
  if (link === undefined) return [`interface ${where} does not exist`];
  const faults: string[] = [];
  if (!link.up) faults.push(`interface ${where} is down`);
  if (link.mac !== attachment.mac)
    faults.push(`interface ${where} has MAC ${link.mac ?? 'none'}, not ${attachment.mac}`);
  return [...faults, ...missingOf(pod, link.index, plan.pod, where)];
}

/** For a new link: reading first would wait for the kernel's lock of all links once more for each. */
function writeSysctls(stack: NetworkStack, end: EndPlan): void {
  for (const [name, value] of end.sysctls) stack.sysctl.set(name, value);
}

function setSysctls(stack: NetworkStack, { ipv4 = {}, sysctls }: EndPlan, link: string): void {
  const ofIpv4 = Object.entries(ipv4).map(
    ([name, value]) => [`net/ipv4/conf/${link}/${name}`, String(value)] as const,
  );
  for (const [name, value] of [...ofIpv4, ...sysctls])
    if (stack.sysctl.get(name) !== value) stack.sysctl.set(name, value);
}

function contentOf({ addresses, neighbours, routes }: EndPlan): Omit<LinkSetup, 'link'> {
  return { addresses, neighbours, routes };
}

function missingOf(stack: NetworkStack, link: IfIndex, end: EndPlan, where: string): string[] {
  const addresses = new Set<Ip>(stack.addresses.list({ link }).map((it) => it.address));
  const routes = stack.routes.list({ protocol: ROUTE_PROTOCOL }).filter((it) => it.link === link);
  return [
    ...end.addresses
      .filter((it) => !addresses.has(it.address))
      .map((it) => `address ${it.address} is missing on ${where}`),
    ...end.routes
      .filter(
        (it) => !routes.some((r) => r.destination === it.destination && r.gateway === it.gateway),
      )
      .map((it) => `route ${it.destination} is missing on ${where}`),
  ];
}

/**
 * Lets the host forward between pods and the world.
 *
 * With IPv6 forwarding on, an interface stops taking router advertisements unless it says 2, and a host that has its
 * default route from one would lose it; so interfaces that take them are told to go on.
 * @returns the settings that were otherwise
 */
export function enableForwarding(
  host: NetworkStack,
  families: readonly Family[],
): readonly string[] {
  const changed: string[] = [];
  const set = (name: string, value: string) => {
    const now = host.sysctl.get(name);
    if (now === undefined || now === value) return;
    host.sysctl.set(name, value);
    changed.push(name);
  };
  if (families.includes(4)) set('net/ipv4/ip_forward', '1');
  // Where it is on already there is nothing to lose, and links that came later never took any.
  if (!families.includes(6) || host.sysctl.get('net/ipv6/conf/all/forwarding') === '1')
    return changed;
  for (const link of host.links.list()) {
    const name = `net/ipv6/conf/${link.name}/accept_ra`;
    if (host.sysctl.get(name) === '1') set(name, '2');
  }
  set('net/ipv6/conf/all/forwarding', '1');
  return changed;
}
