/** All that a new link needs, in one `send`: each system call of its own costs as much as the kernel's work for it. */
import { EEXIST, ENOENT } from '#lib/errors.ts';
import {
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  NLM_F_REQUEST,
} from '#wire/netlink/constants.ts';
import type { NetlinkWriter } from '#wire/netlink/writer.ts';
import { encodeAddress } from '#wire/rtnetlink/address.ts';
import { RTM_NEWADDR, RTM_NEWNEIGH, RTM_NEWROUTE, RTM_SETLINK } from '#wire/rtnetlink/constants.ts';
import { encodeSetLink } from '#wire/rtnetlink/link.ts';
import { encodeNeighbour } from '#wire/rtnetlink/neighbour.ts';
import { encodeClsact, RTM_NEWQDISC } from '#wire/rtnetlink/qdisc.ts';
import { encodeRoute } from '#wire/rtnetlink/route.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { type BatchFailure, throwFailures } from './batch.ts';
import { addressMessage, neighbourMessage, routeMessage } from './convert.ts';
import { describeAddress, describeNeighbour, describeRoute } from './describe.ts';
import type { LinkSetup, NetworkStack } from './port.ts';

interface Step {
  readonly type: number;
  readonly flags: number;
  readonly op: string;
  /** This answer counts as success. */
  readonly ignore?: number;
  encode(writer: NetlinkWriter): void;
}

export function kernelConfigure(socket: NetlinkSocket): NetworkStack['configure'] {
  return (setups) => {
    const steps = setups.flatMap(stepsOf);
    const [first] = steps;
    if (first === undefined) return;
    const op = `${first.op} and ${steps.length - 1} more`;
    const results = socket.pipeline(op, (writer) => {
      for (const step of steps) {
        const start = writer.beginMessage(step.type, NLM_F_REQUEST | NLM_F_ACK | step.flags);
        step.encode(writer);
        writer.endMessage(start);
      }
    });
    const failures = results.flatMap(({ errno, extack }, index): BatchFailure[] =>
      errno === 0 || errno === steps[index]?.ignore ? [] : [{ index, errno, extack }],
    );
    throwFailures(failures, steps, (step) => step.op);
  };
}

/** In an order in which nothing waits for what comes later: a route needs its link up and its gateway reachable. */
function stepsOf(setup: LinkSetup): Step[] {
  const { link, classified, ipv4, up, addresses = [], neighbours = [], routes = [] } = setup;
  const steps: Step[] = [];
  if (classified === true)
    steps.push({
      type: RTM_NEWQDISC,
      flags: NLM_F_CREATE | NLM_F_EXCL,
      op: `add a clsact to link ${link}`,
      ignore: ENOENT,
      encode: (writer) => encodeClsact(writer, link),
    });
  // By itself: of one message the kernel would set the link up first.
  if (ipv4 !== undefined)
    steps.push({
      type: RTM_SETLINK,
      flags: 0,
      op: `change IPv4 settings of link ${link}`,
      encode: (writer) => encodeSetLink(writer, link, { ipv4 }),
    });
  if (up !== undefined)
    steps.push({
      type: RTM_SETLINK,
      flags: 0,
      op: `change link ${link}`,
      encode: (writer) => encodeSetLink(writer, link, { up }),
    });
  for (const it of addresses) {
    const address = { link, ...it };
    steps.push({
      type: RTM_NEWADDR,
      flags: NLM_F_CREATE | NLM_F_EXCL,
      op: `add ${describeAddress(address)}`,
      ignore: EEXIST,
      encode: (writer) => encodeAddress(writer, addressMessage(address)),
    });
  }
  for (const it of neighbours) {
    const entry = { link, ...it };
    steps.push({
      type: RTM_NEWNEIGH,
      flags: NLM_F_CREATE | NLM_F_REPLACE,
      op: `replace ${describeNeighbour(entry)}`,
      encode: (writer) => encodeNeighbour(writer, neighbourMessage(entry)),
    });
  }
  for (const it of routes) {
    const route = { link, ...it };
    steps.push({
      type: RTM_NEWROUTE,
      flags: NLM_F_CREATE | NLM_F_REPLACE,
      op: `replace ${describeRoute(route)}`,
      encode: (writer) => encodeRoute(writer, routeMessage(route)),
    });
  }
  return steps;
}
