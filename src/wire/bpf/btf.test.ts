import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Btf } from './btf.ts';

const KIND = { integer: 1, struct: 4, union: 5, function: 12, prototype: 13, unknown: 31 };

/** A type as BTF has it: the name, then words; members are [name, type, bits]. */
type Type = readonly [
  kind: keyof typeof KIND,
  name: string,
  members?: readonly (readonly [name: string, type: number, bits: number])[],
];

/** @param base strings of the BTF that this one continues */
function encode(types: readonly Type[], base = '\0'): { bytes: Uint8Array; strings: string } {
  let strings = base === '\0' ? '\0' : '';
  const place = (name: string) => {
    if (base.includes(`\0${name}\0`)) return base.indexOf(`\0${name}\0`) + 1;
    strings += strings === '' ? `${name}\0` : strings.includes(`\0${name}\0`) ? '' : `${name}\0`;
    const own = strings.startsWith(`${name}\0`) ? 0 : strings.indexOf(`\0${name}\0`) + 1;
    return own + (base === '\0' ? 0 : base.length);
  };
  const words = types.flatMap(([kind, name, members = []]) => [
    place(name),
    (KIND[kind] << 24) | members.length,
    0,
    ...(kind === 'integer' ? [32] : []),
    ...members.flatMap(([member, type, bits]) => [place(member), type, bits]),
  ]);
  const header = Buffer.alloc(24);
  header.writeUInt16LE(0xeb9f);
  header.writeUInt8(1, 2);
  header.writeUInt32LE(24, 4);
  header.writeUInt32LE(words.length * 4, 12);
  header.writeUInt32LE(words.length * 4, 16);
  header.writeUInt32LE(strings.length, 20);
  const body = Buffer.from(Uint32Array.from(words).buffer);
  return { bytes: Buffer.concat([header, body, Buffer.from(strings)]), strings };
}

const KERNEL = encode([
  ['integer', 'int'],
  [
    'union',
    'proto',
    [
      ['udp', 1, 0],
      ['tcp', 3, 0],
    ],
  ],
  [
    'struct',
    'tcp',
    [
      ['seen', 1, 0],
      ['state', 1, 320],
    ],
  ],
  [
    'struct',
    'nf_conn',
    [
      ['status', 1, 1024],
      ['proto', 2, 1472],
    ],
  ],
  ['function', 'bpf_redirect'],
]);

test('Btf finds functions by their number and members by their place', () => {
  const btf = new Btf(KERNEL.bytes);
  assert.equal(btf.functionId('bpf_redirect'), 5);
  assert.equal(btf.functionId('nf_conn'), undefined, 'is no function');
  assert.equal(btf.functionId('bpf_redir'), undefined);
  assert.equal(btf.memberOffset('nf_conn', 'status'), 128);
  assert.equal(btf.memberOffset('nf_conn', 'proto', 'tcp', 'state'), 184 + 40);
  assert.equal(btf.memberOffset('nf_conn', 'proto', 'sctp'), undefined);
  assert.equal(btf.memberOffset('nothing', 'status'), undefined);
});

test('a module’s types go on where the kernel’s end, and its strings too', () => {
  const kernel = new Btf(KERNEL.bytes);
  const module = encode(
    [
      ['struct', 'own', [['inner', 4, 64]]],
      ['function', 'bpf_skb_ct_lookup'],
      ['function', 'nf_conn'],
    ],
    KERNEL.strings,
  );
  const btf = new Btf(module.bytes, kernel);
  assert.equal(btf.functionId('bpf_skb_ct_lookup'), 7);
  assert.equal(btf.functionId('nf_conn'), 8, 'the name is the kernel’s string');
  assert.equal(btf.functionId('bpf_redirect'), undefined, 'is the kernel’s');
  assert.equal(btf.memberOffset('own', 'inner', 'status'), 8 + 128);
});

test('Btf refuses what is none, and kinds that it does not know the length of', () => {
  assert.throws(() => new Btf(Buffer.alloc(100)), /not BTF/);
  assert.throws(() => new Btf(Buffer.alloc(2)), /not BTF/);
  assert.throws(() => new Btf(encode([['unknown', 'x']]).bytes), /unknown kind, 31/);
});
