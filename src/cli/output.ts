/** How errors reach a person: what, where, why, what to do; and the exit status. */
import { explainError, UserError } from '#lib/errors.ts';

/** Exit status for a wrong command line, and for a question that cannot be answered. */
export const EXIT_USAGE = 2;
/** Exit status after Ctrl-C: 128 + SIGINT. */
export const EXIT_INTERRUPTED = 130;

class NoAnswer extends Error {}

/** For commands whose status 1 is an answer (denied, found, changed): theirs is 2 if they fail, as with `grep` and `diff`. */
export async function answering(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (cause) {
    throw new NoAnswer('no answer', { cause });
  }
}

/** @returns the lines for standard error, and the exit status */
export function describeFailure(error: unknown): { text: string; exitCode: number } {
  if (error instanceof NoAnswer) return { ...describeFailure(error.cause), exitCode: EXIT_USAGE };
  if (error instanceof UserError) {
    const why = error.cause === undefined ? '' : explainError(error.cause);
    // Many a message ends with its cause already.
    const cause = error.message.endsWith(why) ? '' : ` (${why})`;
    const hint = error.hint === undefined ? '' : `\n  ${error.hint}`;
    return { text: `tulle: ${error.message}${cause}${hint}`, exitCode: error.exitCode };
  }
  const stack = process.env.TULLE_DEBUG && error instanceof Error ? `\n${error.stack}` : '';
  return { text: `tulle: ${explainError(error)}${stack}`, exitCode: 1 };
}

/** Columns as wide as their widest cell. Cells must be printable; an empty table gives no lines. */
export function formatColumns(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows)
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length);
    });
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('   ')
        .trimEnd(),
    )
    .join('\n');
}
