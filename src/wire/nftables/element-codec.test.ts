import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readAttributeList } from '#wire/netlink/reader.ts';
import { NetlinkWriter } from '#wire/netlink/writer.ts';
import { decodeElement, ElementEncoder, encodeElement } from './element-codec.ts';
import { goTo } from './expressions.ts';
import type { SetElement } from './objects.ts';

const bytes = (maxLength: number) =>
  fc.uint8Array({ minLength: 1, maxLength }).map((value) => Uint8Array.from(value));
const element: fc.Arbitrary<SetElement> = fc
  .record(
    {
      key: bytes(20),
      keyEnd: fc.option(bytes(20), { nil: undefined, freq: 8 }),
      intervalEnd: fc.option(fc.constant(true), { nil: undefined, freq: 8 }),
      value: fc.oneof(
        fc.constant({}),
        bytes(20).map((data) => ({ data })),
        fc.constantFrom('n1', 'n2', 'longer').map((chain) => ({ verdict: goTo(chain) })),
      ),
      timeoutMs: fc.option(fc.nat(), { nil: undefined, freq: 8 }),
      expiresMs: fc.option(fc.nat(), { nil: undefined, freq: 8 }),
      comment: fc.option(fc.stringMatching(/^[a-z/]{1,20}$/), { nil: undefined, freq: 8 }),
    },
    { noNullPrototype: true },
  )
  .map(({ value, ...rest }) => withoutUndefined({ ...rest, ...value }));

function withoutUndefined(object: object): SetElement {
  const entries = Object.entries(object).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as unknown as SetElement;
}

test('ElementEncoder writes the same bytes as one element after another', () => {
  fc.assert(
    fc.property(fc.array(element), (elements) => {
      const plain = new NetlinkWriter();
      for (const one of elements) encodeElement(plain, one);
      const fast = new NetlinkWriter();
      const encoder = new ElementEncoder(fast);
      for (const one of elements) encoder.encode(one);
      assert.deepEqual(fast.bytes(), plain.bytes());
    }),
  );
});

test('decodeElement() gives back what encodeElement() was given', () => {
  fc.assert(
    fc.property(element, (one) => {
      const writer = new NetlinkWriter();
      encodeElement(writer, one);
      const [item] = readAttributeList(writer.bytes());
      assert.ok(item !== undefined);
      assert.deepEqual(decodeElement(item.value), one);
    }),
  );
});
