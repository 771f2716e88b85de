/** The wait of tests for what happens in the background and is not announced. */

/** Longer than anything takes that a test waits for on a busy machine, and shorter than the test runner's own limit. */
const MAX_WAIT_MS = 120_000;
/** What needs no more than turns of the event loop is seen in the turn in which it comes true. */
const MAX_TURNS = 100;
const LOOK_AGAIN_MS = 2;

/**
 * Resolves when the condition holds.
 * @param condition looked at between turns of the event loop, then every few milliseconds
 * @throws Error that shows the condition, if it does not come true
 */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const endMs = performance.now() + MAX_WAIT_MS;
  for (let looks = 0; !(await condition()); looks++) {
    if (performance.now() > endMs)
      throw new Error(`waited ${MAX_WAIT_MS / 1000} s in vain until ${condition}`);
    await new Promise((resolve) => {
      if (looks < MAX_TURNS) setImmediate(resolve);
      else setTimeout(resolve, LOOK_AGAIN_MS);
    });
  }
}
