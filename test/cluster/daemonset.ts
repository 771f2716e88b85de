/** For tests: runs the pod of a DaemonSet manifest as a kubelet would, with podman on a lab machine. */
import { existsSync, mkdirSync, readFileSync, realpathSync, symlinkSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parse } from 'yaml';
import type { Machine } from '#lab/machine.ts';

const REPOSITORY = resolve(import.meta.dirname, '../..');
/** Where the image has this repository. */
const IMAGE_PLACE = '/opt/tulle';
const IMAGE_FOLDER = 'agent-image';
const SERVICE_ACCOUNT_PLACE = '/var/run/secrets/kubernetes.io/serviceaccount';

interface DaemonSet {
  readonly spec: { readonly template: { readonly spec: PodSpec } };
}
interface PodSpec {
  readonly hostNetwork?: boolean;
  readonly hostPID?: boolean;
  readonly containers: readonly {
    readonly command: readonly string[];
    readonly args: readonly string[];
    readonly env: readonly {
      readonly name: string;
      readonly value?: string;
      readonly valueFrom?: { readonly fieldRef: { readonly fieldPath: string } };
    }[];
    readonly securityContext?: { readonly privileged?: boolean };
    readonly volumeMounts: readonly {
      readonly name: string;
      readonly mountPath: string;
      readonly mountPropagation?: 'HostToContainer' | 'Bidirectional';
    }[];
  }[];
  readonly volumes: readonly {
    readonly name: string;
    readonly hostPath: { readonly path: string };
  }[];
}

/**
 * The command line that runs the pod's first container on the machine.
 * @param options.fields of the pod, by path: `spec.nodeName`
 * @param options.env what an operator fills in
 * @param options.serviceAccount directory of the machine with `token`, `ca.crt` and `namespace`
 */
export async function podmanCommand(
  machine: Machine,
  manifest: string,
  options: {
    readonly name: string;
    readonly fields: Readonly<Record<string, string>>;
    readonly env: Readonly<Record<string, string>>;
    readonly serviceAccount: string;
  },
): Promise<string[]> {
  const { spec } = (parse(readFileSync(manifest, 'utf8')) as DaemonSet).spec.template;
  const [container] = spec.containers;
  if (container === undefined) throw new Error(`${manifest} has no container`);
  const env = Object.fromEntries(
    container.env.map(({ name, value, valueFrom }) => [
      name,
      options.env[name] ?? value ?? options.fields[valueFrom?.fieldRef.fieldPath ?? ''] ?? '',
    ]),
  );
  const expanded = container.args.map((text) =>
    text.replace(/\$\((\w+)\)/g, (_, name: string) => env[name] ?? ''),
  );
  const hostPaths = new Map(spec.volumes.map(({ name, hostPath }) => [name, hostPath.path]));
  await machine.runOk(['mkdir', '-p', ...hostPaths.values()]);
  const volumes = container.volumeMounts.map(({ name, mountPath, mountPropagation }) => {
    const path = hostPaths.get(name) ?? '';
    const propagation = { HostToContainer: ':rslave', Bidirectional: ':rshared' };
    return `${path}:${mountPath}${mountPropagation === undefined ? '' : propagation[mountPropagation]}`;
  });
  return [
    ...['podman', 'run', '--rm', '--replace', '--name', options.name],
    ...(spec.hostNetwork === true ? ['--network', 'host'] : []),
    ...(spec.hostPID === true ? ['--pid', 'host'] : []),
    ...(container.securityContext?.privileged === true ? ['--privileged'] : []),
    ...Object.entries(env).flatMap(([name, value]) => ['--env', `${name}=${value}`]),
    ...[...volumes, `${options.serviceAccount}:${SERVICE_ACCOUNT_PLACE}:ro`]
      .concat(imageVolumes())
      .flatMap((volume) => ['--volume', volume]),
    ...['--rootfs', makeImage(machine), ...container.command, ...expanded],
  ];
}

/** What the image is made of: a Debian's programs and libraries, and this repository with its packages. */
function imageVolumes(): string[] {
  const packages = realpathSync(join(REPOSITORY, 'node_modules'));
  return ['/usr:/usr:ro', `${REPOSITORY}:${IMAGE_PLACE}:ro`, `${packages}:${packages}:ro`];
}

/** @returns where the machine has it */
function makeImage(machine: Machine): string {
  const root = join(machine.directory, 'tulle', IMAGE_FOLDER);
  const place = join('/var/lib/tulle', IMAGE_FOLDER);
  if (existsSync(root)) return place;
  for (const folder of ['etc', 'proc', 'sys', 'dev', 'tmp', 'run', 'var', 'root'])
    mkdirSync(join(root, folder), { recursive: true });
  for (const [name, target] of [
    ...['bin', 'sbin', 'lib', 'lib64'].map((folder) => [folder, `usr/${folder}`] as const),
    ['var/run', '../run'] as const,
  ])
    symlinkSync(target, join(root, name));
  return place;
}
