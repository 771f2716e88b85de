/** Ages as `kubectl get` prints them. `k8s.io/apimachinery/pkg/util/duration`. */

/** What an age column shows when there is no time to count from. */
export const UNKNOWN_AGE = '<unknown>';

/**
 * The age of a time in short form, with kubectl's own precision: `5s`, `2m30s`, `45m`, `3h20m`, `2d4h`, `4d`, `2y10d`.
 * @param timestamp RFC 3339, or nothing
 * @returns `<unknown>` without a readable timestamp; `0s` for times up to two seconds ahead; `<invalid>` beyond
 */
export function formatAge(timestamp: string | null | undefined, nowMs: number): string {
  if (timestamp === undefined || timestamp === null || timestamp === '') return UNKNOWN_AGE;
  const then = Date.parse(timestamp);
  return Number.isNaN(then) ? UNKNOWN_AGE : formatDuration(nowMs - then);
}

/** A duration in milliseconds in kubectl's short form; see {@link formatAge}. */
export function formatDuration(durationMs: number): string {
  const seconds = Math.trunc(durationMs / 1000);
  if (seconds < -1) return '<invalid>';
  if (seconds < 0) return '0s';
  if (seconds < 60 * 2) return `${seconds}s`;
  const minutes = Math.trunc(seconds / 60);
  if (minutes < 10) return `${minutes}m${unit(seconds % 60, 's')}`;
  if (minutes < 60 * 3) return `${minutes}m`;
  const hours = Math.trunc(minutes / 60);
  if (hours < 8) return `${hours}h${unit(minutes % 60, 'm')}`;
  if (hours < 48) return `${hours}h`;
  const days = Math.trunc(hours / 24);
  if (hours < 24 * 8) return `${days}d${unit(hours % 24, 'h')}`;
  if (hours < 24 * 365 * 2) return `${days}d`;
  const years = Math.trunc(days / 365);
  if (hours < 24 * 365 * 8) return `${years}y${unit(days % 365, 'd')}`;
  return `${years}y`;
}

function unit(count: number, name: string): string {
  return count === 0 ? '' : `${count}${name}`;
}
