/** What every part of the control plane is to whoever starts it. */
import type { SyncLoop } from '#lib/sync-loop.ts';

/** Keeps something in the API as it should be, until it is disposed of. */
export interface Controller extends AsyncDisposable {
  /** Resolves when a run that started after this call has ended well. */
  settled(): Promise<void>;
}

/** A loop with the watches that trigger it: they end together. */
export function controllerOf(loop: SyncLoop, stops: readonly (() => void)[]): Controller {
  return {
    settled: () => loop.settled(),
    async [Symbol.asyncDispose]() {
      for (const stop of stops) stop();
      await loop[Symbol.asyncDispose]();
    },
  };
}
