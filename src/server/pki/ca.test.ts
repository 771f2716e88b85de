import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { spkiFingerprint } from '#client/join-token.ts';
import { FakeClock } from '#lib/clock.ts';
import { UserError } from '#lib/errors.ts';
import { openCa } from './ca.ts';

const root = mkdtempSync(join(tmpdir(), 'tulle-ca-'));
after(() => rmSync(root, { recursive: true }));
let count = 0;
const newDirectory = () => join(root, String(count++));

test('openCa() makes a CA at the first start and finds it again', async () => {
  const directory = newDirectory();
  const made = await openCa({ directory, commonName: 'test-ca' });
  const found = await openCa({ directory, commonName: 'ignored' });
  assert.equal(found.certificatePem, made.certificatePem);
  assert.equal(found.fingerprint, made.fingerprint);
  assert.match(made.fingerprint, /^sha256:[0-9a-f]{64}$/);
  const certificate = new X509Certificate(made.certificatePem);
  assert.equal(certificate.subject, 'CN=test-ca');
  assert.equal(certificate.ca, true);
  assert.ok(certificate.verify(certificate.publicKey));
  assert.equal(spkiFingerprint(certificate), made.fingerprint);
  assert.equal(certificate.publicKey.asymmetricKeyDetails?.namedCurve, 'prime256v1');
});

test('openCa() keeps its key to the owner', async () => {
  const directory = newDirectory();
  await openCa({ directory });
  assert.equal(statSync(directory).mode & 0o777, 0o700);
  assert.equal(statSync(join(directory, 'ca.key')).mode & 0o777, 0o600);
  assert.equal(statSync(join(directory, 'ca.crt')).mode & 0o777, 0o644);
});

test('openCa() makes the certificate of a key that a crash left alone', async () => {
  const directory = newDirectory();
  const made = await openCa({ directory });
  rmSync(join(directory, 'ca.crt'));
  const again = await openCa({ directory });
  assert.equal(again.fingerprint, made.fingerprint);
  assert.notEqual(again.certificatePem, made.certificatePem);
});

test('openCa() refuses files that do not belong together, are missing or damaged', async () => {
  const [one, two] = [newDirectory(), newDirectory()];
  await openCa({ directory: one });
  await openCa({ directory: two });
  writeFileSync(join(one, 'ca.crt'), readFileSync(join(two, 'ca.crt')));
  await assertRefused(
    one,
    /"ca.crt" does not serve with "ca.key": the certificate is not of this key/,
  );
  rmSync(join(one, 'ca.key'));
  await assertRefused(one, /ca.key" is missing/);
  writeFileSync(join(two, 'ca.key'), 'garbage');
  await assertRefused(two, /Cannot open the certificate authority/);
});

test('openCa() refuses a certificate that has run out', async () => {
  const directory = newDirectory();
  const clock = new FakeClock();
  await openCa({ directory, clock });
  clock.advance(10 * 365 * 24 * 3600 * 1000 + 1000);
  await assert.rejects(openCa({ directory, clock }), /has run out on 20/);
  rmSync(join(directory, 'ca.crt'));
  await openCa({ directory, clock });
});

async function assertRefused(directory: string, message: RegExp): Promise<void> {
  await assert.rejects(openCa({ directory }), (error) => {
    assert.ok(error instanceof UserError);
    assert.match(error.message, message);
    assert.ok(error.hint !== undefined);
    return true;
  });
}
