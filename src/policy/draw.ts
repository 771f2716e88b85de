/** The matrix of who may talk to whom, as a table, as JSON, for Graphviz and as a picture. */
import { describeEnd } from './describe.ts';
import type { End } from './match.ts';
import { describeRanges, type MatrixCell } from './reach.ts';

export type MatrixFormat = 'table' | 'json' | 'dot' | 'svg';
export const MATRIX_FORMATS: readonly MatrixFormat[] = ['table', 'json', 'dot', 'svg'];

/** @param ends in the order of rows and columns; `cells` row by row */
export function drawMatrix(
  ends: readonly End[],
  cells: readonly MatrixCell[],
  format: MatrixFormat,
): string {
  const names = ends.map(describeEnd);
  switch (format) {
    case 'table':
      return table(names, cells);
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
      return dot(names, cells);
    case 'svg':
      return svg(names, cells);
  }
}

function table(names: readonly string[], cells: readonly MatrixCell[]): string {
  const rows = [
    ['FROM \\ TO', ...names],
    ...names.map((name, i) => [
      name,
      ...names.map((_, j) =>
        i === j ? '.' : describeRanges(cells[i * names.length + j]?.ranges ?? []),
      ),
    ]),
  ];
  const widths = rows[0]?.map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths?.[i] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

function dot(names: readonly string[], cells: readonly MatrixCell[]): string {
  const quote = (text: string) => `"${text.replace(/["\\]/g, '\\$&')}"`;
  const edges = cells.flatMap(({ from, to, ranges }) => {
    const [a, b] = [describeEnd(from), describeEnd(to)];
    if (a === b || ranges.length === 0) return [];
    const label = describeRanges(ranges);
    return [`  ${quote(a)} -> ${quote(b)}${label === 'all' ? '' : ` [label=${quote(label)}]`};`];
  });
  const nodes = names.map((name) => `  ${quote(name)};`);
  return ['digraph policy {', '  rankdir=LR;', '  node [shape=box];', ...nodes, ...edges, '}'].join(
    '\n',
  );
}

const CELL = 22;
const LETTER = 7;
const COLOURS = { all: '#7cb87c', some: '#e0c060', none: '#d98080', self: '#dddddd' } as const;

function svg(names: readonly string[], cells: readonly MatrixCell[]): string {
  const escaped = (text: string) => text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
  const margin = Math.max(...names.map((name) => name.length), 4) * LETTER + 16;
  const size = margin + names.length * CELL + 8;
  const labels = names.flatMap((name, i) => {
    const at = margin + i * CELL + CELL / 2 + 4;
    return [
      `<text x="${margin - 6}" y="${at}" text-anchor="end">${escaped(name)}</text>`,
      `<text transform="translate(${at},${margin - 6}) rotate(-90)">${escaped(name)}</text>`,
    ];
  });
  const squares = cells.map(({ ranges }, k) => {
    const [row, column] = [Math.floor(k / names.length), k % names.length];
    const text = describeRanges(ranges);
    const kind =
      row === column ? 'self' : text === 'all' || text === 'none' ? text : ('some' as const);
    const [x, y] = [margin + column * CELL, margin + row * CELL];
    const title = `${names[row]} -> ${names[column]}: ${text}`;
    return `<rect x="${x}" y="${y}" width="${CELL - 2}" height="${CELL - 2}" fill="${COLOURS[kind]}"><title>${escaped(title)}</title></rect>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${size}" height="${size}" font-family="sans-serif" font-size="12">`,
    '<title>Who may talk to whom: row from, column to. Green all, yellow some ports, red none.</title>',
    ...labels,
    ...squares,
    '</svg>',
  ].join('\n');
}
