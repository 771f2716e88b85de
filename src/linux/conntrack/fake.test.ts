import { familyOf } from '#lib/ip.ts';
import { conntrackContract } from './contract.ts';
import { FakeConntrack } from './fake.ts';

conntrackContract('fake', () => {
  const conntrack = new FakeConntrack();
  return {
    conntrack,
    add: (original, reply) =>
      conntrack.add({
        family: familyOf(original.source),
        original,
        reply,
        status: 0,
        timeoutSeconds: 30,
      }),
    [Symbol.dispose]: () => conntrack[Symbol.dispose](),
  };
});
