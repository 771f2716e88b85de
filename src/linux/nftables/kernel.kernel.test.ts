import { execFileSync } from 'node:child_process';
import { nftablesContract } from './contract.ts';
import { openNftables } from './kernel.ts';

let count = 0;

for (const destroy of [true, false])
  nftablesContract(destroy ? 'kernel' : 'kernel without destroy', () => {
    const namespace = `tulle-nft-${process.pid}-${count++}`;
    execFileSync('ip', ['netns', 'add', namespace]);
    const netns = `/run/netns/${namespace}`;
    const nft = openNftables({ netns, destroy });
    const other = openNftables({ netns });
    return {
      nft,
      commitAsOther: (transaction) => other.commit(transaction),
      [Symbol.dispose]() {
        nft[Symbol.dispose]();
        other[Symbol.dispose]();
        execFileSync('ip', ['netns', 'delete', namespace]);
      },
    };
  });
