/** Packets that rules log to a group of ours. */
import type { LoggedPacket } from '#wire/nflog/codec.ts';

export interface NflogOptions {
  readonly group: number;
  readonly onPacket: (packet: LoggedPacket) => void;
  /** Packets were lost because they came faster than they were read. */
  readonly onLost: () => void;
}

/** Listens until disposed. @throws KernelError: EBUSY if another program has the group */
export type OpenNflog = (options: NflogOptions) => Disposable;
