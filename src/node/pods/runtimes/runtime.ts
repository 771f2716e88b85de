/** What the agent asks a container runtime. */

/** How a container is, in the runtime's eyes. */
export interface ContainerInfo {
  readonly image: string;
  readonly imageId: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  /** - `starting`: made, but its process is not started; - `running`; - `ended`. */
  readonly state: 'starting' | 'running' | 'ended';
  /** Of the container's first process, while it runs. */
  readonly pid: number | undefined;
  /** Known once it has ended. */
  readonly exitCode: number | undefined;
  /** RFC 3339. */
  readonly startedAt: string | undefined;
  readonly finishedAt: string | undefined;
}

export interface RuntimeDaemon {
  /** When it was started, in milliseconds since 1970; undefined: it does not run. */
  startedAtMs(): number | undefined;
  /** @returns ids of all containers that it knows @throws if it cannot be asked */
  list(): Promise<ReadonlySet<string>>;
}

export interface ContainerRuntime {
  /** As in a Pod's container id: `podman`. */
  readonly name: string;
  /** Missing for a runtime that has none, and so forgets nothing. */
  readonly daemon?: RuntimeDaemon;
  /**
   * @returns undefined if the runtime does not know the container
   * @throws if the runtime cannot be asked
   */
  inspect(containerId: string, signal?: AbortSignal): Promise<ContainerInfo | undefined>;
  /**
   * Runs a command in the container, if the runtime can.
   * @throws if it took longer than `timeoutMs`, or the runtime cannot be asked
   */
  exec?(
    containerId: string,
    argv: readonly string[],
    options: { timeoutMs: number; signal: AbortSignal },
  ): Promise<{ readonly exitCode: number | undefined; readonly output: string }>;
}
