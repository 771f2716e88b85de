/** The matrix of who may talk to whom, as a table, as JSON, for Graphviz and as a picture. */
import { describeEnd } from './describe.ts';
import { drawDot } from './draw-dot.ts';
import { drawSvg } from './draw-svg.ts';
import type { End } from './match.ts';
import { type Picture, pictureOf, portKeysOf } from './picture.ts';
import { describeRanges, type MatrixCell } from './reach.ts';

export type MatrixFormat = 'table' | 'json' | 'dot' | 'svg';
export const MATRIX_FORMATS: readonly MatrixFormat[] = ['table', 'json', 'dot', 'svg'];

/** More rows than this nobody reads one by one, nor has a screen so many columns. */
const MAX_ROWS_EACH = 40;
/** A graph of all pairs is a tangle from a handful on. */
const MAX_NODES_EACH = 6;

/** @param ends in the order of rows and columns; `cells` row by row */
export function drawMatrix(
  ends: readonly End[],
  cells: readonly MatrixCell[],
  format: MatrixFormat,
): string {
  switch (format) {
    case 'table':
      return table(pictureOf(ends, cells, { maxEach: MAX_ROWS_EACH }));
    case 'json':
      return JSON.stringify(
        cells.map(({ from, to, ranges }) => ({
          from: describeEnd(from),
          to: describeEnd(to),
          allowed: describeRanges(ranges),
          ranges,
        })),
        null,
        2,
      );
    case 'dot':
      return drawDot(pictureOf(ends, cells, { maxEach: MAX_NODES_EACH }));
    case 'svg':
      return drawSvg(pictureOf(ends, cells, { maxEach: MAX_ROWS_EACH }));
  }
}

/** What a terminal may be expected to show without folding lines. */
const MAX_TABLE_WIDTH = 160;
const CORNER = 'FROM \\ TO';

/** With names above the columns, or, where that is too wide, with their numbers. */
function table(picture: Picture): string {
  const { rows, reach } = picture;
  const named = formatTable([
    [CORNER, ...rows.map(({ name }) => name)],
    ...rows.map(({ name }, i) => [name, ...(reach[i] ?? [])]),
  ]);
  const isWide = named.some((line) => line.length > MAX_TABLE_WIDTH);
  const lines = isWide ? numberedTable(picture) : named;
  for (const { name, members } of rows)
    if (members.length > 1) lines.push(`${name}: ${members.join(', ')}`);
  return lines.join('\n');
}

function numberedTable(picture: Picture): string[] {
  const { rows, reach } = picture;
  const keys = portKeysOf(picture);
  const width = String(rows.length).length;
  const lines = formatTable([
    [CORNER, ...rows.map((_, i) => String(i + 1))],
    ...rows.map(({ name }, i) => [
      `${String(i + 1).padStart(width)} ${name}`,
      ...(reach[i] ?? []).map((text) => (keys.has(text) ? `#${keys.get(text)}` : text)),
    ]),
  ]);
  return [...lines, '', ...[...keys].map(([text, key]) => `#${key}: ${text}`)];
}

function formatTable(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]?.map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths?.[i] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}
