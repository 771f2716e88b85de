/** The addresses of an attachment, wherever they come from: IPPools, an address plugin, or none at all. */
import { explainError } from '#lib/errors.ts';
import type { Lull } from '#lib/lull.ts';
import type { NetworkStack } from '#linux/network/port.ts';
import { CNI_ERROR, CniError } from '#wire/cni/error.ts';
import type { AddressRequest, AddressSource } from '../addresses.ts';
import type { Attachment } from '../attachment.ts';
import { completeBridge } from './bridge.ts';
import { bridgeWithPoolAddresses, removePoolSide } from './bridge-pools.ts';
import { addIpam, deleteIpam } from './ipam-plugin.ts';
import type { AttachmentRecords } from './records.ts';
import type { Wanted } from './target.ts';

/** Which addresses an ADD wants. */
export type Asked = Omit<Wanted, 'attachment'>;

export interface AttachmentAddressesParts {
  readonly host: NetworkStack;
  readonly records: AttachmentRecords;
  readonly addresses: AddressSource;
  readonly lull: Lull;
}

export class AttachmentAddresses {
  readonly #parts: AttachmentAddressesParts;
  /** Those that are on their way back. */
  readonly #releases = new Set<Promise<void>>();

  constructor(parts: AttachmentAddressesParts) {
    this.#parts = parts;
  }

  /** Resolves when nothing is on its way back any more. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#releases);
  }

  /**
   * @param onChosen told of addresses while they are being written, where something can be made with them already
   * @throws CniError
   */
  async get(
    attachment: Attachment,
    asked: Asked,
    onChosen: AddressRequest['onChosen'],
  ): Promise<Attachment> {
    const { bridge, chained } = attachment;
    if (chained !== undefined) return attachment;
    if (bridge === undefined)
      return { ...attachment, addresses: await this.#allocate(attachment, asked, onChosen) };
    if (bridge.fromPools === true) {
      const addresses = await this.#allocate(attachment, asked, undefined);
      const complete = {
        ...attachment,
        addresses,
        bridge: bridgeWithPoolAddresses(bridge, addresses),
      };
      // The route of such a pod does not go with its link: who undoes this must know the address.
      await this.#parts.records.put({ version: 1, phase: 'adding', attachment: complete });
      return complete;
    }
    if (bridge.ipam === undefined) return attachment;
    const given = await addIpam(bridge.ipam, attachment);
    if (given.ips.length === 0)
      throw new CniError(CNI_ERROR.invalidConfig, 'IPAM plugin returned missing IP config');
    return { ...attachment, bridge: completeBridge(bridge, given) };
  }

  /**
   * Gives back what {@link get} got.
   * @param options `inLull`: nobody waits for it; those that go together cost one write
   */
  async release(attachment: Attachment, { inLull = false } = {}): Promise<void> {
    const release = (async () => {
      if (inLull) await this.#parts.lull.next();
      await this.#release(attachment);
    })().finally(() => this.#releases.delete(release));
    this.#releases.add(release);
    await release;
  }

  async #release(attachment: Attachment): Promise<void> {
    const { bridge, chained, handle } = attachment;
    if (chained !== undefined) return;
    if (bridge?.ipam !== undefined) await deleteIpam(bridge.ipam, attachment);
    if (bridge !== undefined && bridge.fromPools !== true) return;
    const released = await this.#parts.addresses.release(handle);
    if (bridge !== undefined) removePoolSide(this.#parts.host, bridge.options, released);
  }

  async #allocate(
    attachment: Attachment,
    asked: Asked,
    onChosen: AddressRequest['onChosen'],
  ): Promise<Attachment['addresses']> {
    const { handle, containerId, ifName, pod } = attachment;
    const owner = {
      handle,
      purpose: 'Pod',
      containerId,
      ifName,
      namespace: pod.namespace,
      pod: pod.name,
    } as const;
    const ask = () =>
      this.#parts.addresses
        .allocate({ owner, ...asked, ...(onChosen === undefined ? {} : { onChosen }) })
        .catch(tryLater('cannot allocate an address now'));
    let result = await ask();
    if (result.kind !== 'allocated' && this.#releases.size > 0) {
      // It may be an address whose DEL was answered just now.
      this.#parts.lull.end();
      await Promise.allSettled(this.#releases);
      result = await ask();
    }
    if (result.kind === 'allocated') return result.addresses;
    throw new CniError(
      result.kind === 'exhausted' ? CNI_ERROR.exhausted : CNI_ERROR.invalidConfig,
      result.message,
    );
  }
}

/** What the API refuses now it may take later: code 11. */
export function tryLater(message: string): (cause: unknown) => never {
  return (cause) => {
    if (cause instanceof CniError) throw cause;
    throw new CniError(CNI_ERROR.tryAgainLater, message, { details: explainError(cause), cause });
  };
}
