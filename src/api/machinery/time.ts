/** Moments as API objects write them, RFC 3339. Pure. */

/** `metav1.Time`: whole seconds. @param ms since the Unix epoch */
export function formatTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

/** `metav1.MicroTime`. @param ms since the Unix epoch */
export function formatMicroTime(ms: number): string {
  return new Date(ms).toISOString().replace('Z', '000Z');
}
