import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { FakeClock } from '#lib/clock.ts';
import { createPodmanRuntime } from './podman.ts';
import { createPodmanStorage } from './podman-storage.ts';

let root: string;
before(() => {
  root = mkdtempSync(join(tmpdir(), 'tulle-podman-'));
  mkdirSync(join(root, 'overlay-containers', 'abc'), { recursive: true });
});
after(() => rmSync(root, { recursive: true }));

const podman = (script: string) => ['/bin/sh', '-c', script, 'podman'];

test('createPodmanStorage() finds a container by its folder', async () => {
  const storage = createPodmanStorage(podman(`echo ${root}; echo /nonexistent`));
  assert.deepEqual(await Promise.all(['abc', 'abd'].map((id) => storage.has(id))), [true, false]);
});

test('createPodmanStorage() has nothing where there is no podman', async () => {
  assert.equal(await createPodmanStorage(['/no/such/podman']).has('abc'), false);
});

test('createPodmanStorage() says yes when podman does not tell', async () => {
  assert.equal(await createPodmanStorage(podman('exit 125')).has('nothing'), true);
  assert.equal(await createPodmanStorage(podman('echo')).has('nothing'), true);
});

test('createPodmanStorage() looks again after a while: podman may come later', async () => {
  const clock = new FakeClock();
  const flag = join(root, 'installed');
  const storage = createPodmanStorage(
    podman(`[ -e ${flag} ] && echo ${root} || echo /empty`),
    clock,
  );
  assert.equal(await storage.has('abc'), false);
  mkdirSync(flag);
  assert.equal(await storage.has('abc'), false);
  clock.advance(61_000);
  assert.equal(await storage.has('abc'), true);
});

test('createPodmanRuntime() starts no podman for a container that its storage does not have', async () => {
  const storage = { has: async () => false };
  const runtime = createPodmanRuntime(podman('exit 125'), { storage });
  assert.equal(await runtime.inspect('abc'), undefined);
});
