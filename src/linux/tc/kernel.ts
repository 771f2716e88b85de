/** Traffic control of the running kernel, over rtnetlink. */
import { EEXIST, EINVAL, ENODEV, ENOENT, isErrno, KernelError } from '#lib/errors.ts';
import { NETLINK_ROUTE, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from '#wire/netlink/constants.ts';
import { RTM_GETLINK, RTM_NEWLINK } from '#wire/rtnetlink/constants.ts';
import { decodeLink, encodeGetLink, encodeNewLink } from '#wire/rtnetlink/link.ts';
import {
  decodeQdisc,
  encodeBpfFilter,
  encodeDeleteQdisc,
  encodeGetQdiscs,
  encodeIngress,
  encodeRedirect,
  encodeTokenBucket,
  type QdiscMessage,
  RTM_DELQDISC,
  RTM_GETQDISC,
  RTM_NEWQDISC,
  RTM_NEWTFILTER,
  TC_H_INGRESS,
  TC_H_ROOT,
} from '#wire/rtnetlink/qdisc.ts';
import { NetlinkSocket } from '../netlink/socket.ts';
import type { Netns, NetnsPath } from '../netns.ts';
import type { IfIndex } from '../network/port.ts';
import type { TrafficControl } from './port.ts';

/** Opens traffic control of a network namespace. @throws KernelError if the namespace cannot be entered */
export function openTrafficControl(
  options: { readonly netns?: Netns | NetnsPath } = {},
): TrafficControl {
  const socket = new NetlinkSocket({ protocol: NETLINK_ROUTE, netns: options.netns });
  const qdiscs = (link: IfIndex): QdiscMessage[] =>
    socket
      .dump('list queueing disciplines', { type: RTM_GETQDISC }, encodeGetQdiscs)
      .map((message) => decodeQdisc(message.payload))
      .filter((it) => it.link === link);
  const remove = (link: IfIndex, parent: number) => {
    try {
      socket.request(`remove a queueing discipline of link ${link}`, { type: RTM_DELQDISC }, (w) =>
        encodeDeleteQdisc(w, link, parent),
      );
    } catch (error) {
      // The kernel calls it invalid to delete an ingress, or a root that it made itself.
      if (![ENOENT, ENODEV, EINVAL].some((errno) => isErrno(error, errno))) throw error;
    }
  };
  const isRedirected = (link: IfIndex) => qdiscs(link).some((it) => it.kind === 'ingress');
  return {
    limit(link, bucket) {
      socket.request(
        `limit link ${link} to ${bucket.rateBytesPerSecond} bytes/s`,
        { type: RTM_NEWQDISC, flags: NLM_F_CREATE | NLM_F_REPLACE },
        (writer) => encodeTokenBucket(writer, link, bucket),
      );
    },
    limitOf: (link) => qdiscs(link).find((it) => it.parent === TC_H_ROOT)?.tokenBucket,
    unlimit: (link) => remove(link, TC_H_ROOT),
    redirect(link, to) {
      // Anew each time: a second filter beside the first would count packets twice.
      remove(link, TC_H_INGRESS);
      const op = `redirect what comes in by link ${link} to ${to}`;
      socket.request(op, { type: RTM_NEWQDISC, flags: NLM_F_CREATE | NLM_F_EXCL }, (writer) =>
        encodeIngress(writer, link),
      );
      socket.request(op, { type: RTM_NEWTFILTER, flags: NLM_F_CREATE | NLM_F_EXCL }, (writer) =>
        encodeRedirect(writer, link, to),
      );
    },
    unredirect: (link) => remove(link, TC_H_INGRESS),
    isRedirected,
    classify(link, program) {
      const op = `set eBPF program "${program.name}" on link ${link}`;
      socket.request(op, { type: RTM_NEWTFILTER, flags: NLM_F_CREATE | NLM_F_REPLACE }, (writer) =>
        encodeBpfFilter(writer, link, program),
      );
    },
    createIfb(name, mtuBytes) {
      try {
        socket.request(
          `create ifb "${name}"`,
          { type: RTM_NEWLINK, flags: NLM_F_CREATE | NLM_F_EXCL },
          (writer) => encodeNewLink(writer, { kind: 'ifb', name, mtuBytes, up: true }),
        );
      } catch (error) {
        if (!isErrno(error, EEXIST)) throw error;
      }
      const [answer] = socket.request(`read link "${name}"`, { type: RTM_GETLINK }, (writer) =>
        encodeGetLink(writer, name),
      );
      if (answer === undefined) throw new KernelError(`find new link "${name}"`, ENODEV);
      return decodeLink(answer.payload).index;
    },
    [Symbol.dispose]: () => socket[Symbol.dispose](),
  };
}
