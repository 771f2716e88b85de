/**
 * Attaching and detaching containers, as a runtime sees it: one process of the plugin file per call.
 *
 * usage: ./dev bench cni-add      one JSON object a line, see docs/benchmarks.md
 *
 * A lab machine runs `tulle server` and `tulle agent`; every address is durably written by the server. The peer is the
 * reference plugin `bridge` with `host-local` on the same machine, in turns with ours. Lower is better.
 */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { LabCluster } from '#lab/cluster.ts';
import { Lab } from '#lab/lab.ts';
import { type Plugin, PluginRuntime } from './support/plugin-runtime.ts';

const LAB = process.env.TULLE_BENCH_LAB ?? 'bench-cni-add';
const REFERENCE = '/usr/lib/cni';
const ROUNDS = Number(process.env.TULLE_BENCH_ROUNDS ?? 40);
const PARALLEL = 30;
/** Calls of one round hang together: few rounds tell little. */
const PARALLEL_ROUNDS = 12;
const INSIDE = 'TULLE_BENCH_INSIDE';

const OURS: Plugin = {
  name: 'ours',
  path: '/opt/cni/bin/tulle',
  config: { cniVersion: '1.0.0', name: 'tulle', type: 'tulle' },
};
const PEER: Plugin = {
  name: 'peer',
  path: `${REFERENCE}/bridge`,
  config: {
    cniVersion: '1.0.0',
    name: 'peer',
    type: 'bridge',
    bridge: 'peer0',
    isDefaultGateway: true,
    // No ipMasq: its iptables processes would only make the peer slower.
    ipam: { type: 'host-local', subnet: '10.99.0.0/16' },
  },
};

if (process.env[INSIDE] === undefined) await outside();
else await inside();

async function outside(): Promise<void> {
  await Lab.remove(LAB);
  const lab = await Lab.create({ name: LAB, machines: 1 });
  try {
    const cluster = new LabCluster(lab);
    await cluster.startServer();
    const machine = lab.machine('m1');
    await cluster.startAgent(machine);
    await cluster.nodesReady();
    const argv = machine.enter([
      'env',
      `${INSIDE}=1`,
      process.execPath,
      '--disable-warning=ExperimentalWarning',
      import.meta.filename,
    ]);
    await new Promise<void>((resolve, reject) => {
      spawn(argv[0] ?? '', argv.slice(1), { stdio: 'inherit' }).once('exit', (code) =>
        code === 0 ? resolve() : reject(new Error(`the measurement ended with ${code}`)),
      );
    });
  } finally {
    await Lab.remove(LAB);
  }
}

async function inside(): Promise<void> {
  const plugins = existsSync(PEER.path) ? [OURS, PEER] : [OURS];
  using runtime = new PluginRuntime(plugins);
  const times = new Map<string, number[]>();
  const note = (plugin: Plugin, what: string, ms: number) => {
    const key = `${plugin.name} ${what}`;
    times.set(key, [...(times.get(key) ?? []), ms]);
  };
  for (const plugin of plugins) await attachOnce(runtime, plugin, 'warm-up', () => undefined);
  for (let round = 0; round < ROUNDS; round++)
    for (const plugin of plugins)
      await attachOnce(runtime, plugin, `c${round}`, (command, ms) => note(plugin, command, ms));
  for (let round = 0; round < PARALLEL_ROUNDS; round++)
    for (const plugin of plugins) {
      const names = Array.from({ length: PARALLEL }, (_, i) => `p${round}x${i}`);
      for (const name of names) await run('ip', ['netns', 'add', name]);
      for (const command of ['ADD', 'DEL'])
        for (const ms of await runtime.call(plugin, command, names))
          note(plugin, `${command} ${PARALLEL} in parallel`, ms);
      for (const name of names) await run('ip', ['netns', 'del', name]);
    }
  for (const command of [
    'ADD',
    'DEL',
    `ADD ${PARALLEL} in parallel`,
    `DEL ${PARALLEL} in parallel`,
  ])
    for (const [name, quantile] of [
      ['p50', 0.5],
      ['p99', 0.99],
    ] as const) {
      const value = at(times.get(`ours ${command}`) ?? [], quantile);
      const peer = times.get(`peer ${command}`);
      const peerValue = peer === undefined ? undefined : at(peer, quantile);
      report(`${command}, ${name}`, value, peerValue);
    }
  if (readdirSync('/run/netns').length > 0) throw new Error('namespaces are left');
}

async function attachOnce(
  runtime: PluginRuntime,
  plugin: Plugin,
  name: string,
  note: (command: string, ms: number) => void,
): Promise<void> {
  await run('ip', ['netns', 'add', name]);
  for (const command of ['ADD', 'DEL'])
    for (const ms of await runtime.call(plugin, command, [name])) note(command, ms);
  await run('ip', ['netns', 'del', name]);
}

function run(program: string, args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'inherit', 'inherit'] });
    child.once('error', reject);
    child.once('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`${program} ${args.join(' ')} ended with ${code}`)),
    );
  });
}

function at(values: readonly number[], quantile: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * quantile))] ?? NaN;
}

function report(name: string, value: number, peerValue: number | undefined): void {
  const round = (it: number) => Math.round(it * 100) / 100;
  const peer =
    peerValue === undefined
      ? {}
      : {
          peer: 'bridge + host-local',
          peer_value: round(peerValue),
          ratio: round(value / peerValue),
        };
  console.log(
    JSON.stringify({ bench: 'cni-add', case: name, value: round(value), unit: 'ms', ...peer }),
  );
}
