import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { CONFIG_MAP } from '#api/core/v1/config-map.ts';
import { createApiClient } from '#client/http-client.ts';
import { writeKubeconfig } from '#client/kubeconfig.ts';
import { isConflict, UserError } from '#lib/errors.ts';
import { startServerFixture } from '#server/test-server.ts';
import { openEmbeddedStore } from '#store/embedded/embedded-store.ts';
import { RESTORE_GAP } from '#store/embedded/restore.ts';
import type { Store } from '#store/port.ts';
import { backupServer, restoreServer } from './backup.ts';

const root = mkdtempSync(join(tmpdir(), 'tulle-backup-'));
after(() => rmSync(root, { recursive: true }));
const lines: string[] = [];
const print = (line: string) => void lines.push(line);

async function startOn(store: Store, directory: string) {
  const fixture = await startServerFixture({ store, directory });
  const config = {
    servers: [fixture.server.url],
    caPem: fixture.ca.certificatePem,
    certificatePem: fixture.admin.cert,
    keyPem: fixture.admin.key,
  };
  const kubeconfig = join(directory, 'admin.kubeconfig');
  writeKubeconfig(kubeconfig, config, { name: 'tulle' });
  return { fixture, kubeconfig, client: createApiClient(config) };
}

const configMap = (name: string, n: string) => ({
  apiVersion: 'v1' as const,
  kind: 'ConfigMap' as const,
  metadata: { name, namespace: 'default' },
  data: { n, large: 'x'.repeat(20_000) },
});

test('backup is hot, restore goes back to it, and revisions never do', async () => {
  const directory = join(root, 'data');
  const file = join(root, 'backup');
  let newest = 0;
  let kept: Awaited<ReturnType<typeof configMap>> | undefined;
  {
    await using store = await openEmbeddedStore({ directory });
    const { fixture, kubeconfig, client } = await startOn(store, directory);
    for (let n = 0; n < 400; n++) await client.create(CONFIG_MAP, configMap(`c${n}`, String(n)));
    // While it is copied, others write: the copy is of one revision.
    let stop = false;
    const writing = (async () => {
      for (let n = 0; !stop; n++) await client.create(CONFIG_MAP, configMap(`w${n}`, String(n)));
    })();
    await backupServer(file, { kubeconfig }, print);
    stop = true;
    await writing;
    await client.delete(CONFIG_MAP, { name: 'c1', namespace: 'default' });
    kept = (await client.get(CONFIG_MAP, 'c2', 'default')) as typeof kept;
    newest = await store.revision();
    await client[Symbol.asyncDispose]();
    await fixture[Symbol.asyncDispose]();
    await assert.rejects(restoreServer(file, { dataDir: directory }, print), /has it open/);
  }
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.match(lines[0] ?? '', /^\d+ entries at revision \d+ are in /);

  await restoreServer(file, { dataDir: directory }, print);
  await using store = await openEmbeddedStore({ directory });
  assert.ok((await store.revision()) > newest + RESTORE_GAP - 1);
  const { fixture, client } = await startOn(store, directory);
  const list = await client.list(CONFIG_MAP, { namespace: 'default' });
  const names = list.items.map(({ metadata }) => metadata.name);
  assert.ok(names.includes('c1'), 'what was deleted after the backup is there again');
  assert.equal(names.filter((name) => name.startsWith('c')).length, 400);
  for (const { metadata } of list.items) assert.ok(Number(metadata.resourceVersion) > newest);
  // A client that knows an object from before cannot overwrite it, and a watch from then must list anew.
  assert.ok(kept !== undefined);
  await assert.rejects(client.update(CONFIG_MAP, kept), isConflict);
  const watch = client.watch(CONFIG_MAP, {
    namespace: 'default',
    resourceVersion: String(newest),
    signal: AbortSignal.timeout(10_000),
  });
  await assert.rejects(watch[Symbol.asyncIterator]().next(), /410|too old|Expired/i);
  await client[Symbol.asyncDispose]();
  await fixture[Symbol.asyncDispose]();
});

test('restore refuses what is not whole, and changes nothing', async () => {
  const directory = join(root, 'whole');
  const file = join(root, 'broken');
  {
    await using store = await openEmbeddedStore({ directory });
    await store.transact([], [{ type: 'put', key: '/a', value: new Uint8Array([1]) }]);
  }
  const whole = readFileSync(join(root, 'backup'), 'utf8').split('\n');
  for (const content of [
    'no backup at all\n',
    `${whole.slice(0, 5).join('\n')}\n`,
    whole.toSpliced(3, 1).join('\n'),
    whole.join('\n').replace('"version":1', '"version":2'),
  ]) {
    writeFileSync(file, content);
    await assert.rejects(restoreServer(file, { dataDir: directory }, print), UserError);
  }
  await using store = await openEmbeddedStore({ directory });
  assert.equal(await store.revision(), 1);
});

test('only an administrator may copy the store', async () => {
  await using fixture = await startServerFixture();
  const node = await fixture.identity('system:node:a', ['system:nodes']);
  for (const as of [node, undefined]) {
    const answer = await fixture.call('GET', '/tulle/v1/backup', as === undefined ? {} : { as });
    assert.ok([401, 403].includes(answer.status), String(answer.status));
  }
  const first = await fixture.call('GET', '/tulle/v1/backup', { as: fixture.admin });
  assert.equal(first.status, 200);
});
