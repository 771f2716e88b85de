/**
 * What is asked of a container runtime about pods, of `runtime.v1.RuntimeService`: `PodSandboxStatus`, and `ListPodSandbox`,
 * whose response has each one's id in the same place, `1 items ─ 1 id`.
 *
 *     request   1 pod_sandbox_id   2 verbose
 *     response  1 status ─ 1 id   3 state (0 ready, 1 not)   7 labels   8 annotations       2 info (text by name)
 *
 * Asked to be verbose, containerd and CRI-O put a JSON object into `info["info"]`, which has the first process's number.
 *
 * @see https://github.com/kubernetes/cri-api/blob/master/pkg/apis/runtime/v1/api.proto
 */
import { decodeMessage, type MessageTable } from '../protobuf/message.ts';
import { boolField, bytesField, type Pieces } from '../protobuf/writer.ts';

export const CRI_SERVICE = '/runtime.v1.RuntimeService';
export const SANDBOX_STATUS_METHOD = `${CRI_SERVICE}/PodSandboxStatus`;
export const LIST_SANDBOXES_METHOD = `${CRI_SERVICE}/ListPodSandbox`;

export interface SandboxStatus {
  readonly id: string;
  readonly isReady: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  /** Of the sandbox's first process; undefined if the runtime does not say. */
  readonly pid: number | undefined;
  /** Which the sandbox itself is made of; empty if the runtime does not say. */
  readonly image: string;
}

const STATUS: MessageTable = {
  name: 'PodSandboxStatus',
  fields: {
    1: { name: 'id', type: 'string', shape: 'one' },
    3: { name: 'state', type: 'int32', shape: 'one' },
    7: { name: 'labels', type: 'string', shape: 'map' },
    8: { name: 'annotations', type: 'string', shape: 'map' },
  },
};
const RESPONSE: MessageTable = {
  name: 'PodSandboxStatusResponse',
  fields: {
    1: { name: 'status', type: STATUS, shape: 'one' },
    2: { name: 'info', type: 'string', shape: 'map' },
  },
};

const ITEM: MessageTable = {
  name: 'PodSandbox',
  fields: { 1: { name: 'id', type: 'string', shape: 'one' } },
};
const LIST: MessageTable = {
  name: 'ListPodSandboxResponse',
  fields: { 1: { name: 'items', type: ITEM, shape: 'list' } },
};

export function encodeSandboxStatusRequest(id: string): Pieces {
  return [...bytesField(1, id), ...boolField(2, true)];
}

/** @throws DecodeError */
export function decodeSandboxStatus(bytes: Uint8Array): SandboxStatus {
  const { status = {}, info = {} } = decodeMessage(bytes, RESPONSE).value as {
    status?: { id?: string; state?: number } & Partial<
      Pick<SandboxStatus, 'labels' | 'annotations'>
    >;
    info?: Readonly<Record<string, string>>;
  };
  return {
    id: status.id ?? '',
    isReady: (status.state ?? 0) === 0,
    labels: status.labels ?? {},
    annotations: status.annotations ?? {},
    ...detailsOf(info.info ?? ''),
  };
}

/** @returns the ids of all @throws DecodeError */
export function decodeSandboxList(bytes: Uint8Array): ReadonlySet<string> {
  const { items = [] } = decodeMessage(bytes, LIST).value as { items?: { id?: string }[] };
  return new Set(items.map(({ id = '' }) => id));
}

/** The details are the runtime's own affair: what is not there as expected is not known. */
function detailsOf(json: string): Pick<SandboxStatus, 'pid' | 'image'> {
  const details = parseObject(json);
  const { pid, image } = details;
  return {
    pid: typeof pid === 'number' && Number.isSafeInteger(pid) && pid > 0 ? pid : undefined,
    image: typeof image === 'string' ? image : '',
  };
}

function parseObject(json: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === 'object' && value !== null ? { ...value } : {};
  } catch {
    // Nothing, or not JSON.
    return {};
  }
}
