/**
 * Addresses and ports of services given out by two servers at once, on an etcd whose leader dies meanwhile, and what a third
 * program writes there: none is given twice, none is lost.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { NAMESPACE } from '#api/core/v1/namespace.ts';
import { SERVICE, type Service, type ServiceSpec } from '#api/core/v1/service.ts';
import type { KubeObject } from '#api/meta.ts';
import { KINDS } from '#api/registry.ts';
import { systemClock } from '#lib/clock.ts';
import { ApiError } from '#lib/errors.ts';
import { cidr } from '#lib/ip.ts';
import { DEFAULT_ETCD_PREFIX, openEtcdStore } from '#store/etcd/etcd-store.ts';
import { etcdMissing, post, startEtcd, type TestEtcd } from '#store/etcd/testing-etcd.ts';
import { type Store, StoreUnavailableError, StoreWriteError } from '#store/port.ts';
import { repairAllocations } from './allocation-repair.ts';
import { createRegistries } from './registries.ts';
import { decodeEntry, encodeObject } from './registry/codec.ts';
import {
  CLUSTER_IP_PREFIX,
  collectionPrefix,
  NODE_PORT_PREFIX,
  objectKey,
} from './registry/keys.ts';
import { AS_ADMIN } from './registry/test-registries.ts';

const skip = etcdMissing();
/** So few that the servers meet each other all the time. */
const SERVICE_CIDR = cidr('10.96.0.0/25');
const NODE_PORTS = { first: 30_000, last: 30_099 };
const SERVICES_EACH = 40;

interface Server {
  readonly store: Store;
  create(name: string, spec?: ServiceSpec): Promise<Service>;
  delete(name: string): Promise<void>;
  list(): Promise<Service[]>;
}

const stack = new AsyncDisposableStack();
let etcd: TestEtcd | undefined;
let servers: readonly Server[] = [];

before(async () => {
  if (skip !== false) return;
  etcd = stack.use(await startEtcd({ members: 3 }));
  servers = [await startServer(), await startServer()];
});
after(() => stack.disposeAsync());

/** What a server has to do with services, on the etcd that all share. */
async function startServer(): Promise<Server> {
  const store = stack.use(await openEtcdStore({ endpoints: etcd?.urls ?? [] }));
  const registries = createRegistries({
    ...{ kinds: KINDS, store, clock: systemClock },
    configuration: { serviceCidrs: [SERVICE_CIDR], nodePortRange: NODE_PORTS },
    createUid: () => crypto.randomUUID(),
    random: Math.random,
  });
  const namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'default' } };
  await registries
    .of(NAMESPACE)
    .create('', namespace as KubeObject, AS_ADMIN)
    .catch(unless('AlreadyExists'));
  const services = registries.of(SERVICE);
  return {
    store,
    async create(name, spec = {}) {
      const object = {
        ...{ apiVersion: 'v1', kind: 'Service', metadata: { name } },
        spec: { type: 'NodePort', ports: [{ port: 80 }], ...spec },
      };
      return (await services.create('default', object as KubeObject, AS_ADMIN)).object as Service;
    },
    async delete(name) {
      await services.delete({ namespace: 'default', name }, AS_ADMIN);
    },
    async list() {
      const { entries } = await store.list(collectionPrefix(SERVICE));
      return entries.map((entry) => decodeEntry(entry) as Service);
    },
  };
}

/** A handler of errors that lets one reason pass. */
function unless(reason: string): (error: unknown) => void {
  return (error) => {
    if (!(error instanceof ApiError) || error.reason !== reason) throw error;
  };
}

/** Does it until it is done, as a client does that heard nothing of its request. */
async function surely(action: () => Promise<unknown>, doneBefore: string): Promise<void> {
  for (;;)
    try {
      await action();
      return;
    } catch (error) {
      if (error instanceof ApiError && error.reason === doneBefore) return;
      const isPassing =
        error instanceof StoreWriteError ||
        error instanceof StoreUnavailableError ||
        (error instanceof ApiError && error.status >= 500);
      if (!isPassing) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
}

/** Writes into etcd past the servers. */
async function write(key: string, value: string | undefined): Promise<void> {
  const [url = ''] = etcd?.urls ?? [];
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  const body = { key: base64(DEFAULT_ETCD_PREFIX + key) };
  const answer =
    value === undefined
      ? await post(url, 'kv/deleterange', body)
      : await post(url, 'kv/put', { ...body, value: base64(value) });
  assert.ok(answer, `etcd takes ${key}`);
}

/** Each address and each port is of one service, and all records are as the services say. */
async function assertWhole(): Promise<void> {
  for (const server of servers) {
    const items = await server.list();
    const addresses = items.flatMap(({ spec }) => spec.clusterIPs ?? []);
    const ports = items.flatMap(({ spec }) => spec.ports?.map(({ nodePort }) => nodePort) ?? []);
    assert.equal(new Set(addresses).size, items.length);
    assert.equal(new Set(ports).size, items.length);
    assert.deepEqual(await repairAllocations(server.store), []);
  }
}

test('two servers give nothing twice, while the leader of etcd dies', { skip }, async () => {
  const work = servers.flatMap((server, s) =>
    Array.from({ length: SERVICES_EACH }, async (_, i) => {
      await surely(() => server.create(`s${s}-${i}`), 'AlreadyExists');
      if (i % 4 !== 0) return;
      // The other one deletes it, and makes one in its place.
      const other = servers[1 - s] ?? server;
      await surely(() => other.delete(`s${s}-${i}`), 'NotFound');
      await surely(() => other.create(`t${s}-${i}`), 'AlreadyExists');
    }),
  );
  const leader = await etcd?.leader();
  await leader?.kill();
  await Promise.all(work);
  await leader?.restart();
  assert.equal((await servers[0]?.list())?.length, 2 * SERVICES_EACH);
  await assertWhole();
});

test('what a third program writes is found by either server, and mended', { skip }, async () => {
  const [one, two] = servers;
  assert.ok(one && two);
  const victim = await one.create('victim');
  const [address = ''] = victim.spec.clusterIPs ?? [];
  const nodePort = victim.spec.ports?.[0]?.nodePort ?? 0;
  const gone = JSON.stringify({ namespace: 'default', name: 'gone' });
  const used = new Set((await one.list()).flatMap(({ spec }) => spec.clusterIPs ?? []));
  const free = Array.from({ length: 100 }, (_, i) => `10.96.0.${i + 1}`).find(
    (it) => !used.has(it),
  );
  // A leak, a lost record, and one that names another service.
  await write(`${CLUSTER_IP_PREFIX}${free}`, gone);
  await write(`${CLUSTER_IP_PREFIX}${address}`, undefined);
  await write(`${NODE_PORT_PREFIX}TCP/${nodePort}`, gone);
  const found = await repairAllocations(two.store);
  assert.deepEqual(
    found.map(({ kind, key }) => `${kind} ${key}`).sort(),
    [
      `leaked ${CLUSTER_IP_PREFIX}${free}`,
      `missing ${CLUSTER_IP_PREFIX}${address}`,
      `missing ${NODE_PORT_PREFIX}TCP/${nodePort}`,
    ].sort(),
  );
  await assertWhole();
  // What was leaked can be had again, and what was lost cannot be taken.
  await two.create('heir', { clusterIP: free ?? '' });
  await assert.rejects(two.create('thief', { clusterIP: address }), /already allocated|in use/);
  const stolen = { type: 'NodePort', ports: [{ port: 80, nodePort }] } as ServiceSpec;
  await assert.rejects(one.create('thief', stolen), /already allocated|in use/);

  // A copy with the same address and port: told, and kept for the older one.
  const copy = { ...victim, metadata: { ...victim.metadata, name: 'copy', uid: 'another' } };
  const stored = Buffer.from(encodeObject(copy)).toString();
  await write(objectKey(SERVICE, 'default', 'copy'), stored);
  for (const server of servers) {
    const problems = await repairAllocations(server.store);
    assert.deepEqual(
      problems.map(({ kind }) => kind),
      ['duplicate', 'duplicate'],
    );
    assert.match(problems[0]?.message ?? '', /default\/victim and service default\/copy have it/);
  }
  await two.delete('copy');
  await repairAllocations(one.store);
  await assertWhole();
});
