/** The network stack of the running kernel, over rtnetlink. */
import { NETLINK_ROUTE } from '#wire/netlink/constants.ts';
import { NetlinkSocket } from '../netlink/socket.ts';
import { Netns } from '../netns.ts';
import { Poller } from '../poller.ts';
import { kernelAddresses } from './addresses.ts';
import { RECEIVE_QUEUE_BYTES } from './batch.ts';
import { kernelLinks } from './links.ts';
import { startMonitor } from './monitor.ts';
import { kernelFdb, kernelNeighbours } from './neighbours.ts';
import type { NetworkStack, OpenNetworkStack } from './port.ts';
import { kernelRoutes } from './routes.ts';
import { kernelRules } from './rules.ts';
import { kernelSysctl } from './sysctl.ts';

/**
 * Opens the stack of a network namespace, of this process's own by default. It stays that namespace's whatever becomes
 * of the path.
 * @param options.netns a `Netns` must outlive the stack
 * @throws KernelError if the namespace or a netlink socket cannot be opened
 */
export const openNetworkStack: OpenNetworkStack = (options = {}) => {
  using cleanup = new DisposableStack();
  const netns =
    typeof options.netns === 'string' ? cleanup.use(new Netns(options.netns)) : options.netns;
  const socket = cleanup.use(
    new NetlinkSocket({
      protocol: NETLINK_ROUTE,
      netns,
      receiveQueueBytes: RECEIVE_QUEUE_BYTES,
    }),
  );
  const links = kernelLinks(socket);
  const watches = new Set<() => void>();
  let poller = options.poller;
  cleanup.defer(() => {
    for (const stop of [...watches]) stop();
  });
  const resources = cleanup.move();
  const stack: NetworkStack = {
    links,
    addresses: kernelAddresses(socket),
    routes: kernelRoutes(socket),
    neighbours: kernelNeighbours(socket),
    fdb: kernelFdb(socket),
    rules: kernelRules(socket),
    sysctl: kernelSysctl(netns),
    watch(listener) {
      poller ??= resources.use(new Poller());
      const stopMonitor = startMonitor({ netns, poller, getLink: links.get, listener });
      const stop = () => {
        watches.delete(stop);
        stopMonitor();
      };
      watches.add(stop);
      return stop;
    },
    [Symbol.dispose]: () => resources.dispose(),
  };
  return stack;
};
