/**
 * Podman, the plugin, address management, the kernel and Pods together, on a machine made of a network and a mount
 * namespace. The file runs itself again in there.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { POD, type Pod } from '#api/core/v1/pod.ts';
import { IP_BLOCK } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { openConntrack } from '#linux/conntrack/kernel.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { Poller } from '#linux/poller.ts';
import { watchProcessExit } from '#linux/process-watch.ts';
import { openTrafficControl } from '#linux/tc/kernel.ts';
import { run, runOk } from '#proc/run.ts';
import { type Cni, startCni } from './cni/cni.ts';
import { Allocator } from './ipam/allocator.ts';
import { POD_RULES_PART, PodRules } from './pod-rules/pod-rules.ts';
import { Pods } from './pods/pods.ts';
import { createPodmanRuntime } from './pods/runtimes/podman.ts';
import { Ruleset } from './ruleset.ts';

/** Set in the run inside the namespaces: a folder for the machine's files. */
const MACHINE_DIRECTORY = process.env.TULLE_TEST_MACHINE;
const BUSYBOX = '/usr/bin/busybox';
/** What of the machine's file system is its own. */
const SET_UP = `
set -e
mount --make-rprivate /
for place in /run /dev/shm; do mount -t tmpfs tmpfs "$place"; done
for place in var/lib/containers var/lib/cni etc/cni; do
  mkdir -p "/$place" "$TULLE_TEST_MACHINE/$place"
  mount --bind "$TULLE_TEST_MACHINE/$place" "/$place"
done
mkdir -p /run/netns /run/lock
ip link set lo up
ip address add 198.51.100.1/32 dev lo
exec "$@"
`;

const missing = ['podman', 'runc'].filter((name) => !onPath(name));
if (MACHINE_DIRECTORY === undefined)
  test('podman attaches containers to the pod network', {
    skip: missing.length > 0 || !existsSync(BUSYBOX) ? 'needs podman, runc and busybox' : false,
  }, async () => {
    const directory = mkdtempSync(join(tmpdir(), 'tulle-machine-'));
    const env: NodeJS.ProcessEnv = { ...process.env, TULLE_TEST_MACHINE: directory };
    // Otherwise the inner run reports to the outer one in its binary format.
    delete env.NODE_TEST_CONTEXT;
    const node = [
      process.execPath,
      '--test',
      '--test-timeout=30000',
      '--test-reporter=spec',
      import.meta.filename,
    ];
    const argv = ['unshare', '--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc'];
    try {
      const result = await run([...argv, 'sh', '-c', SET_UP, 'sh', ...node], {
        env,
        timeoutMs: 120_000,
      });
      assert.equal(result.exitCode, 0, `${result.stdout}\n${result.stderr}`);
      assert.match(result.stdout, /pass [1-9]/);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
else describe('the pod network with podman', () => inside(MACHINE_DIRECTORY));

function inside(directory: string): void {
  const podman = podmanIn(directory);

  test('a container gets address, routes and names, and becomes a Pod with its labels', async () => {
    await using agent = await Agent.start(directory);
    await podman(
      'run',
      '-d',
      '--name',
      'My_Web',
      '--label',
      'app=x',
      ...agent.image,
      'sleep',
      '1000',
    );
    const [pod] = await agent.until(([it]) => isReady(it));
    assert.deepEqual([pod?.metadata.name, pod?.metadata.labels?.app], ['my-web', 'x']);
    const seen = await podman('exec', 'My_Web', 'sh', '-c', 'ip route; cat /etc/resolv.conf');
    assert.match(seen, /default via 169\.254\.1\.1 dev eth0/);
    assert.match(seen, /search default\.svc\.cluster\.local svc\.cluster\.local cluster\.local/);
    assert.match(seen, /nameserver 192\.0\.2\.53/);
    const address = pod?.status?.podIP ?? '';
    execFileSync('ping', ['-c', '1', '-W', '2', '-q', address]);
    const other = ['run', '--rm', '--name', 'other', ...agent.image];
    await podman(...other, 'ping', '-c', '1', '-W', '2', address);
    await podman('rm', '-f', '-t', '0', 'My_Web');
    await agent.until((pods) => pods.length === 0);
    agent.assertNothingLeft();
  });

  test('a killed container is not ready at once, and gone when podman has tidied up', async () => {
    await using agent = await Agent.start(directory);
    await podman('run', '-d', '--name', 'victim', ...agent.image, 'sleep', '1000');
    await agent.until(([it]) => isReady(it));
    const states = agent.statesUntilGone();
    await podman('kill', 'victim');
    const seen = await states;
    assert.equal(seen[0], false, 'the first thing that is told is that it is not ready');
    await podman('rm', '-f', 'victim');
    agent.assertNothingLeft();
  });

  test('a requested address is given, and one in use refused with its owner', async () => {
    await using agent = await Agent.start(directory);
    const image = ['--ip', '192.0.2.77', ...agent.image];
    await podman('run', '-d', '--name', 'first', ...image, 'sleep', '1000');
    const [pod] = await agent.until(([it]) => isReady(it));
    assert.equal(pod?.status?.podIP, '192.0.2.77');
    await assert.rejects(
      podman('run', '--rm', '--name', 'second', ...image, 'true'),
      /requested address 192\.0\.2\.77: it is in use by/,
    );
    await podman('rm', '-f', '-t', '0', 'first');
    await agent.until((pods) => pods.length === 0);
    agent.assertNothingLeft();
  });

  test('what another program breaks on the host side is repaired', async () => {
    await using agent = await Agent.start(directory);
    await podman('run', '-d', '--name', 'web', ...agent.image, 'sleep', '1000');
    const [pod] = await agent.until(([it]) => isReady(it));
    const address = pod?.status?.podIP ?? '';
    const isBack = agent.nextRoute(address);
    execFileSync('ip', ['route', 'del', address]);
    await isBack;
    execFileSync('ping', ['-c', '1', '-W', '2', '-q', address]);
    await podman('rm', '-f', '-t', '0', 'web');
  });

  test('published ports, pods of podman, stop, start and restart', async () => {
    await using agent = await Agent.start(directory);
    const serve = ['sh', '-c', 'while true; do echo hello | nc -l -p 80; done'];
    await podman('run', '-d', '--name', 'web', '-p', '8080:80', ...agent.image, ...serve);
    const ask = async (port: number) =>
      (await runOk(['busybox', 'nc', '-w', '2', '198.51.100.1', String(port)])).trim();
    const first = await agent.until(([it]) => isReady(it));
    assert.equal(await ask(8080), 'hello');
    await podman('restart', '-t', '0', 'web');
    await agent.until(([it]) => isReady(it) && it?.metadata.uid !== first[0]?.metadata.uid);
    assert.equal(await ask(8080), 'hello');
    await podman('stop', '-t', '0', 'web');
    await agent.until((pods) => pods.length === 0);
    await assert.rejects(ask(8080));
    await podman('start', 'web');
    await agent.until(([it]) => isReady(it));
    assert.equal(await ask(8080), 'hello');
    await podman('rm', '-f', '-t', '0', 'web');
    await agent.until((pods) => pods.length === 0);
    agent.assertNothingLeft();
  });

  test('the containers of a podman pod share one attachment', async () => {
    await using agent = await Agent.start(directory);
    const [, , ...rootfs] = agent.image;
    // podman's own infra container needs catatonit, which is not everywhere; any program that waits will do.
    const archive = join(directory, 'infra.tar');
    await runOk(['tar', '-C', makeRootfs(directory), '-cf', archive, '.']);
    await podman('import', archive, 'localhost/infra');
    const infra = ['--infra-image', 'localhost/infra', '--infra-command', 'sleep 1000'];
    const network = ['--network', 'tulle', '-p', '8081:80'];
    await podman('pod', 'create', '--name', 'group', ...infra, ...network);
    const serve = ['sh', '-c', 'while true; do echo together | nc -l -p 80; done'];
    await podman('run', '-d', '--pod', 'group', '--name', 'one', ...rootfs, ...serve);
    assert.equal(agent.cni.list().length, 1);
    // It listens a moment after it has started.
    await until(async () => {
      const { stdout } = await run(['busybox', 'nc', '-w', '2', '198.51.100.1', '8081']);
      return stdout.trim() === 'together';
    });
    await podman('pod', 'rm', '-f', '-t', '0', 'group');
    agent.assertNothingLeft();
  });

  test('aliases of a container are known', async () => {
    await using agent = await Agent.start(directory);
    const image = ['--network-alias', 'db', '--network-alias', 'store', ...agent.image];
    await podman('run', '-d', '--name', 'pg', ...image, 'sleep', '1000');
    const [attachment] = agent.cni.list();
    assert.deepEqual(attachment?.aliases?.slice(0, 2), ['db', 'store']);
    await podman('rm', '-f', '-t', '0', 'pg');
  });

  test('a container that is started while the agent restarts waits for it', async () => {
    let agent = await Agent.start(directory);
    const { image } = agent;
    await agent[Symbol.asyncDispose]();
    const running = podman('run', '--rm', '--name', 'patient', ...image, 'ip', 'route');
    agent = await Agent.start(directory, agent.api);
    await using _ = agent;
    assert.match(await running, /default via 169\.254\.1\.1/);
    await agent.until((pods) => pods.length === 0);
    agent.assertNothingLeft();
  });
}

/** The features of an agent that concern pods, on the machine's kernel and an API in memory. */
class Agent implements AsyncDisposable {
  readonly api: FakeApi;
  readonly image: readonly string[];
  readonly cni: Cni;
  readonly #directory: string;
  readonly #resources: AsyncDisposableStack;
  readonly #stack: ReturnType<typeof openNetworkStack>;

  static async start(directory: string, api = new FakeApi()): Promise<Agent> {
    await using started = new AsyncDisposableStack();
    const stack = started.use(openNetworkStack());
    const poller = started.use(new Poller());
    const nftables = started.use(openNftables({ poller }));
    const rulesets = (['ip', 'ip6'] as const).map((family) =>
      started.use(
        new Ruleset(
          { nftables, log: silentLogger },
          { family, table: 'tulle', parts: [POD_RULES_PART] },
        ),
      ),
    );
    const conntrack = started.use(openConntrack());
    const rules = started.use(new PodRules({ rulesets, nftables, conntrack, log: silentLogger }));
    const allocator = new Allocator({
      client: api,
      node: 'n1',
      pools: () => [POOL],
      log: silentLogger,
    });
    const cni = started.use(
      await startCni({
        host: stack,
        openStack: openNetworkStack,
        addresses: allocator,
        rules,
        tc: started.use(openTrafficControl()),
        families: [4, 6],
        mtuBytes: () => 1450,
        dns: { nameservers: [ip('192.0.2.53')], clusterDomain: 'cluster.local' },
        log: silentLogger,
        recordsDir: join(directory, 'records'),
        install: { binDir: join(directory, 'bin') },
      }),
    );
    const pods = started.use(startCache(api, POD, { log: silentLogger }));
    const feature = started.use(
      new Pods(
        {
          client: api,
          pods,
          attachments: cni,
          runtimes: [createPodmanRuntime(podmanCommand(directory))],
          watchExit: (pid, onExit) => watchProcessExit(poller, pid, onExit),
          isInNetns: (pid, netns) => sameFile(`/proc/${pid}/ns/net`, netns),
          log: silentLogger,
        },
        { node: { name: 'n1', hostIps: [ip('198.51.100.1')] } },
      ),
    );
    feature.start();
    return new Agent({ api, directory, cni, stack, resources: started.move() });
  }

  private constructor(parts: {
    api: FakeApi;
    directory: string;
    cni: Cni;
    stack: ReturnType<typeof openNetworkStack>;
    resources: AsyncDisposableStack;
  }) {
    this.api = parts.api;
    this.cni = parts.cni;
    this.#directory = parts.directory;
    this.#stack = parts.stack;
    this.#resources = parts.resources;
    this.image = ['--network', 'tulle', '--rootfs', makeRootfs(parts.directory)];
  }

  async until(what: (pods: Pod[]) => boolean): Promise<Pod[]> {
    const { resourceVersion } = this.api;
    const stop = new AbortController();
    if (!what(this.api.objects(POD)))
      for await (const _ of this.api.watch(POD, { resourceVersion, signal: stop.signal }))
        if (what(this.api.objects(POD))) break;
    stop.abort();
    return this.api.objects(POD);
  }

  /** Readiness in every event from now to the end of the Pods. */
  async statesUntilGone(): Promise<boolean[]> {
    const states: boolean[] = [];
    const stop = new AbortController();
    const { resourceVersion } = this.api;
    for await (const event of this.api.watch(POD, { resourceVersion, signal: stop.signal })) {
      if (event.type === 'DELETED') break;
      if (event.type === 'MODIFIED') states.push(isReady(event.object));
    }
    stop.abort();
    return states;
  }

  /** Resolves when the kernel tells of a new route to the address. */
  nextRoute(address: string): Promise<void> {
    return new Promise((resolve) => {
      const unwatch = this.#stack.watch((event) => {
        if (event.type !== 'route' || event.deleted) return;
        if (event.route.destination !== `${address}/32`) return;
        unwatch();
        resolve();
      });
    });
  }

  assertNothingLeft(): void {
    const links = this.#stack.links.list().map((it) => it.name);
    const used = this.api.objects(IP_BLOCK).flatMap((it) => Object.values(it.spec.allocations));
    assert.deepEqual(
      {
        links,
        used,
        records: readdirSync(join(this.#directory, 'records')),
        list: this.cni.list(),
      },
      { links: ['lo'], used: [], records: [], list: [] },
    );
  }

  /** Also removes the containers of a test that failed, so that the next one starts on an empty machine. */
  async [Symbol.asyncDispose](): Promise<void> {
    await podmanIn(this.#directory)('rm', '--all', '--force', '--time', '0');
    await this.#resources.disposeAsync();
  }
}

const POOL: IPPool = {
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPPool',
  metadata: { name: 'v4' },
  spec: { cidr: '192.0.2.0/24' },
};

function podmanCommand(directory: string): string[] {
  const conf = join(directory, 'containers.conf');
  if (!existsSync(conf))
    writeFileSync(
      conf,
      `[network]
network_backend="cni"
cni_plugin_dirs=["${join(directory, 'bin')}"]
[containers]
default_ulimits=["nofile=20000:20000","nproc=4096:4096"]
`,
    );
  return [
    'env',
    `CONTAINERS_CONF=${conf}`,
    'podman',
    '--runtime',
    'runc',
    '--cgroup-manager',
    'cgroupfs',
  ];
}

function podmanIn(directory: string): (...args: readonly string[]) => Promise<string> {
  return (...args) => runOk([...podmanCommand(directory), ...args], { timeoutMs: 60_000 });
}

/** A root filesystem of one program. */
function makeRootfs(directory: string): string {
  const rootfs = join(directory, 'rootfs');
  if (existsSync(rootfs)) return rootfs;
  for (const name of ['bin', 'etc', 'proc', 'sys', 'dev', 'run', 'tmp'])
    mkdirSync(join(rootfs, name), { recursive: true });
  cpSync(BUSYBOX, join(rootfs, 'bin/busybox'));
  for (const name of ['sh', 'ip', 'ping', 'cat', 'sleep', 'true', 'nc', 'echo'])
    symlinkSync('busybox', join(rootfs, 'bin', name));
  return rootfs;
}

function isReady(pod: Pod | undefined): boolean {
  return (
    pod?.status?.conditions?.some((it) => it.type === 'Ready' && it.status === 'True') === true
  );
}

function sameFile(a: string, b: string): boolean {
  const [first, second] = [a, b].map((path) => statSync(path, { throwIfNoEntry: false }));
  return first !== undefined && first.ino === second?.ino && first.dev === second.dev;
}

function onPath(name: string): boolean {
  return (process.env.PATH ?? '').split(':').some((folder) => existsSync(join(folder, name)));
}
