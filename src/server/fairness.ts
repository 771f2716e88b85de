/**
 * Which requests share seats, and what they cost. Heartbeats (leases, and a node's own status) have seats of their own:
 * whatever else is asked for, a node that lives is seen to live.
 */
import { tooManyRequests } from '#api/machinery/status.ts';
import type { Clock } from '#lib/clock.ts';
import { createFairQueue, type FairQueue } from './fair-queue.ts';
import {
  HEARTBEAT_SEATS,
  LIST_COST,
  MAX_QUEUE_WAIT_MS,
  MAX_REQUESTS_IN_FLIGHT,
  MAX_REQUESTS_PER_PRINCIPAL,
  MAX_SEATS_PER_PRINCIPAL,
  WORK_SEATS,
} from './limits.ts';
import { nodeNameOf, type Principal } from './principal.ts';
import type { RequestInfo, ResourceRequest } from './request.ts';

/** A server with too much to do is asked again soon: most requests take milliseconds. */
const RETRY_AFTER_SECONDS = 1;

export interface Fairness {
  /**
   * Counts a request from its first to its last moment.
   * @returns to be called at its end
   * @throws ApiError 429 if the principal, or everybody together, has too many
   */
  enter(principal: Principal, info: RequestInfo): () => void;
  /**
   * Waits for the request's turn to be worked on.
   * @returns to be called when it has been
   * @throws ApiError 429 if it would be, or was, too long
   */
  turn(principal: Principal, info: RequestInfo): Promise<() => void>;
}

const NOTHING = () => {};

export function createFairness(clock: Clock): Fairness {
  const entered = new Map<string, number>();
  let total = 0;
  const limits = {
    maxWaitingPerFlow: MAX_REQUESTS_PER_PRINCIPAL,
    maxWaiting: MAX_REQUESTS_IN_FLIGHT,
    maxWaitMs: MAX_QUEUE_WAIT_MS,
    clock,
  };
  const heartbeats = createFairQueue({
    ...limits,
    seats: HEARTBEAT_SEATS,
    maxSeatsPerFlow: Math.ceil(HEARTBEAT_SEATS / 4),
  });
  const work = createFairQueue({
    ...limits,
    seats: WORK_SEATS,
    maxSeatsPerFlow: MAX_SEATS_PER_PRINCIPAL,
  });
  return {
    enter(principal, info) {
      // Watches are counted by themselves, for as long as they live.
      if (isWatch(info) || isHeartbeat(principal, info)) return NOTHING;
      const { name } = principal;
      const has = entered.get(name) ?? 0;
      if (has >= MAX_REQUESTS_PER_PRINCIPAL)
        throw tooMany(`"${name}" has ${MAX_REQUESTS_PER_PRINCIPAL} requests being worked on`);
      if (total >= MAX_REQUESTS_IN_FLIGHT)
        throw tooMany(`${MAX_REQUESTS_IN_FLIGHT} requests are being worked on`);
      entered.set(name, has + 1);
      total++;
      return () => {
        total--;
        const left = (entered.get(name) ?? 1) - 1;
        if (left === 0) entered.delete(name);
        else entered.set(name, left);
      };
    },
    async turn(principal, info) {
      if (info.type === 'plain' || isWatch(info)) return NOTHING;
      const isBeat = isHeartbeat(principal, info);
      return await seatIn(isBeat ? heartbeats : work, principal.name, isBeat ? 1 : costOf(info));
    },
  };
}

async function seatIn(queue: FairQueue, flow: string, cost: number): Promise<() => void> {
  const seat = await queue.take(flow, cost);
  if (seat.kind === 'seated') return seat.leave;
  throw tooMany(
    seat.kind === 'full'
      ? `too many requests of "${flow}" wait already`
      : `the request waited for ${MAX_QUEUE_WAIT_MS / 1000} s behind others`,
  );
}

function tooMany(why: string) {
  return tooManyRequests(`${why}; please try again later`, RETRY_AFTER_SECONDS);
}

function isWatch(info: RequestInfo): boolean {
  return info.type === 'resource' && info.verb === 'watch';
}

/** Reading or writing one lease, or a node's own status. */
export function isHeartbeat(principal: Principal, info: RequestInfo): boolean {
  if (info.type === 'plain') return false;
  const { group, resource, subresource, verb, name } = info;
  if (group === 'coordination.k8s.io' && resource === 'leases')
    return ['get', 'create', 'update', 'patch'].includes(verb);
  return (
    group === '' &&
    resource === 'nodes' &&
    subresource === 'status' &&
    nodeNameOf(principal) === name
  );
}

/** A list is worked on in one piece, and holds up the others as long as it takes. */
function costOf({ verb }: ResourceRequest): number {
  return verb === 'list' || verb === 'deletecollection' ? LIST_COST : 1;
}
