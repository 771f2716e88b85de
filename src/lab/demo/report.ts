/** What a run prints: a line as each step ends, and the table of all at the end. Pure but for the given output. */

export interface StepResult {
  readonly step: string;
  /** What was seen, in a few words; of a failed step, what was wrong. */
  readonly seen: string;
  readonly held: boolean;
  readonly durationMs: number;
}

export function formatProgress(elapsedMs: number, text: string): string {
  return `${seconds(elapsedMs).padStart(7)}  ${text}`;
}

export function formatStep(elapsedMs: number, result: StepResult): string {
  const mark = result.held ? 'ok  ' : 'FAIL';
  return formatProgress(elapsedMs, `${mark} ${result.step}: ${result.seen}`);
}

/** A table with columns step, what was checked, result, time. */
export function formatTable(results: readonly StepResult[]): string {
  const rows = results.map((r) => [
    r.step,
    // Long texts have been shown in full as the step ended.
    shorten(r.seen, MAX_SEEN_CHARACTERS),
    r.held ? 'held' : 'FAILED',
    seconds(r.durationMs),
  ]);
  const header = ['STEP', 'WHAT WAS SEEN', 'RESULT', 'TIME'];
  const widths = header.map((title, i) =>
    Math.max(title.length, ...rows.map((row) => (row[i] ?? '').length)),
  );
  return [header, ...rows]
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

const MAX_SEEN_CHARACTERS = 78;

function shorten(text: string, length: number): string {
  const line = text.replace(/\s+/g, ' ').trim();
  return line.length <= length ? line : `${line.slice(0, length - 1)}…`;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}
