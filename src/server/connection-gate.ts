/**
 * Who may hold how many connections. Nobody is known before he has sent a request, so whoever comes gets in among the
 * strangers; when there are too many of them, the oldest of the address that has most of them is closed. So neither a
 * flood from one place nor connections that never say anything keep out others, who are strangers for milliseconds only.
 *
 *     accept ─► strangers ─► first request ─► known: the vital, who have places of their own, and others
 *                   └─► closed                 └─► refused: the answer is 429, and the last on this connection
 */
import { readFileSync } from 'node:fs';
import { ipToBytes, parseIp } from '#lib/ip.ts';
import { MAX_CONNECTIONS, RESERVED_FILES } from './limits.ts';

export interface ConnectionLimits {
  /** Of those who have not said who they are, or are nobody. */
  readonly strangers: number;
  /** Of all who are known. */
  readonly known: number;
  /** Of these, everybody's but the vital ones': of nodes, and of masters, whom the server's own controllers are part of. */
  readonly others: number;
  /** One principal's. */
  readonly perPrincipal: number;
}

/** Why a connection was not kept. */
export type ConnectionRefusal = 'strangers' | 'principal' | 'full';

export interface ConnectionGate {
  /** @param close ends the connection at once */
  accept(address: string, close: () => void): AcceptedConnection;
  readonly counts: { readonly strangers: number; readonly known: number };
}

export interface AcceptedConnection {
  /**
   * Says whose it is; what is said first counts.
   * @returns why it cannot be kept; `undefined`: it can
   */
  claim(owner: { readonly name: string; readonly isVital: boolean }): ConnectionRefusal | undefined;
  /** It has ended. */
  leave(): void;
}

/**
 * Shares out the connections that there can be: a tenth for strangers, three tenths that only the vital get, and a fifth is
 * the most that one principal has.
 */
export function connectionLimits(total: number): ConnectionLimits {
  const share = (part: number) => Math.max(1, Math.floor(total * part));
  const strangers = share(0.1);
  return {
    strangers,
    known: Math.max(1, total - strangers),
    others: share(0.6),
    perPrincipal: share(0.2),
  };
}

/** How many connections this process can have, with the files that it may open. */
export function possibleConnections(
  limitsText = readFileSync('/proc/self/limits', 'utf8'),
): number {
  const files = /^Max open files +(\d+|unlimited)/m.exec(limitsText)?.[1] ?? 'unlimited';
  if (files === 'unlimited') return MAX_CONNECTIONS;
  return Math.max(1, Math.min(MAX_CONNECTIONS, Number(files) - RESERVED_FILES));
}

interface Held {
  readonly place: string;
  readonly close: () => void;
}

/** @param onRefusal told of each connection that is closed or refused */
export function createConnectionGate(
  limits: ConnectionLimits,
  onRefusal: (reason: ConnectionRefusal) => void,
): ConnectionGate {
  /** In the order in which they came. */
  const strangers = new Map<string, Set<Held>>();
  const byPrincipal = new Map<string, number>();
  let strangerCount = 0;
  let known = 0;
  let others = 0;

  const forget = (held: Held) => {
    const here = strangers.get(held.place);
    if (here?.delete(held) !== true) return;
    strangerCount--;
    if (here.size === 0) strangers.delete(held.place);
  };

  const closeOne = () => {
    let most: Set<Held> | undefined;
    for (const here of strangers.values()) if (here.size > (most?.size ?? 0)) most = here;
    const [oldest] = most ?? [];
    if (oldest === undefined) return;
    forget(oldest);
    onRefusal('strangers');
    oldest.close();
  };

  const refusalOf = (name: string, isVital: boolean): ConnectionRefusal | undefined => {
    if ((byPrincipal.get(name) ?? 0) >= limits.perPrincipal) return 'principal';
    return known >= limits.known || (!isVital && others >= limits.others) ? 'full' : undefined;
  };

  /** @returns gives the place back */
  const take = (name: string, isVital: boolean) => {
    byPrincipal.set(name, (byPrincipal.get(name) ?? 0) + 1);
    known++;
    if (!isVital) others++;
    return () => {
      known--;
      if (!isVital) others--;
      const left = (byPrincipal.get(name) ?? 1) - 1;
      if (left === 0) byPrincipal.delete(name);
      else byPrincipal.set(name, left);
    };
  };

  return {
    accept(address, close) {
      if (strangerCount >= limits.strangers) closeOne();
      const held: Held = { place: placeOf(address), close };
      const here = strangers.get(held.place) ?? new Set();
      strangers.set(held.place, here.add(held));
      strangerCount++;
      let verdict: { readonly refusal: ConnectionRefusal | undefined } | undefined;
      let giveBack = () => {};
      let hasLeft = false;
      return {
        claim({ name, isVital }) {
          if (verdict !== undefined || hasLeft) return verdict?.refusal;
          const refusal = refusalOf(name, isVital);
          verdict = { refusal };
          if (refusal === undefined) {
            forget(held);
            giveBack = take(name, isVital);
          } else onRefusal(refusal);
          return refusal;
        },
        leave() {
          if (hasLeft) return;
          hasLeft = true;
          forget(held);
          giveBack();
        },
      };
    },
    get counts() {
      return { strangers: strangerCount, known };
    },
  };
}

/** Whoever has one IPv6 address has all of its network of 64 bits. */
function placeOf(address: string): string {
  const parsed = parseIp(address.replace(/^::ffff:(?=\d+\.)/, ''));
  if (parsed === undefined) return address;
  const bytes = ipToBytes(parsed);
  return bytes.length === 4 ? parsed : Buffer.from(bytes.subarray(0, 8)).toString('hex');
}
