/**
 * Whether the network lost something, told apart from its being late: the kernel counts in each pod's network namespace
 * what is sent and what comes in. On a machine with too much to do, segments are sent again whose first copy had arrived,
 * and a socket overflows whose program does not come to run; neither is a loss on the way.
 */
import { until } from '#lab/cluster.ts';
import type { Machine } from '#lab/machine.ts';

const ARRIVAL_MS = 20_000;

export interface PodNetwork {
  readonly machine: Pick<Machine, 'runOk'>;
  /** Command prefix that enters the pod's network namespace. */
  readonly enter: readonly string[];
}

/**
 * Counts the packets of pods that speak with each other and nobody else, by TCP and UDP over IPv4.
 * @param arrivalMs how long packets may be on their way, and a program takes to read what has come
 * @returns how to end it: resolves when every packet that was sent has arrived
 */
export async function startBalance(
  client: PodNetwork,
  server: PodNetwork,
  arrivalMs = ARRIVAL_MS,
): Promise<() => Promise<void>> {
  const missing = async () => {
    const [there, here] = await Promise.all([countersOf(server), countersOf(client)]);
    // The second copy of a SYN-ACK is counted as sent and as sent again.
    const sent = sentBy(here) + sentBy(there) - counter(there, 'TcpExt', 'TCPSynRetrans');
    return sent - arrivedAt(here) - arrivedAt(there);
  };
  const before = await missing();
  return async () => {
    let lost = 0;
    await until('every packet has arrived', arrivalMs, async () => {
      lost = (await missing()) - before;
      if (lost !== 0) throw new Error(`${lost} packets have not`);
      return true;
    });
  };
}

type Counters = ReadonlyMap<string, number>;

function sentBy(counters: Counters): number {
  return (
    counter(counters, 'Tcp', 'OutSegs') +
    counter(counters, 'Tcp', 'RetransSegs') +
    counter(counters, 'Udp', 'OutDatagrams')
  );
}

function arrivedAt(counters: Counters): number {
  return (
    counter(counters, 'Tcp', 'InSegs') +
    // A socket that has no room left: the packet came as far as that.
    counter(counters, 'Udp', 'InErrors') +
    counter(counters, 'Udp', 'NoPorts') +
    counter(counters, 'Udp', 'InDatagrams')
  );
}

function counter(counters: Counters, group: string, name: string): number {
  const value = counters.get(`${group}: ${name}`);
  if (value === undefined) throw new Error(`the kernel has no counter "${group}: ${name}"`);
  return value;
}

/** Both files are pairs of lines, `Group: name…` and `Group: value…`. */
async function countersOf({ machine, enter }: PodNetwork): Promise<Counters> {
  const text = await machine.runOk([...enter, 'cat', '/proc/net/snmp', '/proc/net/netstat']);
  const lines = text.split('\n').map((line) => line.split(' '));
  const counters = new Map<string, number>();
  for (let i = 0; i + 1 < lines.length; i += 2) {
    const [names = [], values = []] = [lines[i], lines[i + 1]];
    for (const [column, name] of names.entries())
      if (column > 0) counters.set(`${names[0]} ${name}`, Number(values[column]));
  }
  return counters;
}
