/** Addresses of links over rtnetlink. */
import { EADDRNOTAVAIL, EEXIST, ENODEV, isErrno } from '#lib/errors.ts';
import { NLM_F_CREATE, NLM_F_EXCL } from '#wire/netlink/constants.ts';
import { decodeAddress, encodeAddress, encodeGetAddresses } from '#wire/rtnetlink/address.ts';
import { RTM_DELADDR, RTM_GETADDR, RTM_NEWADDR } from '#wire/rtnetlink/constants.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { addressFrom, addressMessage } from './convert.ts';
import { describeAddress } from './describe.ts';
import type { NetworkStack } from './port.ts';

export function kernelAddresses(socket: NetlinkSocket): NetworkStack['addresses'] {
  return {
    list(filter = {}) {
      try {
        return socket
          .dump('list addresses', { type: RTM_GETADDR }, (writer) =>
            encodeGetAddresses(writer, { family: filter.family, index: filter.link }),
          )
          .map((message) => addressFrom(decodeAddress(message.payload)));
      } catch (error) {
        // The filter names a link that is not there.
        if (isErrno(error, ENODEV)) return [];
        throw error;
      }
    },
    add(address) {
      try {
        // EXCL and not REPLACE: an address that is there already is left alone, and nobody is told of a change.
        socket.request(
          `add ${describeAddress(address)}`,
          { type: RTM_NEWADDR, flags: NLM_F_CREATE | NLM_F_EXCL },
          (writer) => encodeAddress(writer, addressMessage(address)),
        );
      } catch (error) {
        if (!isErrno(error, EEXIST)) throw error;
      }
    },
    delete(address) {
      try {
        socket.request(`delete ${describeAddress(address)}`, { type: RTM_DELADDR }, (writer) =>
          encodeAddress(writer, addressMessage(address)),
        );
      } catch (error) {
        if (!isErrno(error, EADDRNOTAVAIL) && !isErrno(error, ENODEV)) throw error;
      }
    },
  };
}
