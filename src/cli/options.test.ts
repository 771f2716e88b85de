import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { UserError } from '#lib/errors.ts';
import { agentOptions, type RawOptions, serverOptions } from './options.ts';
import { createProgram } from './program.ts';

const AGENT = { server: ['https://192.0.2.11:6443'] };

function refused(action: () => unknown): UserError {
  try {
    action();
  } catch (error) {
    assert.ok(error instanceof UserError, String(error));
    return error;
  }
  throw new Error('it was accepted');
}

function withFile(text: string, use: (path: string) => void): void {
  const directory = mkdtempSync(join(tmpdir(), 'tulle-options-'));
  try {
    const path = join(directory, 'tulle.yaml');
    writeFileSync(path, text);
    use(path);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

test('serverOptions() has Kubernetes’ defaults', () => {
  const options = serverOptions({});
  assert.deepEqual(options.listen, { host: '0.0.0.0', port: 6443 });
  assert.deepEqual(options.podCidrs, ['10.244.0.0/16']);
  assert.deepEqual(options.serviceCidrs, ['10.96.0.0/16']);
});

const WRONG: readonly [string, (flags: RawOptions) => unknown, RawOptions, RegExp][] = [
  [
    'a port out of range',
    serverOptions,
    { listen: '192.0.2.1:70000' },
    /--listen "192\.0\.2\.1:70000".*between 1 and 65535/,
  ],
  [
    'a host name to listen on',
    serverOptions,
    { listen: 'host:6443' },
    /--listen "host:6443".*address:port/,
  ],
  [
    'host bits in a prefix',
    serverOptions,
    { podCidr: ['10.1.2.3/16'] },
    /--pod-cidr "10\.1\.2\.3\/16".*without host bits/,
  ],
  ['no prefix', serverOptions, { serviceCidr: ['ten'] }, /--service-cidr "ten".*network prefix/],
  ['a bad log level', serverOptions, { logLevel: 'loud' }, /--log-level "loud".*debug, info/],
  ['a bad domain', serverOptions, { clusterDomain: 'Cluster_Local' }, /--cluster-domain/],
  ['no server', agentOptions, {}, /does not know its server/],
  ['plain HTTP', agentOptions, { server: ['http://192.0.2.11:6443'] }, /--server "http:.*https:/],
  ['a bad node name', agentOptions, { ...AGENT, nodeName: 'Node_1' }, /--node-name "Node_1"/],
  ['a bad node address', agentOptions, { ...AGENT, nodeIp: '192.0.2' }, /--node-ip "192\.0\.2"/],
  ['a bad DNS server', agentOptions, { ...AGENT, upstreamDns: ['dns.example'] }, /--upstream-dns/],
];
for (const [name, read, flags, message] of WRONG)
  test(`options refuse ${name}, with status 2`, () => {
    const error = refused(() => read(flags));
    assert.match(error.message, message);
    assert.equal(error.exitCode, 2);
  });

test('agentOptions() takes the service account of a pod when no server is named', () => {
  const env = { KUBERNETES_SERVICE_HOST: '10.96.0.1' };
  assert.equal(agentOptions({}, undefined, env).isInCluster, true);
  assert.equal(agentOptions(AGENT, undefined, env).isInCluster, false);
  assert.equal(agentOptions({ kubeconfig: '/x' }, undefined, env).isInCluster, false);
  assert.equal(agentOptions(AGENT, undefined, {}).isInCluster, false);
});

test('options read a file, in both spellings, and flags win', () => {
  withFile(
    'pod-cidr: [10.1.0.0/16, "fd00:1::/48"]\nlogLevel: debug\nlisten: 192.0.2.1:7443\n',
    (path) => {
      const options = serverOptions({ listen: '192.0.2.2:8443' }, path);
      assert.deepEqual(options.podCidrs, ['10.1.0.0/16', 'fd00:1::/48']);
      assert.equal(options.logLevel, 'debug');
      assert.equal(options.listen.host, '192.0.2.2');
    },
  );
});

test('options say where an unknown option stands and which there are', () => {
  withFile('listen: 192.0.2.1:6443\npodcdr: 10.0.0.0/8\n', (path) => {
    const error = refused(() => serverOptions({}, path));
    assert.match(error.message, /tulle\.yaml:2: unknown option "podcdr"/);
    assert.match(error.hint ?? '', /pod-cidr/);
  });
});

test('options say where a file is no YAML, and when it cannot be read', () => {
  withFile('listen: [192.0.2.1\n', (path) => {
    assert.match(refused(() => serverOptions({}, path)).message, /tulle\.yaml:\d+:\d+: /);
  });
  withFile('- a\n- b\n', (path) => {
    assert.match(refused(() => serverOptions({}, path)).message, /expected "option: value"/);
  });
  assert.match(
    refused(() => serverOptions({}, '/nonexistent/x.yaml')).message,
    /Cannot read.*x\.yaml/,
  );
});

test('agentOptions() opens firewalls unless a flag or the file says no', () => {
  const flags = { kubeconfig: '/k' };
  assert.equal(agentOptions(flags).openFirewalls, true);
  assert.equal(agentOptions({ ...flags, openFirewalls: false }).openFirewalls, false);
  withFile('open-firewalls: false\n', (path) => {
    assert.equal(agentOptions(flags, path).openFirewalls, false);
    assert.equal(agentOptions({ ...flags, openFirewalls: true }, path).openFirewalls, true);
  });
});

test('the command line says nothing of options that were not given, so that the file is asked', async () => {
  for (const [argv, expected] of [
    [[], undefined],
    [['--no-open-firewalls'], false],
    [['--open-firewalls'], true],
  ] as const) {
    let given: unknown;
    const none = async () => {};
    const daemons = {
      ...{ server: none, uninstall: none, backup: none, restore: none },
      agent: async (flags: Record<string, unknown>) => {
        given = flags.openFirewalls;
      },
    };
    const context = { print: () => {}, signal: new AbortController().signal };
    await createProgram('0', daemons, context).parseAsync(['node', 'tulle', 'agent', ...argv]);
    assert.equal(given, expected);
  }
});
