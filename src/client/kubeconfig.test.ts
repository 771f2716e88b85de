import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { UserError } from '#lib/errors.ts';
import type { ClientConfig } from './config.ts';
import { inClusterConfig, loadKubeconfig, writeKubeconfig } from './kubeconfig.ts';

const pem = (name: string) => `-----BEGIN ${name}-----\nAAAA\n-----END ${name}-----\n`;
const data = (name: string) => Buffer.from(pem(name)).toString('base64');

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'tulle-'));
});
afterEach(() => rmSync(directory, { recursive: true }));

function file(name: string, text: string): string {
  const path = join(directory, name);
  mkdirSync(join(path, '..'), { recursive: true });
  writeFileSync(path, text);
  return path;
}

const SAMPLE = `
apiVersion: v1
kind: Config
current-context: one
clusters:
- name: c1
  cluster: {server: "https://192.0.2.1:6443", certificate-authority-data: ${data('CA')}}
- name: c2
  cluster: {server: "https://192.0.2.2:6443", certificate-authority: pki/ca.crt, tls-server-name: api}
users:
- name: u1
  user: {client-certificate-data: ${data('CERT')}, client-key-data: ${data('KEY')}}
- name: u2
  user: {token: abc}
- name: u3
  user: {exec: {command: login}}
contexts:
- name: one
  context: {cluster: c1, user: u1, namespace: ns}
- name: two
  context: {cluster: c2, user: u2}
- name: three
  context: {cluster: c1, user: u3}
- name: nobody
  context: {cluster: c1}
- name: broken
  context: {cluster: missing, user: u1}
`;

describe('loadKubeconfig()', () => {
  test('reads the current context', () => {
    assert.deepEqual(loadKubeconfig({ path: file('config', SAMPLE) }), {
      servers: ['https://192.0.2.1:6443'],
      caPem: pem('CA'),
      certificatePem: pem('CERT'),
      keyPem: pem('KEY'),
      namespace: 'ns',
    });
  });

  test('reads another context, with files relative to the kubeconfig', () => {
    file('pki/ca.crt', pem('CA2'));
    assert.deepEqual(loadKubeconfig({ path: file('config', SAMPLE), context: 'two' }), {
      servers: ['https://192.0.2.2:6443'],
      caPem: pem('CA2'),
      tlsServerName: 'api',
      token: 'abc',
    });
  });

  test('a context without a user is nobody', () => {
    const config = loadKubeconfig({ path: file('config', SAMPLE), context: 'nobody' });
    assert.deepEqual(config, { servers: ['https://192.0.2.1:6443'], caPem: pem('CA') });
  });

  test('merges the files of KUBECONFIG, the first to name something wins', () => {
    const first = file('first', 'current-context: two\nusers: [{name: u2, user: {token: mine}}]');
    file('pki/ca.crt', pem('CA2'));
    const env = { KUBECONFIG: `${first}:${join(directory, 'absent')}:${file('second', SAMPLE)}` };
    assert.equal(loadKubeconfig({ env }).token, 'mine');
  });

  test('falls back to the one in the home directory', () => {
    file('.kube/config', SAMPLE);
    assert.equal(loadKubeconfig({ env: { HOME: directory } }).namespace, 'ns');
  });

  for (const [name, text, context, message] of [
    ['a user who logs in by a program', SAMPLE, 'three', /user "u3" logs in by "exec"/],
    ['an unknown context', SAMPLE, 'four', /no "four" in contexts, which has "one", "two"/],
    ['an unknown cluster', SAMPLE, 'broken', /no "missing" in clusters/],
    ['a missing file', SAMPLE, 'two', /Cannot read .*pki\/ca.crt/],
    ['no context at all', 'apiVersion: v1', undefined, /no context is selected/],
    ['no YAML', 'a: [', undefined, /config: /],
    ['no mapping', '- 7', undefined, /is no kubeconfig/],
    ['a list that is none', 'clusters: 7', undefined, /clusters is not a list/],
    [
      'an entry without a name',
      'clusters: [{cluster: {}}]',
      undefined,
      /clusters\[0\] needs a name/,
    ],
    [
      'a server that is no URL',
      'clusters: [{name: c, cluster: {server: "x:1"}}]\ncontexts: [{name: a, context: {cluster: c}}]',
      'a',
      /"x:1" is not the URL/,
    ],
    [
      'a certificate without a key',
      `clusters: [{name: c, cluster: {server: "https://x"}}]
users: [{name: u, user: {client-certificate-data: ${data('CERT')}}}]
contexts: [{name: a, context: {cluster: c, user: u}}]`,
      'a',
      /needs both or none/,
    ],
    [
      'data that is no PEM',
      `clusters: [{name: c, cluster: {server: "https://x", certificate-authority-data: AAAA}}]
contexts: [{name: a, context: {cluster: c}}]`,
      'a',
      /is no PEM in base64/,
    ],
  ] as const)
    test(`explains ${name}`, () => {
      const path = file('config', text);
      assert.throws(
        () => loadKubeconfig({ path, ...(context === undefined ? {} : { context }) }),
        (error: unknown) => {
          assert.ok(error instanceof UserError, String(error));
          assert.match(error.message, message);
          return error.message.includes(directory);
        },
      );
    });

  test('explains that there is none', () => {
    assert.throws(() => loadKubeconfig({ env: { HOME: directory } }), /There is no kubeconfig at/);
    assert.throws(() => loadKubeconfig({ path: join(directory, 'x') }), /Cannot read/);
  });
});

describe('writeKubeconfig()', () => {
  test('writes what loadKubeconfig() reads, for its owner only', () => {
    const path = join(directory, 'deep', 'config');
    const config: ClientConfig = {
      servers: ['https://192.0.2.1:6443', 'https://192.0.2.2:6443'],
      caPem: pem('CA'),
      certificatePem: pem('CERT'),
      keyPem: pem('KEY'),
      namespace: 'ns',
    };
    writeKubeconfig(path, config);
    assert.deepEqual(loadKubeconfig({ path }), config);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    writeKubeconfig(path, { servers: ['https://192.0.2.3'], token: 't' });
    assert.deepEqual(loadKubeconfig({ path }), { servers: ['https://192.0.2.3'], token: 't' });
    assert.deepEqual(readdirSync(join(directory, 'deep')), ['config']);
  });

  test('explains where it cannot write', () => {
    const path = join(file('file', ''), 'config');
    assert.throws(() => writeKubeconfig(path, { servers: ['https://x'] }), UserError);
  });
});

describe('inClusterConfig()', () => {
  const env = { KUBERNETES_SERVICE_HOST: '2001:db8::1', KUBERNETES_SERVICE_PORT: '443' };

  test('reads the service account', () => {
    file('ca.crt', pem('CA'));
    file('namespace', 'kube-system\n');
    const tokenFile = file('token', 't');
    assert.deepEqual(inClusterConfig({ env, directory }), {
      servers: ['https://[2001:db8::1]:443'],
      caPem: pem('CA'),
      tokenFile,
      namespace: 'kube-system',
    });
  });

  test('explains that this is no pod', () => {
    assert.throws(() => inClusterConfig({ env: {}, directory }), UserError);
    assert.throws(() => inClusterConfig({ env, directory }), UserError);
  });
});
