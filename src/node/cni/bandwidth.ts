/**
 * Limits of a pod's bandwidth.
 *
 * ```text
 *   world ─► tl… ─ tbf ─► eth0           towards the pod: a token bucket where the host's end sends
 *   eth0  ─► tl… ─ ingress ─► tli… ─ tbf ─► world      from the pod: through a block, so that it can be shaped
 * ```
 */
import { createHash } from 'node:crypto';
import { POD_SHAPER_PREFIX } from '#lib/kernel-objects.ts';
import type { NetworkStack } from '#linux/network/port.ts';
import type { TokenBucket, TrafficControl } from '#linux/tc/port.ts';
import type { Attachment } from '../attachment.ts';

const BITS_PER_BYTE = 8;
/** A bucket must hold the largest packet with its header, and one that is segmented should not wait for each part. */
const MIN_BURST_BYTES = 65_536;
/** Without a burst a pod may send at line speed for as long. */
const DEFAULT_BURST_SECONDS = 0.05;
/** How long a packet may wait before the queue is full; as the reference plugin has it. */
const MAX_DELAY_SECONDS = 0.025;
const U32_MAX = 0xffffffff;

export interface BandwidthPlan {
  readonly ingress: TokenBucket | undefined;
  readonly egress: TokenBucket | undefined;
}

/** What is to be limited, in the units of the kernel. Pure. */
export function planBandwidth({ bandwidth }: Pick<Attachment, 'bandwidth'>): BandwidthPlan {
  return {
    ingress: bucketOf(bandwidth?.ingressRate, bandwidth?.ingressBurst),
    egress: bucketOf(bandwidth?.egressRate, bandwidth?.egressBurst),
  };
}

/** The block's name, always the same for a host link. */
export function shaperName(hostLink: string): string {
  return `${POD_SHAPER_PREFIX}${createHash('sha256').update(hostLink).digest('hex').slice(0, 10)}`;
}

/** Sets the limits of an attachment whose host link is there. Safe to repeat. @throws KernelError */
export function limitBandwidth(
  host: NetworkStack,
  tc: TrafficControl,
  attachment: Attachment,
): void {
  const { ingress, egress } = planBandwidth(attachment);
  if (ingress === undefined && egress === undefined) return;
  const link = host.links.get(attachment.hostLink);
  if (link === undefined)
    throw new Error(
      `Cannot limit the bandwidth of "${attachment.handle}": it has no link "${attachment.hostLink}" on this machine`,
    );
  if (ingress !== undefined && !isSame(tc.limitOf(link.index), ingress))
    tc.limit(link.index, ingress);
  if (egress === undefined) return;
  const name = shaperName(attachment.hostLink);
  const isNew = host.links.get(name) === undefined;
  const block = tc.createIfb(name, link.mtuBytes);
  if (!isSame(tc.limitOf(block), egress)) tc.limit(block, egress);
  // A redirection to a block that was deleted leads nowhere.
  if (isNew || !tc.isRedirected(link.index)) tc.redirect(link.index, block);
}

/** Takes the limits away; what is gone already is no error. */
export function unlimitBandwidth(
  host: NetworkStack,
  tc: TrafficControl | undefined,
  attachment: Attachment,
): void {
  if (attachment.bandwidth === undefined) return;
  const link = host.links.get(attachment.hostLink);
  if (link !== undefined) {
    tc?.unlimit(link.index);
    tc?.unredirect(link.index);
  }
  const block = host.links.get(shaperName(attachment.hostLink));
  if (block !== undefined) host.links.delete(block.index);
}

/** @returns one sentence for each limit that is not as it was made */
export function checkBandwidth(
  host: NetworkStack,
  tc: TrafficControl,
  attachment: Attachment,
): string[] {
  const { ingress, egress } = planBandwidth(attachment);
  const link = host.links.get(attachment.hostLink);
  if (link === undefined) return [];
  const faults: string[] = [];
  if (ingress !== undefined && !isSame(tc.limitOf(link.index), ingress))
    faults.push(`the limit of what the pod receives is missing on "${attachment.hostLink}"`);
  if (egress === undefined) return faults;
  const block = host.links.get(shaperName(attachment.hostLink));
  if (
    block === undefined ||
    !isSame(tc.limitOf(block.index), egress) ||
    !tc.isRedirected(link.index)
  )
    faults.push(`the limit of what the pod sends is missing on "${attachment.hostLink}"`);
  return faults;
}

function bucketOf(rateBits = 0, burstBits = 0): TokenBucket | undefined {
  if (rateBits === 0) return undefined;
  const rateBytesPerSecond = Math.max(1, Math.round(rateBits / BITS_PER_BYTE));
  const asked =
    burstBits > 0 ? burstBits / BITS_PER_BYTE : rateBytesPerSecond * DEFAULT_BURST_SECONDS;
  const burstBytes = Math.min(U32_MAX, Math.max(MIN_BURST_BYTES, Math.round(asked)));
  const waiting = Math.round(rateBytesPerSecond * MAX_DELAY_SECONDS);
  return { rateBytesPerSecond, burstBytes, limitBytes: Math.min(U32_MAX, burstBytes + waiting) };
}

/** The kernel rounds the burst, which it keeps as time. */
function isSame(seen: TokenBucket | undefined, wanted: TokenBucket): boolean {
  return (
    seen?.rateBytesPerSecond === wanted.rateBytesPerSecond && seen.limitBytes === wanted.limitBytes
  );
}
