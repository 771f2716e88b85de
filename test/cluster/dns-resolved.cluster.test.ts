/**
 * A machine whose names are systemd-resolved's, the real program: its stub in resolv.conf, a link with a name server of
 * its own as DHCP gives it, and an agent that is to be the machine's resolver for the cluster's names.
 *
 * What stands in for the rest of systemd: a file where systemd-networkd says what a link has, and a `systemctl` that
 * restarts the one service.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { NODE } from '#api/core/v1/node.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { LabCluster, until } from '#lab/cluster.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';

const WAIT_MS = 20_000;
const LAB = 'test-dns-resolved';
const FIXTURE = join(import.meta.dirname, 'names.fixture.mjs');
/** The name server of the link; names that end in `.test` have its address. */
const OUTSIDE = '192.0.2.53';
const STUB = '127.0.0.53';
const WEB = 'web.default.svc.cluster.local';
const WEB_IP = '10.96.0.77';
/** Ours. */
const SERVER = '169.254.20.10';
const DROP_IN = '/run/systemd/resolved.conf.d/tulle.conf';
const STUB_FILE = '/run/systemd/resolve/stub-resolv.conf';

/** Unpacked by ./dev, or installed. */
const ROOTS = [resolve(import.meta.dirname, '../../.cache/resolved'), ''];
const triplet = process.arch === 'arm64' ? 'aarch64-linux-gnu' : 'x86_64-linux-gnu';
const program = ROOTS.flatMap((root) => [
  { root, path: `${root}/lib/systemd/systemd-resolved` },
  { root, path: `${root}/usr/lib/systemd/systemd-resolved` },
]).find(({ path }) => existsSync(path));
const skip =
  program === undefined
    ? 'there is no systemd-resolved (./dev test unpacks the Debian package where apt-get can fetch it)'
    : false;

describe('DNS beside systemd-resolved', { skip }, () => {
  const libraries = `${program?.root}/usr/lib/${triplet}`;
  const path = process.env.PATH ?? '';
  let cluster: LabCluster;
  let m1: Machine;

  before(async () => {
    await Lab.remove(LAB);
    const lab = await Lab.create({ name: LAB, machines: 1 });
    cluster = new LabCluster(lab);
    m1 = lab.machine('m1');
    await m1.runOk(['ip', 'address', 'add', `${OUTSIDE}/32`, 'dev', 'lo']);
    await m1.start('outside', [process.execPath, FIXTURE, OUTSIDE, '53']);
    await startResolved();
    // Of the processes started from here, agents among them.
    process.env.PATH = `/opt/resolved:${path}`;
    await cluster.startServer();
    await cluster.startAgent(m1, { flags: ['--host-resolver'] });
    await cluster.nodesReady();
    await cluster.client.create(SERVICE, {
      ...{ apiVersion: 'v1', kind: 'Service', metadata: { name: 'web', namespace: 'default' } },
      spec: { clusterIP: WEB_IP, ports: [{ port: 80 }] },
    });
    await until('the name is known', WAIT_MS, async () => (await dig(SERVER, WEB)) === WEB_IP);
  });
  after(async () => {
    process.env.PATH = path;
    await Lab.remove(LAB);
  });

  const dig = async (server: string, ...args: string[]) =>
    (
      await m1.run(['dig', `@${server}`, '+short', '+timeout=2', '+tries=1', ...args])
    ).stdout.trim();
  const write = (file: string, input: string) =>
    m1.runOk(['sh', '-c', `mkdir -p ${dirname(file)}; cat >${file}`], { input });

  /** What systemd-networkd leaves of a link that DHCP gave this name server, or none. */
  async function giveLink(nameServer: string): Promise<void> {
    const index = (await m1.runOk(['ip', '-o', 'link', 'show', 'eth0'])).split(':')[0];
    const state = 'ADMIN_STATE=configured\nOPER_STATE=routable\nDNS_DEFAULT_ROUTE=yes\n';
    const file = `/run/systemd/netif/links/${index}`;
    await write('/run/systemd/netif/new', `${state}DNS=${nameServer}\n`);
    // It hears of files that are moved there.
    await m1.runOk(['sh', '-c', `mkdir -p ${dirname(file)}; mv /run/systemd/netif/new ${file}`]);
  }

  async function startResolved(): Promise<void> {
    await giveLink(OUTSIDE);
    await write(
      '/etc/systemd/resolved.conf',
      '[Resolve]\nFallbackDNS=\nLLMNR=no\nMulticastDNS=no\nDNSSEC=no\n',
    );
    const script = `#!/bin/sh
[ "$*" = 'try-reload-or-restart systemd-resolved.service' ] || exit 1
if [ -e /run/resolved.pid ]; then
  kill "$(cat /run/resolved.pid)"
  while kill -0 "$(cat /run/resolved.pid)" 2>/dev/null; do sleep 0.05; done
fi
export LD_LIBRARY_PATH=${libraries}/systemd
${program?.path} </dev/null >>/var/log/resolved.log 2>&1 &
echo $! >/run/resolved.pid
`;
    await write('/opt/resolved/systemctl', script);
    await m1.runOk(['chmod', '755', '/opt/resolved/systemctl']);
    await m1.runOk([
      'sh',
      '-c',
      `grep -q ^systemd-resolve: /etc/passwd || {
         echo 'systemd-resolve:x:64053:64053::/:/usr/sbin/nologin' >>/etc/passwd
         echo 'systemd-resolve:x:64053:' >>/etc/group
       }
       ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
       /opt/resolved/systemctl try-reload-or-restart systemd-resolved.service`,
    ]);
    await until('systemd-resolved answers', WAIT_MS, async () => {
      return (await dig(STUB, 'a.test')) === OUTSIDE;
    });
  }

  const resolvConf = async () => (await m1.runOk(['readlink', '-f', '/etc/resolv.conf'])).trim();

  test('its stub stays in resolv.conf, and programs find both worlds by it', async () => {
    await until('the stub knows', WAIT_MS, async () => (await dig(STUB, WEB)) === WEB_IP);
    assert.equal(await resolvConf(), STUB_FILE);
    assert.match(await m1.runOk(['getent', 'ahostsv4', WEB]), new RegExp(`^${WEB_IP} `));
    assert.match(await m1.runOk(['getent', 'ahostsv4', 'b.test']), new RegExp(`^${OUTSIDE} `));
    assert.equal(await dig(STUB, 'none.default.svc.cluster.local'), '');
  });

  test('we ask the link’s name server, never the stub', async () => {
    assert.equal(await dig(SERVER, 'c.test'), OUTSIDE);
    await until('it is counted', WAIT_MS, async () => {
      const metrics = await m1.runOk(['curl', '-s', '127.0.0.1:9963/metrics']);
      const asked = metrics.match(/^coredns_forward_requests_total{.*$/gm) ?? [];
      assert.ok(!asked.some((line) => line.includes(STUB)), asked.join('\n'));
      return asked.some((line) => line.includes(`"${OUTSIDE}:53"`));
    });
  });

  for (const [library, names] of [
    ['resolve', { [WEB]: () => WEB_IP, 'd.test': () => OUTSIDE }],
    ['myhostname dns', { [WEB]: () => WEB_IP, m1: () => m1.address }],
  ] as const)
    test(`programs whose nsswitch.conf says "hosts: ${library}" find them`, async (t) => {
      const module = `${libraries}/libnss_${library.split(' ')[0]}.so.2`;
      if (!existsSync(module)) return t.skip(`there is no ${module}`);
      const before = await m1.runOk(['cat', '/etc/nsswitch.conf']);
      await write('/etc/nsswitch.conf', `hosts: ${library}\n`);
      for (const [name, address] of Object.entries(names)) {
        const getent = ['env', `LD_LIBRARY_PATH=${libraries}`, 'getent', 'ahostsv4', name];
        assert.match(await m1.runOk(getent), new RegExp(`^${address()} `, 'm'), name);
      }
      await write('/etc/nsswitch.conf', before);
    });

  test('a stub that has nobody but us is a loop, which is said and not entered', async () => {
    await giveLink('');
    await until('the loop is seen', WAIT_MS, async () => {
      await dig(SERVER, `x${Math.random()}.test`);
      const node = await cluster.client.get(NODE, 'm1');
      const ready = node.status?.conditions?.find(({ type }) => type === 'DNSReady');
      return ready?.message?.includes(STUB) === true;
    });
    assert.equal(await dig(SERVER, WEB), WEB_IP);
    assert.match((await m1.run(['dig', `@${SERVER}`, 'e.test'])).stdout, /SERVFAIL/);
    await giveLink(OUTSIDE);
    await until('outside is back', WAIT_MS, async () => (await dig(SERVER, 'f.test')) === OUTSIDE);
  });

  test('a systemd-resolved whose own files name servers is not asked for the cluster’s names', async () => {
    const theirs = '/etc/systemd/resolved.conf.d/theirs.conf';
    await write(theirs, `[Resolve]\nDNS=${OUTSIDE}\n`);
    await until('we come first', WAIT_MS, async () => (await resolvConf()) === '/etc/resolv.conf');
    assert.match(await m1.runOk(['getent', 'ahostsv4', WEB]), new RegExp(`^${WEB_IP} `));
    assert.match(await m1.runOk(['getent', 'ahostsv4', 'g.test']), new RegExp(`^${OUTSIDE} `));
    assert.notEqual((await m1.run(['test', '-e', DROP_IN])).exitCode, 0);
    await until('the stub is back', WAIT_MS, async () => (await dig(STUB, 'g.test')) === OUTSIDE);
    assert.equal(await dig(STUB, WEB), '');
    await m1.runOk(['rm', theirs]);
    await until('the stub asks us again', WAIT_MS, async () => (await dig(STUB, WEB)) === WEB_IP);
  });

  test('all is as before when the agent stops', async () => {
    await cluster.stopAgent(m1);
    assert.equal(await resolvConf(), STUB_FILE);
    assert.notEqual((await m1.run(['test', '-e', DROP_IN])).exitCode, 0);
    await until('outside is found', WAIT_MS, async () => (await dig(STUB, 'h.test')) === OUTSIDE);
    assert.equal(await dig(STUB, WEB), '');
  });
});
