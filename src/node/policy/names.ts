/** Names of what policy has in the kernel, and the marks by which a logged packet tells its rule. */
import { hash } from 'node:crypto';
import type { Direction } from '#policy/model.ts';

export const EGRESS_PODS = 'policy-egress';
export const INGRESS_PODS = 'policy-ingress';
export const SELF = 'policy-self';
export const CLOSED_CHAIN = 'policy-closed';
export const CLOSED_INGRESS_CHAIN = 'policy-closed-ingress';

/** Twelve hex digits: among a million names two are alike with a chance of one in 500. They are checked. */
const HASH_DIGITS = 12;

export function shortHash(text: string): string {
  return hash('sha256', text).slice(0, HASH_DIGITS);
}

/** What a packet's log says of its rule. */
export type LogVerdict = 'deny' | 'isolated' | 'closed' | 'accept' | 'staged';
const VERDICT_LETTERS: Readonly<Record<LogVerdict, string>> = {
  deny: 'D',
  isolated: 'I',
  closed: 'C',
  accept: 'A',
  staged: 'S',
};

export interface LogMark {
  readonly verdict: LogVerdict;
  readonly direction: Direction;
  /** Hash of the policy's id, or of the rule set for `isolated` and `staged`; empty for `closed`. */
  readonly source: string;
  /** Index of the rule in the policy, or -1. */
  readonly rule: number;
}

/** `tulle D i 0123456789ab 3 `: what the kernel puts before a logged packet. */
export function logPrefix({ verdict, direction, source, rule }: LogMark): string {
  return `tulle ${VERDICT_LETTERS[verdict]} ${direction === 'ingress' ? 'i' : 'e'} ${source || '-'} ${rule}`;
}

const PREFIX = /^tulle ([DICAS]) ([ie]) ([0-9a-f]{12}|-) (-?\d{1,5})$/;

/** @returns undefined for the prefix of somebody else's rule */
export function parseLogPrefix(text: string): LogMark | undefined {
  const match = PREFIX.exec(text.trim());
  const verdict = (Object.keys(VERDICT_LETTERS) as LogVerdict[]).find(
    (candidate) => VERDICT_LETTERS[candidate] === match?.[1],
  );
  if (match === null || verdict === undefined) return undefined;
  return {
    verdict,
    direction: match[2] === 'i' ? 'ingress' : 'egress',
    source: match[3] === '-' ? '' : (match[3] ?? ''),
    rule: Number(match[4]),
  };
}

/** nft keeps a comment of 128 bytes. */
const MAX_COMMENT = 120;

/** A text that fits a comment and stays unique. */
export function commentOf(text: string): string {
  return text.length <= MAX_COMMENT
    ? text
    : `${text.slice(0, MAX_COMMENT - HASH_DIGITS - 1)} ${shortHash(text)}`;
}
