/** Tells of the addresses that upstreams answered, before the answer goes on to the pod that asked. */
import { DecodeError } from '#lib/errors.ts';
import type { Family } from '#lib/ip.ts';
import { RCODE_NOERROR, RCODE_NXDOMAIN, TYPE_A, TYPE_AAAA } from '#wire/dns/constants.ts';
import { decodeMessage } from '#wire/dns/message.ts';
import { canonicalName, type Name } from '#wire/dns/name.ts';
import type { ToldAddress } from '../answer-watch.ts';
import type { Forwarder } from './forward.ts';

/** More has the top bit set, and counts as 0 (RFC 2181 section 8). */
const MAX_TTL_S = 2 ** 31 - 1;

/** Who hears of answers; a promise holds the answer back until it is kept. */
export interface AnswerListener {
  /** Whether anybody wants to know of the name's addresses. */
  wants(name: string): boolean;
  asked(name: string, family: Family): void;
  answered(
    name: string,
    family: Family,
    addresses: readonly ToldAddress[] | undefined,
  ): Promise<void> | void;
}

/** The same forwarder, watched. A question that nobody watches costs a look at its name. */
export function watchAnswers(
  forwarder: Pick<Forwarder, 'resolve'>,
  watch: AnswerListener,
): Pick<Forwarder, 'resolve'> {
  return {
    async resolve(question) {
      const family = familyOfType(question.type);
      if (family === undefined) return forwarder.resolve(question);
      const name = withoutDot(question.name);
      if (watch.wants(name)) watch.asked(name, family);
      const answer = await forwarder.resolve(question);
      // Asked again: a policy may have come meanwhile.
      if (watch.wants(name)) await watch.answered(name, family, addressesIn(answer));
      return answer;
    },
  };
}

function familyOfType(type: number): Family | undefined {
  return type === TYPE_A ? 4 : type === TYPE_AAAA ? 6 : undefined;
}

function withoutDot(name: Name): string {
  return canonicalName(name).replace(/\.$/, '');
}

/**
 * The addresses at the end of the answer's chain of aliases, each for as long as the whole chain holds.
 * @returns undefined for a failure, after which an older answer may be given
 */
function addressesIn(answer: Uint8Array | undefined): ToldAddress[] | undefined {
  if (answer === undefined) return undefined;
  try {
    const { rcode, answers } = decodeMessage(answer);
    if (rcode !== RCODE_NOERROR && rcode !== RCODE_NXDOMAIN) return undefined;
    const ttlS = Math.min(...answers.map((record) => (record.ttlS > MAX_TTL_S ? 0 : record.ttlS)));
    return answers.flatMap(({ data }) => {
      return data.kind === 'A' || data.kind === 'AAAA' ? [{ address: data.address, ttlS }] : [];
    });
  } catch (error) {
    // Nor can the one who asked read it.
    if (error instanceof DecodeError) return undefined;
    throw error;
  }
}
