/** Real containers on lab machines: podman with runc, on a root filesystem made of busybox (there is no image registry). */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { UserError } from '#lib/errors.ts';
import type { RunResult } from '#proc/run.ts';
import type { Machine } from './machine.ts';

/** What Debian's package busybox-static installs. */
const BUSYBOX = '/bin/busybox';
const APPLETS = [
  ...['cat', 'date', 'dd', 'echo', 'env', 'grep', 'head', 'hostname', 'httpd', 'id', 'ip', 'ls'],
  ...['mkdir', 'nc', 'netstat', 'nslookup', 'ping', 'printf', 'ps', 'seq', 'sh', 'sleep', 'sort'],
  ...[
    'stat',
    'tail',
    'tee',
    'telnet',
    'test',
    'time',
    'timeout',
    'top',
    'traceroute',
    'true',
    'uniq',
    'vi',
  ],
  ...['wc', 'wget', 'xargs', 'chmod', 'cp', 'cut', 'sed', 'tr', 'usleep'],
];

/** Answers with its own name; `/cgi-bin/stream` sends STREAM_CHUNKS pieces, one every 20 ms. */
export const HTTP_PORT = 8080;
export const STREAM_CHUNKS = 200;
export const STREAM_CHUNK_BYTES = 256 * 1024;
const SERVER_SCRIPT = `
mkdir -p /srv/cgi-bin
hostname > /srv/index.html
cat > /srv/cgi-bin/stream <<'EOF'
#!/bin/sh
printf 'Content-Type: application/octet-stream\\r\\n\\r\\n'
i=0
while [ $i -lt ${STREAM_CHUNKS} ]; do
  dd if=/dev/zero bs=${STREAM_CHUNK_BYTES} count=1 2>/dev/null
  usleep 20000
  i=$((i+1))
done
EOF
chmod +x /srv/cgi-bin/stream
exec httpd -f -p ${HTTP_PORT} -h /srv
`;

/** Tells podman to use CNI, runc and our network, and to leave cgroups and limits as a lab needs them. */
const CONTAINERS_CONF = `[network]
network_backend = "cni"
default_network = "tulle"
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
`;

/** Prepares a machine for podman. To be called once, before the first container. */
export function preparePodman(machine: Machine): void {
  makeRootfs(machine);
  const directory = join(machine.directory, 'etc-containers');
  writeFileSync(join(directory, 'containers.conf'), CONTAINERS_CONF);
  writeFileSync(
    join(directory, 'policy.json'),
    JSON.stringify({ default: [{ type: 'insecureAcceptAnything' }] }),
  );
  writeFileSync(
    join(directory, 'storage.conf'),
    '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n',
  );
}

/** Where containers find their root filesystem, inside the machine. */
const ROOTFS = '/var/lib/rootfs';

/** Makes the root filesystem that all containers of a machine share. */
function makeRootfs(machine: Machine): void {
  const root = join(machine.directory, 'rootfs');
  if (!existsSync(BUSYBOX))
    throw new UserError(
      `There is no ${BUSYBOX}, of which the containers' root filesystem is made`,
      {
        hint: 'Install the Debian package busybox-static.',
      },
    );
  for (const folder of ['bin', 'etc', 'proc', 'sys', 'dev', 'tmp', 'srv', 'run', 'root'])
    mkdirSync(join(root, folder), { recursive: true });
  copyFileSync(BUSYBOX, join(root, 'bin/busybox'));
  chmodSync(join(root, 'bin/busybox'), 0o755);
  for (const applet of APPLETS) symlinkSync('busybox', join(root, 'bin', applet));
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\n');
}

export interface ContainerSpec {
  readonly name: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly aliases?: readonly string[];
  /** Default: ours. */
  readonly network?: string;
  /** Ports of the machine that lead to it, as podman's --publish takes them. */
  readonly ports?: readonly string[];
  /** `server` answers HTTP with its name; `client` waits for commands. */
  readonly role: 'server' | 'client';
}

/** `podman run -d` on a machine, attached by our CNI plugin. */
export async function runContainer(machine: Machine, spec: ContainerSpec): Promise<void> {
  const labels = Object.entries(spec.labels ?? {}).flatMap(([k, v]) => ['--label', `${k}=${v}`]);
  const aliases = (spec.aliases ?? []).flatMap((alias) => ['--network-alias', alias]);
  const ports = (spec.ports ?? []).flatMap((port) => ['--publish', port]);
  const command = spec.role === 'server' ? SERVER_SCRIPT : 'exec sleep 86400';
  await machine.runOk(
    [
      ...['podman', 'run', '--detach', '--name', spec.name, '--hostname', spec.name],
      ...['--network', spec.network ?? 'tulle', '--tmpfs', '/srv', '--cap-add', 'NET_RAW'],
      ...labels,
      ...aliases,
      ...[...ports, '--rootfs', ROOTFS, 'sh', '-c', command],
    ],
    { timeoutMs: 60_000 },
  );
}

/** A shell command inside a container. */
export function execInContainer(
  machine: Machine,
  container: string,
  script: string,
  timeoutMs = 30_000,
): Promise<RunResult> {
  return machine.run(['podman', 'exec', container, 'sh', '-c', script], { timeoutMs });
}

/** Kills the container's process; podman notices by itself. */
export async function killContainer(machine: Machine, container: string): Promise<void> {
  await machine.runOk(['podman', 'kill', '--signal', 'KILL', container]);
}

/** Process id of a container's first process, as the machine sees it. */
export async function containerPid(machine: Machine, container: string): Promise<number> {
  const format = '{{.State.Pid}}';
  return Number(
    await machine.runOk(['podman', 'container', 'inspect', '--format', format, container]),
  );
}
