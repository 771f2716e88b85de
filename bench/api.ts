/**
 * The API server's durable writes: creates and updates of ConfigMaps over HTTPS, by 1 and by 64 clients.
 *
 * usage: ./dev bench api [WORD…]     one JSON object a line, see docs/benchmarks.md; only cases whose names have all words
 *
 * The peer is a single etcd (Debian's `etcd-server`) on the same disk, in turns with ours: guarded transactions of the
 * same bytes through its own JSON gateway. It does less (no object is checked, no fields are looked at, nothing is
 * encrypted), so it is a hard one. Both are processes of their own, as they are in life. Without an etcd on the machine the figures stand alone.
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request as httpRequest } from 'node:http';
import { request as httpsRequest, Agent as TlsAgent } from 'node:https';
import { join } from 'node:path';
import { loadKubeconfig } from '#client/kubeconfig.ts';
import { etcdMissing, startEtcd } from '#store/etcd/testing-etcd.ts';
import { HOST, type ServerProcess, startServerProcess } from './support/server-process.ts';

/** A round of one client is a third of a second: there are enough of them that one slow moment of the disk does not count. */
const ALONE = { clients: 1, writes: 300, rounds: 9 };
const WARM_UP = { clients: 8, writes: 500 };
const CROWD = { clients: 64, writes: 3_000, rounds: 3 };
const DATA = 'x'.repeat(700);
const PATH = '/api/v1/namespaces/default/configmaps';

type Send = (method: string, path: string, body: object) => Promise<{ text: string }>;
interface Side {
  create(name: string): Promise<unknown>;
  /** Of one that was created. */
  update(name: string): Promise<unknown>;
}

const EMBEDDED = 'embedded store';
const SHARED = 'on an etcd';

/** Each round's objects have names of their own. */
let names = 0;

const WORDS = process.argv.slice(2);

const directory = mkdtempSync(join(process.env.TULLE_BENCH_DIR ?? '/var/tmp', 'tulle-bench-'));
const missing = etcdMissing();
try {
  await using stack = new AsyncDisposableStack();
  const ours = apiSide(stack, stack.use(await startServerProcess(join(directory, 'embedded'))));
  if (missing !== false) process.stderr.write(`no peer: ${missing}\n`);
  const etcd = missing === false ? stack.use(await startEtcd({ parent: directory })) : undefined;
  const theirs = etcd === undefined ? undefined : etcdSide(etcd.urls[0] ?? '');
  await compare(EMBEDDED, ours, theirs);
  if (etcd !== undefined && casesOf(SHARED).length > 0) {
    const behind = stack.use(await startEtcd({ parent: directory }));
    const secret = join(directory, 'secret');
    writeFileSync(secret, 'the secret of a benchmark', { mode: 0o600 });
    const flags = ['--etcd', behind.urls.join(','), '--cluster-secret-file', secret];
    const shared = stack.use(await startServerProcess(join(directory, 'etcd'), flags));
    await compare(SHARED, apiSide(stack, shared), theirs);
  }
} finally {
  rmSync(directory, { recursive: true });
}

async function compare(what: string, ours: Side, theirs: Side | undefined): Promise<void> {
  for (const { name, verb, load } of casesOf(what)) {
    const own: number[] = [];
    const peer: number[] = [];
    // Not counted: a program that has just begun is compiled while it works.
    await perSecond(ours, verb, WARM_UP);
    if (theirs !== undefined) await perSecond(theirs, verb, WARM_UP);
    for (let round = 0; round < load.rounds; round++) {
      own.push(await perSecond(ours, verb, load));
      if (theirs !== undefined) peer.push(await perSecond(theirs, verb, load));
    }
    report(name, own, peer);
  }
}

/** The cases that were asked for. */
function casesOf(what: string) {
  const cases = [ALONE, CROWD].flatMap((load) =>
    (['create', 'update'] as const).map((verb) => {
      const clients = load.clients === 1 ? '1 client' : `${load.clients} clients`;
      return { name: `${verb}s, ${clients}, ${what}`, verb, load };
    }),
  );
  return cases.filter(({ name }) => WORDS.every((word) => name.includes(word)));
}

async function perSecond(
  side: Side,
  verb: 'create' | 'update',
  { clients, writes }: { clients: number; writes: number },
): Promise<number> {
  const prefix = `b${names++}`;
  // Each client updates an object of its own: what is measured is the disk, not who wins.
  const targets = Array.from({ length: clients }, (_, client) => `${prefix}-${client}`);
  if (verb === 'update') await Promise.all(targets.map((name) => side.create(name)));
  let next = 0;
  const startMs = performance.now();
  await Promise.all(
    targets.map(async (name) => {
      for (let n = next++; n < writes; n = next++)
        await (verb === 'create' ? side.create(`${name}-${n}`) : side.update(name));
    }),
  );
  return (writes * 1000) / (performance.now() - startMs);
}

function apiSide(stack: AsyncDisposableStack, server: ServerProcess): Side {
  const config = loadKubeconfig({ path: join(server.directory, 'admin.kubeconfig') });
  const agent = new TlsAgent({
    keepAlive: true,
    maxSockets: CROWD.clients,
    ca: config.caPem,
    cert: config.certificatePem,
    key: config.keyPem,
  });
  stack.defer(() => agent.destroy());
  const send = sender(
    (method, path) => ({ hostname: HOST, port: server.port, method, path, agent }),
    httpsRequest,
  );
  let change = 0;
  const object = (name: string) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, namespace: 'default' },
    data: { data: DATA, change: String(change++) },
  });
  const versions = new Map<string, object>();
  const remember = async (name: string, answer: Promise<{ text: string }>) => {
    versions.set(name, JSON.parse((await answer).text) as object);
  };
  return {
    create: (name) => remember(name, send('POST', PATH, object(name))),
    // With the version that was read: the same guard as the peer's.
    update: (name) =>
      remember(
        name,
        send('PUT', `${PATH}/${name}`, { ...versions.get(name), data: object(name).data }),
      ),
  };
}

function etcdSide(url: string): Side {
  const { hostname, port } = new URL(url);
  const agent = new Agent({ keepAlive: true, maxSockets: CROWD.clients });
  const send = sender((method, path) => ({ hostname, port, method, path, agent }), httpRequest);
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  const revisions = new Map<string, string>();
  let change = 0;
  const put = async (name: string, expected: string) => {
    const key = base64(`/registry/core/configmaps/default/${name}`);
    // About the bytes that ours stores for the same object.
    const value = base64(JSON.stringify({ name, data: DATA, meta: 'm'.repeat(250), n: change++ }));
    const { text } = await send('POST', '/v3/kv/txn', {
      compare: [{ key, target: 'MOD', result: 'EQUAL', mod_revision: expected }],
      success: [{ request_put: { key, value } }],
      failure: [{ request_range: { key } }],
    });
    const answer = JSON.parse(text) as { succeeded?: boolean; header: { revision: string } };
    if (answer.succeeded !== true) throw new Error(`etcd did not write: ${text}`);
    revisions.set(name, answer.header.revision);
  };
  return {
    create: (name) => put(name, '0'),
    update: (name) => put(name, revisions.get(name) ?? '0'),
  };
}

function sender(
  options: (method: string, path: string) => object,
  request: typeof httpsRequest | typeof httpRequest,
): Send {
  return (method, path, body) =>
    new Promise((resolve, reject) => {
      const text = JSON.stringify(body);
      const { headers = {}, ...rest } = options(method, path) as { headers?: object };
      const sent = request(
        {
          ...rest,
          headers: {
            ...headers,
            'content-type': 'application/json',
            'content-length': Buffer.byteLength(text),
          },
        },
        (response) => {
          let answer = '';
          response.setEncoding('utf8');
          response.on('data', (chunk: string) => {
            answer += chunk;
          });
          response.on('error', reject);
          response.on('end', () => {
            const status = response.statusCode ?? 0;
            if (status < 300) resolve({ text: answer });
            else reject(new Error(`${method} ${path}: ${status} ${answer}`));
          });
        },
      );
      sent.on('error', reject);
      sent.end(text);
    });
}

function report(name: string, own: readonly number[], peer: readonly number[]): void {
  const value = median(own);
  const peerValue = median(peer);
  console.log(
    JSON.stringify({
      bench: 'api',
      case: name,
      value: round(value),
      unit: 'writes/s',
      peer: peer.length === 0 ? null : "etcd's own gateway",
      peer_value: peer.length === 0 ? null : round(peerValue),
      ratio: peer.length === 0 ? null : round(value / peerValue),
    }),
  );
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

function round(value: number): number {
  return Number(value.toPrecision(4));
}
