/**
 * Elements of sets and maps.
 *
 * ```text
 *  NFTA_LIST_ELEM { KEY { VALUE bytes }, KEY_END { VALUE bytes }?, DATA { VALUE bytes | VERDICT { … } }?,
 *                   FLAGS u32?, TIMEOUT u64?, EXPIRATION u64?, USERDATA bytes? }
 * ```
 * A map of a large cluster has hundreds of thousands, so the encoder writes straight into the message:
 * no object, closure or string is made for a common element. Source: `enum nft_set_elem_attributes`.
 */
import { NLA_HEADER_BYTES } from '#wire/netlink/constants.ts';
import { NetlinkWriter } from '#wire/netlink/writer.ts';
import { AttributeReader } from './attributes.ts';
import * as N from './constants.ts';
import { decodeData, decodeValue, encodeVerdict } from './data-codec.ts';
import type { SetElement } from './objects.ts';
import type { PackedElements } from './packed-elements.ts';
import { decodeComment, encodeComment } from './userdata.ts';

/**
 * Encodes many elements of one set. All that are alike but for key and data differ in these bytes only, so the last one
 * is kept as a template in which they are overwritten: one copy into the message for each element.
 */
export class ElementEncoder {
  readonly #writer: NetlinkWriter;
  #template: Template | undefined;

  constructor(writer: NetlinkWriter) {
    this.#writer = writer;
  }

  encode(element: SetElement): void {
    if (!isPlain(element)) {
      encodeElement(this.#writer, element);
      return;
    }
    let template = this.#template;
    if (template === undefined || !fits(template, element)) {
      template = makeTemplate(element);
      this.#template = template;
    }
    const { bytes, dataOffset } = template;
    copy(element.key, bytes, KEY_OFFSET);
    if (element.data !== undefined) copy(element.data, bytes, dataOffset);
    this.#writer.raw(bytes);
  }

  /** Encodes those from `first` on until the message has `maxBytes`. @returns the index of the next one */
  encodePacked(packed: PackedElements, first: number, maxBytes: number): number {
    const { keyBytes, dataBytes, bytes: from } = packed;
    const stride = keyBytes + dataBytes;
    const writer = this.#writer;
    const { bytes, dataOffset } = makeTemplate({
      key: new Uint8Array(keyBytes),
      ...(dataBytes === 0 ? {} : { data: new Uint8Array(dataBytes) }),
    });
    let at = first * stride;
    while (at < from.length && writer.length <= maxBytes) {
      for (let i = 0; i < keyBytes; i++) bytes[KEY_OFFSET + i] = from[at + i] ?? 0;
      at += keyBytes;
      for (let i = 0; i < dataBytes; i++) bytes[dataOffset + i] = from[at + i] ?? 0;
      at += dataBytes;
      writer.raw(bytes);
    }
    return at / stride;
  }
}

interface Template {
  readonly bytes: Uint8Array;
  readonly keyBytes: number;
  readonly dataBytes: number | undefined;
  readonly verdict: SetElement['verdict'];
  readonly dataOffset: number;
}

/** After the headers of the element, of its key and of the key's value. */
const KEY_OFFSET = 3 * NLA_HEADER_BYTES;

/** Nothing but a key and what it maps to. */
function isPlain(element: SetElement): boolean {
  return (
    element.catchAll !== true &&
    element.intervalEnd !== true &&
    element.keyEnd === undefined &&
    element.timeoutMs === undefined &&
    element.expiresMs === undefined &&
    element.comment === undefined &&
    (element.verdict === undefined || element.data === undefined)
  );
}

function fits(template: Template, element: SetElement): boolean {
  return (
    template.keyBytes === element.key.length &&
    template.dataBytes === element.data?.length &&
    isSameVerdict(template.verdict, element.verdict)
  );
}

function isSameVerdict(a: SetElement['verdict'], b: SetElement['verdict']): boolean {
  if (a === b) return true;
  if (a === undefined || b === undefined || a.kind !== b.kind) return false;
  return 'chain' in a && 'chain' in b && a.chain === b.chain;
}

function makeTemplate(element: SetElement): Template {
  const writer = new NetlinkWriter({ capacityBytes: 256 });
  encodeElement(writer, element);
  const keyBytes = element.key.length;
  return {
    bytes: Uint8Array.from(writer.bytes()),
    keyBytes,
    dataBytes: element.data?.length,
    verdict: element.verdict,
    // The padded key, then the headers of the data and of its value.
    dataOffset: KEY_OFFSET + ((keyBytes + 3) & ~3) + 2 * NLA_HEADER_BYTES,
  };
}

/** For a few bytes a loop is faster than `set`. */
function copy(from: Uint8Array, to: Uint8Array, offset: number): void {
  for (let i = 0; i < from.length; i++) to[offset + i] = from[i] ?? 0;
}

/** One element, with everything that it can have. */
export function encodeElement(writer: NetlinkWriter, element: SetElement): void {
  const item = writer.beginNested(N.NFTA_LIST_ELEM);
  if (element.catchAll === true) {
    writer.attributeU32Be(N.NFTA_SET_ELEM_FLAGS, N.NFT_SET_ELEM_CATCHALL);
  } else {
    if (element.intervalEnd === true)
      writer.attributeU32Be(N.NFTA_SET_ELEM_FLAGS, N.NFT_SET_ELEM_INTERVAL_END);
    encodeBytes(writer, N.NFTA_SET_ELEM_KEY, element.key);
    if (element.keyEnd !== undefined) encodeBytes(writer, N.NFTA_SET_ELEM_KEY_END, element.keyEnd);
  }
  if (element.verdict !== undefined) encodeVerdict(writer, N.NFTA_SET_ELEM_DATA, element.verdict);
  else if (element.data !== undefined) encodeBytes(writer, N.NFTA_SET_ELEM_DATA, element.data);
  if (element.timeoutMs !== undefined)
    writer.attributeU64Be(N.NFTA_SET_ELEM_TIMEOUT, BigInt(element.timeoutMs));
  if (element.expiresMs !== undefined)
    writer.attributeU64Be(N.NFTA_SET_ELEM_EXPIRATION, BigInt(element.expiresMs));
  const userdata = encodeComment(element.comment);
  if (userdata !== undefined) writer.attributeBytes(N.NFTA_SET_ELEM_USERDATA, userdata);
  writer.endAttribute(item);
}

function encodeBytes(writer: NetlinkWriter, attribute: number, value: Uint8Array): void {
  const data = writer.beginNested(attribute);
  writer.attributeBytes(N.NFTA_DATA_VALUE, value);
  writer.endAttribute(data);
}

/**
 * @param bytes content of one `NFTA_LIST_ELEM`
 * @throws DecodeError if there is no key and it is no catch-all
 */
export function decodeElement(bytes: Buffer): SetElement {
  const r = new AttributeReader('element', bytes);
  const flags = r.u32(N.NFTA_SET_ELEM_FLAGS) ?? 0;
  const catchAll = (flags & N.NFT_SET_ELEM_CATCHALL) !== 0;
  const timeoutMs = r.number(N.NFTA_SET_ELEM_TIMEOUT);
  const expiresMs = r.number(N.NFTA_SET_ELEM_EXPIRATION);
  const comment = decodeComment(r.bytes(N.NFTA_SET_ELEM_USERDATA));
  const data = r.bytes(N.NFTA_SET_ELEM_DATA) && decodeData(r, N.NFTA_SET_ELEM_DATA);
  return {
    key: catchAll ? new Uint8Array(0) : decodeValue(r, N.NFTA_SET_ELEM_KEY),
    ...(catchAll ? { catchAll } : {}),
    ...(r.bytes(N.NFTA_SET_ELEM_KEY_END) === undefined
      ? {}
      : { keyEnd: decodeValue(r, N.NFTA_SET_ELEM_KEY_END) }),
    ...((flags & N.NFT_SET_ELEM_INTERVAL_END) === 0 ? {} : { intervalEnd: true }),
    ...(data === undefined ? {} : 'value' in data ? { data: data.value } : data),
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(expiresMs === undefined ? {} : { expiresMs }),
    ...(comment === undefined ? {} : { comment }),
  };
}
