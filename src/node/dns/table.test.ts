import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ip } from '#lib/ip.ts';
import { TYPE_A, TYPE_SRV, TYPE_TXT } from '#wire/dns/constants.ts';
import { type Name, name, nameToWire } from '#wire/dns/name.ts';
import { Arena } from './arena.ts';
import { hashName } from './query.ts';
import type { RecordSet } from './records.ts';
import { decodeSets, encodeSets, NO_SETS } from './sets.ts';
import { NameTable, NO_ENTRY } from './table.ts';
import { DOMAIN, exampleZone } from './testing.ts';

test('Arena hands out places that do not overlap, and freed ones again', () => {
  const arena = new Arena();
  const held: { place: number; bytes: number; mark: number }[] = [];
  const sizes = [1, 16, 17, 100, 1024, 1025, 5000, 70_000, 300_000, 1024 * 1024];
  for (let i = 0; i < 400; i++) {
    const bytes = sizes[(i * 7) % sizes.length] ?? 1;
    const place = arena.allocate(bytes);
    const offset = arena.offset(place);
    assert.ok(offset + bytes <= arena.chunk(place).length);
    arena.chunk(place).fill(i & 0xff, offset, offset + bytes);
    held.push({ place, bytes, mark: i & 0xff });
    if (i % 3 === 0) {
      const [gone] = held.splice((i * 5) % held.length, 1);
      if (gone !== undefined) arena.free(gone.place, gone.bytes);
    }
  }
  for (const { place, bytes, mark } of held) {
    const offset = arena.offset(place);
    const octets = arena.chunk(place).subarray(offset, offset + bytes);
    assert.ok(octets.every((octet) => octet === mark));
  }
  assert.throws(() => arena.allocate(1024 * 1024 + 1), RangeError);
});

test('Arena takes no more memory for things that come and go', () => {
  const arena = new Arena();
  const places = Array.from({ length: 1000 }, () => arena.allocate(200));
  const { bytes } = arena;
  for (let round = 0; round < 50; round++)
    for (const [i, place] of places.entries()) {
      arena.free(place, 200);
      places[i] = arena.allocate(200);
    }
  assert.equal(arena.bytes, bytes);
});

test('NameTable knows what a Map knows, whatever comes, changes and goes', () => {
  // Few hashes in a small table: runs of full slots that wrap around, and holes in them.
  const names = Array.from({ length: 60 }, (_, i) => name(`n${i}.cluster.local.`));
  const step = fc.record({
    at: fc.nat(names.length - 1),
    value: fc.option(fc.nat(250), { nil: undefined }),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), fc.nat(), (steps, seed) => {
      const table = new NameTable({ zone: DOMAIN, seed });
      const model = new Map<Name, number>();
      for (const { at, value } of steps) {
        const owner = names[at] ?? DOMAIN;
        const sets = value === undefined ? undefined : textOf(owner, value);
        table.apply([{ name: owner, sets }]);
        if (value === undefined) model.delete(owner);
        else model.set(owner, value);
      }
      assert.equal(table.size, model.size);
      for (const owner of names) assert.equal(lastOctet(table, owner), model.get(owner));
    }),
    { numRuns: 50 },
  );
});

test('NameTable grows, and finds every name in any case of letters', () => {
  const table = new NameTable({ zone: DOMAIN, seed: 3 });
  const names = Array.from({ length: 5000 }, (_, i) => name(`svc-${i}.default.svc.cluster.local.`));
  table.apply(names.map((owner, i) => ({ name: owner, sets: textOf(owner, i % 250) })));
  for (const [i, owner] of names.entries()) {
    const wire = nameToWire(owner.toUpperCase() as Name);
    const entry = table.find(wire, 0, wire.length, hashName(wire, 0, wire.length, 3));
    assert.notEqual(entry, NO_ENTRY);
    assert.equal(table.nameOf(entry), owner);
    assert.equal(lastOctet(table, owner), i % 250);
  }
  table.apply(names.map((owner) => ({ name: owner, sets: undefined })));
  assert.equal(table.size, 0);
  assert.equal(table.findName(names[77] ?? DOMAIN), NO_ENTRY);
});

test('decodeSets() gives back what encodeSets() was given, for each name of the example', () => {
  let sets = 0;
  for (const { name: owner, sets: text } of exampleZone().all()) {
    assert.ok(text !== undefined);
    const decoded = decodeSets(owner, text);
    sets += decoded.length;
    // What was written record by record is what the general encoder makes, as far as a reader can tell.
    const withText = [...decoded, { type: TYPE_TXT, ttlS: 1, data: [TEXT] } satisfies RecordSet];
    assert.deepEqual(decodeSets(owner, encodeSets(owner, withText)).slice(0, -1), decoded);
    assert.equal(encodeSets(owner, decoded), text);
  }
  assert.ok(sets > 20, String(sets));
  assert.equal(encodeSets(DOMAIN, []), NO_SETS);
});

test('encodeSets() leaves out what a message cannot hold', () => {
  const target = name(`${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(60)}.example.`);
  const data = Array.from({ length: 2000 }, (_, port) => ({
    ...({ kind: 'SRV', priority: 0, weight: 1, port, target } as const),
  }));
  const [set] = decodeSets(DOMAIN, encodeSets(DOMAIN, [{ type: TYPE_SRV, ttlS: 5, data }]));
  assert.ok(set !== undefined && set.data.length > 200 && set.data.length < 2000);
});

test('decodeSets() refuses what is cut or garbled', () => {
  const text = textOf(DOMAIN, 1);
  for (const broken of [text.slice(0, -1), text.slice(0, 5), `${text}\u0000`, '\u00ff'.repeat(40)])
    assert.throws(() => decodeSets(DOMAIN, broken), { name: 'DecodeError' });
});

const TEXT = { kind: 'TXT', strings: [Buffer.from('x')] } as const;

function textOf(owner: Name, value: number): string {
  const data = [{ kind: 'A', address: ip(`192.0.2.${value}`) } as const];
  return encodeSets(owner, [{ type: TYPE_A, ttlS: 5, data }]);
}

function lastOctet(table: NameTable, owner: Name): number | undefined {
  const entry = table.findName(owner);
  if (entry === NO_ENTRY) return undefined;
  const answer = table.prepared(entry, TYPE_A);
  return answer?.bytes[answer.end - 1];
}
