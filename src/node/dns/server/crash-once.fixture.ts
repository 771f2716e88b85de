/** A worker for tests that crashes when the file named by the environment is missing, and makes it. */
import { existsSync, writeFileSync } from 'node:fs';

const marker = process.env.TULLE_TEST_CRASH_MARKER ?? '';
if (!existsSync(marker)) {
  writeFileSync(marker, '');
  throw new Error('crash on purpose');
}
await import('./worker.ts');
