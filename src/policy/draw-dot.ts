/** The matrix as a graph in Graphviz' language: a box for what is alike, an arrow for what may begin to talk. */
import { UserError } from '#lib/errors.ts';
import { type Picture, SELF } from './picture.ts';

/** Names in one box. */
const MAX_NAMES = 5;
/** Lines of ports at one arrow, and letters in a line: what is longer pushes the boxes apart. */
const MAX_LABEL_LINES = 6;
const LABEL_LETTERS = 28;

/** Of more arrows `dot` makes no layers in a minute; springs keep boxes apart in seconds. */
const MAX_LAYERED_ARROWS = 300;
const SPRINGS = '  layout=sfdp; overlap=prism; splines=line;';
/** What springs lay out in a quarter of a minute. */
const MAX_ARROWS = 10_000;

/** @throws UserError for a graph that nobody could draw */
export function drawDot({ rows, reach }: Picture): string {
  const nodes = rows.map(({ name, members }) => {
    const more = members.length - MAX_NAMES;
    const shown = members.slice(0, MAX_NAMES);
    const label = labelOf(more > 0 ? [...shown, `and ${more} more`] : shown);
    return `  ${quote(name)}${label === quote(name) ? '' : ` [label=${label}]`};`;
  });
  const arrows = arrowsOf({ rows, reach });
  if (arrows.length > MAX_ARROWS)
    throw new UserError(
      `The graph would have ${arrows.length} arrows; Graphviz can lay out some ${MAX_ARROWS}`,
      { hint: 'Choose fewer pods with --namespace, or take -o svg: a matrix has room for all.' },
    );
  return [
    'digraph policy {',
    arrows.length > MAX_LAYERED_ARROWS ? SPRINGS : '  rankdir=LR;',
    '  node [shape=box, fontname="sans-serif"];',
    '  edge [fontname="sans-serif", fontsize=11];',
    ...nodes,
    ...arrows,
    '}',
  ].join('\n');
}

/** An arrow with two heads where both may, on the same ports. */
function arrowsOf({ rows, reach }: Picture): string[] {
  return rows.flatMap(({ name: from }, i) =>
    rows.flatMap(({ name: to }, j) => {
      const text = reach[i]?.[j] ?? 'none';
      if (text === 'none' || text === SELF) return [];
      const isMutual = i !== j && reach[j]?.[i] === text;
      if (isMutual && j < i) return [];
      const attributes = [
        ...(text === 'all' ? [] : [`label=${labelOf(linesOf(text))}`]),
        ...(isMutual ? ['dir=both'] : []),
      ];
      const tail = attributes.length === 0 ? '' : ` [${attributes.join(', ')}]`;
      return [`  ${quote(from)} -> ${quote(to)}${tail};`];
    }),
  );
}

/** A list of ports as lines that are not too long, nor too many. */
function linesOf(text: string): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= LABEL_LETTERS)
      lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  const more = lines.slice(MAX_LABEL_LINES).join(' ').split(' ').filter(Boolean).length;
  return more === 0 ? lines : [...lines.slice(0, MAX_LABEL_LINES), `and ${more} more`];
}

/** A name as Graphviz reads it: within quotes a backslash stands for itself unless a quote follows. */
function quote(text: string): string {
  return `"${text.replace(/["\\]/g, '\\$&')}"`;
}

/** A text as Graphviz shows it: it resolves entities of HTML in labels. */
function labelOf(lines: readonly string[]): string {
  const shown = lines.map((line) => line.replaceAll('&', '&amp;').replace(/["\\]/g, '\\$&'));
  return `"${shown.join('\\n')}"`;
}
