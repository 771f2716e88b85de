/** What the parts of the contract share. */
import assert from 'node:assert/strict';
import { KernelError } from '#lib/errors.ts';
import { mac } from '#lib/ip.ts';
import type { NetnsPath } from '../netns.ts';
import type { Link, NetworkEvent, NetworkStack } from './port.ts';

/** No link has it. */
export const NO_LINK = 4711;
export const OWNER = 84;
export const MAC_A = mac('02:00:00:00:00:0a');
export const MAC_B = mac('02:00:00:00:00:0b');
/** Long enough for a loaded machine; the tests do not wait for it to pass. */
const EVENT_DEADLINE_MS = 20_000;

export interface Context {
  host(): NetworkStack;
  pod(): NetworkStack;
  podNetns(): NetnsPath;
}

/** Keeps the events of a stack and lets a test await one. */
export class Recorder implements Disposable {
  readonly all: NetworkEvent[] = [];
  readonly #stop: () => void;
  /** Events before this one have been awaited. */
  #next = 0;
  #wake: (() => void) | undefined;
  constructor(stack: NetworkStack) {
    this.#stop = stack.watch((event) => {
      this.all.push(event);
      this.#wake?.();
    });
  }

  /** The next event of this type that fits; those before it are passed over. */
  async next<T extends NetworkEvent['type']>(
    type: T,
    fits: (event: Extract<NetworkEvent, { type: T }>) => boolean,
  ): Promise<Extract<NetworkEvent, { type: T }>> {
    const deadline = AbortSignal.timeout(EVENT_DEADLINE_MS);
    for (;;) {
      while (this.#next < this.all.length) {
        const event = this.all[this.#next++] as Extract<NetworkEvent, { type: T }>;
        if (event.type === type && fits(event)) return event;
      }
      await new Promise<void>((resolve, reject) => {
        this.#wake = resolve;
        deadline.onabort = () => {
          const last = JSON.stringify(this.all.slice(-20));
          reject(new Error(`no such ${type} event came; the last of ${this.all.length}: ${last}`));
        };
      });
    }
  }

  [Symbol.dispose](): void {
    this.#stop();
  }
}

/** `a0` and `b0`, both up. */
export function vethPair(stack: NetworkStack): Link {
  return stack.links.create({
    kind: 'veth',
    name: 'a0',
    mac: MAC_A,
    up: true,
    peer: { name: 'b0', up: true },
  });
}

export function names(stack: NetworkStack): string[] {
  return stack.links
    .list()
    .map((link) => link.name)
    .sort();
}

export function sorted<T>(values: readonly T[]): T[] {
  const text = (value: T) => JSON.stringify(Object.entries(value as object).sort());
  return [...values].sort((a, b) => (text(a) < text(b) ? -1 : 1));
}

export function found<T>(value: T | undefined): T {
  assert.notEqual(value, undefined);
  return value as T;
}

export function errnoIs(errno: number): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof KernelError, String(error));
    assert.equal(error.errno, errno, error.message);
    return true;
  };
}
