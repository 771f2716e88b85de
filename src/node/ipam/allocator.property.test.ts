/**
 * Random interleavings of several nodes that attach and detach pods, die between any two API writes (before the write
 * took effect, or after, with the answer lost) and start again with nothing but their durable list of handles, and of the
 * addresses that were answered. With and without addresses that are kept warm.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { IP_BLOCK } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { FakeApi } from '#client/fake.ts';
import type { ApiClient } from '#client/port.ts';
import { FakeClock } from '#lib/clock.ts';
import type { Ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import type { AllocatedAddress } from '../addresses.ts';
import { Allocator } from './allocator.ts';
import { allocationsOf } from './block.ts';
import { createIpamGc } from './gc.ts';

const COOL_DOWN_MS = 30_000;
const GRACE_MS = 60_000;
const NODES = ['n1', 'n2', 'n3'];
interface WorldOptions {
  readonly strictAffinity: boolean;
  readonly warm: number;
}

/** Of two addresses; of four where half of what is free may be warm. */
const hostBits = ({ warm }: WorldOptions) => (warm > 0 ? 2 : 1);
// Small enough that nodes run out of blocks, borrow and lend, and addresses are reused.
const poolsOf = (options: WorldOptions): IPPool[] =>
  [
    ['v4', '192.0.2.0/29', 32 - hostBits(options)],
    ['v6', '2001:db8::/125', 128 - hostBits(options)],
  ].map(([name, cidr, blockSize]) => ({
    apiVersion: 'tulle.dev/v1alpha1',
    kind: 'IPPool',
    metadata: { name: String(name) },
    spec: {
      cidr: String(cidr),
      blockSize: Number(blockSize),
      strictAffinity: options.strictAffinity,
    },
  }));

interface Step {
  readonly node: number;
  readonly action:
    | ('add' | 'delete' | 'crash' | 'crash-tending' | 'stop')
    | ('gc' | 'tend' | 'fail-tending' | 'pass-time' | 'reserve');
  readonly pod: number;
  /** The how-manieth API call from here on is the node's last one. */
  readonly dieAt: number;
  readonly afterEffect: boolean;
  /** Whether the next step begins before this one has ended. */
  readonly overlap: boolean;
}

const step: fc.Arbitrary<Step> = fc.record({
  node: fc.nat({ max: NODES.length - 1 }),
  action: fc.constantFrom(
    ...([
      'add',
      'add',
      'add',
      'add',
      'delete',
      'delete',
      'delete',
      'pass-time',
      'pass-time',
    ] as const),
    ...([
      'crash',
      'crash-tending',
      'gc',
      'gc',
      'tend',
      'tend',
      'tend',
      'tend',
      'fail-tending',
      'stop',
      'reserve',
    ] as const),
  ),
  pod: fc.nat({ max: 3 }),
  dieAt: fc.nat({ max: 4 }),
  afterEffect: fc.boolean(),
  overlap: fc.boolean(),
});

class Died extends Error {}

/** A node: its process may die, its list of handles stays. */
class Node {
  readonly name: string;
  readonly #world: World;
  /** Handles written before an address is asked for, and removed after it is given back. */
  readonly durable = new Set<string>();
  readonly addresses = new Map<string, readonly Ip[]>();
  /** The handle of each pod that is there or being made. */
  readonly #pods = new Map<string, string>();
  #made = 0;
  #life = 0;
  #budget = Number.POSITIVE_INFINITY;
  #dieAfterEffect = false;
  #recovers = false;
  /** What dies with the process. */
  #process: { readonly allocator: Allocator; readonly gc: () => Promise<unknown> };

  constructor(name: string, world: World) {
    this.name = name;
    this.#world = world;
    this.#process = this.#begin();
  }

  get gc(): () => Promise<unknown> {
    return this.#process.gc;
  }

  /** A new process: whatever the old one still does fails from now on. */
  #begin(): { allocator: Allocator; gc: () => Promise<unknown> } {
    const life = ++this.#life;
    this.#budget = Number.POSITIVE_INFINITY;
    const client = this.#mortal(life);
    const { clock, warm } = this.#world;
    const pools = () => this.#world.pools;
    const options = { client, node: this.name, pools, log: silentLogger, clock, warm };
    const allocator = new Allocator({ ...options, coolDownMs: COOL_DOWN_MS });
    const gc = createIpamGc({
      ...options,
      allocator,
      liveHandles: () => this.durable,
      held: () =>
        [...this.addresses].map(([handle, addresses]) => ({
          owner: { handle, purpose: 'Pod' as const },
          addresses,
        })),
      graceMs: GRACE_MS,
    });
    return { allocator, gc };
  }

  /** What the agent does in the background, and from time to time. */
  tend(): Promise<void> {
    return this.#process.allocator.tendWarm();
  }

  /** The end of an agent that is told to stop. */
  async stop(): Promise<void> {
    await this.#process.allocator[Symbol.asyncDispose]();
    await this.restart(true);
  }

  /** @param options.recovers the API only fails once, and the process goes on */
  dieAt(call: number, afterEffect: boolean, { recovers = false } = {}): void {
    this.#budget = call;
    this.#recovers = recovers;
    this.#dieAfterEffect = afterEffect;
  }

  async add(pod: string): Promise<void> {
    if (this.#pods.has(pod)) return;
    const life = this.#life;
    // A container id names one container for ever, so a handle is used once.
    const handle = `${this.name}.${pod}-${++this.#made}`;
    this.#pods.set(pod, handle);
    this.durable.add(handle);
    const result = await this.#process.allocator.allocate({ owner: { handle, purpose: 'Pod' } });
    if (life !== this.#life) return;
    if (result.kind !== 'allocated') {
      this.#pods.delete(pod);
      return void this.durable.delete(handle);
    }
    const got = result.addresses.map((it) => it.address);
    this.#world.take({ handle, node: this.name }, result.addresses);
    this.addresses.set(handle, got);
  }

  async delete(pod: string): Promise<void> {
    const handle = this.#pods.get(pod) ?? '';
    if (!this.addresses.has(handle)) return;
    this.forget(handle);
    await this.#process.allocator.release(handle);
    this.durable.delete(handle);
    this.#pods.delete(pod);
  }

  /** From here on nobody uses the addresses. */
  forget(handle: string): void {
    this.#world.leave(this.addresses.get(handle) ?? []);
    this.addresses.delete(handle);
  }

  /** What a start does with what was not finished: gives it back, or leaves it to the garbage collection. */
  async restart(cleanly: boolean): Promise<void> {
    this.#process = this.#begin();
    for (const handle of [...this.durable]) {
      if (this.addresses.has(handle)) continue;
      for (const [pod, it] of this.#pods) if (it === handle) this.#pods.delete(pod);
      if (cleanly) await this.#process.allocator.release(handle);
      this.durable.delete(handle);
    }
  }

  #mortal(life: number): ApiClient {
    const { api } = this.#world;
    const guard = <A extends unknown[], R>(call: (...args: A) => Promise<R>) => {
      return async (...args: A): Promise<R> => {
        await Promise.resolve();
        if (life !== this.#life || this.#budget < 0) throw new Died();
        const last = this.#budget-- === 0;
        if (last && this.#recovers) this.#budget = Number.POSITIVE_INFINITY;
        if (last && !this.#dieAfterEffect) throw new Died();
        const result = await call(...args);
        if (last || life !== this.#life) throw new Died();
        return result;
      };
    };
    return {
      get: guard(api.get.bind(api)) as ApiClient['get'],
      list: guard(api.list.bind(api)) as ApiClient['list'],
      create: guard(api.create.bind(api)) as ApiClient['create'],
      update: guard(api.update.bind(api)) as ApiClient['update'],
      patch: api.patch.bind(api),
      delete: api.delete.bind(api),
      watch: api.watch.bind(api),
      raw: api.raw.bind(api),
    };
  }
}

/** Who uses which address, as pods see it; asserts at every step. */
class World {
  pools: readonly IPPool[];
  #isReserving = false;
  /** How many of the addresses in use were of another node's block when they were given. */
  borrowed = 0;
  readonly clock = new FakeClock();
  readonly api = new FakeApi({ clock: this.clock });
  readonly #users = new Map<string, string>();
  readonly #leftAt = new Map<string, number>();

  readonly warm: { count: number; keepFree: number };
  /** How many pods got an address of which the API did not know yet whose it is. */
  givenWarm = 0;

  readonly #blockAddresses: number;

  constructor(options: WorldOptions) {
    this.pools = poolsOf(options);
    this.#blockAddresses = 2 ** hostBits(options);
    this.warm = { count: options.warm, keepFree: 0 };
  }

  take(user: { handle: string; node: string }, given: readonly AllocatedAddress[]): void {
    const { handle, node } = user;
    assert.equal(given.length, 2, 'both families');
    const inApi = this.api.objects(IP_BLOCK).flatMap(allocationsOf);
    for (const { address, sequence } of given) {
      assert.equal(this.#users.get(address), undefined, `${address} is given twice`);
      const restMs = this.clock.now() - (this.#leftAt.get(address) ?? Number.NEGATIVE_INFINITY);
      assert.ok(restMs >= COOL_DOWN_MS, `${address} is given again after ${restMs} ms`);
      const known = inApi.find((it) => it.address.address === address);
      assert.deepEqual(
        [known?.address.sequence, known?.allocation.node],
        [sequence, node],
        `the API has ${address} in this life for the node before a pod has it`,
      );
      if (known?.allocation.handle !== handle) this.givenWarm++;
      this.#users.set(address, handle);
    }
  }

  /** Takes all addresses from those who do not ask for it by name, or gives it to them again. */
  reserve(): void {
    this.#isReserving = !this.#isReserving;
    this.pools = this.pools.map(({ spec, ...pool }) => ({
      ...pool,
      spec: { ...spec, reserved: this.#isReserving ? [spec.cidr] : [] },
    }));
  }

  leave(addresses: readonly string[]): void {
    for (const address of addresses) {
      this.#users.delete(address);
      this.#leftAt.set(address, this.clock.now());
    }
  }

  get used(): string[] {
    return [...this.#users.values()].sort();
  }

  get allocated(): string[] {
    return this.api
      .objects(IP_BLOCK)
      .flatMap((block) => Object.values(block.spec.allocations).map((it) => it.handle))
      .sort();
  }

  /** Every ordinal of every block stands in exactly one place; counts the addresses that are lent. */
  assertWhole(): void {
    for (const { spec } of this.api.objects(IP_BLOCK)) {
      for (const { node } of Object.values(spec.allocations))
        if (spec.node !== '' && node !== spec.node) this.borrowed++;
      const all = [...Object.keys(spec.allocations).map(Number), ...spec.free];
      assert.deepEqual(
        all.sort((a, b) => a - b),
        Array.from({ length: this.#blockAddresses }, (_, i) => i),
        `ordinals of ${spec.cidr}`,
      );
    }
  }
}

async function perform(node: Node, { action, pod, dieAt, afterEffect }: Step): Promise<void> {
  const survive = (error: unknown) => {
    if (!(error instanceof Died)) throw error;
  };
  switch (action) {
    case 'add':
      return node.add(`p${pod}`).catch(survive);
    case 'delete':
      return node.delete(`p${pod}`).catch(survive);
    case 'crash':
      node.dieAt(dieAt, afterEffect);
      await node.add(`p${pod}`).catch(survive);
      return node.restart(pod % 2 === 0).catch(survive);
    case 'crash-tending':
      await node.add(`p${pod}`).catch(survive);
      node.dieAt(dieAt, afterEffect);
      await node.tend().catch(survive);
      return node.restart(pod % 2 === 0).catch(survive);
    case 'fail-tending':
      node.dieAt(dieAt % 2, afterEffect, { recovers: true });
      return node.tend().catch(survive);
    case 'stop':
      return node.stop().catch(survive);
    case 'tend':
      return node.tend().catch(survive);
    case 'gc':
      return void (await node.gc().catch(survive));
    case 'pass-time':
    case 'reserve':
      return;
  }
}

async function run(steps: readonly Step[], options: WorldOptions): Promise<World> {
  const world = new World(options);
  const nodes = NODES.map((name) => new Node(name, world));
  const running: Promise<void>[] = [];
  for (const it of steps) {
    const node = nodes[it.node];
    assert.ok(node !== undefined);
    if (it.action === 'pass-time') world.clock.advance((it.pod + 1) * 16_000);
    if (it.action === 'reserve') world.reserve();
    running.push(perform(node, it));
    if (!it.overlap) await Promise.all(running.splice(0));
  }
  await Promise.all(running);
  world.assertWhole();
  for (const node of nodes) {
    await node.restart(false);
    await node.gc();
    world.clock.advance(GRACE_MS);
    await node.gc();
  }
  world.assertWhole();
  assert.deepEqual(world.allocated, world.used, 'allocated is what is used');
  return world;
}

/** More for a long search. */
const RUNS = Number(process.env.TULLE_PROPERTY_RUNS ?? 80);
for (const [strictAffinity, warm] of [
  [false, 0],
  [false, 1],
  [true, 2],
] as const)
  test(`Allocator gives no address twice, loses none and reuses none too early, whatever dies when, ${strictAffinity ? 'in strict pools' : 'with borrowing'}, ${warm} warm`, async () => {
    let borrowed = 0;
    let givenWarm = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 120 }), async (steps) => {
        const world = await run(steps, { strictAffinity, warm });
        borrowed += world.borrowed;
        givenWarm += world.givenWarm;
      }),
      { numRuns: RUNS },
    );
    assert.equal(borrowed > 0, !strictAffinity, `${borrowed} addresses were lent`);
    assert.equal(givenWarm > 0, warm > 0, `${givenWarm} pods got warm addresses`);
  });
