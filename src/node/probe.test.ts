import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ENOENT, EPROTONOSUPPORT, KernelError, UserError } from '#lib/errors.ts';
import { FakeNetwork } from '#linux/network/fake.ts';
import { FakeNftables } from '#linux/nftables/fake.ts';
import type { Transaction } from '#wire/nftables/objects.ts';
import { kernelHealth, openOrRefuse, probeKernel } from './probe.ts';

/** A kernel that refuses transactions in which the text stands. */
class PoorKernel extends FakeNftables {
  readonly #lacks: RegExp;
  constructor(lacks: RegExp) {
    super();
    this.#lacks = lacks;
  }
  override commit(transaction: Transaction): void {
    const text = JSON.stringify(transaction, (_, v: unknown) => (typeof v === 'bigint' ? 0 : v));
    if (this.#lacks.test(text)) throw new KernelError('add a rule', ENOENT);
    super.commit(transaction);
  }
}

const NOTHING = /(?!)/;
const host = () => new FakeNetwork().open();

test('probeKernel() finds all in a full kernel, and leaves nothing behind', () => {
  using nftables = new PoorKernel(NOTHING);
  assert.deepEqual(probeKernel(host(), nftables), []);
  assert.deepEqual(nftables.listTables(), []);
  assert.deepEqual(kernelHealth([]), { ready: true, message: 'the kernel has all that is used' });
});

for (const [lacks, option] of [
  [/"jhash"/, 'CONFIG_NFT_HASH'],
  [/"bridge"/, 'CONFIG_NF_TABLES_BRIDGE'],
] as const)
  test(`probeKernel() goes on without ${option}, and says what is done instead`, () => {
    using nftables = new PoorKernel(lacks);
    const gaps = probeKernel(host(), nftables);
    assert.deepEqual(
      gaps.map((gap) => gap.option),
      [option],
    );
    const { ready, message } = kernelHealth(gaps);
    assert.ok(ready && message.includes(option), message);
  });

for (const [lacks, option] of [
  [/"masquerade"/, 'CONFIG_NFT_MASQ'],
  [/"fib"/, 'CONFIG_NFT_FIB_IPV6'],
  [/"numgen"/, 'CONFIG_NFT_NUMGEN'],
  [/"notrack"/, 'CONFIG_NFT_CT'],
  [/"reject"/, 'CONFIG_NFT_REJECT'],
  [/"log"/, 'CONFIG_NFT_LOG'],
  [/"dynset"/, 'Linux 5.13'],
  [/"ip6"/, 'CONFIG_NF_TABLES_IPV6'],
] as const)
  test(`probeKernel() refuses a kernel without ${option}, in plain words`, () => {
    using nftables = new PoorKernel(lacks);
    assert.throws(
      () => probeKernel(host(), nftables),
      (error: unknown) => error instanceof UserError && (error.hint ?? '').includes(option),
    );
  });

test('probeKernel() names all that is missing at once', () => {
  using nftables = new PoorKernel(/"fib"|"numgen"/);
  assert.throws(() => probeKernel(host(), nftables), {
    message: 'This kernel refuses what Tulle needs: a choice at random; the type of an address',
  });
});

test('openOrRefuse() says in plain words that a kernel has no nftables', () => {
  const refuse = (errno: number) => () =>
    openOrRefuse(() => {
      throw new KernelError('open a netlink socket', errno);
    });
  assert.throws(refuse(EPROTONOSUPPORT), UserError);
  assert.throws(refuse(ENOENT), KernelError);
});
