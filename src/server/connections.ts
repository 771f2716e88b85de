/** The sockets of the server's connections between the listener, which has them, and the requests, which say whose they are. */
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2';
import type { Socket } from 'node:net';
import { tooManyRequests } from '#api/machinery/status.ts';
import type { Clock } from '#lib/clock.ts';
import type { Logger } from '#lib/log.ts';
import {
  type AcceptedConnection,
  type ConnectionGate,
  type ConnectionLimits,
  type ConnectionRefusal,
  createConnectionGate,
} from './connection-gate.ts';
import { connectionOf } from './credentials.ts';
import { isAnonymous, isMaster, nodeNameOf, type Principal } from './principal.ts';

/** Somebody else's connection may end at any moment; a client in a loop should not try at once. */
const RETRY_AFTER_SECONDS = 5;
/** Refusals come in thousands: the log tells of them this often. */
const LOG_EVERY_MS = 60_000;

const WHY: Readonly<Record<ConnectionRefusal, string>> = {
  strangers: 'too many connections have not shown who they are: the oldest are closed',
  principal: 'one client has as many connections as it can have: more are refused',
  full: 'there are as many connections as there can be: more are refused',
};

export interface Connections {
  /** Counts a connection from now until it is closed. */
  track(socket: Socket): void;
  /**
   * Says whose the connection of a request is.
   * @throws ApiError 429 if it cannot be kept; it is closed after the answer
   */
  claim(request: Http2ServerRequest, response: Http2ServerResponse, principal: Principal): void;
  readonly counts: ConnectionGate['counts'];
}

export function createConnections(options: {
  readonly limits: ConnectionLimits;
  readonly onRefusal: (reason: ConnectionRefusal) => void;
  readonly log: Logger;
  readonly clock: Clock;
}): Connections {
  const { limits, log, clock } = options;
  const loggedMs = new Map<ConnectionRefusal, number>();
  const gate = createConnectionGate(limits, (reason) => {
    options.onRefusal(reason);
    const nowMs = clock.elapsed();
    if (nowMs - (loggedMs.get(reason) ?? Number.NEGATIVE_INFINITY) < LOG_EVERY_MS) return;
    loggedMs.set(reason, nowMs);
    log.warn({ ...gate.counts, limits }, `api server: ${WHY[reason]}`);
  });
  const byKey = new Map<string, AcceptedConnection>();
  /** Those that are kept: most requests come over one of them. */
  const kept = new WeakSet<object>();
  const refuse = (principal: Principal, reason: ConnectionRefusal) =>
    tooManyRequests(
      reason === 'principal'
        ? `"${principal.name}" has ${limits.perPrincipal} connections; use one for many requests, or close some`
        : `the server has all the connections that it can have; please try again later`,
      RETRY_AFTER_SECONDS,
    );
  return {
    track(socket) {
      const key = keyOf(socket);
      const held = gate.accept(socket.remoteAddress ?? '', () => socket.destroy());
      byKey.set(key, held);
      socket.once('close', () => {
        held.leave();
        if (byKey.get(key) === held) byKey.delete(key);
      });
    },
    claim(request, response, principal) {
      const connection = connectionOf(request);
      if (kept.has(connection) || isAnonymous(principal)) return;
      const held = byKey.get(keyOf(request.socket));
      const isVital = nodeNameOf(principal) !== undefined || isMaster(principal);
      const refusal = held?.claim({ name: principal.name, isVital });
      if (refusal === undefined) {
        kept.add(connection);
        return;
      }
      if (request.httpVersionMajor === 2) request.stream.session?.close();
      else response.setHeader('connection', 'close');
      throw refuse(principal, refusal);
    },
    get counts() {
      return gate.counts;
    },
  };
}

/** TLS and HTTP/2 show other objects for a socket than the listener does; its two ends are the same for all of them. */
function keyOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): string {
  return `${remoteAddress} ${remotePort} ${localAddress} ${localPort}`;
}
