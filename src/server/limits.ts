/** Bounds on what clients can make the server hold, in one place, each with its reason. */

/** Of one request's body: kube-apiserver's limit; an object in the store may be half of it. */
export const MAX_BODY_BYTES = 3 * 1024 * 1024;
/** Of what somebody without a credential sends to join: a name and a certificate request. */
export const MAX_JOIN_BODY_BYTES = 64 * 1024;
/** All headers of a request together. Ours are a few hundred bytes; proxies add some. */
export const MAX_HEADER_BYTES = 32 * 1024;
/** From the first header to the last byte of the body: a client that trickles does not hold memory. */
export const MAX_BODY_READ_MS = 30_000;
/** Of a body that nobody will read, before its connection is given up: as servers written in Go. */
export const MAX_PASSED_BYTES = 256 * 1024;
/** A body that is on its way with its headers has come by then. */
export const MAX_PASSED_MS = 500;
/** Requests in the house at once, watches and heartbeats not counted: kube-apiserver's 400 + 200. The rest hears 429 and tries again. */
export const MAX_REQUESTS_IN_FLIGHT = 600;
/** Of these, one principal's: a third is left for others. */
export const MAX_REQUESTS_PER_PRINCIPAL = 400;
/** Requests of any kind, heartbeats too, before it is known whose they are: what memory is for. */
export const MAX_REQUESTS_UNKNOWN = 2_000;
/** Requests worked on at once, in units of cost. Enough writes to fill the groups that the store commits together. */
export const WORK_SEATS = 200;
/** Of these, one principal's: a newcomer finds a seat at once. */
export const MAX_SEATS_PER_PRINCIPAL = 150;
/** Of a list, in seats: eight of them at once, since each holds the one thread for as long as it takes. */
export const LIST_COST = 25;
/** Requests for leases and nodes' own status worked on at once, beside all others. Five thousand nodes renew 500 a second, in milliseconds each. */
export const HEARTBEAT_SEATS = 64;
/** A quarter of the minute after which clients give up. */
export const MAX_QUEUE_WAIT_MS = 15_000;
/** Watches of one user. An agent needs about ten; an administrator's name is shared by people, scripts and controllers. */
export const MAX_WATCHES_PER_USER = 1_000;
/** Watches in all. Each holds a socket or stream and a place in the store's history. */
export const MAX_WATCHES = 100_000;
/** Connections in all: five thousand nodes with a connection or two, and as many others. Fewer if fewer files may be open. */
export const MAX_CONNECTIONS = 20_000;
/** Of the files that the process may open, those that are for everything else: the store, etcd, logs, program text. */
export const RESERVED_FILES = 200;
/** Streams of one HTTP/2 connection: as kube-apiserver, and what Go clients expect. */
export const MAX_STREAMS_PER_CONNECTION = 250;
/** A TLS handshake takes a few round trips; slower ones are scanners or attacks. */
export const MAX_HANDSHAKE_MS = 10_000;
/** A connection without any request is closed. Longer than clients' own idle limit (90 s in Go), so that they close first. */
export const MAX_IDLE_MS = 180_000;
/** A client that takes no byte for so long does not read any more: it is cut, and finds back by its resourceVersion. */
export const MAX_STALL_MS = 30_000;
/** What a stopping server waits for requests that are being worked on. */
export const STOP_GRACE_MS = 5_000;

/** Counts watches per user. */
export interface WatchSlots {
  /** @returns a function that gives the slot back, or `undefined` if the user, or the server, has no more */
  take(user: string): (() => void) | undefined;
}

export function createWatchSlots(
  limits: { perUser: number; total: number } = {
    perUser: MAX_WATCHES_PER_USER,
    total: MAX_WATCHES,
  },
): WatchSlots {
  const byUser = new Map<string, number>();
  let total = 0;
  return {
    take(user) {
      const held = byUser.get(user) ?? 0;
      if (held >= limits.perUser || total >= limits.total) return undefined;
      byUser.set(user, held + 1);
      total++;
      let isHeld = true;
      return () => {
        if (!isHeld) return;
        isHeld = false;
        total--;
        const left = (byUser.get(user) ?? 1) - 1;
        if (left === 0) byUser.delete(user);
        else byUser.set(user, left);
      };
    },
  };
}
