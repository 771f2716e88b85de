/**
 * The matrix as it is drawn: texts in place of ports, and where there are too many ends to tell apart, those that are treated
 * alike as one.
 *
 * Two pods are alike if whatever may talk to one, or be talked to by it, may do so with the other, on the same ports, and
 * if what the one may do with the other, the other may do with the one. That is an equivalence, so it makes groups.
 */
import { describeEnd } from './describe.ts';
import type { End } from './match.ts';
import { describeRanges, type MatrixCell } from './reach.ts';

export interface PictureRow {
  readonly name: string;
  /** The names of all that it stands for. */
  readonly members: readonly string[];
}

/** What one end alone may do with itself says nothing about policies. */
export const SELF = '.';

export interface Picture {
  readonly rows: readonly PictureRow[];
  /** By row, then by column, in words (`all`, `none`, `80/TCP`) or {@link SELF}. */
  readonly reach: readonly (readonly string[])[];
}

/**
 * @param cells row by row
 * @param options `maxEach`: so many ends are drawn one by one; of more, those that are alike together
 */
export function pictureOf(
  ends: readonly End[],
  cells: readonly MatrixCell[],
  { maxEach }: { readonly maxEach: number },
): Picture {
  const size = ends.length;
  const texts = cells.map(({ ranges }) => describeRanges(ranges));
  const between = (from: number, to: number) => texts[from * size + to] ?? 'none';
  const groups = size <= maxEach ? ends.map((_, i) => [i]) : groupAlike(ends, between);
  return {
    rows: groups.map((group) => {
      const members = group.map((i) => nameOf(ends[i] ?? NOBODY));
      const more = members.length - 1;
      return { name: `${members[0]}${more > 0 ? ` and ${more} more` : ''}`, members };
    }),
    reach: groups.map((from) =>
      groups.map((to) => {
        const [a = 0, another] = from;
        if (from !== to) return between(a, to[0] ?? 0);
        return another === undefined ? SELF : between(a, another);
      }),
    ),
  };
}

/** What stands for the rest of the world says so. */
export function nameOf(end: End): string {
  const { pod, node, domain } = end;
  const isOutside = pod === undefined && node === undefined && domain === undefined;
  return printable(isOutside ? `outside (${describeEnd(end)})` : describeEnd(end));
}

const NOBODY: End = { pod: undefined, node: undefined, ip: undefined };

/** @returns indexes, by the first of each group */
function groupAlike(
  ends: readonly End[],
  between: (from: number, to: number) => string,
): (readonly number[])[] {
  const areAlike = (a: number, b: number) =>
    between(a, b) === between(b, a) &&
    ends.every(
      (_, other) =>
        other === a ||
        other === b ||
        (between(a, other) === between(b, other) && between(other, a) === between(other, b)),
    );
  const groups: number[][] = [];
  ends.forEach((end, i) => {
    // What is no pod has a name of its own in the picture: the world outside is not one of many.
    const group =
      end.pod === undefined
        ? undefined
        : groups.find(([first = 0]) => ends[first]?.pod !== undefined && areAlike(first, i));
    if (group === undefined) groups.push([i]);
    else group.push(i);
  });
  return groups;
}

/** A file may hold any text for a name; a picture, or a terminal, takes no control characters. */
function printable(text: string): string {
  return text.toWellFormed().replace(/\p{Cc}/gu, '\ufffd');
}

/** The distinct lists of ports of a picture, so that a cell can show a number in place of a list. */
export function portKeysOf({ reach }: Picture): ReadonlyMap<string, number> {
  const keys = new Map<string, number>();
  for (const text of reach.flat())
    if (text !== 'all' && text !== 'none' && text !== SELF && !keys.has(text))
      keys.set(text, keys.size + 1);
  return keys;
}
