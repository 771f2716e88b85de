/** The matrix as people and Graphviz read it: names of any kind, and pictures that stay readable when there are many pods. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { ip } from '#lib/ip.ts';
import { drawMatrix } from './draw.ts';
import type { End } from './match.ts';
import type { MatrixCell, PortRange } from './reach.ts';

const TCP = 6;
const ALL: readonly PortRange[] = [6, 17, 132].map((protocol) => ({
  ...{ protocol, low: 1, high: 65_535 },
}));
const OUTSIDE: End = { pod: undefined, node: undefined, ip: ip('203.0.113.1') };

function pod(name: string): End {
  return {
    pod: {
      ...{ key: `shop/${name}`, namespace: 'shop', name, labels: {}, ips: [], ports: [] },
      ...{ node: undefined, hostNetwork: false },
    },
    ...{ node: undefined, ip: undefined },
  };
}

function cellsOf(
  ends: readonly End[],
  rangesOf: (from: End, to: End) => readonly PortRange[],
): MatrixCell[] {
  return ends.flatMap((from) => ends.map((to) => ({ from, to, ranges: rangesOf(from, to) })));
}

/** Each pod lets all others in on a port of its own. */
function ownPorts(ends: readonly End[]): MatrixCell[] {
  const port = new Map(ends.map((end, i) => [end, 1000 + 2 * i]));
  return cellsOf(ends, (_, to) => {
    const low = port.get(to) ?? 0;
    return [{ protocol: TCP, low, high: low }];
  });
}

const MANY = Array.from({ length: 60 }, (_, i) => pod(`${i < 30 ? 'web' : 'db'}-${i}`));
const isDb = ({ pod: it }: End) => it?.name.startsWith('db') === true;
/** What is said of `web` pods is said of all of them; `db` pods are open to those on one port. */
const manyCells = (ends: readonly End[]) =>
  cellsOf(ends, (from, to) => {
    if (!isDb(to)) return ALL;
    return from.pod !== undefined && !isDb(from) ? [{ protocol: TCP, low: 5432, high: 5432 }] : [];
  });

describe('drawMatrix() with many pods', () => {
  const ends = [...MANY, OUTSIDE];
  const cells = manyCells(ends);

  test('shows those that are treated alike once, and names them', () => {
    const [head, web, db, outside, , ...members] = drawMatrix(ends, cells, 'table').split('\n');
    assert.match(
      head ?? '',
      /^FROM \\ TO +shop\/web-0 and 29 more +shop\/db-30 and 29 more +outside/,
    );
    assert.match(web ?? '', /^shop\/web-0 and 29 more +all +5432\/TCP +all$/);
    assert.match(db ?? '', /^shop\/db-30 and 29 more +all +none +all$/);
    assert.match(outside ?? '', /^outside \(203\.0\.113\.1\) +all +none +\.$/);
    assert.match(members.join('\n'), /^shop\/db-30 and 29 more: shop\/db-30, shop\/db-31, /);
  });

  test('a pod of which one thing is different stands alone', () => {
    const other = cells.map((cell) =>
      cell.from.pod?.name === 'web-7' && cell.to === OUTSIDE ? { ...cell, ranges: [] } : cell,
    );
    const lines = drawMatrix(ends, other, 'table').split('\n');
    assert.ok(lines.some((line) => /^shop\/web-7 +all +\. +5432\/TCP +none$/.test(line)));
    assert.ok(lines.some((line) => line.startsWith('shop/web-0 and 28 more ')));
  });

  test('JSON has each pair', () => {
    assert.equal(JSON.parse(drawMatrix(ends, cells, 'json')).length, 61 ** 2);
  });

  test('the graph has a box for each kind, and one arrow with two heads for what is mutual', () => {
    const dot = drawMatrix(ends, cells, 'dot');
    assert.match(dot, /"shop\/web-0 and 29 more" \[label=".*\\nand 25 more"\];/);
    assert.match(dot, /"shop\/web-0 and 29 more" -> "shop\/web-0 and 29 more";/);
    assert.match(dot, /"shop\/web-0 and 29 more" -> "outside \(203\.0\.113\.1\)" \[dir=both\];/);
    assert.equal(dot.match(/->/g)?.length, 5);
  });

  test('a table that no terminal could show has numbers above its columns', () => {
    const few = MANY.slice(0, 20);
    const lines = drawMatrix(few, ownPorts(few), 'table').split('\n');
    assert.match(lines[0] ?? '', /^FROM \\ TO +1 +2 +3 /);
    assert.match(lines[2] ?? '', /^ 2 shop\/web-1 +#20 +\. +#2 +#3 /);
    assert.ok(lines.includes('#20: 1000/TCP'));
    assert.ok(lines.every((line) => line.length <= 160));
  });

  test('a graph of many arrows is left to springs, and one of too many is refused', () => {
    const draw = (count: number) => {
      const some = Array.from({ length: count }, (_, i) => pod(`p${i}`));
      return drawMatrix(some, ownPorts(some), 'dot');
    };
    assert.match(draw(10), /rankdir=LR/);
    assert.match(draw(30), /layout=sfdp/);
    assert.throws(() => draw(102), { name: 'UserError', message: /would have 10302 arrows/ });
  });
});

const NASTY = [
  ...['a"b', 'back\\slash', 'end\\', '\\N\\n\\l', '<b>&amp;</b>', '&lt;', "quote'q", 'a]b[c;'],
  ...['-> x', '  ', '{rec|ord}', 'ünï–code 漢字 🙂', 'new\nline', 'bell\u0007', '\u001b[31m'],
  ...['half \ud800', 'x'.repeat(253), 'node', 'digraph {', '/* c */', '# d', 'a -- b', '$x'],
];
const SHOWN = NASTY.map((name) => `shop/${name.toWellFormed().replace(/\p{Cc}/gu, '\ufffd')}`);

describe('drawMatrix() with names of any kind', () => {
  const ends = NASTY.map(pod);
  const cells = ownPorts(ends);

  test('SVG is XML', () => {
    const svg = drawMatrix(ends, cells, 'svg');
    // What remains without tags and references is text that XML takes as it is.
    const text = svg
      .replace(/<\/?[a-z]+(?: [a-zA-Z:-]+="[^"<&]*")*\/?>/g, '')
      .replace(/&#\d+;/g, '');
    assert.doesNotMatch(text, /[<>&]|(?!\n)\p{Cc}|\p{Cs}/u);
    const tags = [...svg.matchAll(/<(\/?)[a-z]+[^<]*?(\/?)>/g)];
    const depth = tags.reduce((sum, [, end, empty]) => sum + (end ? -1 : empty ? 0 : 1), 0);
    assert.equal(depth, 0);
  });

  test('the table has a line for each', () => {
    const lines = drawMatrix(ends, cells, 'table').split('\n');
    assert.equal(lines.indexOf(''), NASTY.length + 1);
    assert.ok(lines.every((line) => !/\p{Cc}/u.test(line)));
  });

  const skip =
    spawnSync('dot', ['-V']).error === undefined ? false : 'there is no dot: install graphviz';

  test('Graphviz reads each name as it is, and draws it', { skip }, () => {
    const graphs = [
      drawMatrix(ends, cells, 'dot'),
      // By layers, as small ones are.
      ...ends.map((end) => drawMatrix([end, OUTSIDE], manyCells([end, OUTSIDE]), 'dot')),
    ].map((text) => {
      const result = spawnSync('dot', ['-Tsvg'], { input: text, encoding: 'utf8' });
      assert.deepEqual([result.status, result.stderr], [0, '']);
      return textsOf(result.stdout);
    });
    assert.deepEqual(
      graphs[0]?.filter((text) => text.startsWith('shop/')).toSorted(),
      SHOWN.toSorted(),
    );
    graphs.slice(1).forEach((texts, i) => {
      assert.deepEqual(texts.toSorted(), [SHOWN[i], 'outside (203.0.113.1)'].toSorted());
    });
  });
});

/** What a picture of Graphviz shows as text. It puts hard spaces for spaces. */
function textsOf(svg: string): string[] {
  const NAMED: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"' };
  return [...svg.matchAll(/<text [^>]*>([^<]*)<\/text>/g)].map(([, text = '']) =>
    text
      .replace(/&#(\d+);|&(\w+);/g, (_, code: string, name: string) =>
        code === undefined ? (NAMED[name] ?? '?') : String.fromCodePoint(Number(code)),
      )
      .replaceAll('\u00a0', ' '),
  );
}
