/** How the parts of the agent are, as the Node's conditions and `/healthz` tell it. */
import type { ComponentHealth } from './registration/plan.ts';

export interface PartHealth {
  readonly ready: boolean;
  /** What it does, or what is wrong. */
  readonly message: string;
}

/** How each part is, by asking it. A part that is not there yet is not ready. */
export class Health {
  readonly #parts = new Map<string, () => PartHealth>(
    ['FabricReady', 'ServicesReady', 'DNSReady', 'PolicyReady', 'CNIReady'].map((type) => [
      type,
      () => ({ ready: false, message: 'is starting' }),
    ]),
  );
  add(type: string, ask: () => PartHealth): void {
    this.#parts.set(type, ask);
  }
  readonly now = (): ComponentHealth[] =>
    [...this.#parts].map(([type, ask]) => ({ type, ...ask() }));
}

/** `1 pod`, `2 pods`. */
export function count(number: number, noun: string, plural = `${noun}s`): string {
  return `${number} ${number === 1 ? noun : plural}`;
}
