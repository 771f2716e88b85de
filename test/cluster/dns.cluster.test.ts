/** DNS as pods and people see it: real containers, the resolvers of busybox, musl and glibc, and the tools of Debian. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CONFIG_MAP, type ConfigMap } from '#api/core/v1/config-map.ts';
import { POD } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { LabCluster, until } from '#lab/cluster.ts';
import { execInContainer, preparePodman, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';

const WAIT_MS = 20_000;
const LINK_LOCAL = '169.254.20.10';

describe('DNS in a cluster', () => {
  let lab: Lab;
  let cluster: LabCluster;
  let m1: Machine;
  let dnsIp = '';
  let webIp = '';
  let hasMusl = false;
  let resolvConf = '';

  before(async () => {
    await Lab.remove('test-dns');
    lab = await Lab.create({ name: 'test-dns', machines: 1 });
    cluster = new LabCluster(lab);
    m1 = lab.machine('m1');
    preparePodman(m1);
    copyGlibc(m1);
    hasMusl = compileWithMusl(m1);
    await cluster.startServer();
    resolvConf = await m1.runOk(['cat', '/etc/resolv.conf']);
    await cluster.startAgent(m1, { flags: ['--host-resolver'] });
    await cluster.nodesReady();
    await cluster.client.create(SERVICE, {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'web', namespace: 'default' },
      spec: { selector: { app: 'web' }, ports: [{ name: 'http', port: 80 }] },
    });
    await runContainer(m1, { name: 'client', role: 'client' });
    const addressOf = async (name: string, namespace: string) =>
      (await cluster.client.get(SERVICE, name, namespace)).spec.clusterIP ?? '';
    dnsIp = await addressOf('kube-dns', 'kube-system');
    webIp = await addressOf('web', 'default');
    await until('the pod is known', WAIT_MS, async () => (await pods()).length === 1);
    await until('the name is known', WAIT_MS, async () => (await dig(dnsIp, WEB)) === webIp);
  });
  after(() => Lab.remove('test-dns'));

  const WEB = 'web.default.svc.cluster.local';
  const pods = async () => (await cluster.client.list(POD, { namespace: 'default' })).items;
  const inPod = async (script: string) =>
    (await execInContainer(m1, 'client', script)).stdout.trim();
  const dig = async (server: string, ...args: string[]) =>
    (
      await m1.run(['dig', `@${server}`, '+short', '+timeout=2', '+tries=2', ...args])
    ).stdout.trim();

  async function configure(data: Record<string, string>): Promise<void> {
    const object: ConfigMap = {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'tulle-dns', namespace: 'kube-system' },
      data,
    };
    await cluster.client
      .create(CONFIG_MAP, object)
      .catch(() => cluster.client.update(CONFIG_MAP, object));
  }

  test('the machine itself is answered on both addresses, over UDP and TCP', async () => {
    for (const server of [dnsIp, LINK_LOCAL])
      for (const transport of ['+notcp', '+tcp'])
        assert.equal(await dig(server, transport, WEB), webIp, `${server} ${transport}`);
    assert.equal(await dig(dnsIp, '-x', webIp), `${WEB}.`);
    assert.equal(
      await dig(dnsIp, '+noedns', '+ignore', 'dns-version.cluster.local', 'TXT'),
      '"1.1.0"',
    );
  });

  // Without "options ndots:5", which podman leaves out, names with a dot go outside first; a lab has no outside.
  test('busybox in a pod finds services by their names', async () => {
    for (const form of ['web', WEB, `${WEB}.`])
      assert.match(await inPod(`ping -c 1 -W 1 ${form} 2>&1 | head -1`), new RegExp(webIp), form);
    assert.match(await inPod(`nslookup ${WEB} ${LINK_LOCAL}`), new RegExp(webIp));
  });

  test('the search list of a pod is walked for it, and for nobody else', async () => {
    const searched = `${WEB}.default.svc.cluster.local`;
    assert.match(await inPod(`nslookup ${searched}. ${dnsIp}`), new RegExp(webIp));
    assert.equal(await dig(dnsIp, searched), '');
  });

  test('glibc in a pod finds them, with getent', async (t) => {
    if (!existsSync('/usr/bin/getent')) return t.skip('getent is not installed (libc-bin)');
    for (const form of ['web', WEB])
      assert.match(await inPod(`/usr/bin/getent ahostsv4 ${form}`), new RegExp(`^${webIp} `), form);
  });

  test('musl in a pod finds them', async (t) => {
    if (!hasMusl) return t.skip('musl and tcc are not installed (Debian: tcc, musl-dev)');
    for (const form of ['web', WEB, `${WEB}.`])
      assert.equal(await inPod(`/bin/resolve ${form}`), webIp, form);
    assert.match(await inPod('/bin/resolve none.default.svc.cluster.local || true'), /^error/);
  });

  test('the machine’s own programs find them, by its resolv.conf', async () => {
    await until(
      'the file names the server',
      WAIT_MS,
      async () => (await m1.run(['grep', '-c', LINK_LOCAL, '/etc/resolv.conf'])).exitCode === 0,
    );
    assert.match(await m1.runOk(['getent', 'ahostsv4', WEB]), new RegExp(`^${webIp} `));
    const own = await m1.runOk(['cat', '/etc/resolv.conf']);
    assert.ok(own.endsWith(resolvConf), own);
  });

  test('queries leave no trace in the connection table', async () => {
    await inPod(`for i in $(seq 20); do nslookup ${WEB} ${dnsIp} >/dev/null; done`);
    await dig(dnsIp, WEB);
    const tracked = (await m1.run(['conntrack', '-L', '-p', 'udp'])).stdout;
    assert.doesNotMatch(tracked, new RegExp(`=(${dnsIp}|${LINK_LOCAL}) .*port=53`));
  });

  test('static names and zones come and go with the ConfigMap, and no query is lost meanwhile', async () => {
    const lost = countLost(m1, dnsIp, WEB);
    await configure({ hosts: '203.0.113.7 db.legacy.example' });
    await until(
      'the entry is known',
      WAIT_MS,
      async () => (await dig(dnsIp, 'db.legacy.example')) === '203.0.113.7',
    );
    assert.match(await inPod('ping -c 1 -W 1 db.legacy.example 2>&1 | head -1'), /203\.0\.113\.7/);
    await configure({ 'config.yaml': 'pods: disabled' });
    await until(
      'the entry is gone',
      WAIT_MS,
      async () => (await dig(dnsIp, 'db.legacy.example')) === '',
    );
    assert.equal(await dig(dnsIp, '10-0-0-1.default.pod.cluster.local'), '');
    await configure({ 'config.yaml': 'pods: verified' });
    const [pod] = await pods();
    const own = pod?.status?.podIP ?? '';
    const dashed = own.replaceAll('.', '-');
    await until(
      'the pod has a name',
      WAIT_MS,
      async () => (await dig(dnsIp, `${dashed}.default.pod.cluster.local`)) === own,
    );
    assert.equal(await dig(dnsIp, '10-0-0-1.default.pod.cluster.local'), '');
    await configure({});
    await until(
      'any address has a name',
      WAIT_MS,
      async () => (await dig(dnsIp, '10-0-0-1.default.pod.cluster.local')) === '10.0.0.1',
    );
    assert.equal(await lost(), 0);
  });

  test('tulle dns log shows the queries of a pod, and of no other', async () => {
    const tulle = join(import.meta.dirname, '../../src/bin/tulle.ts');
    const node = [process.execPath, '--disable-warning=ExperimentalWarning'];
    const [command = '', ...args] = m1.enter([...node, tulle, 'dns', 'log', 'client']);
    const log = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    log.stdout.on('data', (chunk) => {
      text += chunk;
    });
    await until('the query is shown', WAIT_MS, async () => {
      await dig(dnsIp, 'not-of-the-pod.example');
      await inPod(`nslookup ${WEB} ${dnsIp}`);
      return /web\.default\.svc\.cluster\.local\. {2}A {2}NOERROR/.test(text);
    });
    assert.doesNotMatch(text, /not-of-the-pod/);
    log.kill();
  });

  test('an agent that starts while the API is away answers as the one before it', async () => {
    await until('the names are on disk', WAIT_MS, async () => {
      const file = join(m1.directory, 'tulle/agent/dns/names.jsonl');
      return existsSync(file) && readFileSync(file, 'utf8').includes(`"${WEB}."`);
    });
    await cluster.killServer();
    await cluster.killAgent(m1);
    assert.match(await dig(dnsIp, WEB), /no servers could be reached/);
    // Without the flag: what the one that was killed did to the machine's resolver is undone.
    await cluster.startAgent(m1);
    await until(
      'the machine has its resolv.conf back',
      WAIT_MS,
      async () => (await m1.runOk(['cat', '/etc/resolv.conf'])) === resolvConf,
    );
    await until('the name is known', WAIT_MS, async () => (await dig(dnsIp, WEB)) === webIp);
    assert.match(await inPod('ping -c 1 -W 1 web 2>&1 | head -1'), new RegExp(webIp));
    await until('what is not known does not exist', WAIT_MS, async () =>
      /NXDOMAIN/.test((await m1.run(['dig', `@${dnsIp}`, 'no.default.svc.cluster.local'])).stdout),
    );
    await cluster.startServer();
    await cluster.nodesReady();
    await cluster.client.delete(SERVICE, { name: 'web', namespace: 'default' });
    await until('the API’s word holds again', WAIT_MS, async () => (await dig(dnsIp, WEB)) === '');
  });
});

/** Asks for the name again and again until the returned function is called. @returns how many got no answer */
function countLost(machine: Machine, server: string, name: string): () => Promise<number> {
  const script = `while [ -e /run/asking ]; do dig @${server} +short +tries=1 +timeout=2 ${name} | grep -q . || echo lost; done`;
  const done = machine.run(['sh', '-c', `touch /run/asking; ${script}`], { timeoutMs: 60_000 });
  return async () => {
    await machine.runOk(['rm', '-f', '/run/asking']);
    return ((await done).stdout.match(/lost/g) ?? []).length;
  };
}

/** Puts a small program into the containers that asks musl's resolver. @returns whether it could be made */
function compileWithMusl(machine: Machine): boolean {
  const triplet = process.arch === 'arm64' ? 'aarch64-linux' : 'x86_64-linux';
  const musl = `/usr/lib/${triplet}-musl`;
  if (!existsSync('/usr/bin/tcc') || !existsSync(join(musl, 'libc.a'))) return false;
  const parts = (...names: string[]) => names.map((name) => join(musl, name));
  const includes = [`/usr/include/${triplet}-musl`, `/usr/lib/${triplet}-gnu/tcc/include`];
  const { status, stderr } = spawnSync(
    'tcc',
    [
      ...['-nostdinc', '-nostdlib', '-static', ...includes.map((folder) => `-I${folder}`)],
      ...['-o', join(machine.directory, 'rootfs/bin/resolve'), ...parts('crt1.o', 'crti.o')],
      ...[join(import.meta.dirname, 'dns-resolve.c'), ...parts('libc.a', 'crtn.o')],
    ],
    { encoding: 'utf8' },
  );
  assert.equal(status, 0, stderr);
  return true;
}

/** Puts getent and what it needs of glibc beside busybox, which is linked statically. */
function copyGlibc(machine: Machine): void {
  const getent = '/usr/bin/getent';
  if (!existsSync(getent)) return;
  const root = join(machine.directory, 'rootfs');
  const libraries = ['libc.so.6', 'libresolv.so.2', 'libnss_dns.so.2', 'libnss_files.so.2'];
  for (const file of [getent, ...libraries.flatMap(find), ...find('ld-linux-x86-64.so.2')]) {
    mkdirSync(dirname(join(root, file)), { recursive: true });
    copyFileSync(file, join(root, file));
  }
}

function find(library: string): string[] {
  const folders = ['/lib/x86_64-linux-gnu', '/lib64', '/lib/aarch64-linux-gnu', '/lib'];
  return folders.map((folder) => join(folder, library)).filter((path) => existsSync(path));
}
