import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Namespace } from '#api/core/v1/namespace.ts';
import type { Pod } from '#api/core/v1/pod.ts';
import type { Service } from '#api/core/v1/service.ts';
import type { EndpointSlice } from '#api/discovery/v1/endpoint-slice.ts';
import { HandCache } from '#client/hand-cache.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { ALIASES_ANNOTATION } from '../aliases.ts';
import { DEFAULT_CONFIG, type PodMode } from './config.ts';
import { ZoneFeed, type ZoneFeedOptions } from './feed.ts';
import { NameTable } from './table.ts';
import {
  answererOf,
  ask,
  DOMAIN,
  describeMessage,
  exampleZone,
  queryBytes,
  service,
} from './testing.ts';
import { Zone } from './zone.ts';

const WEB = service('default/web', { clusterIP: '10.96.0.1', ports: [{ port: 80 }] });
const namespace = (name: string): Namespace => ({
  apiVersion: 'v1',
  kind: 'Namespace',
  metadata: { name },
});
const pod = (name: string, podIP: string, phase: 'Running' | 'Succeeded' = 'Running'): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'default' },
  spec: { containers: [] },
  status: { phase, podIP },
});

/** A feed whose changes go to a table that can be asked. */
function create(options: Partial<ZoneFeedOptions> = {}) {
  const zone = new Zone(DOMAIN, [ip('10.96.0.10')]);
  const services = new HandCache<Service>();
  const slices = new HandCache<EndpointSlice>();
  const namespaces = new HandCache<Namespace>();
  const common = { zone, services, slices, namespaces, log: silentLogger };
  const feed = new ZoneFeed({ ...common, onProgrammed: () => undefined, ...options });
  const table = new NameTable({ zone: DOMAIN, seed: 1 });
  const answerer = { ...answererOf(zone), table };
  table.apply(feed.all());
  feed.start((changes) => {
    table.apply(changes);
    table.synced = feed.synced;
  });
  const configure = (pods: PodMode) => {
    table.podMode = pods;
    feed.configure({ ...DEFAULT_CONFIG, pods });
  };
  return {
    feed,
    services,
    slices,
    namespaces,
    configure,
    async sync(): Promise<void> {
      for (const cache of [services, slices, namespaces]) cache.sync();
      await new Promise(setImmediate);
    },
    ask(owner: string, type = 'A'): string {
      const answer = ask(answerer, queryBytes(owner, type));
      return typeof answer === 'string' ? answer : describeMessage(answer).slice(0, 2).join(' | ');
    },
  };
}

const NODATA = /^NOERROR aa \| authority/;
const NXDOMAIN = /^NXDOMAIN aa/;

test('ZoneFeed: a namespace exists also without services, and no longer when it is gone', async () => {
  const it = create();
  it.namespaces.put(namespace('empty'));
  await it.sync();
  assert.match(it.ask('empty.svc.cluster.local'), NODATA);
  assert.match(it.ask('none.svc.cluster.local'), NXDOMAIN);
  it.namespaces.put(namespace('late'));
  assert.match(it.ask('late.svc.cluster.local'), NODATA);
  it.namespaces.remove('empty');
  assert.match(it.ask('empty.svc.cluster.local'), NXDOMAIN);
});

test('ZoneFeed: aliases of a pod, of several at once, and none where a service has the name', async () => {
  const aliased = new HandCache<Pod>();
  const withAliases = (name: string, podIP: string, aliases: string, phase?: 'Succeeded'): Pod => {
    const plain = pod(name, podIP, phase);
    return {
      ...plain,
      metadata: { ...plain.metadata, annotations: { [ALIASES_ANNOTATION]: aliases } },
    };
  };
  const it = create({ aliased });
  aliased.put(withAliases('a', '192.0.2.1', 'db,store'));
  aliased.sync();
  await it.sync();
  assert.match(it.ask('db.default.svc.cluster.local'), /192\.0\.2\.1$/);
  assert.match(it.ask('store.default.svc.cluster.local'), /192\.0\.2\.1$/);
  assert.match(it.ask('db.other.svc.cluster.local'), NXDOMAIN);
  aliased.put(withAliases('b', '192.0.2.2', 'db'));
  aliased.put(withAliases('a', '192.0.2.1', 'store', 'Succeeded'));
  assert.match(it.ask('db.default.svc.cluster.local'), /192\.0\.2\.2$/);
  assert.match(it.ask('store.default.svc.cluster.local'), NXDOMAIN);
  it.services.put(service('default/db', { clusterIP: '10.96.0.9', ports: [{ port: 80 }] }));
  assert.match(it.ask('db.default.svc.cluster.local'), /10\.96\.0\.9$/);
  it.services.remove('default/db');
  assert.match(it.ask('db.default.svc.cluster.local'), /192\.0\.2\.2$/);
  aliased.remove('default/b');
  assert.match(it.ask('db.default.svc.cluster.local'), NXDOMAIN);
});

test('ZoneFeed: names of pods by mode', async () => {
  const pods = Object.assign(new HandCache<Pod>(), {
    closed: false,
    async [Symbol.asyncDispose]() {
      this.closed = true;
    },
  });
  const it = create({ openPods: () => pods });
  it.namespaces.put(namespace('default'));
  await it.sync();
  const name = '10-244-0-5.default.pod.cluster.local';
  it.configure('disabled');
  assert.match(it.ask(name), NXDOMAIN);
  assert.match(it.ask('default.pod.cluster.local'), NXDOMAIN);

  it.configure('insecure');
  assert.equal(it.ask(name), `NOERROR aa | ${name}. 5 A 10.244.0.5`);
  assert.match(it.ask(name, 'AAAA'), NODATA);
  assert.equal(
    it.ask('2001-db8--1.default.pod.cluster.local', 'AAAA'),
    'NOERROR aa | 2001-db8--1.default.pod.cluster.local. 5 AAAA 2001:db8::1',
  );
  assert.match(it.ask('default.pod.cluster.local'), NODATA);
  for (const none of [
    '10-244-0-5.none.pod',
    '10-244-0.default.pod',
    'x.default.pod',
    'a.10-244-0-5.default.pod',
  ])
    assert.match(it.ask(`${none}.cluster.local`), NXDOMAIN, none);

  it.configure('verified');
  assert.match(it.ask(name), NXDOMAIN);
  pods.put(pod('a', '10.244.0.5'));
  assert.equal(it.ask(name), `NOERROR aa | ${name}. 5 A 10.244.0.5`);
  pods.put(pod('a', '10.244.0.5', 'Succeeded'));
  assert.match(it.ask(name), NXDOMAIN);
  pods.put(pod('b', '10.244.0.5'));
  it.configure('disabled');
  assert.match(it.ask(name), NXDOMAIN);
  assert.equal(pods.closed, true);
});

test('ZoneFeed: static entries come and go', async () => {
  const it = create();
  await it.sync();
  it.feed.configure({
    ...DEFAULT_CONFIG,
    hosts: [{ address: ip('192.0.2.7'), names: ['db.legacy.example.' as never] }],
  });
  assert.equal(it.ask('DB.legacy.example'), 'NOERROR aa | DB.legacy.example. 5 A 192.0.2.7');
  assert.match(it.ask('db.legacy.example', 'AAAA'), NODATA);
  assert.equal(
    it.ask('7.2.0.192.in-addr.arpa', 'PTR'),
    'NOERROR aa | 7.2.0.192.in-addr.arpa. 5 PTR db.legacy.example.',
  );
  it.feed.configure(DEFAULT_CONFIG);
  assert.equal(it.ask('db.legacy.example'), 'forward');
});

test('ZoneFeed answers from memory at once, denies after a while, and forgets when the API has told all', async () => {
  const it = create({ remembered: [...exampleZone().all()], graceMs: 10 });
  it.services.put(WEB);
  const plain = 'plain.default.svc.cluster.local';
  assert.equal(it.ask(plain), `NOERROR aa | ${plain}. 5 A 10.96.0.2`);
  assert.equal(it.ask('new.default.svc.cluster.local'), 'SERVFAIL');
  for (let i = 0; i < 500 && !it.feed.synced; i++)
    await new Promise((resolve) => setTimeout(resolve, 10));
  assert.match(it.ask('new.default.svc.cluster.local'), NXDOMAIN);
  assert.equal(it.ask(plain), `NOERROR aa | ${plain}. 5 A 10.96.0.2`);
  await it.sync();
  assert.match(it.ask(plain), NXDOMAIN);
  assert.match(it.ask('db.svc.cluster.local'), NXDOMAIN);
  assert.match(it.ask('web.default.svc.cluster.local'), /10\.96\.0\.1$/);
  assert.match(it.ask('svc.cluster.local'), NODATA);
  it.feed[Symbol.dispose]();
});

test('ZoneFeed fills the zone piece by piece, says what it knows, and follows what changes meanwhile', async () => {
  const it = create({ pieceMs: 0 });
  const plain = (key: string, clusterIP: string) =>
    service(key, { clusterIP, ports: [{ name: 'http', port: 80 }] });
  for (const n of [1, 2, 3, 4]) it.services.put(plain(`a/s${n}`, `10.96.0.${n}`));
  await it.sync();
  // Fewer pieces than services have been done.
  assert.equal(it.feed.synced, false);
  assert.match(it.ask('s1.a.svc.cluster.local'), /10\.96\.0\.1$/);
  assert.match(it.ask('s4.a.svc.cluster.local'), /^SERVFAIL/);
  it.services.put(plain('a/s1', '10.96.0.11'));
  it.services.remove('a/s4');
  it.services.put(plain('a/s5', '10.96.0.5'));
  while (!it.feed.synced) await new Promise(setImmediate);
  assert.match(it.ask('s1.a.svc.cluster.local'), /10\.96\.0\.11$/);
  assert.match(it.ask('s3.a.svc.cluster.local'), /10\.96\.0\.3$/);
  assert.match(it.ask('s4.a.svc.cluster.local'), NXDOMAIN);
  assert.match(it.ask('s5.a.svc.cluster.local'), /10\.96\.0\.5$/);
});
