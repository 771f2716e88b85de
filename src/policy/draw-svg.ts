/**
 * The matrix as a picture: a square for each pair, green, pale red, or yellow with a number that stands below with its ports.
 * It must say all on paper, too; each square has a title for who points at it.
 */
import { type Picture, portKeysOf, SELF } from './picture.ts';

const TITLE = 'Who may begin to talk: row to column';
const CELL = 22;
/** Width of a letter of the names, on average; names are measured by it. */
const LETTER = 7;
const GAP = 8;
const LINE = 18;
/** From so many on, names stand at both ends of rows and columns. */
const MANY_ROWS = 24;
/** Letters of a line below the picture; the titles have the whole. */
const MAX_KEY_LETTERS = 110;
/** As different in brightness as in colour, for who sees no colours; what is allowed stands out of what is not. */
const COLOURS = { all: '#62a35c', some: '#f4cf6b', none: '#f6e0dc', self: '#c4c4c4' } as const;

export function drawSvg(picture: Picture): string {
  const { rows } = picture;
  const legend = legendOf(picture);
  const names = Math.max(...rows.map(({ name }) => name.length), 4) * LETTER + GAP * 2;
  const isMany = rows.length >= MANY_ROWS;
  const matrix = { left: names, top: names + LINE, size: rows.length * CELL };
  const far = isMany ? names : GAP;
  const below = matrix.top + matrix.size + far + LINE;
  const width = Math.max(
    names + matrix.size + far,
    TITLE.length * (LETTER + 1) + GAP * 2,
    Math.max(...legend.map(({ text }) => text.length)) * LETTER + CELL + GAP * 3,
  );
  const height = below + legend.length * (CELL + 2) + GAP;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<title>${TITLE}</title>`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    `<text x="${GAP}" y="${LINE}" font-weight="bold">${TITLE}</text>`,
    ...namesOf(picture, { ...matrix, isMany }),
    ...squaresOf(picture, matrix),
    ...legend.flatMap(({ kind, mark, text }, i) => {
      const y = below + i * (CELL + 2);
      return [
        square({ x: GAP, y, kind, mark, title: text }),
        `<text x="${GAP * 2 + CELL}" y="${y + CELL / 2 + 4}">${escapeXml(text)}</text>`,
      ];
    }),
    '</svg>',
  ].join('\n');
}

type Kind = keyof typeof COLOURS;

interface Place {
  readonly left: number;
  readonly top: number;
  readonly size: number;
}

function kindOf(text: string): Kind {
  if (text === SELF) return 'self';
  return text === 'all' || text === 'none' ? text : 'some';
}

/** The colours that are in the picture, and what its numbers mean. */
function legendOf(picture: Picture): { kind: Kind; mark: string; text: string }[] {
  const kinds = new Set(picture.reach.flat().map(kindOf));
  const words = [
    { kind: 'all', mark: '', text: 'all ports' },
    { kind: 'none', mark: '', text: 'none' },
    { kind: 'self', mark: '', text: 'itself' },
  ] as const;
  return [
    ...words.filter(({ kind }) => kinds.has(kind)),
    ...[...portKeysOf(picture)].map(([ports, key]) => ({
      ...{ kind: 'some' as const, mark: String(key) },
      text: ports.length > MAX_KEY_LETTERS ? `${ports.slice(0, MAX_KEY_LETTERS)}…` : ports,
    })),
  ];
}

function namesOf({ rows }: Picture, at: Place & { readonly isMany: boolean }): string[] {
  const { left, top, size, isMany } = at;
  return rows.flatMap(({ name, members }, i) => {
    const middle = i * CELL + CELL / 2 + 4;
    const shown = `${members.length > 1 ? `<title>${escapeXml(members.join(', '))}</title>` : ''}${escapeXml(name)}`;
    const across = (x: number, anchor: string) =>
      `<text x="${x}" y="${top + middle}" text-anchor="${anchor}">${shown}</text>`;
    const upright = (y: number, anchor: string) =>
      `<text transform="translate(${left + middle},${y}) rotate(-90)" text-anchor="${anchor}">${shown}</text>`;
    return [
      across(left - GAP, 'end'),
      upright(top - GAP, 'start'),
      ...(isMany ? [across(left + size + GAP, 'start'), upright(top + size + GAP, 'end')] : []),
    ];
  });
}

function squaresOf(picture: Picture, { left, top }: Place): string[] {
  const keys = portKeysOf(picture);
  const { rows, reach } = picture;
  return reach.flatMap((texts, row) =>
    texts.map((text, column) =>
      square({
        ...{ x: left + column * CELL, y: top + row * CELL, kind: kindOf(text) },
        mark: String(keys.get(text) ?? ''),
        title: `${rows[row]?.name} -> ${rows[column]?.name}: ${text === SELF ? 'itself' : text}`,
      }),
    ),
  );
}

function square(it: { x: number; y: number; kind: Kind; mark: string; title: string }): string {
  const { x, y, kind, mark, title } = it;
  const side = CELL - 2;
  const rect = `<rect x="${x}" y="${y}" width="${side}" height="${side}" fill="${COLOURS[kind]}"><title>${escapeXml(title)}</title></rect>`;
  // Not in the way of the pointer, which looks for the title.
  return mark === ''
    ? rect
    : `${rect}<text x="${x + side / 2}" y="${y + side / 2 + 4}" text-anchor="middle" font-size="11" pointer-events="none">${mark}</text>`;
}

function escapeXml(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
