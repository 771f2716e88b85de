/** Reads from the system what the Node object says of it. */
import { existsSync, readFileSync } from 'node:fs';
import { arch, cpus, release, totalmem } from 'node:os';
import type { Ip } from '#lib/ip.ts';
import { run } from '#proc/run.ts';
import type { NodeFacts } from './plan.ts';

const GO_ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };

export async function readNodeFacts(options: {
  name: string;
  addresses: readonly Ip[];
  zone: string | undefined;
  version: string;
}): Promise<NodeFacts> {
  return {
    ...options,
    machineId: readLine('/etc/machine-id'),
    bootId: readLine('/proc/sys/kernel/random/boot_id'),
    kernelVersion: release(),
    osImage: osName(),
    architecture: GO_ARCHITECTURES[arch()] ?? arch(),
    containerRuntime: await containerRuntime(),
    capacity: {
      cpu: String(cpus().length),
      memory: `${Math.floor(totalmem() / 1024)}Ki`,
    },
  };
}

function readLine(path: string): string {
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : '';
}

function osName(): string {
  const match = /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(readLine('/etc/os-release'));
  return match?.[1] ?? 'Linux';
}

/** `podman://4.3.1`, or `none://` where no runtime that we know is installed. */
async function containerRuntime(): Promise<string> {
  try {
    const { exitCode, stdout } = await run(['podman', '--version']);
    const version = /(\d+\.\d+\.\d+)/.exec(stdout)?.[1];
    return exitCode === 0 && version !== undefined ? `podman://${version}` : 'none://';
  } catch {
    // There is no podman: pods can come from other runtimes, which need not be named here.
    return 'none://';
  }
}
