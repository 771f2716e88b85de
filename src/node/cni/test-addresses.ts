/** An address source in memory, for tests of what asks for addresses. It survives the death of its user. */
import { cidr, cidrAddress, familyOf, type Ip } from '#lib/ip.ts';
import type {
  AddressRequest,
  AddressResult,
  AddressSource,
  AllocatedAddress,
} from '../addresses.ts';

const POOLS = [cidr('192.0.2.0/24'), cidr('2001:db8::/120')];

export class TestAddresses implements AddressSource {
  readonly given = new Map<string, readonly AllocatedAddress[]>();
  /** While set, every call fails with it: the API is away. */
  failure: Error | undefined;
  /** While set, this is the answer to every request. */
  refusal: Exclude<AddressResult, { kind: 'allocated' }> | undefined;
  /** While set, what is chosen is told, and written when this resolves. */
  write: Promise<void> | undefined;
  /** The next write loses a race, and ends with other addresses than were told. */
  isOvertaken = false;
  /** While set, addresses are back when this resolves. */
  released: Promise<void> | undefined;
  #next = 1;

  async allocate(request: AddressRequest): Promise<AddressResult> {
    const { owner } = request;
    if (this.failure !== undefined) throw this.failure;
    if (this.refusal !== undefined) return this.refusal;
    const known = this.given.get(owner.handle);
    if (known !== undefined) return { kind: 'allocated', addresses: known };
    let addresses = this.#choose(request);
    if (this.write !== undefined) {
      request.onChosen?.(addresses);
      if (this.isOvertaken) addresses = this.#choose(request);
      this.isOvertaken = false;
      await this.write;
    }
    this.given.set(owner.handle, addresses);
    return { kind: 'allocated', addresses };
  }

  #choose({ requested = [] }: AddressRequest): AllocatedAddress[] {
    const ordinal = this.#next++;
    return POOLS.flatMap((block): AllocatedAddress[] => {
      const family = familyOf(block);
      const wanted = requested.find((it) => familyOf(it) === family);
      if (requested.length > 0 && wanted === undefined) return [];
      const address = wanted ?? cidrAddress(block, ordinal);
      return [{ address, family, pool: 'test', block, sequence: ordinal }];
    });
  }

  async release(handle: string): Promise<readonly Ip[]> {
    if (this.failure !== undefined) throw this.failure;
    await this.released;
    const released = this.given.get(handle) ?? [];
    this.given.delete(handle);
    return released.map((it) => it.address);
  }

  notReady(): string | undefined {
    return this.failure?.message;
  }
}
