/** A container's interface on the pod network, as the features of the agent see it. */
import type { Ip, Mac } from '#lib/ip.ts';
import type { AllocatedAddress } from './addresses.ts';

/** Which pod the runtime says the container is. */
export interface AttachmentPod {
  readonly namespace: string;
  /** As the runtime gave it: not necessarily a valid name of an object. */
  readonly name: string;
  readonly uid?: string;
  /** A kubelet made the pod; its object is not ours to write. */
  readonly kubelet: boolean;
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
  /** RFC 3339. */
  readonly createdAt: string;
}

/** The attachments of this node, complete ones only. */
export interface Attachments {
  list(): readonly Attachment[];
  /** Calls back after each change, until the returned function is called. */
  onChange(listener: () => void): () => void;
}

/** The attachment's addresses, IPv4 first. */
export function ipsOf(attachment: Attachment): readonly Ip[] {
  return attachment.addresses.map((it) => it.address);
}
