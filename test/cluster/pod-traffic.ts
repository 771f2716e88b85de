/** `traffic.ts` in the network namespaces of lab containers. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '#lab/cluster.ts';
import { containerPid } from '#lab/containers.ts';
import type { Machine } from '#lab/machine.ts';
import { POD_LINK_PREFIX } from '#lib/kernel-objects.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { isAlive } from '#proc/identity.ts';
import type { TrafficReport } from './traffic.ts';

const WAIT_MS = 20_000;
export const TRAFFIC_PORT = 5390;
const TRAFFIC = [
  ...[process.execPath, '--disable-warning=ExperimentalWarning'],
  join(import.meta.dirname, 'traffic.ts'),
];

/** The beginning of a command line that runs in the container's network namespace, with the machine's programs. */
export async function enterPod(machine: Machine, container: string): Promise<string[]> {
  const pid = await containerPid(machine, container);
  return ['nsenter', '--target', String(pid), '--net', '--'];
}

/**
 * Resolves when the pods' links of all these machines carry that much. A packet at full size before that teaches the
 * sender a smaller path MTU, which the kernel remembers for ten minutes (`net.ipv4.route.mtu_expires`).
 */
export async function podLinksCarry(machines: readonly Machine[], mtuBytes: number): Promise<void> {
  for (const { netns, name } of machines) {
    using stack = openNetworkStack({ netns });
    await until(`the pods' links of ${name} carry ${mtuBytes} bytes`, WAIT_MS, async () =>
      stack.links
        .list()
        .every((link) => !link.name.startsWith(POD_LINK_PREFIX) || link.mtuBytes === mtuBytes),
    );
  }
}

/** Lets a container echo until it ends. */
export async function startEcho(machine: Machine, container: string): Promise<void> {
  const argv = [...(await enterPod(machine, container)), ...TRAFFIC];
  await machine.start('traffic-server', [...argv, 'server', String(TRAFFIC_PORT)]);
}

/**
 * Traffic from a container to an address.
 * @param options.log name of the log file: one for each stream that runs at the same time
 * @returns how to end it
 */
export async function startStream(
  machine: Machine,
  options: { readonly container: string; readonly to: string; readonly log?: string },
): Promise<() => Promise<TrafficReport>> {
  const name = options.log ?? 'traffic-client';
  const client = await machine.start(name, [
    ...[...(await enterPod(machine, options.container)), ...TRAFFIC],
    ...['client', options.to, String(TRAFFIC_PORT)],
  ]);
  return async () => {
    process.kill(client.pid, 'SIGTERM');
    await until('the report is written', WAIT_MS, async () => !isAlive(client));
    const last = readFileSync(machine.logFile(name), 'utf8').trim().split('\n').at(-1) ?? '';
    return JSON.parse(last) as TrafficReport;
  };
}

/** @throws AssertionError if anything of the traffic was lost */
export function assertNothingLost(report: TrafficReport): void {
  const { sent, lost, failed, sentAgain, tcp } = report;
  assert.deepEqual(
    { lost, failed, sentAgain },
    { lost: [], failed: [], sentAgain: 0 },
    JSON.stringify({ sent, ...tcp }),
  );
}
