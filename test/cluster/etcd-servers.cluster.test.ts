/** Two real servers on an etcd of three members serve one cluster. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { LEASE, type Lease } from '#api/coordination/v1/lease.ts';
import { CONFIG_MAP } from '#api/core/v1/config-map.ts';
import { SERVICE, type Service } from '#api/core/v1/service.ts';
import { ENDPOINT_SLICE, type EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import type { ClientConfig } from '#client/config.ts';
import { createApiClient } from '#client/http-client.ts';
import { loadKubeconfig } from '#client/kubeconfig.ts';
import type { ApiClient } from '#client/port.ts';
import { sleep } from '#lib/clock.ts';
import { openCa } from '#server/pki/ca.ts';
import { etcdMissing, startEtcd, type TestEtcd } from '#store/etcd/testing-etcd.ts';

const skip = etcdMissing();
const root = mkdtempSync(join(tmpdir(), 'tulle-etcd-servers-'));
const secretFile = join(root, 'secret');
let etcd: TestEtcd | undefined;
const servers: TestServer[] = [];

interface TestServer {
  readonly process: ChildProcess;
  readonly client: ApiClient & AsyncDisposable;
  readonly config: ClientConfig;
  readonly log: () => string;
}

before(async () => {
  if (skip !== false) return;
  writeFileSync(secretFile, 'the secret of all servers\n', { mode: 0o600 });
  etcd = await startEtcd({ members: 3, parent: root });
});

after(async () => {
  for (const { process, client } of servers) {
    await client[Symbol.asyncDispose]();
    await end(process, 'SIGKILL');
  }
  await etcd?.[Symbol.asyncDispose]();
  rmSync(root, { recursive: true, force: true });
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  assert.ok(address !== null && typeof address === 'object');
  return address.port;
}

function spawnServer(
  name: string,
  args: readonly string[],
): { process: ChildProcess; log: () => string } {
  const program = join(import.meta.dirname, '../../src/bin/tulle.ts');
  const child = spawn(
    process.execPath,
    [
      ...['--disable-warning=ExperimentalWarning', program, 'server'],
      ...['--data-dir', join(root, name), '--etcd', etcd?.urls.join(',') ?? ''],
      ...args,
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    log += text;
  });
  return { process: child, log: () => log };
}

async function startServer(
  name: string,
  advertise: string,
  more: readonly string[] = [],
): Promise<TestServer> {
  const port = await freePort();
  const { process: child, log } = spawnServer(name, [
    ...['--listen', `127.0.0.1:${port}`, '--advertise-address', advertise],
    ...['--cluster-secret-file', secretFile],
    ...more,
  ]);
  const kubeconfig = join(root, name, 'admin.kubeconfig');
  while (!log().includes('the server is ready')) {
    assert.equal(child.exitCode, null, `server ${name} ended:\n${log()}`);
    await sleep(50);
  }
  assert.ok(existsSync(kubeconfig));
  const config = {
    ...loadKubeconfig({ path: kubeconfig }),
    servers: [`https://127.0.0.1:${port}`],
  };
  const client = createApiClient(config);
  const server = { process: child, client, config, log };
  servers.push(server);
  return server;
}

async function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, 'exit');
  child.kill(signal);
  await exit;
}

async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const endMs = performance.now() + 60_000;
  while (!(await holds())) {
    if (performance.now() > endMs)
      assert.fail(`${what}: not so after a minute\n${servers.map(({ log }) => log()).join('\n')}`);
    await sleep(100);
  }
}

const configMap = (name: string, data: Record<string, string>) => ({
  apiVersion: 'v1' as const,
  kind: 'ConfigMap' as const,
  metadata: { name, namespace: 'default' },
  data,
});

/** Who runs the controllers. */
async function holder(client: ApiClient): Promise<string | undefined> {
  const { items } = await client.list<Lease>(LEASE, { namespace: 'kube-system' });
  return items.find(({ metadata }) => metadata.name === 'tulle-controllers')?.spec.holderIdentity;
}

const pkiFile = (name: string, file: string) => readFileSync(join(root, name, 'pki', file), 'utf8');

async function apiAddresses(client: ApiClient): Promise<string> {
  const { items } = await client.list<EndpointSlice>(ENDPOINT_SLICE, { namespace: 'default' });
  return items
    .filter(({ metadata }) => metadata.labels?.['kubernetes.io/service-name'] === 'kubernetes')
    .flatMap(({ endpoints }) => (endpoints ?? []).flatMap(({ addresses }) => addresses))
    .toSorted()
    .join(' ');
}

test('two servers on one etcd are one cluster, and either may go', { skip }, async () => {
  const [one, two] = await Promise.all([
    startServer('one', '192.0.2.1'),
    startServer('two', '192.0.2.2'),
  ]);
  for (const file of ['ca.crt', 'ca.key']) {
    assert.equal(pkiFile('one', file), pkiFile('two', file), file);
  }

  // What one acknowledges the other shows at once; a change based on an old state is refused by either.
  for (let n = 0; n < 20; n++) {
    const made = await one.client.create(CONFIG_MAP, configMap(`c${n}`, { n: String(n) }));
    const read = await two.client.get(CONFIG_MAP, `c${n}`, 'default');
    assert.equal(read.metadata.resourceVersion, made.metadata.resourceVersion);
    await two.client.update(CONFIG_MAP, { ...read, data: { n: 'changed' } } as typeof read);
    await assert.rejects(
      one.client.update(CONFIG_MAP, { ...made, data: { n: 'late' } } as typeof made),
      /conflict|modified/i,
    );
  }

  // One leads the controllers, both are endpoints of the API.
  await until('one server leads', async () => ((await holder(two.client)) ?? '') !== '');
  await until(
    'both are endpoints',
    async () => (await apiAddresses(two.client)) === '192.0.2.1 192.0.2.2',
  );

  // The leader of etcd dies: writes may fail for a moment, what was acknowledged stays.
  await (await etcd?.leader())?.kill();
  await until('a write succeeds without the leader', async () => {
    try {
      await two.client.create(CONFIG_MAP, configMap('after', {}));
      return true;
    } catch (error) {
      return /AlreadyExists|already exists/.test(String(error));
    }
  });
  assert.equal((await one.client.list(CONFIG_MAP, { namespace: 'default' })).items.length, 21);

  // The server that leads stops: the other takes over, and it is an endpoint no more.
  const before = await holder(two.client);
  const led = one.log().includes('became the leader') ? one : two;
  const left = led === one ? two : one;
  await end(led.process, 'SIGTERM');
  await until('the other server leads', async () => {
    const now = (await holder(left.client)) ?? '';
    return now !== '' && now !== before;
  });
  await until(
    'the server that stopped is no endpoint',
    async () => (await apiAddresses(left.client)) === (left === two ? '192.0.2.2' : '192.0.2.1'),
  );
});

test('the server that leads is killed: the other one runs the controllers', { skip }, async () => {
  const [left, led] = await Promise.all([
    startServer('left', '192.0.2.4'),
    startServer('killed', '192.0.2.5'),
  ]);
  // The others of this cluster stop first, so that it is known who leads.
  const before = servers.filter((server) => server !== left && server !== led);
  for (const { process } of before) await end(process, 'SIGTERM');
  await until('one of the two leads', async () =>
    [left, led].some(({ log }) => log().includes('became the leader')),
  );
  const [dead, alive] = led.log().includes('became the leader') ? [led, left] : [left, led];
  const old = await holder(alive.client);
  await end(dead.process, 'SIGKILL');
  await until('the other one leads', async () => {
    const now = (await holder(alive.client)) ?? '';
    return now !== '' && now !== old;
  });
  // And does the work: the slice of a service is its to make.
  await alive.client.create<Service>(SERVICE, {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name: 'web', namespace: 'default' },
    spec: { selector: { app: 'web' }, ports: [{ port: 80, protocol: 'TCP' }] },
  });
  await until('the slice of the new service is made', async () => {
    const { items } = await alive.client.list(ENDPOINT_SLICE, { namespace: 'default' });
    return items.some(({ metadata }) => metadata.labels?.['kubernetes.io/service-name'] === 'web');
  });
  await end(alive.process, 'SIGTERM');
});

test('the authority of all servers is replaced, one server after the other', { skip }, async () => {
  const [first, second] = [
    await startServer('first', '192.0.2.6'),
    await startServer('second', '192.0.2.7'),
  ];
  await first.client.create(CONFIG_MAP, configMap('kept', { a: '1' }));
  const given = join(root, 'given');
  await openCa({ directory: given });
  const options = ['--ca-cert', join(given, 'ca.crt'), '--ca-key', join(given, 'ca.key')];
  const token = readFileSync(join(root, 'first', 'join-token'), 'utf8');

  await end(first.process, 'SIGTERM');
  const replaced = await startServer('first', '192.0.2.6', [...options, '--replace-ca']);
  assert.equal(pkiFile('first', 'ca.key'), readFileSync(join(given, 'ca.key'), 'utf8'));
  assert.notEqual(readFileSync(join(root, 'first', 'join-token'), 'utf8'), token);
  // Until it is its turn, the other one serves those who trust the old authority.
  await second.client.get(CONFIG_MAP, 'kept', 'default');

  await end(second.process, 'SIGTERM');
  const { process: refused, log } = spawnServer('second', [
    ...['--listen', `127.0.0.1:${await freePort()}`, '--advertise-address', '192.0.2.7'],
    ...['--cluster-secret-file', secretFile],
  ]);
  const [code] = await once(refused, 'exit');
  assert.equal(code, 1);
  assert.match(log(), /is not the file that the cluster's servers share/);
  assert.match(log(), /--replace-ca/);

  const last = await startServer('second', '192.0.2.7', [...options, '--replace-ca']);
  for (const file of ['ca.crt', 'ca.key'])
    assert.equal(pkiFile('first', file), pkiFile('second', file), file);
  const read = await last.client.get(CONFIG_MAP, 'kept', 'default');
  await replaced.client.update(CONFIG_MAP, { ...read, data: { a: '2' } } as typeof read);
  // Certificates of the old authority are worth nothing at either.
  const { certificatePem = '', keyPem = '' } = first.config;
  for (const { config } of [replaced, last]) {
    await using stale = createApiClient({ ...config, certificatePem, keyPem });
    await assert.rejects(stale.list(CONFIG_MAP), /certificate/i);
  }
  // Without the options they start with what they have, and a new one gets it.
  await end(last.process, 'SIGTERM');
  await startServer('second', '192.0.2.7');
  await startServer('third', '192.0.2.8');
  assert.equal(pkiFile('third', 'ca.crt'), pkiFile('first', 'ca.crt'));
});

test('a server with another secret is refused, and says why', { skip }, async () => {
  const wrong = join(root, 'wrong');
  writeFileSync(wrong, 'quite another secret\n');
  const { process: child, log } = spawnServer('three', [
    ...['--listen', `127.0.0.1:${await freePort()}`, '--advertise-address', '192.0.2.3'],
    ...['--cluster-secret-file', wrong],
  ]);
  const [code] = await once(child, 'exit');
  assert.equal(code, 1);
  assert.match(log(), /secret does not open what the servers share/);
});
