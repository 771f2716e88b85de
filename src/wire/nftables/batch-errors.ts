/** Reads the answers to a batch: an `NLMSG_ERROR` for each message that failed or asked for an acknowledgement. */
import {
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLMSG_ERROR,
  NLMSG_HEADER_BYTES,
  NLMSGERR_ATTR_OFFS,
} from '#wire/netlink/constants.ts';
import type { NetlinkMessage } from '#wire/netlink/reader.ts';
import { readAcknowledgement, readAttributes } from '#wire/netlink/reader.ts';

export interface BatchError {
  /** Of the message that the answer is about. */
  readonly sequence: number;
  /** Positive; 0 is success. */
  readonly errno: number;
  readonly extack: string | undefined;
  /** Where in the failing message the offending attribute is, in bytes from the message's start. */
  readonly offset: number | undefined;
}

/** @throws DecodeError */
export function readBatchErrors(messages: readonly NetlinkMessage[]): BatchError[] {
  return messages
    .filter((message) => message.type === NLMSG_ERROR)
    .map((message) => ({
      sequence: message.sequence,
      ...readAcknowledgement(message),
      offset: readOffset(message),
    }));
}

function readOffset({ payload, flags }: NetlinkMessage): number | undefined {
  if ((flags & NLM_F_ACK_TLVS) === 0) return undefined;
  // struct nlmsgerr: errno, then the failing message, or only its header.
  const echoed =
    (flags & NLM_F_CAPPED) !== 0 ? NLMSG_HEADER_BYTES : (payload.readUInt32LE(4) + 3) & ~3;
  const offset = readAttributes(payload, 4 + echoed).get(NLMSGERR_ATTR_OFFS);
  return offset === undefined || offset.length < 4 ? undefined : offset.readUInt32LE(0);
}
