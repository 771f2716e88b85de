/** Clients that go on while a test changes something, for tests with real packets. */
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { STEADY_CLIENT } from './flow-agent.ts';
import type { Place } from './flows.ts';
import type { World } from './world.ts';

export interface Steady extends AsyncDisposable {
  /** All that it heard, in order. */
  readonly heard: readonly string[];
  /** Resolves when it hears something that begins so, after `from` other things. */
  hears(start: string, from?: number): Promise<void>;
}

/** A client that sends again and again over one connection, or from one port. */
export function startSteady(
  world: World,
  options: {
    readonly place: Place;
    readonly protocol: 'TCP' | 'UDP';
    readonly host: string;
    readonly port: number;
    /** The client's own, of TCP; by default the kernel chooses. */
    readonly localPort?: number;
  },
): Steady {
  const { place, protocol, host, port, localPort = 0 } = options;
  const argv = [protocol, host, String(port), String(localPort)];
  const client = world.start(place, STEADY_CLIENT, argv);
  const heard: string[] = [];
  createInterface({ input: client.stdout }).on('line', (line) => heard.push(line));
  return {
    heard,
    hears: (start, from = 0) => until(() => heard.slice(from).some((it) => it.startsWith(start))),
    async [Symbol.asyncDispose]() {
      if (client.exitCode !== null || client.signalCode !== null) return;
      client.kill('SIGKILL');
      await once(client, 'exit');
    },
  };
}

/** The test runner's own time limit ends a wait in vain. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20));
}
