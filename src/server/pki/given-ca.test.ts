/** Authorities from outside, as `openssl` makes them, over real TLS. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { joinNode } from '#client/join.ts';
import { FakeClock } from '#lib/clock.ts';
import { UserError } from '#lib/errors.ts';
import { startServerFixture } from '../test-server.ts';
import { openCa } from './ca.ts';
import { takeGivenCa } from './given-ca.ts';
import { issueClientCertificate } from './issue.ts';
import { createToken } from './tokens.ts';

const root = mkdtempSync(join(tmpdir(), 'tulle-given-ca-'));
after(() => rmSync(root, { recursive: true }));
let count = 0;
const newDirectory = () => join(root, String(count++));

function openssl(...args: string[]): void {
  execFileSync('openssl', args, { stdio: 'pipe' });
}

interface Made {
  readonly cert: string;
  readonly key: string;
}

const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'];
const CA_EXTENSIONS = ['basicConstraints=critical,CA:TRUE', 'keyUsage=critical,keyCertSign'];

/** A certificate with its key in files; signed by itself, or by `by`. */
function make(
  name: string,
  options: {
    by?: Made;
    extensions?: readonly string[];
    key?: readonly string[];
    days?: string;
  } = {},
): Made {
  const base = join(root, `${name}-${count++}`);
  const made = { cert: `${base}.crt`, key: `${base}.key` };
  const { by, extensions = CA_EXTENSIONS, key = EC, days = '30' } = options;
  openssl(
    ...['req', '-x509', '-nodes', '-days', days, '-subj', `/CN=${name}`, ...key],
    ...['-keyout', made.key, '-out', made.cert],
    ...extensions.flatMap((it) => ['-addext', it]),
    ...(by === undefined ? [] : ['-CA', by.cert, '-CAkey', by.key]),
  );
  return made;
}

function bundle(...of: Made[]): string {
  const path = join(root, `bundle-${count++}.crt`);
  writeFileSync(path, of.map(({ cert }) => readFileSync(cert, 'utf8')).join(''));
  return path;
}

function take(made: Made, options: { directory: string; replaces?: boolean; cert?: string }) {
  const { directory, replaces = false, cert = made.cert } = options;
  return takeGivenCa({ certificateFile: cert, keyFile: made.key, replaces }, { directory });
}

test('takeGivenCa() copies the files, and says so once', async () => {
  const directory = newDirectory();
  const given = make('given');
  assert.equal(await take(given, { directory }), 'new');
  assert.equal(await take(given, { directory }), 'same');
  assert.equal(statSync(join(directory, 'ca.key')).mode & 0o777, 0o600);
  const ca = await openCa({ directory });
  assert.equal(new X509Certificate(ca.certificatePem).subject, 'CN=given');
  assert.equal(ca.shownPem, '');
});

test('takeGivenCa() takes the place of another authority only if it is told so', async () => {
  const directory = newDirectory();
  const own = await openCa({ directory });
  const given = make('given');
  await assert.rejects(take(given, { directory }), (error: UserError) => {
    assert.match(error.message, /has another certificate authority already/);
    assert.match(error.hint ?? '', /--replace-ca/);
    return true;
  });
  assert.equal((await openCa({ directory })).fingerprint, own.fingerprint);
  assert.equal(await take(given, { directory, replaces: true }), 'replaced');
  assert.notEqual((await openCa({ directory })).fingerprint, own.fingerprint);
});

test('takeGivenCa() goes on where a crash came between its two files', async () => {
  const directory = newDirectory();
  await openCa({ directory });
  const given = make('given');
  const oldKey = readFileSync(join(directory, 'ca.key'));
  await take(given, { directory, replaces: true });
  writeFileSync(join(directory, 'ca.key'), oldKey);
  await assert.rejects(openCa({ directory }), /is not of this key/);
  await take(given, { directory });
  assert.ok(await openCa({ directory }));
});

describe('takeGivenCa() refuses, with what to do,', () => {
  const cases: [string, () => { made: Made; cert?: string }, RegExp][] = [
    [
      'a key of another certificate',
      () => ({ made: { cert: make('a').cert, key: make('b').key } }),
      /is not of this key/,
    ],
    [
      'a certificate that is no authority',
      () => ({ made: make('leaf', { extensions: ['basicConstraints=critical,CA:FALSE'] }) }),
      /CA:FALSE/,
    ],
    [
      'an authority that may not sign certificates',
      () => ({
        made: make('weak', {
          extensions: ['basicConstraints=critical,CA:TRUE', 'keyUsage=critical,cRLSign'],
        }),
      }),
      /without keyCertSign/,
    ],
    [
      'one that is for other things than TLS',
      () => ({
        made: make('mail', { extensions: [...CA_EXTENSIONS, 'extendedKeyUsage=emailProtection'] }),
      }),
      /extended key usage/,
    ],
    [
      'an intermediate without those above it',
      () => ({ made: make('issuing', { by: make('root') }) }),
      /of "CN=root", whose certificate is missing/,
    ],
    [
      'a root that allows no authority below it',
      () => {
        const above = make('root', {
          extensions: ['basicConstraints=critical,CA:TRUE,pathlen:0', 'keyUsage=keyCertSign'],
        });
        const made = make('issuing', { by: above });
        return { made, cert: bundle(made, above) };
      },
      /allows 0 authorities below it, and 1 are there/,
    ],
    [
      'a key with a passphrase',
      () => {
        const made = make('locked');
        const key = `${made.key}.locked`;
        openssl('pkey', '-in', made.key, '-aes256', '-passout', 'pass:x', '-out', key);
        return { made: { ...made, key } };
      },
      /the key is encrypted/,
    ],
    [
      'a key that is too weak',
      () => ({ made: make('short', { key: ['-newkey', 'rsa:1024'] }) }),
      /the key is of 1024 rsa/,
    ],
    [
      'a file that is no certificate',
      () => {
        const made = make('fine');
        return { made, cert: made.key };
      },
      /the file has no certificate/,
    ],
    [
      'a file that is not there',
      () => ({ made: { ...make('fine'), key: '/none' } }),
      /Cannot read "\/none" \(--ca-key\)/,
    ],
  ];
  for (const [what, prepare, message] of cases)
    test(what, async () => {
      const { made, cert } = prepare();
      const directory = newDirectory();
      const taken = take(made, { directory, ...(cert === undefined ? {} : { cert }) });
      await assert.rejects(taken, (error: UserError) => {
        assert.ok(error instanceof UserError);
        assert.match(error.message, message);
        assert.ok((error.hint ?? '').length > 10, 'there is a hint');
        return true;
      });
    });

  test('one that has run out, or is of the future', async () => {
    const given = make('given', { days: '10' });
    const clock = new FakeClock(Date.now());
    const options = { certificateFile: given.cert, keyFile: given.key, replaces: false };
    clock.advance(11 * 24 * 3600 * 1000);
    await assert.rejects(
      takeGivenCa(options, { directory: newDirectory(), clock }),
      /has run out on 20/,
    );
    const early = new FakeClock(Date.now() - 24 * 3600 * 1000);
    await assert.rejects(
      takeGivenCa(options, { directory: newDirectory(), clock: early }),
      /is valid only from 20/,
    );
  });
});

describe('with an authority below others', () => {
  for (const [what, key] of [
    ['ECDSA P-256', EC],
    ['ECDSA P-384', ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:secp384r1']],
    ['RSA', ['-newkey', 'rsa:2048']],
  ] as const)
    test(`of ${what}, who trusts the root alone can join and call, and its other branches are not believed`, async () => {
      const directory = newDirectory();
      const above = make('root', { key });
      const middle = make('middle', { by: above, key });
      const issuing = make('issuing', { by: middle, key });
      // In no order: the chain is found.
      await take(issuing, {
        directory: join(directory, 'pki'),
        cert: bundle(above, issuing, middle),
      });
      await using fixture = await startServerFixture({ directory });
      const rootPem = readFileSync(above.cert, 'utf8');
      assert.equal(fixture.ca.certificatePem.trim(), rootPem.trim());
      const { text } = await createToken(fixture.store, {
        caFingerprint: fixture.ca.fingerprint,
        description: '',
        ttlMs: undefined,
      });
      const options = {
        server: fixture.server.url,
        token: text,
        nodeName: 'm1',
        directory: join(directory, 'node'),
      };
      const identity = await joinNode(options);
      assert.equal(readFileSync(identity.caPath, 'utf8').trim(), rootPem.trim());
      assert.equal((await joinNode(options)).joined, false, 'the identity is found good');
      const node = {
        cert: readFileSync(identity.certificatePath, 'utf8'),
        key: readFileSync(identity.keyPath, 'utf8'),
      };
      assert.equal(await status(fixture.server.address, rootPem, node), 200);
      // Somebody else whom the same root trusts is nobody here.
      const other = make('other-branch', { by: above, key });
      const elsewhere = newDirectory();
      await take(other, { directory: elsewhere, cert: bundle(other, above) });
      const stranger = await issueClientCertificate(await openCa({ directory: elsewhere }), {
        commonName: 'mallory',
        organizations: ['system:masters'],
      });
      const shown = { cert: stranger.certificatePem, key: stranger.keyPem };
      assert.equal(await status(fixture.server.address, rootPem, shown), 401);
    });
});

function status(
  address: { readonly host: string; readonly port: number },
  ca: string,
  identity: { readonly cert: string; readonly key: string },
): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const sent = request(
      { ...address, ca, ...identity, path: '/api/v1/nodes', agent: false },
      (response) => {
        response.resume();
        resolve(response.statusCode);
      },
    );
    sent.on('error', reject);
    sent.end();
  });
}
