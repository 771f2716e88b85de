import 'reflect-metadata';
import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import {
  Pkcs10CertificateRequest,
  Pkcs10CertificateRequestGenerator,
  SubjectAlternativeNameExtension,
} from '@peculiar/x509';
import { FakeClock } from '#lib/clock.ts';
import { DecodeError } from '#lib/errors.ts';
import { ip } from '#lib/ip.ts';
import { openCa } from './ca.ts';
import { CLOCK_SKEW_MS } from './certificate.ts';
import { issueClientCertificate, issueServerCertificate, MAX_CSR_BYTES, signCsr } from './issue.ts';

const directory = mkdtempSync(join(tmpdir(), 'tulle-issue-'));
after(() => rmSync(directory, { recursive: true }));
const clock = new FakeClock();
const ca = await openCa({ directory, clock });
const caCertificate = new X509Certificate(ca.certificatePem);

const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';

test('issueServerCertificate() is for its names and addresses and no other', async () => {
  const { certificatePem, keyPem } = await issueServerCertificate(ca, {
    commonName: 'tulle-server',
    names: ['server.example.com', 'localhost'],
    ips: [ip('192.0.2.7'), ip('2001:db8::7')],
    clock,
  });
  const certificate = new X509Certificate(certificatePem);
  assert.ok(certificate.verify(caCertificate.publicKey));
  assert.ok(certificate.checkIssued(caCertificate));
  assert.ok(certificate.checkPrivateKey(createPrivateKey(keyPem)));
  assert.equal(certificate.checkHost('server.example.com'), 'server.example.com');
  assert.equal(certificate.checkIP('192.0.2.7'), '192.0.2.7');
  assert.equal(certificate.checkIP('2001:db8::7'), '2001:db8::7');
  assert.equal(certificate.checkHost('other.example.com'), undefined);
  assert.equal(certificate.checkIP('192.0.2.8'), undefined);
  assert.deepEqual(certificate.keyUsage, [SERVER_AUTH]);
  assert.equal(certificate.ca, false);
});

test('issueClientCertificate() names the user and its groups, whatever characters they have', async () => {
  const { certificatePem, keyPem } = await issueClientCertificate(ca, {
    commonName: 'admin, CN=other',
    organizations: ['system:masters', 'b=c'],
    clock,
  });
  const certificate = new X509Certificate(certificatePem);
  assert.deepEqual(certificate.toLegacyObject().subject, {
    __proto__: null,
    O: ['system:masters', 'b=c'],
    CN: 'admin, CN=other',
  });
  assert.ok(certificate.checkPrivateKey(createPrivateKey(keyPem)));
  assert.deepEqual(certificate.keyUsage, [CLIENT_AUTH]);
});

test('certificates begin a little before now, end when asked, and never after the CA', async () => {
  const hour = 3_600_000;
  const subject = { commonName: 'a', organizations: [] };
  const short = await issueClientCertificate(ca, { ...subject, validityMs: hour, clock });
  const certificate = new X509Certificate(short.certificatePem);
  assert.equal(certificate.validFromDate.getTime(), clock.now() - CLOCK_SKEW_MS);
  assert.equal(certificate.validToDate.getTime(), clock.now() + hour);
  assert.equal(short.notAfterMs, clock.now() + hour);
  const long = await issueClientCertificate(ca, { ...subject, validityMs: 1e6 * hour, clock });
  assert.equal(long.notAfterMs, caCertificate.validToDate.getTime());
});

test('serial numbers differ', async () => {
  const subject = { commonName: 'a', organizations: [], clock };
  const one = new X509Certificate((await issueClientCertificate(ca, subject)).certificatePem);
  const two = new X509Certificate((await issueClientCertificate(ca, subject)).certificatePem);
  assert.notEqual(one.serialNumber, two.serialNumber);
});

const subject = { commonName: 'system:node:m1', organizations: ['system:nodes'] };
const P256 = { name: 'ECDSA', namedCurve: 'P-256' };

async function newCsr(algorithm: object = P256): Promise<Pkcs10CertificateRequest> {
  const keys = await crypto.subtle.generateKey(algorithm as typeof P256, true, ['sign', 'verify']);
  return Pkcs10CertificateRequestGenerator.create({
    name: 'CN=system:admin, O=system:masters',
    keys,
    signingAlgorithm: { hash: 'SHA-256', ...algorithm },
    extensions: [
      new SubjectAlternativeNameExtension([{ type: 'dns', value: 'kubernetes.default' }]),
    ],
  });
}

test('signCsr() takes the key of the request and nothing else', async () => {
  const csr = await newCsr();
  const { certificatePem } = await signCsr(ca, csr.toString('pem'), { subject, clock });
  const certificate = new X509Certificate(certificatePem);
  assert.equal(certificate.subject, 'O=system:nodes\nCN=system:node:m1');
  assert.equal(certificate.subjectAltName, undefined);
  assert.deepEqual(certificate.keyUsage, [CLIENT_AUTH]);
  const spki = certificate.publicKey.export({ type: 'spki', format: 'der' });
  assert.ok(spki.equals(Buffer.from(csr.publicKey.rawData)));
});

test('signCsr() takes other good keys', async () => {
  const rsa = {
    name: 'RSASSA-PKCS1-v1_5',
    modulusLength: 2048,
    publicExponent: new Uint8Array([1, 0, 1]),
    hash: 'SHA-256',
  };
  for (const algorithm of [{ name: 'ECDSA', namedCurve: 'P-384' }, { name: 'Ed25519' }, rsa])
    await signCsr(ca, (await newCsr(algorithm)).toString('pem'), { subject, clock });
});

test('signCsr() refuses a request whose signature is not of its key', async () => {
  const bytes = new Uint8Array((await newCsr()).rawData);
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
  const forged = new Pkcs10CertificateRequest(bytes).toString('pem');
  await assertRefused(forged, /signature/);
});

test('signCsr() refuses a weak key', async () => {
  const weak = await newCsr({
    name: 'RSASSA-PKCS1-v1_5',
    modulusLength: 1024,
    publicExponent: new Uint8Array([1, 0, 1]),
    hash: 'SHA-256',
  });
  await assertRefused(weak.toString('pem'), /RSA of 1024 bits/);
});

test('signCsr() refuses what is no request', async () => {
  await assertRefused('', /certificate request/);
  await assertRefused('-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n', /certificate request/);
  await assertRefused(ca.certificatePem, /certificate request/);
  await assertRefused('A'.repeat(MAX_CSR_BYTES + 1), /length/);
  const pem = (await newCsr()).toString('pem');
  for (let cut = 40; cut < pem.length - 40; cut += 60)
    await assert.rejects(signCsr(ca, pem.slice(0, cut) + pem.slice(cut + 4), { subject, clock }));
});

async function assertRefused(csrPem: string, message: RegExp): Promise<void> {
  await assert.rejects(signCsr(ca, csrPem, { subject, clock }), (error) => {
    assert.ok(error instanceof DecodeError, String(error));
    assert.match(error.message, message);
    return true;
  });
}
