/**
 * The agent's CNI feature: attaches containers for their runtimes, and keeps what it attached in order.
 *
 * What another program breaks on the host's side of a pod is repaired on the kernel's own event; pods that vanish
 * without DEL are found by a sweep.
 */
import { type Clock, systemClock } from '#lib/clock.ts';
import type { Family, Ip } from '#lib/ip.ts';
import { ROUTE_PROTOCOL } from '#lib/kernel-objects.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { NetworkEvent, NetworkStack, OpenNetworkStack } from '#linux/network/port.ts';
import type { TrafficControl } from '#linux/tc/port.ts';
import type { AddressSource } from '../addresses.ts';
import { type Attachment, type Attachments, ipsOf, type PodRules } from '../attachment.ts';
import { Attacher, type AttachPoint } from './attacher.ts';
import { createCniHandler } from './handler.ts';
import { type InstallOptions, installCniPlugin } from './install.ts';
import { enableForwarding } from './link.ts';
import type { DnsSettings } from './plan.ts';
import { AttachmentRecords, DEFAULT_RECORDS_DIR } from './records.ts';
import { CniServer, DEFAULT_CNI_SOCKET } from './server.ts';

/** Two sweeps must agree, so a vanished pod is cleaned up after one to two of these. */
const SWEEP_INTERVAL_MS = 30_000;

export interface CniOptions {
  readonly host: NetworkStack;
  readonly openStack: OpenNetworkStack;
  readonly addresses: AddressSource;
  readonly families: readonly Family[];
  /** The MTU for new pods, as the fabric has it now. */
  readonly mtuBytes: () => number;
  readonly dns: DnsSettings;
  readonly log: Logger;
  /** Needed for pods with a limit of bandwidth. */
  readonly tc?: TrafficControl;
  /** Writes what pods need of rules. */
  readonly rules?: PodRules;
  readonly clock?: Clock;
  /** The address from which the host talks to its pods. */
  readonly hostSource?: (family: Family) => Ip | undefined;
  /** Whether the runtime still knows the container; undefined if it cannot be asked, or never knew it. */
  readonly containerExists?: (containerId: string) => Promise<boolean | undefined>;
  /** Called with a new pod's addresses, before its link is made. */
  readonly prepare?: (attachment: Attachment) => Promise<void>;
  readonly socketPath?: string;
  readonly recordsDir?: string;
  /** Where to put plugin and configuration; `false` leaves that to others. */
  readonly install?: InstallOptions | false;
  readonly failpoint?: (point: AttachPoint) => Promise<void>;
}

export interface Cni extends Attachments, AsyncDisposable {
  /** Handles of everything that may have an address: for the garbage collection of addresses. */
  handles(): readonly string[];
  /** Resolves when everything that an earlier agent left unfinished is undone. */
  undone(): Promise<void>;
}

/**
 * Recovers what an earlier agent left, then takes calls; plugin and configuration are installed last.
 * @throws UserError if the socket, the records or the files cannot be used
 */
export async function startCni(options: CniOptions): Promise<Cni> {
  const { host, log } = options;
  const clock = options.clock ?? systemClock;
  const socketPath = options.socketPath ?? DEFAULT_CNI_SOCKET;
  enableForwarding(host, options.families);
  const records = new AttachmentRecords(options.recordsDir ?? DEFAULT_RECORDS_DIR, log);
  const attacher = new Attacher({ ...options, records });
  const repairs = startRepairs(attacher, options);
  attacher.recover();
  const server = await CniServer.listen({
    path: socketPath,
    handler: createCniHandler(attacher, log),
    log,
  });
  if (options.install !== false) {
    const written = installCniPlugin({ socketPath, ...options.install });
    if (written.length > 0) log.info({ written }, 'installed the CNI plugin');
  }
  const sweeps = new SyncLoop(() => attacher.sweep(), {
    name: 'cni: sweep',
    log,
    clock,
    resyncMs: SWEEP_INTERVAL_MS,
  });
  sweeps.trigger();
  return {
    list: () => attacher.list(),
    onChange: (listener) => attacher.onChange(listener),
    handles: () => attacher.handles(),
    undone: () => attacher.undone(),
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await sweeps[Symbol.asyncDispose]();
      await repairs[Symbol.asyncDispose]();
      await attacher[Symbol.asyncDispose]();
    },
  };
}

/** Repairs pods whose host side another program has changed: only those, unless events were lost. */
function startRepairs(attacher: Attacher, options: CniOptions): AsyncDisposable {
  const { host, log, clock } = options;
  const broken = new Set<string>();
  let all = false;
  const loop = new SyncLoop(
    () => {
      const handles = new Set(broken);
      const everything = all;
      broken.clear();
      all = false;
      attacher.repair((attachment) => everything || handles.has(attachment.handle));
    },
    { name: 'cni: repair', log, ...(clock === undefined ? {} : { clock }) },
  );
  const unwatch = host.watch((event) => {
    if (event.type === 'overrun') all = true;
    else {
      const hit = attacher.list().find((it) => isBroken(event, it));
      if (hit === undefined) return;
      broken.add(hit.handle);
    }
    loop.trigger();
  });
  return {
    async [Symbol.asyncDispose]() {
      unwatch();
      await loop[Symbol.asyncDispose]();
    },
  };
}

/** Whether the event takes something from the host's side of the attachment. */
export function isBroken(event: NetworkEvent, attachment: Attachment): boolean {
  switch (event.type) {
    case 'route':
      return (
        event.deleted &&
        event.route.protocol === ROUTE_PROTOCOL &&
        ipsOf(attachment).some((it) => event.route.destination.startsWith(`${it}/`))
      );
    case 'neighbour':
      return (
        (event.deleted || !event.neighbour.permanent) &&
        ipsOf(attachment).includes(event.neighbour.address)
      );
    case 'link':
      return !event.deleted && event.link.name === attachment.hostLink && !event.link.up;
    default:
      return false;
  }
}
