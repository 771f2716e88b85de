/** Policy routing rules over rtnetlink. */
import { EEXIST, ENOENT, isErrno } from '#lib/errors.ts';
import { NLM_F_CREATE, NLM_F_EXCL } from '#wire/netlink/constants.ts';
import { RTM_DELRULE, RTM_GETRULE, RTM_NEWRULE } from '#wire/rtnetlink/constants.ts';
import { decodeRule, encodeGetRules, encodeRule } from '#wire/rtnetlink/rule.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { ruleFrom, ruleMessage } from './convert.ts';
import { describeRule } from './describe.ts';
import type { NetworkStack } from './port.ts';

export function kernelRules(socket: NetlinkSocket): NetworkStack['rules'] {
  return {
    list(family) {
      const messages = socket.dump('list rules', { type: RTM_GETRULE }, (writer) =>
        encodeGetRules(writer, family),
      );
      return messages
        .map(({ payload }) => decodeRule(payload))
        .map((message) => (message === undefined ? undefined : ruleFrom(message)))
        .filter((rule) => rule !== undefined);
    },
    add(rule) {
      try {
        socket.request(
          `add ${describeRule(rule)}`,
          { type: RTM_NEWRULE, flags: NLM_F_CREATE | NLM_F_EXCL },
          (writer) => encodeRule(writer, ruleMessage(rule)),
        );
      } catch (error) {
        if (!isErrno(error, EEXIST)) throw error;
      }
    },
    delete(rule) {
      try {
        socket.request(`delete ${describeRule(rule)}`, { type: RTM_DELRULE }, (writer) =>
          encodeRule(writer, ruleMessage(rule)),
        );
      } catch (error) {
        if (!isErrno(error, ENOENT)) throw error;
      }
    },
  };
}
