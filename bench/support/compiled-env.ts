/** What `./tulle` starts Node with: what Node compiled is kept, and taken from there at the next start. */
import { join } from 'node:path';

const CACHE = join(import.meta.dirname, '../../node_modules/.cache/compile');

export const COMPILED_ENV: NodeJS.ProcessEnv = {
  ...process.env,
  NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE ?? CACHE,
};
