/** Attachments and a runtime in memory, for the tests of this feature. */
import { cidr, ip, mac } from '#lib/ip.ts';
import type { Attachment, Attachments } from '../attachment.ts';
import type { ContainerInfo, ContainerRuntime } from './runtimes/runtime.ts';

export function attachmentOf(
  containerId: string,
  name: string,
  more: { pod?: Partial<Attachment['pod']>; ordinal?: number; ifName?: string; at?: string } = {},
): Attachment {
  const ifName = more.ifName ?? 'eth0';
  return {
    handle: `tulle.${containerId}.${ifName}`,
    network: 'tulle',
    containerId,
    ifName,
    netns: `/run/netns/${containerId}`,
    hostLink: 'tl0123456789a',
    mac: mac('02:00:00:00:00:01'),
    mtuBytes: 1450,
    addresses: [
      {
        address: ip(`192.0.2.${more.ordinal ?? 1}`),
        family: 4,
        pool: 'p',
        block: cidr('192.0.2.0/26'),
        sequence: 1,
      },
    ],
    pod: { namespace: 'default', name, kubelet: false, ...more.pod },
    createdAt: more.at ?? '2026-01-01T00:00:00.000Z',
  };
}

export class TestAttachments implements Attachments {
  #attachments: readonly Attachment[] = [];
  readonly #listeners = new Set<() => void>();

  set(...attachments: readonly Attachment[]): void {
    this.#attachments = attachments;
    for (const listener of this.#listeners) listener();
  }

  list(): readonly Attachment[] {
    return this.#attachments;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

export const RUNNING: ContainerInfo = {
  image: 'registry.example/web:1',
  imageId: 'sha256:abc',
  labels: { app: 'web' },
  annotations: {},
  state: 'running',
  pid: 100,
  exitCode: undefined,
  startedAt: '2026-01-01T00:00:01.000Z',
  finishedAt: undefined,
};

/** A runtime whose containers the test sets, and whose processes it ends. */
export class TestRuntime implements ContainerRuntime {
  readonly name = 'test';
  readonly containers = new Map<string, ContainerInfo>();
  failure: Error | undefined;
  /** So many questions it answers as if it knew no container. */
  blindFor = 0;
  readonly #watches = new Map<number, () => void>();

  async inspect(containerId: string): Promise<ContainerInfo | undefined> {
    if (this.failure !== undefined) throw this.failure;
    return this.blindFor-- > 0 ? undefined : this.containers.get(containerId);
  }

  readonly watchExit = (pid: number, onExit: () => void): (() => void) => {
    this.#watches.set(pid, onExit);
    return () => this.#watches.delete(pid);
  };

  isWatched(pid: number): boolean {
    return this.#watches.has(pid);
  }

  /** The process is gone; what the runtime says of it is set apart. */
  endProcess(pid: number): void {
    this.#watches.get(pid)?.();
    this.#watches.delete(pid);
  }
}
