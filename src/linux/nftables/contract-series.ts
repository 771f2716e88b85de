/** What `commitSeries()` of every {@link Nftables} must do; part of {@link nftablesContract}. */
import assert from 'node:assert/strict';
import { ENOENT, KernelError } from '#lib/errors.ts';
import type { Operation, Transaction } from '#wire/nftables/objects.ts';
import { inTable } from '#wire/nftables/objects.ts';
import type { RunContract } from './contract.ts';
import type { Nftables } from './port.ts';

const t = inTable('ip', 'contract');
const address = (last: number) => Uint8Array.of(192, 0, 2, last);

export function seriesContract(run: RunContract): void {
  run('commitSeries() carries out one transaction after another', ({ nft }) => {
    nft.commitSeries(series([1, 2, 3]));
    assert.deepEqual(lastBytes(nft), [1, 2, 3]);
    nft.commit([t.elements.add('addresses', [{ key: address(4) }])]);
    assert.deepEqual(lastBytes(nft), [1, 2, 3, 4]);
  });

  run('commitSeries() ends at the first that is refused, and keeps those before', ({ nft }) => {
    assert.throws(
      () =>
        nft.commitSeries(
          series([1, 2, 3], (i) =>
            i === 2 ? [t.elements.add('no-such-set', [{ key: address(9) }])] : [],
          ),
        ),
      (error) =>
        error instanceof KernelError && error.errno === ENOENT && /no-such-set/.test(error.op),
    );
    assert.deepEqual(lastBytes(nft), [1]);
    nft.commit([t.elements.add('addresses', [{ key: address(4) }])]);
    assert.deepEqual(lastBytes(nft), [1, 4]);
  });

  run('commitSeries() keeps what was carried out when the next cannot be made', ({ nft }) => {
    assert.throws(
      () =>
        nft.commitSeries(
          series([1, 2, 3], (i) => {
            if (i === 3) throw new RangeError('of the maker');
            return [];
          }),
        ),
      /of the maker/,
    );
    assert.deepEqual(lastBytes(nft), [1, 2]);
  });

  run('commitSeries() goes on when others commit in between', ({ nft, commitAsOther }) => {
    const other = inTable('ip', 'contract-other');
    nft.commitSeries(
      series([1, 2, 3], (i) => {
        commitAsOther([i === 2 ? other.table.add() : other.table.add({ comment: `${i}` })]);
        return [];
      }),
    );
    assert.deepEqual(lastBytes(nft), [1, 2, 3]);
  });
}

/** A table with a set, then for each number a transaction that adds it and what `more` gives; a `destroy` is among them. */
function* series(
  numbers: readonly number[],
  more: (number: number) => readonly Operation[] = () => [],
): Generator<Transaction> {
  yield [t.table.add(), t.set.add('addresses', { key: ['ipv4_addr'] })];
  for (const number of numbers) {
    const others = more(number);
    yield [t.elements.add('addresses', [{ key: address(number) }]), ...others];
    if (number === 1) yield [t.chain.destroy('none')];
  }
}

function lastBytes(nft: Nftables): (number | undefined)[] {
  const elements = nft.dumpTable('ip', 'contract')?.sets[0]?.elements ?? [];
  return elements.map(({ key }) => key[3]).sort();
}
