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
import { ENDPOINT_SLICE, type EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { createApiClient } from '#client/http-client.ts';
import { loadKubeconfig } from '#client/kubeconfig.ts';
import type { ApiClient } from '#client/port.ts';
import { sleep } from '#lib/clock.ts';
import { etcdMissing, startEtcd, type TestEtcd } from '#store/etcd/testing-etcd.ts';

const skip = etcdMissing();
const root = mkdtempSync(join(tmpdir(), 'tulle-etcd-servers-'));
const secretFile = join(root, 'secret');
let etcd: TestEtcd | undefined;
const servers: TestServer[] = [];

interface TestServer {
  readonly process: ChildProcess;
  readonly client: ApiClient & AsyncDisposable;
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

async function startServer(name: string, advertise: string): Promise<TestServer> {
  const port = await freePort();
  const { process: child, log } = spawnServer(name, [
    ...['--listen', `127.0.0.1:${port}`, '--advertise-address', advertise],
    ...['--cluster-secret-file', secretFile],
  ]);
  const kubeconfig = join(root, name, 'admin.kubeconfig');
  while (!log().includes('the server is ready')) {
    assert.equal(child.exitCode, null, `server ${name} ended:\n${log()}`);
    await sleep(50);
  }
  assert.ok(existsSync(kubeconfig));
  const config = loadKubeconfig({ path: kubeconfig });
  const client = createApiClient({ ...config, servers: [`https://127.0.0.1:${port}`] });
  const server = { process: child, client, log };
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
    const contentOf = (name: string) => readFileSync(join(root, name, 'pki', file), 'utf8');
    assert.equal(contentOf('one'), contentOf('two'), file);
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
  const holder = async (client: ApiClient) => {
    const { items } = await client.list<Lease>(LEASE, { namespace: 'kube-system' });
    return items.find(({ metadata }) => metadata.name === 'tulle-controllers')?.spec.holderIdentity;
  };
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
