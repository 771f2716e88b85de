/** What a person sees of policy on a running machine: explain, check, matrix, diff, the log with names, the counters. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { POD } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import { NETWORK_POLICY, type NetworkPolicySpec } from '#api/networking/v1/network-policy.ts';
import { type LabCluster, until } from '#lab/cluster.ts';
import { execInContainer, runContainer } from '#lab/containers.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';
import { startCluster } from './start-cluster.ts';

const WAIT_MS = 20_000;
/** Nodes tell once a minute. */
const TOLD_MS = 90_000;
const LAB = 'test-pol-people';
const TULLE = new URL('../../src/bin/tulle.ts', import.meta.url).pathname;

describe('policy as a person sees it', () => {
  let cluster: LabCluster;
  let m1: Machine;
  let web = '';

  before(async () => {
    const started = await startCluster({ name: LAB, machines: 1 });
    cluster = started.cluster;
    m1 = started.lab.machine('m1');
    await runContainer(m1, { name: 'client', role: 'client', labels: { app: 'client' } });
    await runContainer(m1, { name: 'web', role: 'server', labels: { app: 'web' } });
    await cluster.client.create(SERVICE, {
      ...{ apiVersion: 'v1', kind: 'Service', metadata: { name: 'shop', namespace: 'default' } },
      spec: { selector: { app: 'web' }, ports: [{ port: 80, targetPort: 8080 }] },
    });
    await until('the pods are known', WAIT_MS, async () => {
      const { items } = await cluster.client.list(POD, { namespace: 'default' });
      web = items.find((pod) => pod.metadata.name === 'web')?.status?.podIP ?? '';
      return items.length === 2 && web !== '';
    });
    await until('web answers', WAIT_MS, reaches);
  });
  after(() => Lab.remove(LAB));

  const reaches = async () => {
    const script = `timeout 1 wget -q -O - http://${web}:8080/`;
    return (await execInContainer(m1, 'client', script)).stdout.trim() === 'web';
  };
  const tulle = (...args: string[]) =>
    m1.run([process.execPath, '--disable-warning=ExperimentalWarning', TULLE, 'policy', ...args]);
  const put = async (
    name: string,
    spec: NetworkPolicySpec,
    annotations: Readonly<Record<string, string>> = {},
  ) => {
    await cluster.client.create(NETWORK_POLICY, {
      ...{ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', spec },
      metadata: { name, namespace: 'default', annotations: { ...annotations } },
    });
  };
  const remove = (name: string) =>
    cluster.client.delete(NETWORK_POLICY, { name, namespace: 'default' });
  const CLOSED: NetworkPolicySpec = { podSelector: { matchLabels: { app: 'web' } } };
  const OPEN: NetworkPolicySpec = {
    ...CLOSED,
    ingress: [
      { from: [{ podSelector: { matchLabels: { app: 'client' } } }], ports: [{ port: 8080 }] },
    ],
  };

  test('the log follows, with names and services: staged, refused, accepted', async () => {
    const reader = await m1.start('policy-log', [
      ...[process.execPath, '--disable-warning=ExperimentalWarning', TULLE, 'policy', 'log', '-f'],
    ]);
    const logged = () => readFileSync(m1.logFile('policy-log'), 'utf8');
    const sees = async (text: RegExp) => {
      await until(`the log says ${text}`, WAIT_MS, async () => {
        await reaches();
        return text.test(logged());
      });
    };
    const pair = String.raw`default/client \([\d.]+:\d+\) -> default/web \([\d.]+:8080, service default/shop\)`;
    await put('try', CLOSED, { 'tulle.dev/enforcement': 'staged' });
    await sees(new RegExp(`WOULD DENY ingress TCP ${pair}: NetworkPolicy default/try`));
    assert.ok(await reaches(), 'a staged policy enforces nothing');
    await remove('try');
    await put('closed', CLOSED);
    await sees(new RegExp(`DENIED ingress TCP ${pair}: isolated by NetworkPolicy default/closed`));
    await put('open', OPEN, { 'tulle.dev/log': 'accepts' });
    await sees(
      new RegExp(`ALLOWED ingress TCP ${pair}: NetworkPolicy default/open ingress\\[0\\]`),
    );
    process.kill(reader.pid, 'SIGTERM');
  });

  test('explain, check, matrix and diff answer on the live cluster', async () => {
    const open = await tulle('explain', 'client', 'svc:shop', '--port', '80');
    assert.equal(open.exitCode, 0);
    assert.match(open.stdout, /8080\/TCP: ALLOWED(.|\n)*default\/open .*Accept by ingress\[0\]/);
    const closed = await tulle('explain', 'client', web, '--port', '22');
    assert.equal(closed.exitCode, 1);
    assert.match(closed.stdout, /22\/TCP: DENIED(.|\n)*isolated by closed, open/);
    assert.match((await tulle('explain', 'node:m1', 'web')).stdout, /own node always reaches it/);
    assert.match(
      (await tulle('explain', 'ns:default', 'app=web')).stdout,
      /client -> default\/web/,
    );
    const nobody = await tulle('explain', 'nobody', 'web');
    assert.equal(nobody.exitCode, 2);
    assert.match(nobody.stderr, /There is no pod "nobody"\n +There are .*default\/web/);
    assert.match((await tulle('matrix')).stdout, /default\/client +\. +8080\/TCP/);
    assert.match((await tulle('check')).stdout, /nothing to say/);
    const directory = join(m1.directory, 'tulle');
    writeFileSync(
      join(directory, 'all.yaml'),
      JSON.stringify({
        ...{
          apiVersion: 'networking.k8s.io/v1',
          kind: 'NetworkPolicy',
          spec: { ...CLOSED, ingress: [{}] },
        },
        metadata: { name: 'all', namespace: 'default' },
      }),
    );
    const diff = await tulle('diff', 'live', '/var/lib/tulle/all.yaml');
    assert.equal(diff.exitCode, 1);
    assert.match(
      diff.stdout,
      /\+ default\/client -> default\/web: 1-8079\/TCP 8081-65535\/TCP UDP/,
    );
  });

  test('each rule is counted, in the table and in the metrics', async () => {
    const rules = (await tulle('rules')).stdout;
    assert.match(rules, /NetworkPolicy default\/open +ingress\[0\] +[1-9]\d* /);
    const metrics = await m1.runOk(['curl', '-s', 'http://127.0.0.1:9963/metrics']);
    assert.match(
      metrics,
      /tulle_policy_rule_packets\{rule="NetworkPolicy default\/open ingress\[0\]"\} [1-9]/,
    );
    assert.match(metrics, /tulle_policy_log_suppressed_total \d/);
  });

  test('each node tells the API what it counted', async () => {
    await until('it is told', TOLD_MS, async () =>
      /NetworkPolicy default\/open +ingress\[0\] +[1-9]\d* +\d+ +m1/.test(
        (await tulle('rules', '--all-nodes')).stdout,
      ),
    );
  });
});
