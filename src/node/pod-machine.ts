/** A machine made of a network namespace, with pods made of others, for tests on the real kernel. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sleep } from '#lib/clock.ts';
import { EOPNOTSUPP, isErrno } from '#lib/errors.ts';
import { silentLogger } from '#lib/log.ts';
import { openConntrack } from '#linux/conntrack/kernel.ts';
import { openNetworkStack } from '#linux/network/kernel.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { openTrafficControl } from '#linux/tc/kernel.ts';
import { type CniRequest, parseCniRequest } from '#wire/cni/request.ts';
import { Attacher, type AttacherOptions, type AttachPoint } from './cni/attacher.ts';
import { enableForwarding } from './cni/link.ts';
import { hostLinkName } from './cni/plan.ts';
import { AttachmentRecords } from './cni/records.ts';
import { TestAddresses } from './cni/test-addresses.ts';
import { POD_RULES_PART, PodRules } from './pod-rules/pod-rules.ts';
import { Ruleset } from './ruleset.ts';

export const HOST_V4 = '198.51.100.1';
const MAX_WAY_AFTER_ANSWER_MS = 2_000;
export const HOST_V6 = '2001:db8:1::1';

type Request<C extends CniRequest['command']> = Extract<CniRequest, { command: C }>;

/** Everything is gone when it is disposed. */
export class Machine implements AsyncDisposable {
  readonly addresses = new TestAddresses();
  readonly #id = randomBytes(4).toString('hex');
  readonly #directory = mkdtempSync(join(tmpdir(), 'tulle-cni-'));
  readonly #namespaces: string[] = [];
  readonly #resources = new AsyncDisposableStack();
  readonly host = this.addNamespace('host');
  readonly stack = this.#resources.use(openNetworkStack({ netns: this.path(this.host) }));
  readonly nftables = this.#resources.use(openNftables({ netns: this.path(this.host) }));
  readonly rulesets = (['ip', 'ip6'] as const).map((family) =>
    this.#resources.use(
      new Ruleset(
        { nftables: this.nftables, log: silentLogger },
        { family, table: 'tulle', parts: [POD_RULES_PART] },
      ),
    ),
  );
  readonly conntrack = this.#resources.use(openConntrack({ netns: this.path(this.host) }));
  readonly rules = this.#resources.use(new PodRules({ ...this, log: silentLogger }));
  attacher = this.start();

  /** A folder for the files of other programs. */
  readonly scratch = join(this.#directory, 'scratch');

  /** @param options `plain`: with forwarding and addresses as a new namespace has them */
  constructor(options: { plain?: boolean } = {}) {
    this.rules.start([]);
    this.run(this.host, 'ip link set lo up');
    if (options.plain === true) return;
    enableForwarding(this.stack, [4, 6]);
    this.run(this.host, `ip address add ${HOST_V4}/32 dev lo`);
    this.run(this.host, `ip address add ${HOST_V6}/128 dev lo`);
  }

  /** A new agent on what the last one left. `dieAt`: it stops for ever there. */
  start(
    options: { dieAt?: AttachPoint; containerExists?: boolean } & Omit<
      Partial<AttacherOptions>,
      'containerExists'
    > = {},
  ): Attacher {
    const { dieAt, containerExists, ...others } = options;
    this.attacher = this.#resources.use(
      new Attacher({
        host: this.stack,
        openStack: openNetworkStack,
        records: new AttachmentRecords(this.#directory, silentLogger),
        addresses: this.addresses,
        mtuBytes: () => 1450,
        dns: { nameservers: [], clusterDomain: 'cluster.local' },
        log: silentLogger,
        rules: this.rules,
        tc: this.#resources.use(openTrafficControl({ netns: this.path(this.host) })),
        ...others,
        ...(containerExists === undefined ? {} : { containerExists: async () => containerExists }),
        ...(dieAt === undefined
          ? {}
          : {
              failpoint: async (point) => {
                if (point !== dieAt) return;
                this.#died.resolve();
                await new Promise(() => {});
              },
            }),
      }),
    );
    return this.attacher;
  }

  #died = Promise.withResolvers<void>();
  /** Starts something in an agent that dies in the middle of it. */
  async untilDeath(action: (attacher: Attacher) => Promise<unknown>, dieAt: AttachPoint) {
    this.#died = Promise.withResolvers<void>();
    const ended = action(this.start({ dieAt })).then(async () => {
      // DEL is answered before it has come to its last points.
      await sleep(MAX_WAY_AFTER_ANSWER_MS);
      throw new Error(`the agent never came to "${dieAt}"`);
    });
    await Promise.race([this.#died.promise, ended]);
  }

  addNamespace(name: string): string {
    const full = `tulle-${this.#id}-${name}`;
    execFileSync('ip', ['netns', 'add', full]);
    this.#namespaces.push(full);
    return full;
  }

  path(namespace: string): string {
    return `/run/netns/${namespace}`;
  }

  /** Deletes a pod's namespace. The kernel takes it apart in its own time, so this waits for the link's end. */
  async deleteNamespace(pod: string): Promise<void> {
    const link = hostLinkName(pod, 'eth0');
    const gone = Promise.withResolvers<void>();
    const look = () => {
      if (this.stack.links.get(link) === undefined) gone.resolve();
    };
    const unwatch = this.stack.watch(look);
    execFileSync('ip', ['netns', 'del', pod]);
    look();
    await gone.promise;
    unwatch();
  }

  /** Runs a command in a namespace. @returns what it prints */
  run(namespace: string, command: string): string {
    return execFileSync('ip', ['netns', 'exec', namespace, ...command.split(' ')], {
      encoding: 'utf8',
    });
  }

  /** Starts a program that lives until the machine goes. Resolves when it has said its first word. */
  async spawn(namespace: string, argv: readonly string[]): Promise<ChildProcess> {
    const child = spawn('ip', ['netns', 'exec', namespace, ...argv], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.#resources.defer(() => void child.kill('SIGKILL'));
    await new Promise<void>((resolve, reject) => {
      child.stdout?.once('data', () => resolve());
      child.once('exit', (code) => reject(new Error(`${argv[0]} ended with ${code}`)));
    });
    return child;
  }

  json(namespace: string, command: string): Record<string, unknown>[] {
    return JSON.parse(this.run(namespace, command)) as Record<string, unknown>[];
  }

  records(): string[] {
    return readdirSync(this.#directory).filter((name) => name !== 'scratch');
  }

  /** Addresses that host-local has given out. */
  leases(): string[] {
    const folder = join(this.scratch, 'net');
    if (!existsSync(folder)) return [];
    return readdirSync(folder).filter((name) => /^[0-9a-f.:]+$/.test(name));
  }

  request<C extends 'ADD' | 'DEL' | 'CHECK' | 'GC'>(
    command: C,
    pod: string,
    more: { config?: object; env?: Record<string, string> } = {},
  ): Request<C> {
    return parseCniRequest(
      {
        CNI_COMMAND: command,
        CNI_CONTAINERID: pod,
        CNI_NETNS: this.path(pod),
        CNI_IFNAME: 'eth0',
        CNI_PATH: '/opt/cni/bin',
        ...more.env,
      },
      JSON.stringify({ cniVersion: '1.1.0', name: 'tulle', type: 'tulle', ...more.config }),
    ) as Request<C>;
  }

  /** What is left of attachments, anywhere: in the kernel now, and of the rest what stays. */
  async leftovers(): Promise<unknown> {
    const kernel = {
      links: this.stack.links
        .list()
        .map((it) => it.name)
        .filter((it) => it.startsWith('tl')),
      routes: this.stack.routes.list({ protocol: 84 }),
      elements: this.rulesets.reduce((sum, ruleset) => sum + ruleset.status().elements, 0),
    };
    await this.attacher.undone();
    return {
      ...kernel,
      addresses: [...this.addresses.given.keys()],
      records: this.records(),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources.disposeAsync();
    for (const name of this.#namespaces)
      if (this.exists(name)) execFileSync('ip', ['netns', 'del', name]);
    rmSync(this.#directory, { recursive: true });
  }

  /** Whether bridges of this kernel can keep VLANs apart. */
  hasVlanFiltering(): boolean {
    const { links } = this.stack;
    const { index } = links.create({ kind: 'bridge', name: 'probe' });
    try {
      links.setVlanFiltering(index, true);
      return links.get(index)?.vlanFiltering === true;
    } catch (error) {
      if (isErrno(error, EOPNOTSUPP)) return false;
      throw error;
    } finally {
      links.delete(index);
    }
  }

  exists(namespace: string): boolean {
    return readdirSync('/run/netns').includes(namespace);
  }
}
