/** Moments as API objects write them, RFC 3339. Pure. */

/** A server says the same second some thousand times. */
let last = { second: Number.NaN, text: '' };

/** `metav1.Time`: whole seconds. @param ms since the Unix epoch */
export function formatTime(ms: number): string {
  const second = Math.floor(ms / 1000);
  if (second !== last.second)
    last = { second, text: `${new Date(ms).toISOString().slice(0, 19)}Z` };
  return last.text;
}

/** `metav1.MicroTime`. @param ms since the Unix epoch */
export function formatMicroTime(ms: number): string {
  return new Date(ms).toISOString().replace('Z', '000Z');
}
