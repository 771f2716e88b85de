/**
 * The programs that configure a host's links, run for real in a lab machine: udev, systemd-networkd, NetworkManager.
 *
 * They are Debian's own, but not installed: on the computer itself they would take hold of its network. `./dev` unpacks
 * their packages below `.cache/debian`, and a lab machine sees that on top of its `/usr`. What they would share with the
 * computer (`/sys`, `/dev`, their configuration) is the machine's own, too.
 */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { until } from '#lab/cluster.ts';
import type { Machine } from '#lab/machine.ts';
import { isAlive, type ProcessIdentity } from '#proc/identity.ts';

const UNPACKED = resolve(import.meta.dirname, '../../.cache/debian/usr');
const NETWORKD = '/usr/lib/systemd/systemd-networkd';
const NETWORK_MANAGER = '/usr/sbin/NetworkManager';
const NEEDED = ['/usr/bin/udevadm', '/usr/bin/dbus-daemon', NETWORKD, NETWORK_MANAGER];
const WAIT_MS = 20_000;

/** Only what concerns links: the others would look at the computer's disks. */
const UDEV_RULES = ['75-net-description', '80-net-setup-link', '85-nm-unmanaged', '99-systemd'];
/** `-e`: where a mount fails, the rest must not be let loose on the computer's own folders. */
const PREPARE = `set -eu
if [ -d "$1" ]; then mount -t overlay overlay -o "lowerdir=$1:/usr" /usr; fi
rules=/run/udev-rules; mkdir -p $rules
for name in ${UDEV_RULES.join(' ')}; do cp "/usr/lib/udev/rules.d/$name.rules" $rules; done
mount --bind $rules /usr/lib/udev/rules.d

mkdir /run/sys && mount -t sysfs sysfs /run/sys
mount --rbind /sys/fs/cgroup /run/sys/fs/cgroup
mount --move /run/sys /sys

mkdir /run/dev && mount -t tmpfs -o mode=755 tmpfs /run/dev && cd /run/dev
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "\${node%:*}" c 1 "\${node#*:}"; done
mknod -m 666 tty c 5 0
mkdir net pts shm
mknod -m 666 net/tun c 10 200
mount --rbind /dev/pts pts
mount --rbind /dev/shm shm
ln -s pts/ptmx ptmx; ln -s /proc/self/fd fd; ln -s fd/0 stdin; ln -s fd/1 stdout; ln -s fd/2 stderr
cd / && mount --move /run/dev /dev

mkdir -p /etc/systemd/network /etc/NetworkManager /etc/udev
for place in /etc/systemd/network /etc/NetworkManager /etc/udev; do mount -t tmpfs tmpfs $place; done
printf '[main]\\nplugins=keyfile\\n' >/etc/NetworkManager/NetworkManager.conf
rm -rf /var/lib/NetworkManager
mkdir -p /run/dbus /run/systemd/netif /run/udev /var/lib/NetworkManager
for user in messagebus:901 systemd-network:902; do
  getent passwd "\${user%:*}" >/dev/null || echo "\${user%:*}:x:\${user#*:}:65534::/:/usr/sbin/nologin" >>/etc/passwd
done
chown systemd-network /run/systemd/netif
# Of which udev makes its MACs.
echo 5390000000000000000000000000539e >/etc/machine-id
dbus-daemon --system --fork --nopidfile`;

/** @returns why tests with these programs cannot be run, false if they can: what `node:test` takes as `skip` */
export function whyNoHostPrograms(): string | false {
  const missing = NEEDED.filter(
    (path) => !existsSync(path) && !existsSync(join(UNPACKED, path.replace(/^\/usr/, ''))),
  );
  if (missing.length === 0) return false;
  return `${missing.join(', ')} not there; './dev test' unpacks Debian's packages where it can`;
}

/** Gives a machine its own `/sys`, `/dev`, D-Bus and udev. Once, before anything else runs there. */
export async function startUdev(machine: Machine): Promise<void> {
  await machine.runOk(['sh', '-c', PREPARE, 'prepare', UNPACKED]);
  // What it is called decides what it does: it is the same file as udevadm.
  await machine.start('udevd', ['/usr/lib/systemd/systemd-udevd']);
  const control = join(machine.directory, 'run/udev/control');
  await until('udevd listens', WAIT_MS, async () => existsSync(control));
  await machine.runOk(['udevadm', 'trigger', '--subsystem-match=net', '--action=add']);
  await machine.runOk(['udevadm', 'settle', '--timeout=20']);
}

/** A daemon that is started and ended again and again. */
export interface HostProgram {
  start(): Promise<void>;
  stop(): Promise<void>;
  restart(): Promise<void>;
  /** What it says of a link: `unmanaged`, `configured` … */
  stateOf(link: string): Promise<string | undefined>;
}

export function networkd(machine: Machine): HostProgram {
  return hostProgram(machine, {
    argv: [NETWORKD],
    busName: 'org.freedesktop.network1',
    list: ['networkctl', 'list', '--no-legend', '--no-pager'],
    // IDX LINK TYPE OPERATIONAL SETUP
    read: (line) => {
      const [, link, , , setup] = line.trim().split(/\s+/);
      return [link, setup];
    },
  });
}

export function networkManager(machine: Machine): HostProgram {
  return hostProgram(machine, {
    // In the foreground, and its log goes to ours.
    argv: [NETWORK_MANAGER, '--debug'],
    busName: 'org.freedesktop.NetworkManager',
    list: ['nmcli', '--terse', '--fields', 'DEVICE,STATE', 'device'],
    read: (line) => {
      const [link, state] = line.split(':');
      return [link, state];
    },
  });
}

function hostProgram(
  machine: Machine,
  program: {
    readonly argv: readonly [string, ...string[]];
    readonly busName: string;
    readonly list: readonly string[];
    readonly read: (line: string) => readonly [string | undefined, string | undefined];
  },
): HostProgram {
  const name = program.argv[0].split('/').at(-1) ?? '';
  let identity: ProcessIdentity | undefined;
  const states = async () => {
    const listed = await machine.runOk(program.list);
    return new Map(listed.trim().split('\n').map(program.read));
  };
  const isOnBus = async () => {
    const bus = 'org.freedesktop.DBus';
    const question = [bus, '/org/freedesktop/DBus', bus, 'NameHasOwner', 's', program.busName];
    return (await machine.runOk(['busctl', 'call', ...question])).trim() !== 'b false';
  };
  const start = async () => {
    identity = await machine.start(name, program.argv);
    // A link that it has not made up its mind about is `pending`, `unavailable` or missing.
    await until(`${name} has looked at the uplink`, WAIT_MS, async () =>
      /^(config|connected|unmanaged)/.test((await states()).get('eth0') ?? ''),
    );
  };
  const stop = async () => {
    const running = identity;
    if (running === undefined) return;
    process.kill(running.pid, 'SIGTERM');
    // The bus learns of its end later. Until then the next one, which finds the name taken, would end at once.
    await until(`${name} has ended`, WAIT_MS, async () => !isAlive(running) && !(await isOnBus()));
    identity = undefined;
  };
  return {
    start,
    stop,
    restart: async () => {
      await stop();
      await start();
    },
    stateOf: async (link) => (await states()).get(link),
  };
}

/** Writes a file of a machine's own `/etc`. */
export async function writeEtc(machine: Machine, path: string, content: string): Promise<void> {
  await machine.runOk(['sh', '-c', 'cat >"$1"', 'write', join('/etc', path)], { input: content });
}
