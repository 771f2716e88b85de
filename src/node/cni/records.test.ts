import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { UserError } from '#lib/errors.ts';
import { mac } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import type { Attachment } from '../attachment.ts';
import { AttachmentRecords } from './records.ts';

const attachment: Attachment = {
  handle: 'tulle.c1.eth0',
  network: 'tulle',
  containerId: 'c1',
  ifName: 'eth0',
  netns: '/run/netns/c1',
  hostLink: 'tl0123456789a',
  mac: mac('02:00:00:00:00:01'),
  mtuBytes: 1450,
  addresses: [],
  pod: { namespace: 'default', name: 'c1', kubelet: false },
  createdAt: '2026-01-01T00:00:00.000Z',
};

function folder(): { path: string } & Disposable {
  const path = mkdtempSync(join(tmpdir(), 'tulle-records-'));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true }) };
}

test('AttachmentRecords keeps the last phase of each attachment over a restart', async () => {
  using directory = folder();
  const records = new AttachmentRecords(directory.path, silentLogger);
  await records.put({ version: 1, phase: 'adding', attachment });
  await records.put({ version: 1, phase: 'attached', attachment });
  const other = { ...attachment, handle: 'tulle.c2.eth0' };
  await records.put({ version: 1, phase: 'adding', attachment: other });
  await records.delete(other.handle);
  await records.delete(other.handle);
  const again = new AttachmentRecords(directory.path, silentLogger);
  assert.deepEqual(again.values(), [{ version: 1, phase: 'attached', attachment }]);
  const [file = ''] = readdirSync(directory.path);
  assert.equal(statSync(join(directory.path, file)).mode & 0o777, 0o600);
});

test('AttachmentRecords sets unreadable files aside and ignores half written ones', async () => {
  using directory = folder();
  writeFileSync(join(directory.path, 'broken.json'), '{');
  writeFileSync(join(directory.path, 'newer.json'), '{"version":2}');
  writeFileSync(join(directory.path, 'half.json.tmp'), '{"ver');
  assert.deepEqual(new AttachmentRecords(directory.path, silentLogger).values(), []);
  const names = readdirSync(directory.path).sort();
  assert.deepEqual(names, ['broken.json.unreadable', 'half.json.tmp', 'newer.json.unreadable']);
});

test('AttachmentRecords reads the last of records of any length, shorter or longer than a page', async () => {
  using directory = folder();
  const records = new AttachmentRecords(directory.path, silentLogger);
  const path = join(directory.path, `${attachment.handle}.json`);
  for (const aliases of [2, 0, 900, 5, 1200, 0]) {
    const last = { ...attachment, aliases: Array.from({ length: aliases }, (_, i) => `ä-${i}`) };
    await records.put({ version: 1, phase: 'adding', attachment: last });
    const again = new AttachmentRecords(directory.path, silentLogger);
    assert.deepEqual(again.values(), [{ version: 1, phase: 'adding', attachment: last }]);
    // A restart goes on with the file as it is.
    await again.put({ version: 1, phase: 'deleting', attachment });
    assert.equal(JSON.parse(readFileSync(path, 'utf8')).phase, 'deleting');
    await records.put({ version: 1, phase: 'adding', attachment: last });
  }
  assert.deepEqual(readdirSync(directory.path), [`${attachment.handle}.json`]);
});

test('AttachmentRecords forgets a file that was made and not written', () => {
  using directory = folder();
  writeFileSync(join(directory.path, 'tulle.c1.eth0.json'), '');
  assert.deepEqual(new AttachmentRecords(directory.path, silentLogger).values(), []);
  assert.deepEqual(readdirSync(directory.path), []);
});

test('AttachmentRecords says which folder it cannot use', () => {
  using directory = folder();
  const path = join(directory.path, 'file');
  writeFileSync(path, '');
  assert.throws(
    () => new AttachmentRecords(path, silentLogger),
    (error) => error instanceof UserError && error.message.includes(path),
  );
});

test('AttachmentRecords reads what earlier versions have written', () => {
  using directory = folder();
  writeFileSync(join(directory.path, 'tulle.56ad.eth0.json'), OF_FIRST_VERSIONS);
  const [record, ...others] = new AttachmentRecords(directory.path, silentLogger).values();
  assert.deepEqual(others, []);
  assert.equal(record?.phase, 'attached');
  assert.deepEqual(record.attachment, JSON.parse(OF_FIRST_VERSIONS).attachment);
  assert.deepEqual(readdirSync(directory.path), ['tulle.56ad.eth0.json']);
});

/** By an agent from before addresses were kept warm and bridges had pools; the container's id is cut short. */
const OF_FIRST_VERSIONS = `{"version":1,"phase":"attached","attachment":{"handle":"tulle.56ad.eth0",
"network":"tulle","containerId":"56ad","ifName":"eth0",
"netns":"/run/netns/netns-08e2cc7f-0aea-95da-1645-991b9a1f78ea","hostLink":"tlb24438b658b",
"mac":"d6:be:02:70:64:62","mtuBytes":1450,"addresses":[
{"address":"10.244.137.67","family":4,"pool":"default-ipv4","block":"10.244.137.64/26","sequence":4},
{"address":"fd00:10:244:7:f617:7cd8:dd33:cec3","family":6,"pool":"default-ipv6",
"block":"fd00:10:244:7:f617:7cd8:dd33:cec0/122","sequence":4}],
"pod":{"namespace":"default","name":"published","kubelet":false},
"portMappings":[{"hostPort":8088,"containerPort":8080,"protocol":"tcp"}],
"aliases":["56adbd644325"],"createdAt":"2026-11-20T17:19:18.617Z"}}`;
