/**
 * The agent's CNI feature: attaches containers for their runtimes, and keeps what it attached in order.
 *
 * What another program breaks on the host's side of a pod is repaired on the kernel's own event; pods that vanish
 * without DEL are found by a sweep.
 */
import { type Clock, systemClock } from '#lib/clock.ts';
import type { Family, Ip } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { Lull } from '#lib/lull.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import type { NetworkStack, OpenNetworkStack } from '#linux/network/port.ts';
import type { TrafficControl } from '#linux/tc/port.ts';
import type { AddressSource } from '../addresses.ts';
import type { Attachment, Attachments, PodRules } from '../attachment.ts';
import { Attacher, type AttachPoint } from './attacher.ts';
import { createCniHandler } from './handler.ts';
import { keepForwarding } from './host-settings.ts';
import { type InstallOptions, installCniPlugin } from './install.ts';
import { isIngressFree } from './network-lists.ts';
import type { DnsSettings } from './plan.ts';
import { AttachmentRecords, DEFAULT_RECORDS_DIR } from './records.ts';
import { startRepairs } from './repairs.ts';
import { CniServer, DEFAULT_CNI_SOCKET } from './server.ts';

/** Two sweeps must agree on a vanished pod; the second comes sooner. */
const SWEEP_INTERVAL_MS = 30_000;
/** Long enough for a runtime that is just being started or removes the pod itself. */
const SECOND_LOOK_MS = 10_000;

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
  /** Is told of calls; when it says so, what nobody waits for is done. */
  readonly lull?: Lull;
  /** The address from which the host talks to its pods. */
  readonly hostSource?: (family: Family) => Ip | undefined;
  /** Whether a kubelet keeps this node: whose pods those of Kubernetes runtimes are. Missing: yes. */
  readonly isBesideKubelet?: () => boolean;
  /** Whether the runtime still knows the container; undefined if that cannot be told. */
  readonly containerExists?: (attachment: Attachment) => Promise<boolean | undefined>;
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
  /** Gives the pods that there are the MTU that new ones get now. */
  followMtu(): void;
}

/**
 * Recovers what an earlier agent left, then takes calls; plugin and configuration are installed last.
 * @throws UserError if the socket, the records or the files cannot be used
 */
export async function startCni(options: CniOptions): Promise<Cni> {
  const { log } = options;
  const clock = options.clock ?? systemClock;
  const socketPath = options.socketPath ?? DEFAULT_CNI_SOCKET;
  await using cleanup = new AsyncDisposableStack();
  cleanup.use(keepForwarding(options, options.families));
  const records = new AttachmentRecords(options.recordsDir ?? DEFAULT_RECORDS_DIR, log);
  const lull = options.lull ?? new Lull(clock);
  const confDir = options.install === false ? undefined : options.install?.confDir;
  const attacher = new Attacher({
    ...{ ...options, records, lull },
    isIngressFree: (network) => isIngressFree(network, confDir),
  });
  cleanup.use(attacher);
  attacher.recover();
  attacher.followMtu();
  cleanup.use(startRepairs(attacher, options));
  const server = await CniServer.listen({
    path: socketPath,
    handler: createCniHandler(attacher, log),
    log,
    lull,
  });
  if (options.install !== false) {
    const written = installCniPlugin({ socketPath, ...options.install });
    if (written.length > 0) log.info({ written }, 'installed the CNI plugin');
  }
  let cancelSecondLook = () => {};
  const sweep = async () => {
    if (!(await attacher.sweep())) return;
    cancelSecondLook();
    cancelSecondLook = clock.schedule(SECOND_LOOK_MS, () => sweeps.trigger());
  };
  const sweeps = new SyncLoop(sweep, {
    name: 'cni: sweep',
    log,
    clock,
    resyncMs: SWEEP_INTERVAL_MS,
  });
  sweeps.trigger();
  const rest = cleanup.move();
  return {
    list: () => attacher.list(),
    onChange: (listener) => attacher.onChange(listener),
    handles: () => attacher.handles(),
    undone: () => attacher.undone(),
    followMtu: () => attacher.followMtu(),
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      await sweeps[Symbol.asyncDispose]();
      cancelSecondLook();
      await rest.disposeAsync();
    },
  };
}
