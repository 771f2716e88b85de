/** Traffic control in memory. Links are numbers; it does not ask whether they exist, but refuses those of two lists. */
import { EINVAL, ENODEV, KernelError } from '#lib/errors.ts';
import type { IfIndex } from '../network/port.ts';
import type { TokenBucket, TrafficControl } from './port.ts';

const FIRST_IFB: IfIndex = 1000;

export class FakeTrafficControl implements TrafficControl {
  readonly limits = new Map<IfIndex, TokenBucket>();
  readonly redirects = new Map<IfIndex, IfIndex>();
  /** Names of programs. */
  readonly programs = new Map<IfIndex, string>();
  /** Links that were given no room for programs. */
  readonly withoutRoom = new Set<IfIndex>();
  /** Links that are gone. */
  readonly gone = new Set<IfIndex>();
  readonly #ifbs = new Map<string, IfIndex>();

  limit(link: IfIndex, bucket: TokenBucket): void {
    this.limits.set(link, bucket);
  }
  limitOf(link: IfIndex): TokenBucket | undefined {
    return this.limits.get(link);
  }
  unlimit(link: IfIndex): void {
    this.limits.delete(link);
  }
  redirect(link: IfIndex, to: IfIndex): void {
    this.redirects.set(link, to);
  }
  unredirect(link: IfIndex): void {
    this.redirects.delete(link);
  }
  isRedirected(link: IfIndex): boolean {
    return this.redirects.has(link);
  }
  classify(link: IfIndex, { name }: { readonly name: string }): void {
    if (this.gone.has(link)) throw new KernelError(`set eBPF program "${name}"`, ENODEV);
    if (this.withoutRoom.has(link)) throw new KernelError(`set eBPF program "${name}"`, EINVAL);
    this.programs.set(link, name);
  }
  createIfb(name: string): IfIndex {
    const index = this.#ifbs.get(name) ?? FIRST_IFB + this.#ifbs.size;
    this.#ifbs.set(name, index);
    return index;
  }
  [Symbol.dispose](): void {
    this.limits.clear();
    this.redirects.clear();
    this.programs.clear();
  }
}
