/** A forwarder for tests that crashes at its first question when the file named by the environment is missing, and makes it. */
import { existsSync, writeFileSync } from 'node:fs';
import { Forwarder } from '../forward.ts';

const marker = process.env.TULLE_TEST_CRASH_MARKER ?? '';
if (!existsSync(marker))
  Forwarder.prototype.resolve = function crash(): Promise<undefined> {
    writeFileSync(marker, '');
    setImmediate(() => {
      throw new Error('crash on purpose');
    });
    return new Promise(() => undefined);
  };
await import('./forward-worker.ts');
