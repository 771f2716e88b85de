/** Files that a person names by an option. */
import { readFileSync } from 'node:fs';
import { explainError, UserError } from './errors.ts';

/** @returns the text of the file @throws UserError if it cannot be read; names the option */
export function readOptionFile(flag: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new UserError(`Cannot read "${path}" (${flag}): ${explainError(cause)}`, {
      hint: 'Check the path and the permissions.',
      cause,
    });
  }
}
