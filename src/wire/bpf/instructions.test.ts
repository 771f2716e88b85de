import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  alu,
  alu32,
  assemble,
  callHelper,
  callKernel,
  exit,
  FP,
  jump,
  jump32If,
  jumpIf,
  type Line,
  label,
  load,
  loadMap,
  move,
  R0,
  R1,
  R2,
  set,
  store,
  storeNumber,
} from './instructions.ts';

const hex = (...lines: Line[]) => Buffer.from(assemble(lines)).toString('hex');

test('assemble() writes instructions as RFC 9669 has them', () => {
  for (const [line, expected] of [
    [set(R0, -1), 'b7000000ffffffff'],
    [move(R1, R2), 'bf21000000000000'],
    [alu('add', R2, -4), '07020000fcffffff'],
    [alu('and', R1, { register: R2 }), '5f21000000000000'],
    [alu32('and', R1, 0xffff), '54010000ffff0000'],
    [load(16, R1, R2, 12), '69210c0000000000'],
    [load(64, R1, FP, -8), '79a1f8ff00000000'],
    [store(8, R2, 3, R1), '7312030000000000'],
    [storeNumber(32, FP, -4, 7), '620afcff07000000'],
    [callHelper(69), '8500000045000000'],
    [callKernel(65660, 2), '852002007c000100'],
    [loadMap(R1, 5), '18110000050000000000000000000000'],
    [exit(), '9500000000000000'],
  ] as const)
    assert.equal(hex(line), expected, JSON.stringify(line));
});

test('assemble() counts jumps from the next instruction, one of 16 bytes for two, backwards too', () => {
  const text = hex(
    label('begin'),
    jumpIf('eq', R1, 3, 'end'),
    loadMap(R1, 5),
    jump32If('gt', R1, { register: R2 }, 'begin'),
    jump('end'),
    label('end'),
    exit(),
  );
  assert.equal(text.slice(0, 16), '1501040003000000');
  assert.equal(text.slice(48, 64), '2e21fcff00000000');
  assert.equal(text.slice(64, 80), '0500000000000000');
});

test('assemble() refuses labels that are missing, there twice, or too far away', () => {
  assert.throws(() => hex(jump('nowhere')), /no label "nowhere"/);
  assert.throws(() => hex(label('a'), label('a')), /"a" is there twice/);
  const far = Array.from({ length: 40_000 }, () => exit());
  assert.throws(() => hex(jump('far'), ...far, label('far')), /"far" is too far away/);
});
