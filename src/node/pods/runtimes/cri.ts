/**
 * A runtime that speaks CRI: containerd, CRI-O. Its unit is the pod's sandbox, whose id is what CNI calls the container.
 *
 * It knows a sandbox only when that has been started, which is after the ADD, so "unknown" can mean "not yet".
 */
import { statSync } from 'node:fs';
import {
  decodeSandboxStatus,
  encodeSandboxStatusRequest,
  SANDBOX_STATUS_METHOD,
  type SandboxStatus,
} from '#wire/cri/sandbox.ts';
import { GRPC_NOT_FOUND } from '#wire/grpc/status.ts';
import { askGrpcSocket, GrpcError } from './grpc-socket.ts';
import type { ContainerInfo, ContainerRuntime } from './runtime.ts';

/** Where they listen unless told otherwise. */
const CRI_SOCKETS = {
  containerd: '/run/containerd/containerd.sock',
  'cri-o': '/run/crio/crio.sock',
} as const;

const TIMEOUT_MS = 10_000;
/** With it comes what the runtime gave to runc, which for a pod of hundreds of mounts is long. */
const MAX_STATUS_BYTES = 4 * 1024 * 1024;

/** Those that may be on a node; one that is not there knows no container. */
export function createCriRuntimes(): ContainerRuntime[] {
  return Object.entries(CRI_SOCKETS).map(([name, path]) => createCriRuntime(name, path));
}

export function createCriRuntime(name: string, socketPath: string): ContainerRuntime {
  const socket = () => statSync(socketPath, { throwIfNoEntry: false });
  return {
    name,
    // It makes its socket anew at each start.
    startedAtMs: () => socket()?.mtimeMs,
    async inspect(containerId, signal) {
      if (socket() === undefined) return undefined;
      try {
        const answer = await askGrpcSocket({
          ...{ socketPath, signal, timeoutMs: TIMEOUT_MS, maxBytes: MAX_STATUS_BYTES },
          method: SANDBOX_STATUS_METHOD,
          message: encodeSandboxStatusRequest(containerId),
        });
        const status = decodeSandboxStatus(answer);
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
