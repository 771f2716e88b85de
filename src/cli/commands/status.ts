/** `tulle status` */
import { NODE } from '#api/core/v1/node.ts';
import { POD } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE } from '#api/discovery/v1/endpoint-slice.ts';
import type { KindRef } from '#api/kind.ts';
import type { KubeObject } from '#api/meta.ts';
import { IP_BLOCK } from '#api/tulle/v1alpha1/ip-block.ts';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { connect } from '../client.ts';
import type { CommandContext } from '../program.ts';
import { findProblems, formatStatus } from '../status-report.ts';

/** Exit status 1 if something is wrong, so that scripts can ask. */
export async function statusCommand(
  flags: { kubeconfig?: string },
  { print }: CommandContext,
): Promise<void> {
  await using client = connect(flags.kubeconfig);
  const list = async <T extends KubeObject>(kind: KindRef<T>) => (await client.list(kind)).items;
  const [nodes, pods, services, slices, pools, blocks, version] = await Promise.all([
    list(NODE),
    list(POD),
    list(SERVICE),
    list(ENDPOINT_SLICE),
    list(IP_POOL),
    list(IP_BLOCK),
    client.raw('GET', '/version'),
  ]);
  const { gitVersion } = JSON.parse(version.body) as { gitVersion?: string };
  const input = {
    server: `API server ${gitVersion ?? '(version unknown)'}`,
    ...{ nodes, pods, services, slices, pools, blocks },
  };
  print(formatStatus(input));
  if (findProblems(input).length > 0) process.exitCode = 1;
}
