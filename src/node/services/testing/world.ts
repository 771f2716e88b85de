/**
 * A node with two pods, a pod of another node and clients outside, each in a network namespace:
 *
 * ```text
 *  podA ── tla ┐
 *  podB ── tlb ┤ node ├ remote0 ── remote     knows the way to the node and the pods, not to the clients
 *              └──────┴ up0 ────── outside    client and stranger
 * ```
 * So an answer to a client finds its way only if it comes past the node: what must be masqueraded is seen.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { cidr, type Ip, ip } from '#lib/ip.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import type { NetworkStack } from '#linux/network/port.ts';
import { ScratchNetns } from '#linux/testing/scratch-netns.ts';
import { type Ask, CLIENT, SERVER } from './flow-agent.ts';
import { ADDRESS, LINK, type Place, TARGET_PORT } from './flows.ts';

const FAMILIES = [4, 6] as const;
const PREFIX_LENGTH = { 4: 24, 6: 64 } as const;
const ALL = { 4: cidr('0.0.0.0/0'), 6: cidr('::/0') } as const;
const PODS = { 4: cidr('10.244.0.0/16'), 6: cidr('fd00:244::/32') } as const;
const ROUTE_PROTOCOL_STATIC = 4;

export type PipedProcess = ChildProcessByStdio<Writable, Readable, null>;

export class World implements AsyncDisposable {
  readonly node = new ScratchNetns();
  readonly #places = new Map<Place, ScratchNetns>();
  readonly #owned: ScratchNetns[] = [];
  readonly #processes: PipedProcess[] = [];

  constructor() {
    using host = openNetworkStack({ netns: this.node.path });
    up(host, 'lo');
    useAtOnce(host);
    host.sysctl.set('net/ipv4/ip_forward', '1');
    host.sysctl.set('net/ipv6/conf/all/forwarding', '1');
    // The kernel says "port unreachable" to one client only now and then; here every one counts.
    host.sysctl.set('net/ipv4/icmp_ratemask', '0');
    host.sysctl.set('net/ipv6/icmp/ratemask', '0');
    this.#places.set('node', this.node);
    for (const places of [['podA'], ['podB'], ['remote'], ['client', 'stranger']] as const)
      this.#connect(host, places);
    const uplink = host.links.get('up0')?.index;
    if (uplink === undefined) throw new Error('up0 is not there');
    for (const family of FAMILIES) {
      const gateway = ADDRESS[family].client;
      // Before a packet to a cluster IP gets as far as our rules, a route must lead somewhere.
      host.routes.replace([
        { destination: ALL[family], gateway, link: uplink, protocol: ROUTE_PROTOCOL_STATIC },
      ]);
      const address = ADDRESS[family].node;
      host.addresses.add({
        link: uplink,
        address,
        prefixLength: PREFIX_LENGTH[family],
        nodad: true,
      });
    }
  }

  /** Starts the servers on both addresses of each place. */
  async serve(places: readonly Place[]): Promise<void> {
    for (const place of places) {
      const hosts = FAMILIES.map((family) => ADDRESS[family][place]);
      const server = this.start(place, SERVER, [String(TARGET_PORT), ...hosts]);
      await once(server.stdout, 'data');
    }
  }

  /** Asks from a place. @returns for each flow what each try heard */
  async ask(place: Place, flows: readonly Ask[]): Promise<string[][]> {
    const client = this.start(place, CLIENT);
    client.stdin.end(JSON.stringify(flows));
    let text = '';
    for await (const chunk of client.stdout) text += String(chunk);
    return JSON.parse(text) as string[][];
  }

  /** Starts a program, given as its text, in a place. It ends with this at the latest. */
  start(place: Place, source: string, args: readonly string[] = []): PipedProcess {
    const argv = ['netns', 'exec', this.netns(place).name, process.execPath, '-e', source];
    const child = spawn('ip', [...argv, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#processes.push(child);
    return child;
  }

  netns(place: Place): ScratchNetns {
    const found = this.#places.get(place);
    if (found === undefined) throw new Error(`there is no place "${place}"`);
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const child of this.#processes) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    for (const netns of [...this.#owned, this.node]) netns[Symbol.dispose]();
  }

  #connect(host: NetworkStack, places: readonly Place[]): void {
    const [first] = places;
    if (first === undefined) return;
    const netns = new ScratchNetns();
    this.#owned.push(netns);
    {
      using inside = openNetworkStack({ netns: netns.path });
      useAtOnce(inside);
    }
    for (const place of places) this.#places.set(place, netns);
    const { index } = host.links.create({
      ...{ kind: 'veth', name: LINK[first], up: true },
      peer: { name: 'eth0', netns: netns.path, up: true },
    });
    using inside = openNetworkStack({ netns: netns.path });
    up(inside, 'lo');
    const link = inside.links.get('eth0')?.index;
    if (link === undefined) throw new Error('eth0 is not there');
    for (const family of FAMILIES) {
      const prefixLength = PREFIX_LENGTH[family];
      for (const place of places)
        inside.addresses.add({ link, address: ADDRESS[family][place], prefixLength, nodad: true });
      const gateway = gatewayOf(ADDRESS[family][first]);
      host.addresses.add({ link: index, address: gateway, prefixLength, nodad: true });
      inside.routes.replace([
        {
          ...{ gateway, link, protocol: ROUTE_PROTOCOL_STATIC },
          destination: first === 'remote' ? PODS[family] : ALL[family],
        },
      ]);
    }
  }
}

/** Without it a link-local address, and with it the neighbour discovery, waits a second or two. */
function useAtOnce(stack: NetworkStack): void {
  for (const which of ['all', 'default'])
    stack.sysctl.set(`net/ipv6/conf/${which}/accept_dad`, '0');
}

function up(stack: NetworkStack, name: string): void {
  const link = stack.links.get(name);
  if (link !== undefined) stack.links.set(link.index, { up: true });
}

/** The node's address on the link of a place. */
export function gatewayOf(address: Ip): Ip {
  return ip(address.replace(/[0-9a-f]+$/, 'fe').replace(/\.fe$/, '.254'));
}
