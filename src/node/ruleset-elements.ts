/** Elements of sets, compared by what the kernel compares them by. Pure. */
import { keyBytes } from '#wire/nftables/data-types.ts';
import type { NftSet, SetElement } from '#wire/nftables/objects.ts';

export function* inBatches<T>(all: Iterable<T>, size: number): Generator<T[]> {
  let batch: T[] = [];
  for (const item of all) {
    batch.push(item);
    if (batch.length < size) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}

/** Length of keys and data: elements of a set fit one of the same shape. */
export function shapeOf({ key, data }: Pick<NftSet, 'key' | 'data'>): string {
  const dataBytes = data === undefined || data === 'verdict' ? data : keyBytes(data);
  return `${keyBytes(key)} ${dataBytes ?? ''}`;
}

/** The end of one interval may have the key of the next one's start. */
export function keyOf(element: SetElement): string {
  const key = Buffer.from(element.key).toString('latin1');
  return element.intervalEnd ? `${key}|end` : key;
}

export function sameElement(a: SetElement | undefined, b: SetElement): boolean {
  return (
    a !== undefined &&
    sameBytes(a.data, b.data) &&
    sameBytes(a.keyEnd, b.keyEnd) &&
    JSON.stringify(a.verdict) === JSON.stringify(b.verdict)
  );
}

function sameBytes(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a === undefined || b === undefined ? a === b : Buffer.compare(a, b) === 0;
}
