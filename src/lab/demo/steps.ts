/**
 * The steps of the demo. Each does something to the lab and throws unless it saw what it should;
 * what it returns says in words what it saw.
 */
import { join } from 'node:path';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { SERVICE } from '#api/core/v1/service.ts';
import {
  ENDPOINT_SLICE,
  type EndpointSlice,
  SERVICE_NAME_LABEL,
} from '#api/discovery/v1/endpoint-slice.ts';
import { VXLAN_LINK } from '#lib/kernel-objects.ts';
import { runOk } from '#proc/run.ts';
import { type LabCluster, until } from '../cluster.ts';
import {
  containerPid,
  execInContainer,
  HTTP_PORT,
  killContainer,
  preparePodman,
  runContainer,
  STREAM_CHUNK_BYTES,
  STREAM_CHUNKS,
} from '../containers.ts';
import { OUTSIDE, OUTSIDE_ADDRESS } from '../lab.ts';
import type { Machine } from '../machine.ts';

export interface Step {
  readonly name: string;
  /** @returns what was seen. @throws Error if something did not hold */
  readonly run: (cluster: LabCluster) => Promise<string>;
}

const MANIFEST = join(import.meta.dirname, 'manifest.yaml');
const TULLE = join(import.meta.dirname, '../../bin/tulle.ts');
const OUTSIDE_PORT = 80;
const REQUESTS = 60;
const SETTLE_TIMEOUT_MS = 10_000;
const STREAM_TIMEOUT_MS = 60_000;

export const STEPS: readonly Step[] = [
  { name: 'containers', run: startContainers },
  { name: 'apply', run: applyManifest },
  { name: 'pod to pod, same machine', run: (cluster) => podToPod(cluster, 'm1') },
  { name: 'pod to pod, other machine', run: (cluster) => podToPod(cluster, 'm2') },
  { name: 'service by short name', run: (cluster) => byName(cluster, 'my-service-a') },
  {
    name: 'service by full name',
    run: (cluster) => byName(cluster, 'my-service-a.default.svc.cluster.local'),
  },
  { name: 'service by cluster IP', run: byClusterIp },
  { name: 'second service', run: (cluster) => byName(cluster, 'my-service-b') },
  { name: 'pod to outside', run: toOutside },
  { name: 'server container killed', run: killServerContainer },
  { name: 'API server stopped', run: stopApiServer },
  { name: 'agents restarted', run: restartAgents },
  { name: 'route deleted by hand', run: deleteRoute },
  { name: 'FDB entry deleted by hand', run: deleteFdbEntry },
];

async function startContainers(cluster: LabCluster): Promise<string> {
  await Promise.all(
    cluster.lab.hosts.map(async (machine) => {
      preparePodman(machine);
      const name = machine.name;
      const app = (app: string) => ({ labels: { app }, role: 'server' as const });
      await runContainer(machine, { name: `a-${name}`, ...app('my-app-a') });
      if (name !== 'm1') await runContainer(machine, { name: `b-${name}`, ...app('my-app-b') });
      await runContainer(machine, { name: `client-${name}`, role: 'client' });
    }),
  );
  const wanted = cluster.lab.hosts.flatMap(({ name }) => [`a-${name}`, `client-${name}`]);
  let pods: Pod[] = [];
  await until('all pods are in the API with address and labels', SETTLE_TIMEOUT_MS, async () => {
    pods = (await cluster.client.list(POD, { namespace: 'default' })).items;
    const complete = pods.filter(
      (pod) =>
        pod.status?.podIP !== undefined &&
        (pod.metadata.name.startsWith('client-') || pod.metadata.labels?.app !== undefined),
    );
    return wanted.every((name) => complete.some((pod) => pod.metadata.name === name));
  });
  const addresses = pods.map((pod) => pod.status?.podIP);
  if (new Set(addresses).size !== pods.length)
    throw new Error(`two pods have one address: ${addresses.join(', ')}`);
  return `${pods.length} containers on ${cluster.lab.hosts.length} machines, each with an address and a Pod object`;
}

async function applyManifest(cluster: LabCluster): Promise<string> {
  const said = await runOk([
    ...[process.execPath, '--disable-warning=ExperimentalWarning', TULLE],
    ...['apply', '-f', MANIFEST, '--kubeconfig', cluster.kubeconfig],
  ]);
  await Promise.all([
    endpointsAre(cluster, 'my-service-a', 3),
    endpointsAre(cluster, 'my-service-b', 2),
  ]);
  return said.trim().split('\n').join(', ');
}

async function podToPod(cluster: LabCluster, target: string): Promise<string> {
  const server = await pod(cluster, `a-${target}`);
  const answer = await fromClient(cluster, 'm1', fetch(`${server.status?.podIP}:${HTTP_PORT}`));
  if (answer !== `a-${target}`) throw new Error(`a-${target} answered "${answer}"`);
  return `client-m1 reaches a-${target} at ${server.status?.podIP}`;
}

async function byName(cluster: LabCluster, name: string): Promise<string> {
  return balanced(cluster, name, name.startsWith('my-service-b') ? ['b-m2', 'b-m3'] : undefined);
}

async function byClusterIp(cluster: LabCluster): Promise<string> {
  const service = await cluster.client.get(SERVICE, 'my-service-a', 'default');
  return balanced(cluster, service.spec.clusterIP ?? 'no cluster IP');
}

/** Every machine's client is served, and by every server. */
async function balanced(
  cluster: LabCluster,
  host: string,
  servers = cluster.lab.hosts.map((machine) => `a-${machine.name}`),
): Promise<string> {
  const counts = await Promise.all(
    cluster.lab.hosts.map((machine) => countAnswers(cluster, machine.name, host, REQUESTS)),
  );
  for (const [i, count] of counts.entries()) {
    const missing = servers.filter((server) => !count.has(server));
    const others = [...count.keys()].filter((server) => !servers.includes(server));
    if (missing.length > 0 || others.length > 0)
      throw new Error(
        `client-m${i + 1}: ${formatCounts(count)}; expected answers from ${servers.join(', ')} only`,
      );
  }
  return `${host} from client-m1: ${formatCounts(counts[0] ?? new Map())} of ${REQUESTS}`;
}

async function toOutside(cluster: LabCluster): Promise<string> {
  const outside = cluster.lab.machine(OUTSIDE);
  // The outside host answers with the address that it sees.
  const cgi = '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n%s\\n" "$REMOTE_ADDR"\n';
  await outside.runOk(['mkdir', '-p', '/run/www/cgi-bin']);
  await outside.runOk(['sh', '-c', 'cat > /run/www/cgi-bin/who && chmod +x /run/www/cgi-bin/who'], {
    input: cgi,
  });
  await outside.start('httpd', [
    '/bin/busybox',
    'httpd',
    '-f',
    '-p',
    String(OUTSIDE_PORT),
    '-h',
    '/run/www',
  ]);
  let seen = '';
  await until('the outside host answers', SETTLE_TIMEOUT_MS, async () => {
    // busybox httpd writes an IPv4 client as [::ffff:192.0.2.1].
    const said = await fromClient(cluster, 'm2', fetch(`${OUTSIDE_ADDRESS}/cgi-bin/who`));
    seen = said.replace(/^\[::ffff:|\]$/g, '');
    return true;
  });
  const expected = cluster.lab.machine('m2').address;
  if (seen !== expected) throw new Error(`the outside host saw ${seen}, not ${expected}`);
  return `client-m2 reaches ${OUTSIDE_ADDRESS}, which sees ${expected} (m2), not the pod`;
}

async function killServerContainer(cluster: LabCluster): Promise<string> {
  await killContainer(cluster.lab.machine('m2'), 'a-m2');
  const killedAt = performance.now();
  await endpointsAre(cluster, 'my-service-a', 2);
  const outAfterMs = performance.now() - killedAt;
  const counts = await countAnswers(cluster, 'm1', 'my-service-a', REQUESTS);
  if (counts.has('a-m2')) throw new Error('the killed server answered');
  const total = [...counts.values()].reduce((sum, n) => sum + n, 0);
  if (total !== REQUESTS || counts.has('failed'))
    throw new Error(`of ${REQUESTS} requests after the kill: ${formatCounts(counts)}`);
  return `out of rotation ${outAfterMs.toFixed(0)} ms after the kill; then ${formatCounts(counts)}, none failed`;
}

async function stopApiServer(cluster: LabCluster): Promise<string> {
  await cluster.killServer();
  const counts = await Promise.all(
    ['m1', 'm2', 'm3'].map((machine) => countAnswers(cluster, machine, 'my-service-a', REQUESTS)),
  );
  const failed = counts.reduce((sum, count) => sum + (count.get('failed') ?? 0), 0);
  if (failed > 0) throw new Error(`${failed} requests failed while the server was stopped`);
  await cluster.startServer();
  await runContainer(cluster.lab.machine('m2'), {
    name: 'a-new',
    labels: { app: 'my-app-a' },
    role: 'server',
  });
  await until('a container started since answers for my-service-a', SETTLE_TIMEOUT_MS, async () => {
    const after = await countAnswers(cluster, 'm1', 'my-service-a', REQUESTS);
    if (after.has('failed')) throw new Error(`after the server's return: ${formatCounts(after)}`);
    return after.has('a-new');
  });
  return `${3 * REQUESTS} requests by name, none failed; started again, a new container joined the service`;
}

/** A stream and a ping every 5 ms run while the agents at both ends are killed and started again. */
async function restartAgents(cluster: LabCluster): Promise<string> {
  const near = cluster.lab.machine('m1');
  const far = cluster.lab.machine('m3');
  const server = (await pod(cluster, 'a-m3')).status?.podIP;
  const clientPid = await containerPid(near, 'client-m1');
  const serverPid = await containerPid(far, 'a-m3');
  const lostBefore = await lostSegments(far, serverPid);
  const stream = execInContainer(
    near,
    'client-m1',
    `wget -q -O - http://${server}:${HTTP_PORT}/cgi-bin/stream | wc -c`,
    STREAM_TIMEOUT_MS,
  );
  const inPod = ['nsenter', '--target', String(clientPid), '--net', '--'];
  const ping = near.run([...inPod, 'ping', '-q', '-i', '0.005', '-c', '700', String(server)], {
    timeoutMs: STREAM_TIMEOUT_MS,
  });
  for (const machine of [near, far]) {
    await cluster.killAgent(machine);
    await cluster.startAgent(machine);
  }
  await cluster.nodesReady([near, far]);
  const bytes = Number((await stream).stdout);
  const summary = (await ping).stdout;
  const [, sent, received] = /(\d+) packets transmitted, (\d+) received/.exec(summary) ?? [];
  const lost = (await lostSegments(far, serverPid)) - lostBefore;
  if (bytes !== STREAM_CHUNKS * STREAM_CHUNK_BYTES)
    throw new Error(
      `the transfer ended after ${bytes} of ${STREAM_CHUNKS * STREAM_CHUNK_BYTES} bytes`,
    );
  if (sent === undefined || sent !== received)
    throw new Error(`packets were lost: ${summary.trim()}`);
  if (lost > 0) throw new Error(`TCP lost ${lost} segments`);
  return `${(bytes / 2 ** 20).toFixed(0)} MiB and ${sent} pings arrived, none lost`;
}

async function deleteRoute(cluster: LabCluster): Promise<string> {
  const m1 = cluster.lab.machine('m1');
  const routes = () => m1.runOk(['ip', 'route', 'show', 'dev', VXLAN_LINK]);
  const before = await routes();
  const [route = ''] = before.split('\n');
  const destination = route.split(' ')[0] ?? '';
  await m1.runOk(['ip', 'route', 'del', destination]);
  const repaired = await repairedAfter(async () => (await routes()).includes(destination));
  await podToPod(cluster, 'm3');
  return `${destination} was back when first looked for, ${repaired} ms later; traffic flows`;
}

async function deleteFdbEntry(cluster: LabCluster): Promise<string> {
  const m1 = cluster.lab.machine('m1');
  const entries = () => m1.runOk(['bridge', 'fdb', 'show', 'dev', VXLAN_LINK]);
  const [, mac = '', address = ''] = /^(\S+) dst (\S+)/m.exec(await entries()) ?? [];
  await m1.runOk(['bridge', 'fdb', 'del', mac, 'dev', VXLAN_LINK, 'dst', address]);
  const repaired = await repairedAfter(async () =>
    (await entries()).includes(`${mac} dst ${address}`),
  );
  await podToPod(cluster, 'm3');
  return `${mac} behind ${address} was back when first looked for, ${repaired} ms later; traffic flows`;
}

/** @returns milliseconds until the condition held, the looking included */
async function repairedAfter(isBack: () => Promise<boolean>): Promise<string> {
  const start = performance.now();
  await until('it is repaired', SETTLE_TIMEOUT_MS, isBack);
  return (performance.now() - start).toFixed(0);
}

/** Waits until exactly so many endpoints of the service are ready. */
async function endpointsAre(cluster: LabCluster, service: string, count: number): Promise<void> {
  const selector = { namespace: 'default', labelSelector: `${SERVICE_NAME_LABEL}=${service}` };
  await until(`${service} has ${count} endpoints`, SETTLE_TIMEOUT_MS, async () => {
    const { items } = await cluster.client.list(ENDPOINT_SLICE, selector);
    return items.flatMap(readyEndpoints).length === count;
  });
}

function readyEndpoints(slice: EndpointSlice): string[] {
  return (slice.endpoints ?? [])
    .filter((endpoint) => endpoint.conditions?.ready ?? true)
    .flatMap((endpoint) => endpoint.addresses);
}

async function pod(cluster: LabCluster, name: string): Promise<Pod> {
  return cluster.client.get(POD, name, 'default');
}

function fetch(address: string): string {
  return `timeout 5 wget -q -O - http://${address}`;
}

/** Runs a command in a machine's client container. @throws Error with what it said if it fails */
async function fromClient(cluster: LabCluster, machine: string, script: string): Promise<string> {
  const client = `client-${machine}`;
  const { exitCode, stdout, stderr } = await execInContainer(
    cluster.lab.machine(machine),
    client,
    script,
  );
  if (exitCode !== 0)
    throw new Error(`${client}: "${script}" failed: ${(stderr || stdout).trim()}`);
  return stdout.trim();
}

/** Sends requests one after another and counts who answered; `failed` counts those that nobody did. */
async function countAnswers(
  cluster: LabCluster,
  machine: string,
  host: string,
  requests: number,
): Promise<Map<string, number>> {
  const script = `for i in $(seq ${requests}); do timeout 5 wget -q -O - http://${host}/ 2>/dev/null || echo failed; done | sort | uniq -c`;
  const said = await fromClient(cluster, machine, script);
  return new Map(
    said
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map((line) => line.trim().split(/\s+/))
      .map(([count, name]) => [name ?? '', Number(count)]),
  );
}

function formatCounts(counts: ReadonlyMap<string, number>): string {
  return [...counts].map(([name, count]) => `${name} ${count}`).join(', ');
}

/**
 * TCP segments that a sender in a process's network namespace had to send again because they were lost.
 *
 * Sending again is not yet a loss: a busy computer makes TCP do so too early. The receiver reports such segments as
 * duplicates (RFC 2883), except for the last ones of a connection, which are sent again as probes (RFC 8985 section 7).
 */
async function lostSegments(machine: Machine, pid: number): Promise<number> {
  const counters = new Map<string, number>();
  for (const file of ['snmp', 'netstat']) {
    const lines = (await machine.runOk(['cat', `/proc/${pid}/net/${file}`])).split('\n');
    // A line of names and a line of values, each beginning with its group.
    for (let i = 0; i + 1 < lines.length; i += 2) {
      const values = lines[i + 1]?.split(' ') ?? [];
      for (const [at, name] of (lines[i] ?? '').split(' ').entries())
        counters.set(name, Number(values[at]));
    }
  }
  const count = (name: string) => counters.get(name) ?? 0;
  const unneeded =
    count('TCPDSACKRecvSegs') + count('TCPLossProbes') - count('TCPLossProbeRecovery');
  return Math.max(0, count('RetransSegs') - unneeded);
}
