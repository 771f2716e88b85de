import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { IP_BLOCK } from '#api/tulle/v1alpha1/ip-block.ts';
import type { IPPool } from '#api/tulle/v1alpha1/ip-pool.ts';
import { FakeApi } from '#client/fake.ts';
import type { ApiClient } from '#client/port.ts';
import { FakeClock } from '#lib/clock.ts';
import { ApiError } from '#lib/errors.ts';
import { cidr, ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import type { AddressRequest, AddressResult } from '../addresses.ts';
import { Allocator } from './allocator.ts';
import { newBlock, withAffinity } from './block.ts';

const pool = (name: string, prefix: string, blockSize: number, disabled = false): IPPool => ({
  apiVersion: 'tulle.dev/v1alpha1',
  kind: 'IPPool',
  metadata: { name },
  spec: { cidr: prefix, blockSize, disabled },
});
const V4 = pool('v4', '192.0.2.0/24', 30);
const V6 = pool('v6', '2001:db8::/112', 126);

function setup(pools: readonly IPPool[] = [V4], nodes: readonly string[] = ['n1']) {
  const clock = new FakeClock();
  const api = new FakeApi({ clock });
  const allocators = nodes.map(
    (node) => new Allocator({ client: api, node, pools: () => pools, log: silentLogger, clock }),
  );
  const [first, second] = allocators;
  assert.ok(first !== undefined);
  return { clock, api, allocator: first, other: second ?? first };
}

const request = (handle: string, more: Partial<AddressRequest> = {}): AddressRequest => ({
  owner: { handle, purpose: 'Pod' },
  ...more,
});

function addresses(result: AddressResult): string[] {
  assert.ok(
    result.kind === 'allocated',
    JSON.stringify(result, (_, v) => (typeof v === 'bigint' ? String(v) : v)),
  );
  return result.addresses.map((it) => it.address);
}

/** Another address of the same block. */
const neighbourOf = (address = '') => ip(address.replace(/\d$/, (it) => String(Number(it) ^ 1)));

const selecting = (base: IPPool, spec: Partial<IPPool['spec']>): IPPool => ({
  ...base,
  spec: { ...base.spec, ...spec },
});
const forTeam = { matchLabels: { team: 'a' } };

describe('Allocator with pools that select', () => {
  const allocatorOf = (pools: readonly IPPool[], nodeLabels: Record<string, string> = {}) =>
    new Allocator({
      client: new FakeApi(),
      node: 'n1',
      pools: () => pools,
      log: silentLogger,
      nodeLabels: () => nodeLabels,
      namespaceLabels: (name) => ({ team: name }),
    });
  const of = (handle: string, namespace: string, requested?: string): AddressRequest => ({
    owner: { handle, purpose: 'Pod', namespace },
    ...(requested === undefined ? {} : { requested: [ip(requested)] }),
  });
  const dedicated = selecting(pool('a', '198.51.100.0/24', 30), { namespaceSelector: forTeam });

  test('gives a selected namespace addresses of its pool, and others none of it', async () => {
    const allocator = allocatorOf([V4, dedicated]);
    assert.match(addresses(await allocator.allocate(of('x', 'a')))[0] ?? '', /^198\.51\.100\./);
    assert.match(addresses(await allocator.allocate(of('y', 'b')))[0] ?? '', /^192\.0\.2\./);
    const refused = await allocator.allocate(of('z', 'b', '198.51.100.9'));
    assert.ok(refused.kind === 'refused');
    assert.match(refused.message, /IPPool "a" is not for this node or not for namespace "b"/);
  });
  test('gives the node itself no address of a pool that is for namespaces', async () => {
    const allocator = allocatorOf([dedicated, V4]);
    assert.match(addresses(await allocator.tunnelAddress(4))[0] ?? '', /^192\.0\.2\./);
  });
  test('uses a pool on the nodes that it selects only', async () => {
    const pools = [selecting(V4, { nodeSelector: { matchLabels: { zone: 'z1' } } })];
    assert.equal((await allocatorOf(pools).allocate(of('x', 'a'))).kind, 'exhausted');
    addresses(await allocatorOf(pools, { zone: 'z1' }).allocate(of('x', 'a')));
  });
  test('gives reserved addresses only to those who ask for them', async () => {
    const small = selecting(pool('v4', '192.0.2.0/29', 30), {
      reserved: ['192.0.2.0/30', '192.0.2.4', '192.0.2.7'],
    });
    const allocator = allocatorOf([small]);
    const got = [];
    for (const handle of ['a', 'b'])
      got.push(...addresses(await allocator.allocate(of(handle, 'n'))));
    assert.deepEqual(got.sort(), ['192.0.2.5', '192.0.2.6']);
    assert.equal((await allocator.allocate(of('c', 'n'))).kind, 'exhausted');
    assert.deepEqual(addresses(await allocator.allocate(of('d', 'n', '192.0.2.1'))), ['192.0.2.1']);
  });
  test('finds a block behind a reserved prefix that is larger than anybody could count', async () => {
    const large = selecting(pool('v6', '2001:db8::/48', 126), { reserved: ['2001:db8::/49'] });
    const [address = ''] = addresses(await allocatorOf([large]).allocate(of('a', 'n')));
    assert.match(address, /^2001:db8:0:[89a-f][0-9a-f]{3}:/);
  });
  test('says that it is not ready after the API has failed, and is ready again after it worked', async () => {
    const api = new FakeApi();
    const allocator = new Allocator({
      client: api,
      node: 'n1',
      pools: () => [V4],
      log: silentLogger,
    });
    api.failNext({ verb: 'list' }, new ApiError(503, 'ServiceUnavailable', 'away'));
    await assert.rejects(allocator.allocate(request('a')));
    assert.match(allocator.notReady() ?? '', /could not be used.*away/);
    await allocator.allocate(request('a'));
    assert.equal(allocator.notReady(), undefined);
  });
});

describe('Allocator', () => {
  test('claims a block in two steps, then needs one write for an address', async () => {
    const { api, allocator } = setup();
    const [first] = addresses(await allocator.allocate(request('a')));
    assert.deepEqual(
      api.writes.map((it) => it.verb),
      ['create', 'update', 'update'],
    );
    api.clearRequests();
    const [second] = addresses(await allocator.allocate(request('b')));
    assert.notEqual(first, second);
    assert.deepEqual(
      api.requests.map((it) => it.verb),
      ['update'],
    );
    const [block] = api.objects(IP_BLOCK);
    assert.deepEqual([block?.spec.node, block?.spec.affinity], ['n1', 'Confirmed']);
  });

  test('gives the same handle the same address', async () => {
    const { allocator } = setup();
    const first = addresses(await allocator.allocate(request('a')));
    assert.deepEqual(addresses(await allocator.allocate(request('a'))), first);
  });

  test('tells of the addresses of all families before they are written', async () => {
    const { api, allocator } = setup([V4, V6]);
    await allocator.allocate(request('a'));
    const update = api.update.bind(api);
    const chosen = Promise.withResolvers<string[]>();
    let isWritten = false;
    api.update = async (kind, object, options) => {
      await chosen.promise;
      isWritten = true;
      return update(kind, object, options);
    };
    const result = await allocator.allocate(
      request('b', {
        onChosen: (them) => {
          assert.equal(isWritten, false);
          chosen.resolve(them.map((it) => it.address));
        },
      }),
    );
    assert.deepEqual(await chosen.promise, addresses(result));
    assert.equal(addresses(result).length, 2);
  });

  test('gives both families or none', async () => {
    const { api, allocator } = setup([V4, pool('v6', '2001:db8::/127', 127)]);
    const both = addresses(await allocator.allocate(request('a')));
    assert.deepEqual(
      both.map((it) => it.includes(':')),
      [false, true],
    );
    addresses(await allocator.allocate(request('b')));
    const third = await allocator.allocate(request('c'));
    assert.ok(third.kind === 'exhausted' && third.family === 6);
    assert.match(third.message, /"v6" 2001:db8::\/127: 2 of 2 addresses in use/);
    const handles = api
      .objects(IP_BLOCK)
      .flatMap((it) => Object.values(it.spec.allocations).map((allocation) => allocation.handle));
    assert.deepEqual(handles.sort(), ['a', 'a', 'b', 'b']);
  });

  test('says what is the matter when there is no pool', async () => {
    const { allocator } = setup([pool('off', '192.0.2.0/24', 30, true)]);
    const result = await allocator.allocate(request('a'));
    assert.ok(result.kind === 'exhausted');
    assert.match(result.message, /no enabled IPPool/);
    assert.equal(allocator.notReady(), 'there is no enabled IPPool');
  });

  test('claims further blocks until the pool is cut up, and does not borrow where that is strict', async () => {
    const tiny = selecting(pool('tiny', '192.0.2.0/29', 30), { strictAffinity: true });
    const { allocator, other } = setup([tiny], ['n1', 'n2']);
    const [used] = addresses(await other.allocate(request('x')));
    for (let i = 0; i < 4; i++) addresses(await allocator.allocate(request(`h${i}`)));
    const result = await allocator.allocate(request('h4'));
    assert.ok(result.kind === 'exhausted');
    assert.deepEqual(result.pools, [{ name: 'tiny', cidr: '192.0.2.0/29', used: 5n, total: 8n }]);
    assert.match(result.message, /"spec\.strictAffinity" keeps it from borrowing/);
    const refused = await allocator.allocate(request('h5', { requested: [neighbourOf(used)] }));
    assert.ok(refused.kind === 'refused');
    assert.match(refused.message, /belongs to node "n2", and IPPool "tiny" lets nobody borrow/);
  });

  describe('without a block to claim', () => {
    const tiny = pool('tiny', '192.0.2.0/29', 30);
    async function full() {
      const it = setup([tiny], ['n1', 'n2']);
      const [lent] = addresses(await it.other.allocate(request('x')));
      for (let i = 0; i < 4; i++) addresses(await it.allocator.allocate(request(`h${i}`)));
      return { ...it, lent };
    }
    const blockOf = (api: FakeApi, node: string) =>
      api.objects(IP_BLOCK).find((it) => it.spec.node === node)?.spec;

    test("borrows addresses of another node's block, and names itself as their user", async () => {
      const { api, allocator } = await full();
      for (let i = 0; i < 3; i++) addresses(await allocator.allocate(request(`b${i}`)));
      const nodes = Object.values(blockOf(api, 'n2')?.allocations ?? {}).map((it) => it.node);
      assert.deepEqual(nodes.sort(), ['n1', 'n1', 'n1', 'n2']);
      assert.equal((await allocator.allocations()).length, 7);
      const result = await allocator.allocate(request('b3'));
      assert.ok(result.kind === 'exhausted');
      assert.match(result.message, /8 of 8 .*no other node has one to lend/);
    });
    test('gives the same handle the same borrowed address, and gives it back where it is from', async () => {
      const { api, allocator } = await full();
      const got = addresses(await allocator.allocate(request('b')));
      assert.deepEqual(addresses(await allocator.allocate(request('b'))), got);
      assert.deepEqual(await allocator.release('b'), got);
      assert.equal(Object.keys(blockOf(api, 'n2')?.allocations ?? {}).length, 1);
      assert.equal(Object.keys(blockOf(api, 'n2')?.releasedAt ?? {}).length, 1);
    });
    test('takes a requested address of another node, and none that is in use there', async () => {
      const { allocator, lent } = await full();
      const requested = [neighbourOf(lent)];
      assert.deepEqual(addresses(await allocator.allocate(request('r', { requested }))), requested);
      const busy = await allocator.allocate(request('s', { requested: [ip(lent ?? '')] }));
      assert.ok(busy.kind === 'refused');
      assert.match(busy.message, /in use by "x"/);
    });
    test('does not borrow out of a block that is only being claimed', async () => {
      const { api, allocator } = await full();
      for (const it of api.objects(IP_BLOCK))
        if (it.spec.node === 'n2') api.put(IP_BLOCK, withAffinity(it, 'n2', 'Pending'));
      assert.equal((await allocator.allocate(request('b'))).kind, 'exhausted');
    });
    test('uses an own address again that a borrower gave back', async () => {
      const { clock, allocator, other } = await full();
      for (let i = 0; i < 3; i++) addresses(await allocator.allocate(request(`b${i}`)));
      assert.equal((await other.allocate(request('y'))).kind, 'exhausted');
      await allocator.release('b1');
      clock.advance(30_000);
      addresses(await other.allocate(request('y')));
    });
    test('does not mistake the handle of another node for its own', async () => {
      const { allocator, other } = await full();
      addresses(await allocator.allocate(request('same')));
      addresses(await other.allocate(request('same')));
      assert.equal((await other.release('same')).length, 1);
      assert.equal((await allocator.release('same')).length, 1);
    });
  });

  test('gives back a block that nobody has an address of, and none that somebody has', async () => {
    const { api, allocator, other } = setup([V4], ['n1', 'n2']);
    addresses(await allocator.allocate(request('a')));
    assert.deepEqual(await allocator.emptyBlocks(), []);
    await allocator.release('a');
    const [name = ''] = await allocator.emptyBlocks();
    assert.equal(await other.giveBack(name), false);
    assert.equal(await allocator.giveBack(name), true);
    const [block] = api.objects(IP_BLOCK);
    assert.deepEqual([block?.spec.node, block?.spec.affinity], ['', 'Pending']);
    addresses(await other.allocate(request('b')));
    assert.deepEqual(
      api.objects(IP_BLOCK).map((it) => it.spec.node),
      ['n2'],
    );
  });

  test('does not forget an address that was given while the blocks were being read', async () => {
    const api = new FakeApi();
    const gate = Promise.withResolvers<void>();
    let isSlow = false;
    const client: ApiClient = Object.assign(Object.create(api) as ApiClient, {
      list: async (...args: Parameters<ApiClient['list']>) => {
        const answer = await api.list(...args);
        if (!isSlow) return answer;
        isSlow = false;
        await gate.promise;
        return answer;
      },
      create: api.create.bind(api),
      get: api.get.bind(api),
      update: api.update.bind(api),
    });
    const options = { client, node: 'n1', pools: () => [V4], log: silentLogger };
    const allocator = new Allocator(options);
    addresses(await allocator.allocate(request('first')));
    const adding = allocator.allocate(request('a'));
    isSlow = true;
    const reading = allocator.allocations();
    const [address] = addresses(await adding);
    gate.resolve();
    await reading;
    assert.deepEqual(await allocator.release('a'), [address]);
  });

  test('release() by handle is idempotent and starts the cool-down', async () => {
    const { clock, allocator } = setup([pool('one', '192.0.2.0/32', 32)]);
    const [address] = addresses(await allocator.allocate(request('a')));
    assert.deepEqual(await allocator.release('a'), [address]);
    assert.deepEqual(await allocator.release('a'), []);
    const cooling = await allocator.allocate(request('b'));
    assert.ok(cooling.kind === 'exhausted');
    assert.match(cooling.message, /1 released moments ago/);
    clock.advance(30_000);
    assert.deepEqual(addresses(await allocator.allocate(request('b'))), [address]);
  });

  test('release() of an earlier life does not touch the later one', async () => {
    const { clock, allocator } = setup([pool('one', '192.0.2.0/32', 32)]);
    const old = await allocator.allocate(request('a'));
    assert.ok(old.kind === 'allocated');
    await allocator.release('a');
    clock.advance(30_000);
    addresses(await allocator.allocate(request('a')));
    assert.deepEqual(await allocator.release('a', old.addresses), []);
    assert.equal((await allocator.allocations()).length, 1);
  });

  test('gives requested addresses, and refuses what is used, foreign or in no pool', async () => {
    const { allocator } = setup([V4, V6]);
    const requested = [ip('192.0.2.9'), ip('2001:db8::42')];
    assert.deepEqual(addresses(await allocator.allocate(request('a', { requested }))), requested);
    const refusal = async (from: Allocator, address: string) => {
      const result = await from.allocate(request('b', { requested: [ip(address)] }));
      assert.ok(result.kind === 'refused', result.kind);
      return result.message;
    };
    assert.match(await refusal(allocator, '192.0.2.9'), /in use by "a"/);
    assert.match(await refusal(allocator, '203.0.113.1'), /in no enabled IPPool/);
  });

  test("adopts a block that is nobody's before it claims a new one", async () => {
    const { api, allocator } = setup();
    api.put(IP_BLOCK, newBlock({ cidr: cidr('192.0.2.252/30'), pool: 'v4', node: '' }));
    assert.deepEqual(addresses(await allocator.allocate(request('a'))), ['192.0.2.252']);
    assert.equal(api.objects(IP_BLOCK).length, 1);
  });

  test('goes on with a block that it had claimed and not confirmed when it died', async () => {
    const { api, allocator } = setup();
    api.put(IP_BLOCK, newBlock({ cidr: cidr('192.0.2.0/30'), pool: 'v4', node: 'n1' }));
    assert.deepEqual(addresses(await allocator.allocate(request('a'))), ['192.0.2.0']);
    assert.equal(api.objects(IP_BLOCK)[0]?.spec.affinity, 'Confirmed');
  });

  test('reads a block again that somebody else has changed', async () => {
    const { api, allocator } = setup();
    addresses(await allocator.allocate(request('a')));
    const [block] = api.objects(IP_BLOCK);
    assert.ok(block !== undefined);
    api.put(IP_BLOCK, { ...block, metadata: { ...block.metadata, labels: { touched: 'yes' } } });
    addresses(await allocator.allocate(request('b')));
    assert.equal(api.objects(IP_BLOCK)[0]?.metadata.labels?.touched, 'yes');
    assert.equal((await allocator.allocations()).length, 2);
  });

  test('finds the address of a write whose answer was lost', async () => {
    const { api, allocator } = setup();
    addresses(await allocator.allocate(request('first')));
    const lost = new ApiError(504, 'Timeout', 'the answer was lost');
    api.failNext({ verb: 'update' }, lost, { afterEffect: true });
    await assert.rejects(allocator.allocate(request('a')), /answer was lost/);
    addresses(await allocator.allocate(request('a')));
    assert.equal((await allocator.allocations()).length, 2);
  });

  test('keeps one tunnel address of each family for the node', async () => {
    const { allocator } = setup([V4, V6]);
    const first = addresses(await allocator.tunnelAddress(4));
    assert.deepEqual(addresses(await allocator.tunnelAddress(4)), first);
    assert.notDeepEqual(addresses(await allocator.tunnelAddress(6)), first);
    const [own] = await allocator.allocations();
    assert.equal(own?.allocation.handle, 'vxlan-tunnel-addr-n1');
    assert.equal(own?.allocation.purpose, 'Tunnel');
  });

  test('a disabled pool keeps the addresses of its pods, gives out none, and lets the node go', async () => {
    const old = pool('old', '198.51.100.0/24', 30);
    const pools: IPPool[] = [old];
    const { allocator, api } = setup(pools);
    const [tunnel] = addresses(await allocator.tunnelAddress(4));
    const [kept] = addresses(await allocator.allocate(request('a')));
    pools.splice(0, 1, selecting(old, { disabled: true }), V4);
    assert.deepEqual(addresses(await allocator.allocate(request('a'))), [kept]);
    assert.match(addresses(await allocator.allocate(request('b')))[0] ?? '', /^192\.0\.2\./);
    const [moved = ''] = addresses(await allocator.tunnelAddress(4));
    assert.match(moved, /^192\.0\.2\./);
    assert.deepEqual(addresses(await allocator.tunnelAddress(4)), [moved]);
    const inOld = () =>
      api
        .objects(IP_BLOCK)
        .filter((it) => it.spec.pool === 'old')
        .flatMap((it) => Object.values(it.spec.allocations).map(({ handle }) => handle));
    assert.deepEqual(inOld(), ['a'], `${tunnel} is given back`);
    assert.deepEqual(await allocator.release('a'), [kept]);
    assert.equal((await allocator.emptyBlocks()).length, 1);
  });

  test('serves calls at the same time one after the other', async () => {
    const { allocator } = setup();
    const results = await Promise.all(
      Array.from({ length: 20 }, (_, i) => allocator.allocate(request(`h${i}`))),
    );
    assert.equal(new Set(results.flatMap(addresses)).size, 20);
  });
});
