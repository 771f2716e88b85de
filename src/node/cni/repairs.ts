/**
 * Keeps the host's side of every pod as it was made: by the kernel's own events, and by a look at all of them from time to
 * time for events that were lost. Settings without events wait for that look.
 */
import type { Clock } from '#lib/clock.ts';
import { type Family, familyOf, type Ip } from '#lib/ip.ts';
import { GATEWAY_V6, HOST_VETH_MAC, ROUTE_PROTOCOL } from '#lib/kernel-objects.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { NetworkEvent, NetworkStack } from '#linux/network/port.ts';
import { type Attachment, ipsOf } from '../attachment.ts';
import type { Attacher } from './attacher.ts';
import { portMtuOf } from './bridge.ts';
import { gatewayName } from './bridge-vlans.ts';

/** Backstop for lost events, and for settings that the kernel does not tell of. */
const RESYNC_MS = 30_000;
/** Pods looked at in one turn of the event loop, so that DNS is answered meanwhile. */
const PODS_PER_TURN = 10;

interface RepairOptions {
  readonly host: NetworkStack;
  readonly log: Logger;
  readonly clock?: Clock;
  /** The address from which the host talks to its pods: their routes name it. */
  readonly hostSource?: (family: Family) => Ip | undefined;
}

export function startRepairs(attacher: Attacher, options: RepairOptions): AsyncDisposable {
  const { host, log, clock } = options;
  const broken = new Set<string>();
  const index = new AttachmentIndex();
  const loop = new SyncLoop(
    async () => {
      // Nobody named one: events were lost, or it is time to look.
      const chosen = broken.size === 0 ? attacher.list().map((it) => it.handle) : [...broken];
      broken.clear();
      for (let from = 0; from < chosen.length; from += PODS_PER_TURN) {
        const some = new Set(chosen.slice(from, from + PODS_PER_TURN));
        attacher.repair((attachment) => some.has(attachment.handle));
        await new Promise((resolve) => setImmediate(resolve));
      }
    },
    { name: 'cni: repair', log, resyncMs: RESYNC_MS, ...(clock === undefined ? {} : { clock }) },
  );
  for (const attachment of attacher.list()) index.put(attachment);
  const unwatchList = attacher.onEach((attachment, isComplete) => {
    if (isComplete) index.put(attachment);
    else index.remove(attachment.handle);
  });
  const unwatch = host.watch((event) => {
    if (event.type === 'overrun' || isHostSource(event, options)) {
      broken.clear();
      loop.trigger();
      return;
    }
    const concerned = concernedBy(event, index, host);
    if (concerned !== undefined && isBroken(event, concerned)) broken.add(concerned.handle);
    for (const it of onBridgeOf(event, index, host))
      if (isBridgeBroken(event, it)) broken.add(it.handle);
    if (broken.size > 0) loop.trigger();
  });
  loop.trigger();
  return {
    async [Symbol.asyncDispose]() {
      unwatch();
      unwatchList();
      await loop[Symbol.asyncDispose]();
    },
  };
}

/**
 * Whether the host's own address has come back. When it went, the kernel took along every IPv4 route that names it, and the
 * name out of every IPv6 route, and said nothing of them.
 */
function isHostSource(event: NetworkEvent, { hostSource }: RepairOptions): boolean {
  if (event.type !== 'address' || event.deleted) return false;
  const { address } = event.address;
  return hostSource?.(familyOf(address)) === address;
}

/** Events of other features come by the thousand; each costs one look into a table. */
class AttachmentIndex {
  readonly #byHandle = new Map<string, Attachment>();
  readonly byIp = new Map<Ip, Attachment>();
  readonly byLink = new Map<string, Attachment>();
  /** By name of the bridge, and of the gateway of a VLAN there; then by handle. */
  readonly byBridge = new Map<string, Map<string, Attachment>>();

  put(attachment: Attachment): void {
    const { handle, hostLink } = attachment;
    this.remove(handle);
    this.#byHandle.set(handle, attachment);
    for (const ip of ipsOf(attachment)) this.byIp.set(ip, attachment);
    if (hostLink !== '') this.byLink.set(hostLink, attachment);
    for (const name of bridgesOf(attachment))
      this.byBridge.set(
        name,
        (this.byBridge.get(name) ?? new Map<string, Attachment>()).set(handle, attachment),
      );
  }

  remove(handle: string): void {
    const known = this.#byHandle.get(handle);
    if (known === undefined) return;
    this.#byHandle.delete(handle);
    // An address may be another's by now.
    for (const ip of ipsOf(known)) if (this.byIp.get(ip) === known) this.byIp.delete(ip);
    if (this.byLink.get(known.hostLink) === known) this.byLink.delete(known.hostLink);
    for (const name of bridgesOf(known)) {
      const there = this.byBridge.get(name);
      there?.delete(handle);
      if (there?.size === 0) this.byBridge.delete(name);
    }
  }
}

function bridgesOf({ bridge }: Attachment): Set<string> {
  return new Set(bridge === undefined ? [] : [bridge.options.bridge, gatewayName(bridge.options)]);
}

/** Whether the event takes something from a link that containers of a bridge share. */
function isBridgeBroken(event: NetworkEvent, { bridge }: Attachment): boolean {
  if (event.type === 'address') return event.deleted;
  if (event.type !== 'link' || bridge === undefined) return false;
  const { link, deleted } = event;
  const { promiscMode, vlans } = bridge.options;
  if (deleted || !link.up) return true;
  if (link.kind !== 'bridge') return false;
  return (
    (promiscMode && link.promiscuous !== true) ||
    (vlans !== undefined && link.vlanFiltering === false)
  );
}

/** The attachments of the bridge that the event speaks of. */
function onBridgeOf(
  event: NetworkEvent,
  { byBridge }: AttachmentIndex,
  host: NetworkStack,
): Iterable<Attachment> {
  if (byBridge.size === 0) return [];
  if (event.type === 'link') return byBridge.get(event.link.name)?.values() ?? [];
  if (event.type !== 'address') return [];
  return byBridge.get(host.links.get(event.address.link)?.name ?? '')?.values() ?? [];
}

/** Whose host side the event speaks of, if anybody's. */
function concernedBy(
  event: NetworkEvent,
  { byIp, byLink }: AttachmentIndex,
  host: NetworkStack,
): Attachment | undefined {
  const ofLink = (index: number) => byLink.get(host.links.get(index)?.name ?? '');
  switch (event.type) {
    case 'route':
      return byIp.get(event.route.destination.split('/')[0] as Ip);
    case 'neighbour':
      return byIp.get(event.neighbour.address);
    case 'link':
      return byLink.get(event.link.name);
    case 'address':
      return event.address.address === GATEWAY_V6 ? ofLink(event.address.link) : undefined;
    case 'setting':
      return typeof event.link === 'number' ? ofLink(event.link) : undefined;
    default:
      return undefined;
  }
}

/** Whether the event takes something from the host's side of the attachment. */
export function isBroken(event: NetworkEvent, attachment: Attachment): boolean {
  switch (event.type) {
    case 'route': {
      const { route, deleted } = event;
      if (!ipsOf(attachment).some((it) => route.destination.startsWith(`${it}/`))) return false;
      // One that is not ours may stand where ours stood; of that the kernel says no more.
      return deleted === (route.protocol === ROUTE_PROTOCOL);
    }
    case 'neighbour': {
      const { neighbour, deleted } = event;
      if (!ipsOf(attachment).includes(neighbour.address)) return false;
      return deleted || !neighbour.permanent || neighbour.mac !== attachment.mac;
    }
    case 'link':
      return event.link.name === attachment.hostLink && isLinkBroken(event, attachment);
    case 'address':
      return event.deleted;
    case 'setting':
      // All three are 1 on a pod's link.
      return attachment.bridge === undefined && event.value !== 1 && !isProxyNdp(event);
    default:
      return false;
  }
}

function isLinkBroken(
  { link, deleted, isNew }: Extract<NetworkEvent, { type: 'link' }>,
  attachment: Attachment,
): boolean {
  // As every link is, it was made down; who made it under this name has gone on with it since.
  if (isNew === true) return false;
  if (deleted || !link.up) return true;
  if (attachment.bridge !== undefined) {
    const { options } = attachment.bridge;
    const mtuBytes = portMtuOf({ ...attachment, bridge: attachment.bridge });
    const { bridgePort } = link;
    return (
      link.master === undefined ||
      (mtuBytes !== undefined && link.mtuBytes !== mtuBytes) ||
      (bridgePort !== undefined &&
        (bridgePort.hairpin !== options.hairpinMode ||
          bridgePort.isolated !== options.portIsolation))
    );
  }
  if (attachment.chained !== undefined) return false;
  return link.mtuBytes !== attachment.mtuBytes || link.mac !== HOST_VETH_MAC;
}

/** Which we do not use. */
function isProxyNdp({ family, setting }: Extract<NetworkEvent, { type: 'setting' }>): boolean {
  return family === 6 && setting === 'proxy_neigh';
}
