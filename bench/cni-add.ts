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

const LAB = process.env.TULLE_BENCH_LAB ?? 'bench-cni-add';
const REFERENCE = '/usr/lib/cni';
const ROUNDS = Number(process.env.TULLE_BENCH_ROUNDS ?? 40);
const PARALLEL = 30;
const PARALLEL_ROUNDS = 4;
const INSIDE = 'TULLE_BENCH_INSIDE';

interface Plugin {
  readonly path: string;
  readonly config: object;
}
const OURS: Plugin = {
  path: '/opt/cni/bin/tulle',
  config: { cniVersion: '1.0.0', name: 'tulle', type: 'tulle' },
};
const PEER: Plugin = {
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
  const times = new Map<string, number[]>();
  const note = (plugin: Plugin, what: string, ms: number) => {
    const key = `${plugin === OURS ? 'ours' : 'peer'} ${what}`;
    times.set(key, [...(times.get(key) ?? []), ms]);
  };
  for (const plugin of plugins) await attachOnce(plugin, 'warm-up', () => undefined);
  for (let round = 0; round < ROUNDS; round++)
    for (const plugin of plugins)
      await attachOnce(plugin, `c${round}`, (command, ms) => note(plugin, command, ms));
  for (let round = 0; round < PARALLEL_ROUNDS; round++)
    for (const plugin of plugins) {
      const names = Array.from({ length: PARALLEL }, (_, i) => `p${round}x${i}`);
      for (const name of names) await run('ip', ['netns', 'add', name]);
      for (const command of ['ADD', 'DEL'])
        await Promise.all(
          names.map(async (name) => {
            note(plugin, `${command} ${PARALLEL} in parallel`, await call(plugin, command, name));
          }),
        );
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
  plugin: Plugin,
  name: string,
  note: (command: string, ms: number) => void,
): Promise<void> {
  await run('ip', ['netns', 'add', name]);
  note('ADD', await call(plugin, 'ADD', name));
  note('DEL', await call(plugin, 'DEL', name));
  await run('ip', ['netns', 'del', name]);
}

/** @returns how long it took, ms */
async function call(plugin: Plugin, command: string, name: string): Promise<number> {
  const env = {
    PATH: process.env.PATH,
    CNI_COMMAND: command,
    CNI_CONTAINERID: name,
    CNI_NETNS: `/run/netns/${name}`,
    CNI_IFNAME: 'eth0',
    CNI_PATH: REFERENCE,
  };
  const start = performance.now();
  await run(plugin.path, [], { env, input: JSON.stringify(plugin.config) });
  return performance.now() - start;
}

function run(
  program: string,
  args: readonly string[],
  options: { env?: NodeJS.ProcessEnv; input?: string } = {},
): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'inherit'],
      env: options.env ?? process.env,
    });
    let said = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    child.once('error', reject);
    child.once('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`${program} ${args.join(' ')}: ${said}`)),
    );
    child.stdin?.end(options.input);
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
