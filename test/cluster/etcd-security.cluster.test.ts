/** The etcd store against an etcd that asks for certificates, and one that asks for a password. */
import 'reflect-metadata';
import assert from 'node:assert/strict';
import { createPrivateKey } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import {
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { type Ca, openCa } from '#server/pki/ca.ts';
import { issueClientCertificate } from '#server/pki/issue.ts';
import { openEtcdStore } from '#store/etcd/etcd-store.ts';
import { etcdMissing, post, startEtcd } from '#store/etcd/testing-etcd.ts';
import { StoreUnavailableError, type WriteOp } from '#store/port.ts';

const skip = etcdMissing();
const root = mkdtempSync(join(tmpdir(), 'tulle-etcd-security-'));
after(() => rmSync(root, { recursive: true, force: true }));

const put = (key: string): WriteOp => ({ type: 'put', key, value: new Uint8Array([1]) });

/** For a server and for a client: the gateway, by which the test arms authentication, shows it to etcd itself. */
async function etcdCertificate(ca: Ca): Promise<{ certificatePem: string; keyPem: string }> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await X509CertificateGenerator.create({
    subject: 'CN=etcd',
    issuer: ca.certificate.subject,
    publicKey: keys.publicKey,
    signingKey: ca.privateKey,
    signingAlgorithm: algorithm,
    extensions: [
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
      new SubjectAlternativeNameExtension([{ type: 'ip', value: '127.0.0.1' }]),
    ],
  });
  const key = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey));
  return {
    certificatePem: certificate.toString('pem'),
    keyPem: createPrivateKey({ key, format: 'der', type: 'pkcs8' })
      .export({ format: 'pem', type: 'pkcs8' })
      .toString(),
  };
}

test('TLS: both sides show a certificate, and neither takes a stranger’s', { skip }, async () => {
  const ca = await openCa({ directory: join(root, 'ca') });
  const stranger = await openCa({ directory: join(root, 'stranger') });
  const server = await etcdCertificate(ca);
  const file = (name: string, content: string) => {
    writeFileSync(join(root, name), content, { mode: 0o600 });
    return join(root, name);
  };
  await using etcd = await startEtcd({
    scheme: 'https',
    args: [
      ...['--cert-file', file('server.crt', server.certificatePem)],
      ...['--key-file', file('server.key', server.keyPem)],
      ...['--trusted-ca-file', file('ca.crt', ca.certificatePem), '--client-cert-auth'],
    ],
  });
  const issued = await issueClientCertificate(ca, { commonName: 'tulle', organizations: [] });
  const tls = { ca: ca.certificatePem, cert: issued.certificatePem, key: issued.keyPem };
  await using store = await openEtcdStore({ endpoints: etcd.urls, tls });
  await store.transact([], [put('/a')]);
  assert.notEqual(await store.get('/a'), undefined);
  const refused = (options: Partial<typeof tls>) =>
    assert.rejects(openEtcdStore({ endpoints: etcd.urls, tls: options }), StoreUnavailableError);
  const other = await issueClientCertificate(stranger, { commonName: 'x', organizations: [] });
  await Promise.all([
    refused({ ...tls, ca: stranger.certificatePem }),
    refused({ ...tls, cert: other.certificatePem, key: other.keyPem }),
    refused({ ca: tls.ca }),
  ]);
});

test('authentication: a user with a password, whose token is made anew when it is lost', {
  skip,
}, async () => {
  // The shortest life of a token that etcd has, so that it ends while it is in use.
  await using etcd = await startEtcd({ args: ['--auth-token-ttl', '2'] });
  const [url = ''] = etcd.urls;
  for (const [path, body] of [
    ['auth/user/add', { name: 'root', password: 'root’s own' }],
    ['auth/role/add', { name: 'root' }],
    ['auth/user/grant', { user: 'root', role: 'root' }],
    ['auth/user/add', { name: 'tulle', password: 'a password' }],
    ['auth/role/add', { name: 'tulle' }],
    // To read all keys (its end is the zero byte), to write below the prefix ("0" is behind "/").
    [
      'auth/role/grant',
      { name: 'tulle', perm: { permType: 'READ', key: 'AA==', range_end: 'AA==' } },
    ],
    [
      'auth/role/grant',
      {
        name: 'tulle',
        perm: {
          permType: 'READWRITE',
          key: Buffer.from('/tulle.dev/').toString('base64'),
          range_end: Buffer.from('/tulle.dev0').toString('base64'),
        },
      },
    ],
    ['auth/user/grant', { user: 'tulle', role: 'tulle' }],
    ['auth/enable', {}],
  ] as const)
    assert.notEqual(await post(url, path, body), undefined, path);
  const user = { name: 'tulle', password: 'a password' };
  await using store = await openEtcdStore({ endpoints: etcd.urls, user });
  await store.transact([], [put('/a')]);
  assert.notEqual(await store.get('/a'), undefined);
  // Tokens are in the member's memory only: a restart forgets them.
  await etcd.members[0]?.kill();
  await etcd.members[0]?.restart();
  assert.notEqual(await store.get('/a'), undefined);
  await store.transact([], [put('/b')]);
  assert.equal((await store.list('/')).entries.length, 2);
  await assert.rejects(
    openEtcdStore({ endpoints: etcd.urls, user: { ...user, password: 'wrong' } }),
    /invalid user ID or password/,
  );
  await assert.rejects(openEtcdStore({ endpoints: etcd.urls }), StoreUnavailableError);
  // Outside its prefix it may not write, and says so without a doubt whether it has.
  await using outside = await openEtcdStore({ endpoints: etcd.urls, user, prefix: '/other' });
  await assert.rejects(outside.transact([], [put('/a')]), {
    code: 'STORE_WRITE',
    isUncertain: false,
  });
});
