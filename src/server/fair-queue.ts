/**
 * Who is worked for next. A number of seats, a row of waiters for each flow (a principal), and the rows take turns: who
 * asks a thousand times waits behind himself, not others behind him.
 *
 *     flow a  ▢▢▢▢▢▢▢ ─┐
 *     flow b  ▢        ├─ in turn ─► seats ▣▣▣▣
 *     flow c  ▢▢      ─┘
 */
import type { Clock } from '#lib/clock.ts';

export interface FairQueueOptions {
  /** Work done at once, in units of cost. */
  readonly seats: number;
  /** Of these, what one flow can have: a newcomer finds a seat even while another flow has all it can. */
  readonly maxSeatsPerFlow: number;
  /** Waiters of one flow. */
  readonly maxWaitingPerFlow: number;
  /** Waiters of all flows: a crowd of principals holds memory too. */
  readonly maxWaiting: number;
  /** After that time a waiter is sent away: its client has lost patience, or soon will. */
  readonly maxWaitMs: number;
  readonly clock: Clock;
  /** Runs a callback after input has been looked at, so that a row of waiters does not keep the program from reading. */
  readonly defer?: (callback: () => void) => void;
}

export type Seat =
  | { readonly kind: 'seated'; readonly leave: () => void }
  | { readonly kind: 'full' }
  | { readonly kind: 'too-long' };

export interface FairQueue {
  /** Waits for a seat. @param cost in seats; more than a flow can have counts as that many */
  take(flow: string, cost: number): Promise<Seat>;
  /** How many wait, for metrics and tests. */
  readonly waiting: number;
}

interface Waiter {
  readonly cost: number;
  readonly seat: (seat: Seat) => void;
}

export function createFairQueue(options: FairQueueOptions): FairQueue {
  const { seats, maxSeatsPerFlow, clock } = options;
  const defer = options.defer ?? setImmediate;
  /** In the order of their turns. A flow without waiters is not in it. */
  const rows = new Map<string, Waiter[]>();
  const heldBy = new Map<string, number>();
  let held = 0;
  let waiting = 0;
  let isDispatchDue = false;

  const mayHave = (flow: string, cost: number) => (heldBy.get(flow) ?? 0) + cost <= maxSeatsPerFlow;

  /** Whose turn it is: the first row whose flow may have what it waits for. */
  const next = (): [string, Waiter[], Waiter] | undefined => {
    for (const [flow, row] of rows) {
      const [first] = row;
      if (first !== undefined && mayHave(flow, first.cost)) return [flow, row, first];
    }
    return undefined;
  };

  const sit = (flow: string, cost: number): Seat => {
    held += cost;
    heldBy.set(flow, (heldBy.get(flow) ?? 0) + cost);
    let isSeated = true;
    return {
      kind: 'seated',
      leave() {
        if (!isSeated) return;
        isSeated = false;
        held -= cost;
        const left = (heldBy.get(flow) ?? cost) - cost;
        if (left === 0) heldBy.delete(flow);
        else heldBy.set(flow, left);
        dispatchSoon();
      },
    };
  };

  const dispatchSoon = () => {
    if (isDispatchDue || waiting === 0) return;
    isDispatchDue = true;
    defer(() => {
      isDispatchDue = false;
      dispatch();
    });
  };

  /**
   * Gives seats as long as there are some: each row its turn, and then to the end of the rows. Who needs many seats is
   * waited for and not overtaken, or he would never get them.
   */
  const dispatch = () => {
    for (let turn = next(); turn !== undefined; turn = next()) {
      const [flow, row, first] = turn;
      if (held + first.cost > seats) return;
      row.shift();
      waiting--;
      rows.delete(flow);
      if (row.length > 0) rows.set(flow, row);
      first.seat(sit(flow, first.cost));
    }
  };

  const wait = (flow: string, cost: number): Promise<Seat> =>
    new Promise((resolve) => {
      const row = rows.get(flow) ?? [];
      rows.set(flow, row);
      waiting++;
      const cancel = clock.schedule(options.maxWaitMs, () => {
        row.splice(row.indexOf(waiter), 1);
        waiting--;
        if (row.length === 0) rows.delete(flow);
        resolve({ kind: 'too-long' });
      });
      const waiter: Waiter = {
        cost,
        seat(seat) {
          cancel();
          resolve(seat);
        },
      };
      row.push(waiter);
    });

  return {
    async take(flow, wanted) {
      const cost = Math.min(wanted, maxSeatsPerFlow);
      const row = rows.get(flow);
      const isNextWaiting = waiting > 0 && next() !== undefined;
      if (row === undefined && !isNextWaiting && held + cost <= seats && mayHave(flow, cost))
        return sit(flow, cost);
      if ((row?.length ?? 0) >= options.maxWaitingPerFlow || waiting >= options.maxWaiting)
        return { kind: 'full' };
      return await wait(flow, cost);
    },
    get waiting() {
      return waiting;
    },
  };
}
