/** `tulle demo`: draws a lab, starts Tulle in it and shows the main job working, step by step. */
import { explainError, UserError } from '#lib/errors.ts';
import { LabCluster } from '../cluster.ts';
import { Lab } from '../lab.ts';
import { formatProgress, formatStep, formatTable, type StepResult } from './report.ts';
import { STEPS } from './steps.ts';

export const DEMO_LAB = 'demo';
const MACHINES = 3;

export interface DemoOptions {
  /** Leave the lab running at the end. */
  keep: boolean;
  name?: string;
  print: (line: string) => void;
  /** Aborted by Ctrl-C. */
  signal: AbortSignal;
}

/** @returns true if every step held. The lab is removed unless `keep` is set and every step held. */
export async function runDemo(options: DemoOptions): Promise<boolean> {
  const start = performance.now();
  const name = options.name ?? DEMO_LAB;
  const say = (text: string) => options.print(formatProgress(performance.now() - start, text));
  const results: StepResult[] = [];
  let cluster: LabCluster | undefined;
  const step = async (title: string, action: () => Promise<string>) => {
    options.signal.throwIfAborted();
    const began = performance.now();
    let result: StepResult;
    try {
      const seen = await Promise.race([action(), aborted(options.signal)]);
      result = { step: title, seen, held: true, durationMs: performance.now() - began };
    } catch (error) {
      if (options.signal.aborted || error instanceof UserError) throw error;
      const seen = explainError(error);
      result = { step: title, seen, held: false, durationMs: performance.now() - began };
    }
    results.push(result);
    options.print(formatStep(performance.now() - start, result));
    return result.held;
  };

  let kept = false;
  try {
    const drawn = await step('lab', async () => {
      const lab = await Lab.create({ name, machines: MACHINES, onProgress: say });
      cluster = new LabCluster(lab);
      const addresses = lab.hosts.map((machine) => `${machine.name} ${machine.address}`);
      return `${addresses.join(', ')}, an outside host, a router between them`;
    });
    if (drawn && cluster !== undefined) {
      const running = cluster;
      const up =
        (await step('server', async () => {
          await running.startServer();
          return `tulle server on ${running.serverMachine.name} answers`;
        })) &&
        (await step('agents', async () => {
          for (const machine of running.lab.hosts) await running.startAgent(machine);
          await running.nodesReady();
          return `${running.lab.hosts.length} nodes joined with a token and are ready`;
        }));
      if (up) {
        for (const { name: title, run } of STEPS) {
          // Without containers nothing that follows means anything.
          if (!(await step(title, () => run(running))) && title === 'containers') break;
        }
      }
    }
    const failed = results.filter((result) => !result.held).length;
    options.print('');
    options.print(formatTable(results));
    options.print('');
    options.print(
      failed === 0
        ? `every step held, ${((performance.now() - start) / 1000).toFixed(1)} s in all`
        : `${failed} of ${results.length} steps FAILED`,
    );
    kept = options.keep && cluster !== undefined;
    if (kept && cluster !== undefined) for (const line of hints(cluster)) options.print(line);
    return failed === 0;
  } finally {
    if (!kept) await Lab.remove(name);
  }
}

function hints(cluster: LabCluster): string[] {
  const lab = cluster.lab.name;
  return [
    '',
    'The lab stays. Try:',
    '  ./tulle lab exec m1 -- ip -d link show tulle-vxlan',
    '  ./tulle lab exec m1 -- nft list ruleset',
    '  ./tulle lab exec m1 -- podman exec client-m1 wget -q -O - http://my-service-a',
    `  ./tulle status --kubeconfig ${cluster.kubeconfig}`,
    `  kubectl --kubeconfig ${cluster.kubeconfig} get svc,endpointslices,pods,nodes -o wide`,
    `  ./tulle lab partition m1 m2 --lab ${lab}     and back: ./tulle lab heal --lab ${lab}`,
    `  ./tulle lab down ${lab}`,
  ];
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}
