import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { cidr, ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { DnsMemory, readDnsMemory } from './memory.ts';
import { exampleZone } from './testing.ts';

const folder = mkdtempSync(join(tmpdir(), 'tulle-dns-memory-'));
after(() => rmSync(folder, { recursive: true }));
const path = join(folder, 'dns', 'names.jsonl');
const head = {
  domain: 'cluster.local',
  serviceIps: [ip('10.96.0.10')],
  trusted: [cidr('10.244.0.0/16')],
};

async function written(): Promise<string> {
  await using memory = new DnsMemory({ path, head: () => head, log: silentLogger });
  memory.changed(() => exampleZone().all());
  await memory.settled();
  return readFileSync(path, 'utf8');
}

test('readDnsMemory() reads what DnsMemory has written, to the octet', async () => {
  await written();
  const remembered = await readDnsMemory(path, silentLogger);
  assert.deepEqual({ ...remembered, names: [] }, { ...head, names: [] });
  const plain = (names: Iterable<unknown>) => [...names].map((it) => JSON.stringify(it)).sort();
  assert.deepEqual(plain(remembered?.names ?? []), plain(exampleZone().all()));
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(join(folder, 'dns')), ['names.jsonl']);
});

test('readDnsMemory() trusts nothing that is cut, garbled or of another version', async () => {
  const text = await written();
  const lines = text.trimEnd().split('\n');
  for (const [what, broken] of [
    ['cut between lines', lines.slice(0, -1).join('\n')],
    ['cut in a line', text.slice(0, text.length / 2)],
    ['a line missing', [...lines.slice(0, 3), ...lines.slice(4)].join('\n')],
    ['more after its end', `${text}{"name":"x.","sets":[]}\n`],
    ['empty', ''],
    ['binary', '\u0000\u0001'],
    ['another version', text.replace('"version":2', '"version":1')],
    ['a name that is none', text.replace(/"name":"[^"]+"/, '"name":"a..b"')],
  ] as const) {
    writeFileSync(path, broken);
    assert.equal(await readDnsMemory(path, silentLogger), undefined, what);
  }
  assert.equal(await readDnsMemory(join(folder, 'none'), silentLogger), undefined);
});
