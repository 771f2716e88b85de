/**
 * For tests: Debian's containerd on a lab machine, with an image made here, because there is no registry.
 *
 * Installed, it would not go together with docker. `./dev` unpacks it below `.cache/containerd`; one that is installed is
 * taken before.
 */
import { createHash } from 'node:crypto';
import { chmodSync, cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { until } from '#lab/cluster.ts';
import type { Machine } from '#lab/machine.ts';
import { isAlive, type ProcessIdentity } from '#proc/identity.ts';
import { run, runOk } from '#proc/run.ts';
import { CriClient } from './cri-client.ts';

const UNPACKED = resolve(import.meta.dirname, '../../.cache/containerd/usr/bin');
const BINARIES = ['/usr/bin', UNPACKED].find((path) => existsSync(join(path, 'containerd')));
/** Of Debian's containernetworking-plugins. containerd calls it beside every network's own plugins. */
const LOOPBACK = '/usr/lib/cni/loopback';
const WAIT_MS = 20_000;
const SOCKET = 'containerd/containerd.sock';
/** A busybox; as a sandbox it answers HTTP with its name. */
export const TEST_IMAGE = 'localhost/tulle-test:1';
export const SANDBOX_PORT = 8080;
export const NAME_PATH = '/cgi-bin/name';

/**
 * Control groups without systemd, and files that can be anywhere. All else is as a user would have it: our agent has put
 * plugin and configuration where these paths lead.
 */
const CONFIG = `version = 2
root = "/var/lib/containers/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "/run/${SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containers/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${TEST_IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
`;

/** @returns why tests with containerd cannot be run, false if they can: what `node:test` takes as `skip` */
export function whyNoContainerd(): string | false {
  if (BINARIES === undefined)
    return "there is no containerd; './dev test' unpacks Debian's package where it can";
  return existsSync(LOOPBACK) ? false : `there is no ${LOOPBACK}`;
}

export class Containerd {
  readonly #machine: Machine;
  readonly #cgroupParent: string;
  readonly cri: CriClient;
  #process: ProcessIdentity | undefined;

  private constructor(machine: Machine, cgroupParent: string) {
    this.#machine = machine;
    this.#cgroupParent = cgroupParent;
    const socketPath = join(machine.directory, 'run', SOCKET);
    this.cri = new CriClient({ socketPath, cgroupParent: `/${cgroupParent}` });
  }

  /**
   * Starts it on a machine that is prepared for podman, which has the root filesystem.
   * @param cgroupParent a name that nothing else on the computer has
   */
  static async start(machine: Machine, cgroupParent: string): Promise<Containerd> {
    const containerd = new Containerd(machine, cgroupParent);
    await machine.runOk(['ln', '-sf', LOOPBACK, '/opt/cni/bin/loopback']);
    await machine.runOk(
      ['sh', '-c', 'mkdir -p /etc/containerd && cat >/etc/containerd/config.toml'],
      {
        input: CONFIG,
      },
    );
    await containerd.restart();
    await containerd.#importImage();
    return containerd;
  }

  /** Starts it after {@link kill}, or for the first time. */
  async restart(): Promise<void> {
    const directory = BINARIES ?? '';
    const env = { ...process.env, PATH: `${directory}:${process.env.PATH}` };
    const argv = [join(directory, 'containerd'), '--config', '/etc/containerd/config.toml'];
    this.#process = await this.#machine.start('containerd', argv, { env });
    await until('containerd answers', WAIT_MS, async () => {
      await this.cri.sandboxes();
      return true;
    });
  }

  /** As a crash does; what it started goes on. */
  async kill(): Promise<void> {
    const killed = this.#process;
    if (killed === undefined) return;
    process.kill(killed.pid, 'SIGKILL');
    await until('containerd has ended', WAIT_MS, async () => !isAlive(killed));
    this.#process = undefined;
  }

  /** Makes it lose a sandbox, with its processes, when it has been killed; the namespaces stay. Then it runs again. */
  async forget(sandboxId: string): Promise<void> {
    await this.#machine.runOk(['pkill', '-KILL', '-f', `containerd-shim.*${sandboxId}`]);
    await this.restart();
    await this.#ctr('containers', 'delete', sandboxId);
    await this.kill();
    await this.restart();
  }

  /** A container that is no pod's, on the network. @returns what CNI calls it */
  async runPlain(name: string): Promise<string> {
    const options = [
      '--detach',
      '--cni',
      '--snapshotter',
      'native',
      '--cgroup',
      this.#cgroupParent,
    ];
    await this.#ctr('run', ...options, TEST_IMAGE, name);
    return `k8s.io-${name}`;
  }
  /** Ends and removes it. */
  async killPlain(name: string): Promise<void> {
    await this.#ctr('tasks', 'delete', '--force', name);
    await this.#ctr('containers', 'delete', name);
  }

  /** After the machine's end: the control groups of what was killed with it. */
  async removeCgroups(): Promise<void> {
    const script =
      'find /sys/fs/cgroup/*/"$1" /sys/fs/cgroup/"$1" -depth -type d -exec rmdir {} \\;';
    // What is not there is what is wanted.
    await run(['sh', '-c', script, 'remove', this.#cgroupParent]);
  }

  async #importImage(): Promise<void> {
    const layout = join(this.#machine.directory, 'run/image');
    await writeImage(layout, join(this.#machine.directory, 'rootfs'));
    await this.#ctr('images', 'import', '--snapshotter', 'native', '/run/image/image.tar');
  }

  async #ctr(...args: readonly string[]): Promise<void> {
    const ctr = [join(BINARIES ?? '', 'ctr'), '--address', `/run/${SOCKET}`, '-n', 'k8s.io'];
    await this.#machine.runOk([...ctr, ...args], { timeoutMs: WAIT_MS });
  }
}

/** Writes an OCI image layout as an archive, `image.tar`. */
async function writeImage(directory: string, rootfs: string): Promise<void> {
  const layer = join(directory, 'layer');
  cpSync(rootfs, layer, { recursive: true, verbatimSymlinks: true });
  const script = join(layer, 'srv', NAME_PATH);
  mkdirSync(join(script, '..'), { recursive: true });
  writeFileSync(script, "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\nhostname\n");
  chmodSync(script, 0o755);
  await runOk(['tar', '-C', layer, '-cf', join(directory, 'layer.tar'), '.']);
  const blobs = join(directory, 'blobs/sha256');
  mkdirSync(blobs, { recursive: true });
  const addBlob = (mediaType: string, content: Uint8Array | string) => {
    const hex = createHash('sha256').update(content).digest('hex');
    writeFileSync(join(blobs, hex), content);
    return { mediaType, digest: `sha256:${hex}`, size: Buffer.byteLength(content) };
  };
  const type = (name: string) => `application/vnd.oci.image.${name}`;
  const rootLayer = addBlob(type('layer.v1.tar'), readFileSync(join(directory, 'layer.tar')));
  const config = addBlob(
    type('config.v1+json'),
    JSON.stringify({
      architecture: process.arch === 'arm64' ? 'arm64' : 'amd64',
      os: 'linux',
      config: {
        Env: ['PATH=/bin'],
        Cmd: ['httpd', '-f', '-p', String(SANDBOX_PORT), '-h', '/srv'],
      },
      rootfs: { type: 'layers', diff_ids: [rootLayer.digest] },
    }),
  );
  const manifest = addBlob(
    type('manifest.v1+json'),
    JSON.stringify({
      schemaVersion: 2,
      mediaType: type('manifest.v1+json'),
      config,
      layers: [rootLayer],
    }),
  );
  const annotations = { 'io.containerd.image.name': TEST_IMAGE };
  writeFileSync(
    join(directory, 'index.json'),
    JSON.stringify({ schemaVersion: 2, manifests: [{ ...manifest, annotations }] }),
  );
  writeFileSync(join(directory, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  const parts = ['oci-layout', 'index.json', 'blobs'];
  await runOk(['tar', '-C', directory, '-cf', join(directory, 'image.tar'), ...parts]);
}
