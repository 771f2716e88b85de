/**
 * Addresses: `RTM_NEWADDR`, `RTM_DELADDR`, `RTM_GETADDR`.
 *
 * ```text
 *  ifaddrmsg | family u8 | prefix length u8 | flags u8 | scope u8 | index u32 |
 *  IFA_LOCAL    the address itself
 *  IFA_ADDRESS  the same, or on a point-to-point link the other end's; IPv6 sends this one alone
 *  IFA_FLAGS    u32, of which the header's flags are the low byte
 *  IFA_PROTO    u8, who added it (Linux 5.18; older kernels pass over it)
 * ```
 * Source: `include/uapi/linux/if_addr.h`.
 */
import { DecodeError } from '#lib/errors.ts';
import { type Family, familyOf, type Ip, ipToBytes } from '#lib/ip.ts';
import { readAttributes } from '../netlink/reader.ts';
import type { NetlinkWriter } from '../netlink/writer.ts';
import { addressFamilyOf } from './constants.ts';
import { expectHeader, readIp, readU32 } from './values.ts';

/** No duplicate address detection. */
export const IFA_F_NODAD = 0x02;

const IFADDRMSG_BYTES = 8;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_FLAGS = 8;
const IFA_PROTO = 11;

export interface AddressMessage {
  readonly index: number;
  readonly address: Ip;
  readonly prefixLength: number;
  /** `RT_SCOPE_…` */
  readonly scope: number;
  /** `IFA_F_…` */
  readonly flags: number;
  /** `IFAPROT_…` or an owner's own; 0 if nobody said. */
  readonly protocol: number;
}

/** Payload of `RTM_NEWADDR` and `RTM_DELADDR`. */
export function encodeAddress(writer: NetlinkWriter, message: AddressMessage): void {
  const bytes = ipToBytes(message.address);
  encodeHeader(writer, {
    family: familyOf(message.address),
    prefixLength: message.prefixLength,
    scope: message.scope,
    index: message.index,
  });
  writer.attributeBytes(IFA_LOCAL, bytes);
  writer.attributeBytes(IFA_ADDRESS, bytes);
  if (message.flags !== 0) writer.attributeU32(IFA_FLAGS, message.flags);
  if (message.protocol !== 0) writer.attributeU8(IFA_PROTO, message.protocol);
}

/** Payload of a dump by `RTM_GETADDR`; with strict checking the kernel filters by family and index. */
export function encodeGetAddresses(
  writer: NetlinkWriter,
  filter: { family?: Family | undefined; index?: number | undefined },
): void {
  encodeHeader(writer, {
    family: filter.family,
    prefixLength: 0,
    scope: 0,
    index: filter.index ?? 0,
  });
}

/** Reads the payload of `RTM_NEWADDR` or `RTM_DELADDR`. @throws DecodeError */
export function decodeAddress(payload: Buffer): AddressMessage {
  expectHeader(payload, IFADDRMSG_BYTES, 'ifaddrmsg');
  const attributes = readAttributes(payload, IFADDRMSG_BYTES);
  const address =
    readIp(attributes.get(IFA_LOCAL), 'IFA_LOCAL') ??
    readIp(attributes.get(IFA_ADDRESS), 'IFA_ADDRESS');
  if (address === undefined)
    throw new DecodeError('there is neither IFA_LOCAL nor IFA_ADDRESS', {
      protocol: 'rtnetlink',
      field: 'ifaddrmsg',
    });
  return {
    index: payload.readUInt32LE(4),
    address,
    prefixLength: payload.readUInt8(1),
    scope: payload.readUInt8(3),
    flags: readU32(attributes.get(IFA_FLAGS), 'IFA_FLAGS') ?? payload.readUInt8(2),
    protocol: attributes.get(IFA_PROTO)?.[0] ?? 0,
  };
}

function encodeHeader(
  writer: NetlinkWriter,
  header: { family: Family | undefined; prefixLength: number; scope: number; index: number },
): void {
  writer.u8(addressFamilyOf(header.family));
  writer.u8(header.prefixLength);
  writer.u8(0);
  writer.u8(header.scope);
  writer.u32(header.index);
}
