/** How most scenarios begin: machines with podman, a server on the first, an agent on each, all ready. */
import { LabCluster } from '#lab/cluster.ts';
import { preparePodman } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';

/** Of the server, for pods and services with addresses of both families. */
export const DUAL_STACK = [
  ...['--pod-cidr', '10.244.0.0/16', '--pod-cidr', 'fd00:10:244::/56'],
  ...['--service-cidr', '10.96.0.0/16', '--service-cidr', 'fd00:10:96::/112'],
];

/** A lab that an earlier run left under this name is removed first. */
export async function startCluster(
  options: Parameters<typeof Lab.create>[0] & { readonly serverFlags?: readonly string[] },
): Promise<{ lab: Lab; cluster: LabCluster }> {
  const { serverFlags = [], ...ofLab } = options;
  await Lab.remove(ofLab.name);
  const lab = await Lab.create(ofLab);
  const cluster = new LabCluster(lab);
  await cluster.startServer([...serverFlags]);
  for (const machine of lab.hosts) {
    preparePodman(machine);
    await cluster.startAgent(machine);
  }
  await cluster.nodesReady();
  return { lab, cluster };
}
