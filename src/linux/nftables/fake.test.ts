import { nftablesContract } from './contract.ts';
import { FakeNftables } from './fake.ts';

nftablesContract('fake', () => {
  const nft = new FakeNftables();
  return {
    nft,
    commitAsOther: (transaction) => nft.commitAsOther(transaction),
    [Symbol.dispose]: () => nft[Symbol.dispose](),
  };
});
