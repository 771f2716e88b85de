/** The network stack of the running kernel, over rtnetlink. */
import { NETLINK_ROUTE } from '#wire/netlink/constants.ts';
import { NetlinkSocket } from '../netlink/socket.ts';
import { Netns } from '../netns.ts';
import { Poller } from '../poller.ts';
import { kernelAddresses } from './addresses.ts';
import { RECEIVE_QUEUE_BYTES } from './batch.ts';
import { kernelConfigure } from './configure.ts';
import { kernelLinks } from './links.ts';
import { NetworkMonitor } from './monitor.ts';
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
  let poller = options.poller;
  const monitor = cleanup.use(
    new NetworkMonitor({
      netns,
      poller: () => {
        poller ??= resources.use(new Poller());
        return poller;
      },
      getLink: (index) => links.get(index),
    }),
  );
  const watch: NetworkStack['watch'] = (listener) => monitor.watch(listener);
  const links = kernelLinks(socket, { netns, watch });
  const resources = cleanup.move();
  const stack: NetworkStack = {
    links,
    addresses: kernelAddresses(socket),
    routes: kernelRoutes(socket),
    neighbours: kernelNeighbours(socket),
    fdb: kernelFdb(socket),
    rules: kernelRules(socket),
    configure: kernelConfigure(socket),
    sysctl: kernelSysctl(netns),
    watch,
    [Symbol.dispose]: () => resources.dispose(),
  };
  return stack;
};
