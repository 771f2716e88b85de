/** For tests: what a kubelet says to a container runtime, `runtime.v1.RuntimeService` by gRPC. */
import { askGrpcSocket } from '#node/pods/runtimes/grpc-socket.ts';
import { CRI_SERVICE } from '#wire/cri/sandbox.ts';
import { decodeMessage, type FieldTable, type MessageTable } from '#wire/protobuf/message.ts';
import { bytesField, messageField, numberField, type Pieces } from '#wire/protobuf/writer.ts';

const TIMEOUT_MS = 60_000;
const MAX_ANSWER_BYTES = 4 * 1024 * 1024;
const PROTOCOLS = ['TCP', 'UDP', 'SCTP'] as const;

export interface SandboxSpec {
  readonly name: string;
  readonly uid?: string;
  readonly attempt?: number;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly dns?: { readonly servers: readonly string[]; readonly searches: readonly string[] };
  readonly ports?: readonly {
    readonly protocol?: (typeof PROTOCOLS)[number];
    readonly containerPort: number;
    readonly hostPort: number;
  }[];
}

export interface SandboxAnswer {
  readonly id: string;
  readonly isReady: boolean;
  readonly ips: readonly string[];
}

const text = (name: string): FieldTable => ({ name, type: 'string', shape: 'one' });
const number = (name: string): FieldTable => ({ name, type: 'int32', shape: 'one' });
const NOTHING: MessageTable = { name: 'Nothing', fields: {} };
const ID: MessageTable = { name: 'Id', fields: { 1: text('id') } };
const IP: MessageTable = { name: 'PodIP', fields: { 1: text('ip') } };
const STATUS: MessageTable = {
  name: 'PodSandboxStatusResponse',
  fields: {
    1: {
      name: 'status',
      shape: 'one',
      type: {
        name: 'PodSandboxStatus',
        fields: {
          1: text('id'),
          3: number('state'),
          5: {
            name: 'network',
            shape: 'one',
            type: {
              name: 'PodSandboxNetworkStatus',
              fields: { 1: text('ip'), 2: { name: 'more', type: IP, shape: 'list' } },
            },
          },
        },
      },
    },
  },
};
const SANDBOX: MessageTable = { name: 'PodSandbox', fields: { 1: text('id'), 3: number('state') } };
const LIST: MessageTable = {
  name: 'ListPodSandboxResponse',
  fields: { 1: { name: 'items', type: SANDBOX, shape: 'list' } },
};
const EXEC: MessageTable = {
  name: 'ExecSyncResponse',
  fields: {
    1: { name: 'stdout', type: 'bytes', shape: 'one' },
    2: { name: 'stderr', type: 'bytes', shape: 'one' },
    3: number('exitCode'),
  },
};
const CONDITION: MessageTable = {
  name: 'RuntimeCondition',
  fields: {
    1: text('type'),
    2: { name: 'status', type: 'bool', shape: 'one' },
    3: text('reason'),
    4: text('message'),
  },
};
const RUNTIME_STATUS: MessageTable = {
  name: 'StatusResponse',
  fields: {
    1: {
      name: 'status',
      shape: 'one',
      type: {
        name: 'RuntimeStatus',
        fields: { 1: { name: 'conditions', type: CONDITION, shape: 'list' } },
      },
    },
  },
};

export class CriClient {
  readonly #socketPath: string;
  readonly #cgroupParent: string;

  /** @param options.cgroupParent below which the sandboxes' control groups are made */
  constructor(options: { socketPath: string; cgroupParent: string }) {
    this.#socketPath = options.socketPath;
    this.#cgroupParent = options.cgroupParent;
  }

  /** @returns the sandbox's id */
  async runSandbox(spec: SandboxSpec): Promise<string> {
    const { id } = await this.#call('RunPodSandbox', messageField(1, this.#config(spec)), ID);
    return id as string;
  }
  async stopSandbox(id: string): Promise<void> {
    await this.#call('StopPodSandbox', bytesField(1, id), NOTHING);
  }
  async removeSandbox(id: string): Promise<void> {
    await this.#call('RemovePodSandbox', bytesField(1, id), NOTHING);
  }

  async sandbox(id: string): Promise<SandboxAnswer> {
    const { status } = (await this.#call('PodSandboxStatus', bytesField(1, id), STATUS)) as {
      status: { id: string; state?: number; network?: { ip?: string; more?: { ip: string }[] } };
    };
    const { ip = '', more = [] } = status.network ?? {};
    return {
      id: status.id,
      isReady: (status.state ?? 0) === 0,
      ips: [ip, ...more.map((it) => it.ip)].filter((it) => it !== ''),
    };
  }

  /** @returns ids of all sandboxes, stopped ones too */
  async sandboxes(): Promise<string[]> {
    const { items = [] } = await this.#call('ListPodSandbox', [], LIST);
    return (items as { id: string }[]).map(({ id }) => id);
  }

  /** Makes and starts a container of a sandbox. @returns its id */
  async runContainer(
    sandboxId: string,
    sandbox: SandboxSpec,
    container: { readonly name: string; readonly image: string; readonly argv: readonly string[] },
  ): Promise<string> {
    const config = [
      ...messageField(1, bytesField(1, container.name)),
      ...messageField(2, bytesField(1, container.image)),
      ...container.argv.flatMap((it) => bytesField(3, it)),
    ];
    const request = [
      ...bytesField(1, sandboxId),
      ...messageField(2, config),
      ...messageField(3, this.#config(sandbox)),
    ];
    const { id } = await this.#call('CreateContainer', request, ID);
    await this.#call('StartContainer', bytesField(1, id as string), NOTHING);
    return id as string;
  }

  /** Runs a command in a container, to its end. */
  async exec(containerId: string, argv: readonly string[]): Promise<{ out: string; code: number }> {
    const request = [
      ...bytesField(1, containerId),
      ...argv.flatMap((it) => bytesField(2, it)),
      ...numberField(3, TIMEOUT_MS / 1000),
    ];
    const { stdout = '', stderr = '', exitCode = 0 } = await this.#call('ExecSync', request, EXEC);
    const out = [stdout, stderr].map((it) => Buffer.from(it as string, 'base64').toString());
    return { out: out.join(''), code: exitCode as number };
  }

  /** Why the runtime's network is not ready; undefined if it is. */
  async networkProblem(): Promise<string | undefined> {
    const { status } = (await this.#call('Status', [], RUNTIME_STATUS)) as {
      status: { conditions: { type: string; status?: boolean; reason?: string }[] };
    };
    const network = status.conditions.find(({ type }) => type === 'NetworkReady');
    return network?.status === true ? undefined : (network?.reason ?? 'it does not say');
  }

  async #call(
    method: string,
    message: Pieces,
    answer: MessageTable,
  ): Promise<Record<string, unknown>> {
    const bytes = await askGrpcSocket({
      ...{ socketPath: this.#socketPath, message, timeoutMs: TIMEOUT_MS },
      ...{ method: `${CRI_SERVICE}/${method}`, maxBytes: MAX_ANSWER_BYTES },
    });
    return decodeMessage(bytes, answer).value;
  }

  #config(spec: SandboxSpec): Pieces {
    const { name, uid = `uid-of-${name}`, attempt = 0, dns, ports = [] } = spec;
    return [
      ...messageField(
        1,
        bytesField(1, name),
        bytesField(2, uid),
        bytesField(3, 'default'),
        numberField(4, attempt),
      ),
      ...bytesField(2, name),
      ...(dns === undefined
        ? []
        : messageField(
            4,
            ...dns.servers.map((it) => bytesField(1, it)),
            ...dns.searches.map((it) => bytesField(2, it)),
          )),
      ...ports.flatMap(({ protocol = 'TCP', containerPort, hostPort }) =>
        messageField(
          5,
          numberField(1, PROTOCOLS.indexOf(protocol)),
          numberField(2, containerPort),
          numberField(3, hostPort),
        ),
      ),
      ...mapField(6, spec.labels ?? {}),
      ...mapField(7, spec.annotations ?? {}),
      ...messageField(8, bytesField(1, this.#cgroupParent)),
    ];
  }
}

function mapField(field: number, entries: Readonly<Record<string, string>>): Pieces {
  return Object.entries(entries).flatMap(([key, value]) =>
    messageField(field, bytesField(1, key), bytesField(2, value)),
  );
}
