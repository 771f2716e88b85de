import { ScratchNetns } from '../testing/scratch-netns.ts';
import { type ContractStacks, networkStackContract } from './contract.ts';
import { openNetworkStack } from './kernel.ts';

networkStackContract('the kernel', (): ContractStacks => {
  using cleanup = new DisposableStack();
  const hostNetns = cleanup.use(new ScratchNetns());
  const podNetns = cleanup.use(new ScratchNetns());
  const host = cleanup.use(openNetworkStack({ netns: hostNetns.path }));
  const pod = cleanup.use(openNetworkStack({ netns: podNetns.path }));
  const resources = cleanup.move();
  return { host, pod, podNetns: podNetns.path, [Symbol.dispose]: () => resources.dispose() };
});
