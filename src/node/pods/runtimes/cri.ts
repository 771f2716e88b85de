/**
 * A runtime that speaks CRI: containerd, CRI-O. Its unit is the pod's sandbox, whose id is what CNI calls the container.
 *
 * It knows a sandbox only when that has been started, which is after the ADD, so "unknown" can mean "not yet".
 */
import { statSync } from 'node:fs';
import {
  decodeSandboxList,
  decodeSandboxStatus,
  encodeSandboxStatusRequest,
  LIST_SANDBOXES_METHOD,
  SANDBOX_STATUS_METHOD,
  type SandboxStatus,
} from '#wire/cri/sandbox.ts';
import { GRPC_NOT_FOUND } from '#wire/grpc/status.ts';
import type { Pieces } from '#wire/protobuf/writer.ts';
import { askGrpcSocket, GrpcError } from './grpc-socket.ts';
import type { ContainerInfo, ContainerRuntime } from './runtime.ts';

/** Where they listen unless told otherwise. */
const CRI_SOCKETS = {
  containerd: '/run/containerd/containerd.sock',
  'cri-o': '/run/crio/crio.sock',
} as const;

const TIMEOUT_MS = 10_000;
/**
 * With a pod's status comes what the runtime gave to runc, and with the list the annotations of all pods, which may be
 * 256 KiB each, and are hardly a hundredth of it.
 */
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;

/** Those that may be on a node; one that is not there knows no container. */
export function createCriRuntimes(): ContainerRuntime[] {
  return Object.entries(CRI_SOCKETS).map(([name, path]) => createCriRuntime(name, path));
}

export function createCriRuntime(name: string, socketPath: string): ContainerRuntime {
  const socket = () => statSync(socketPath, { throwIfNoEntry: false });
  const ask = (method: string, message: Pieces, signal?: AbortSignal) =>
    askGrpcSocket({
      ...{ socketPath, method, message, signal },
      ...{ timeoutMs: TIMEOUT_MS, maxBytes: MAX_ANSWER_BYTES },
    });
  return {
    name,
    daemon: {
      // It makes its socket anew at each start.
      startedAtMs: () => socket()?.mtimeMs,
      list: async () => decodeSandboxList(await ask(LIST_SANDBOXES_METHOD, [])),
    },
    async inspect(containerId, signal) {
      if (socket() === undefined) return undefined;
      try {
        const request = encodeSandboxStatusRequest(containerId);
        const status = decodeSandboxStatus(await ask(SANDBOX_STATUS_METHOD, request, signal));
        // The beginning of an id is enough for containerd.
        return status.id === containerId ? infoOf(status) : undefined;
      } catch (error) {
        if (error instanceof GrpcError && error.grpcCode === GRPC_NOT_FOUND) return undefined;
        throw error;
      }
    },
  };
}

function infoOf({ isReady, labels, annotations, pid, image }: SandboxStatus): ContainerInfo {
  return {
    image,
    imageId: '',
    labels,
    annotations,
    state: isReady ? 'running' : 'ended',
    pid: isReady ? pid : undefined,
    // No sandbox has one: its process only holds the namespaces.
    exitCode: undefined,
    startedAt: undefined,
    finishedAt: undefined,
  };
}
