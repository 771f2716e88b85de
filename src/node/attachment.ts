/** A container's interface on the pod network, as the features of the agent see it. */
import type { Ip, Mac } from '#lib/ip.ts';
import type { BridgeOptions } from '#wire/cni/bridge-options.ts';
import type { Bandwidth, PortMapping } from '#wire/cni/capabilities.ts';
import type { CniDns, CniIp, CniResult, CniRoute } from '#wire/cni/result.ts';
import type { AllocatedAddress } from './addresses.ts';

/** Which pod the runtime says the container is. */
export interface AttachmentPod {
  readonly namespace: string;
  /** As the runtime gave it: not necessarily a valid name of an object. */
  readonly name: string;
  readonly uid?: string;
  /** A kubelet made the pod; its object is not ours to write. */
  readonly kubelet: boolean;
  /** Its runtime speaks CRI, and knows the pod only some time after ADD. */
  readonly sandbox?: true;
}

/** An interface that is a port of a Linux bridge, not routed. */
export interface BridgeAttachment {
  readonly options: BridgeOptions;
  /** What the address plugin gave; empty for a pure layer 2 network. */
  readonly ips: readonly CniIp[];
  readonly routes: readonly CniRoute[];
  readonly dns: CniDns;
  /** The addresses come out of IPPools; the attachment has them too. */
  readonly fromPools?: true;
  /** How to give the addresses back; absent if no address plugin was asked. */
  readonly ipam?: {
    readonly type: string;
    readonly path: string;
    readonly stdin: string;
    readonly args: string;
  };
}

export interface Attachment {
  /** `<network>.<containerId>.<ifName>` */
  readonly handle: string;
  readonly network: string;
  readonly containerId: string;
  readonly ifName: string;
  /** Path of the pod's network namespace. */
  readonly netns: string;
  /** Name of the host's end of the veth. */
  readonly hostLink: string;
  readonly mac: Mac;
  readonly mtuBytes: number;
  readonly addresses: readonly AllocatedAddress[];
  readonly pod: AttachmentPod;
  /** Ports of the node that lead here. */
  readonly portMappings?: readonly PortMapping[];
  readonly bandwidth?: Bandwidth;
  /** More names for the container, of the runtime. */
  readonly aliases?: readonly string[];
  /** What the runtime says of DNS; each part of it wins over ours. */
  readonly dns?: CniDns;
  readonly bridge?: BridgeAttachment;
  /**
   * The interface was made by a plugin before us, whose result this is: it is not ours to make or remove, we only add
   * to it.
   */
  readonly chained?: CniResult;
  /** Another plugin's interface whose host end is a port of a bridge. */
  readonly onBridge?: boolean;
  /** RFC 3339. */
  readonly createdAt: string;
}

/** Others have something of their own on the way: a bridge, another plugin, a limit. */
export function mayTakeFastPath({ bridge, chained, onBridge, bandwidth }: Attachment): boolean {
  return (
    bridge === undefined && chained === undefined && onBridge !== true && bandwidth === undefined
  );
}

/** The attachments of this node, complete ones only. */
export interface Attachments {
  list(): readonly Attachment[];
  /** Calls back after each change, until the returned function is called. */
  onChange(listener: () => void): () => void;
}

/** How the rules of a pod get into the kernel; features do not know each other. */
export interface PodRules {
  /** Why rules cannot be written now, or undefined. */
  readonly problem: string | undefined;
  /** What the attachments of an earlier agent need. */
  start(attachments: readonly Attachment[]): void;
  /** Prepares the rules of a new attachment: in force after {@link commit}, or with what others commit before. */
  stage(attachment: Attachment): void;
  /** The rules of an attachment that was staged are in force when it returns. @throws if the kernel refuses */
  commit(attachment: Attachment): void;
  /** Resolves when they are gone, together with others'. Removing what is gone succeeds. */
  remove(attachment: Attachment): Promise<void>;
}

/** The attachment's addresses, IPv4 first. */
export function ipsOf(attachment: Attachment): readonly Ip[] {
  return attachment.addresses.map((it) => it.address);
}
