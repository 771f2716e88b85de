/**
 * Traffic control of one network namespace: what limits the bandwidth of a link, and programs on what comes in by it.
 * Calls are synchronous and throw `KernelError`.
 */
import type { TokenBucket } from '#wire/rtnetlink/qdisc.ts';
import type { IfIndex } from '../network/port.ts';

export type { TokenBucket };

export interface TrafficControl extends Disposable {
  /** Shapes what leaves by the link; replaces whatever was there. */
  limit(link: IfIndex, bucket: TokenBucket): void;
  /** The limit of a link, as it was given. @returns undefined if there is none */
  limitOf(link: IfIndex): TokenBucket | undefined;
  /** Ends a limit. Ending what is gone succeeds. */
  unlimit(link: IfIndex): void;
  /** Lets everything that comes in by the link leave by another. Doing it again succeeds. */
  redirect(link: IfIndex, to: IfIndex): void;
  /** Ends it. Ending what is gone succeeds. */
  unredirect(link: IfIndex): void;
  /** Whether what comes in by the link is filtered. */
  isRedirected(link: IfIndex): boolean;
  /**
   * Runs an eBPF program on what comes in by the link, in the place of one before. It stays with the link, whoever ends.
   * Not for a link that is redirected.
   * @throws KernelError: EINVAL if the link was not given room for it (`LinkSetup.classified`)
   */
  classify(link: IfIndex, program: { readonly fd: number; readonly name: string }): void;
  /** Makes an intermediate functional block, up: a link through which others' input can be shaped. Or finds it. */
  createIfb(name: string, mtuBytes: number): IfIndex;
}
