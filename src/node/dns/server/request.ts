/** What the responder is asked, and what it keeps of an answer that it gives. */
import type { ResourceRecord } from '#wire/dns/message.ts';
import type { Relay } from '../relay.ts';
import type { ClientState } from './clients.ts';

/** Where an answer goes that comes later. @param length 0 if there is none */
export type Send = (reply: Uint8Array, length: number) => void;

/** A query and who asks. */
export interface Asked {
  readonly bytes: Uint8Array;
  /** Octets of the query, which may be fewer than those of `bytes`. */
  readonly length: number;
  readonly transport: 'udp' | 'tcp';
  readonly client: ClientState;
}

/** One query. The same object is used again for every query of a socket. */
export interface Request extends Asked {
  bytes: Uint8Array;
  length: number;
  /** Gets the answer; see `answerQuery` for its size. */
  reply: Uint8Array;
  client: ClientState;
  searchSuffix: Uint8Array | undefined;
  /** Keeps the way back to the client, for an answer that comes later. */
  readonly defer: () => Send;
}

/** An answer from elsewhere, and how it is given: one record for all of them. */
export interface Giving {
  relay: Relay;
  /** Whole seconds since it came. */
  ageS: number;
  transport: 'udp' | 'tcp';
  /** Records of ours that stand in front of it. */
  aliases: readonly ResourceRecord[];
  /** The client asked for a name of its search list. */
  searched: boolean;
}

export function newGiving(): Giving {
  return { relay: NO_RELAY, ageS: 0, transport: 'udp', aliases: [], searched: false };
}

/** One line of a pod's query log. */
export interface LoggedQuery {
  readonly atMs: number;
  readonly pod: string;
  readonly transport: 'udp' | 'tcp';
  readonly name: string;
  readonly type: number;
  readonly rcode: number;
  readonly bytes: number;
  readonly durationMs: number;
  readonly from: 'cluster' | 'forward';
}

const NO_RELAY: Relay = {
  bytes: new Uint8Array(0),
  questionEnd: 0,
  ttlOffsets: [],
  rcode: 0,
  lifetimeS: 0,
  negative: true,
};
