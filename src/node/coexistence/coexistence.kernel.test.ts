/** Our rules in other programs' firewalls, read back by those programs themselves. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import { ScratchNetns } from '#linux/testing/scratch-netns.ts';
import { Coexistence, removeFromOthers } from './coexistence.ts';

const log = silentLogger;

async function setUp(firewall: string, isOpening = true) {
  const cleanup = new AsyncDisposableStack();
  const netns = cleanup.use(new ScratchNetns());
  const sh = (script: string) => netns.run('sh', '-e', '-c', script);
  sh(firewall);
  const api = new FakeApi();
  const pool = (name: string, cidr: string) =>
    api.put(IP_POOL, {
      ...{ apiVersion: 'tulle.dev/v1alpha1', kind: 'IPPool', metadata: { name } },
      spec: { cidr },
    });
  pool('a', '10.244.0.0/16');
  pool('b', 'fd00:10:244::/56');
  const nftables = cleanup.use(openNftables({ netns: netns.path }));
  const pools = cleanup.use(startCache(api, IP_POOL, { log }));
  const coexistence = cleanup.use(new Coexistence({ nftables, pools, log, isOpening }));
  await coexistence.start();
  return { sh, pool, nftables, coexistence, [Symbol.asyncDispose]: () => cleanup.disposeAsync() };
}

/** As Docker makes them, in its order. */
const DOCKER = `iptables -P FORWARD DROP
  iptables -N DOCKER; iptables -N DOCKER-ISOLATION-STAGE-1; iptables -N DOCKER-USER
  iptables -A FORWARD -o docker0 -j DOCKER
  iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
  iptables -I FORWARD -j DOCKER-ISOLATION-STAGE-1
  iptables -I FORWARD -j DOCKER-USER`;

test('Coexistence opens a FORWARD chain that drops, and iptables can read what it wrote', async () => {
  await using world = await setUp(DOCKER);
  assert.deepEqual(world.coexistence.status(), { opened: ['ip filter FORWARD'], problems: [] });
  const rules = world.sh('iptables -S');
  assert.match(rules, /-A FORWARD -j TULLE-FORWARD\n-A FORWARD -j DOCKER-USER/);
  assert.match(rules, /-A TULLE-FORWARD -s 10\.244\.0\.0\/16 .*-j ACCEPT/);
  assert.match(rules, /-A TULLE-FORWARD -d 10\.244\.0\.0\/16 .*-j ACCEPT/);
  // And write it back.
  world.sh('iptables-save | iptables-restore');
  await until(() => world.sh('iptables -S') === rules);
});

test('Coexistence opens INPUT for tunnels and the pods’ DNS, in both families', async () => {
  await using world = await setUp('iptables -P INPUT DROP; ip6tables -P INPUT DROP');
  for (const [program, pods] of [
    ['iptables', '10.244.0.0/16'],
    ['ip6tables', 'fd00:10:244::/56'],
  ] as const) {
    const rules = world.sh(`${program} -S TULLE-INPUT`);
    assert.match(rules, /-p udp .*--dport 4789 .*-j ACCEPT/);
    assert.match(rules, new RegExp(`-s ${pods} -p udp .*--dport 53 .*-j ACCEPT`));
    assert.match(rules, new RegExp(`-s ${pods} -p tcp .*--dport 53 .*-j ACCEPT`));
  }
});

test('Coexistence leaves alone what lets everything pass', async () => {
  await using world = await setUp('iptables -L; ip6tables -L');
  assert.deepEqual(world.coexistence.status().opened, []);
  assert.doesNotMatch(world.sh('iptables-save; ip6tables-save'), /TULLE/);
});

for (const [what, damage] of [
  ['flushed', 'iptables -F FORWARD'],
  ['flushed completely', 'iptables -F'],
  ['rid of our rules', 'iptables -F TULLE-FORWARD'],
  ['changed in our chain', 'iptables -I TULLE-FORWARD -j DROP'],
  ['made anew', `nft delete table ip filter; ${DOCKER}`],
] as const)
  test(`Coexistence opens the chain again when it is ${what}`, async () => {
    await using world = await setUp(DOCKER);
    const before = world.sh('iptables -S TULLE-FORWARD');
    world.sh(damage);
    await until(() => {
      const rules = world.sh('iptables -S TULLE-FORWARD 2>&1 || true');
      return rules === before && world.sh('iptables -S').includes('-A FORWARD -j TULLE-FORWARD');
    });
  });

test('Coexistence opens a firewall that comes later, follows the pools, and goes without a trace', async () => {
  await using world = await setUp('true');
  world.sh(`nft add table inet firewalld
    nft 'add chain inet firewalld filter_FORWARD { type filter hook forward priority filter + 10; }'
    nft add rule inet firewalld filter_FORWARD reject with icmpx admin-prohibited`);
  const chain = () => world.sh('nft list table inet firewalld');
  await until(() => chain().includes('jump TULLE-FORWARD'));
  world.pool('c', '10.99.0.0/16');
  await until(() => chain().includes('ip daddr 10.99.0.0/16'));
  assert.match(chain(), /ip6 saddr fd00:10:244::\/56/);
  assert.match(chain(), /counter packets 0 bytes 0 jump TULLE-FORWARD\n\s*reject/);
  await world.coexistence[Symbol.asyncDispose]();
  assert.deepEqual(removeFromOthers(world.nftables), [
    'nftables chain inet firewalld TULLE-FORWARD',
  ]);
  assert.doesNotMatch(chain(), /TULLE/);
  assert.match(chain(), /reject/);
});

test('Coexistence that is switched off takes its rules out, puts none back, and names what drops', async () => {
  const ours = `${DOCKER}
    iptables -N TULLE-FORWARD; iptables -A TULLE-FORWARD -s 10.244.0.0/16 -j ACCEPT
    iptables -I FORWARD -j TULLE-FORWARD`;
  await using world = await setUp(ours, false);
  const { opened, problems } = world.coexistence.status();
  assert.deepEqual(opened, []);
  assert.match(problems.join(), /chain "FORWARD" of nftables table "ip filter" drops forwarded/);
  const rules = world.sh('iptables -S');
  assert.doesNotMatch(rules, /TULLE/);
  world.sh('iptables -P FORWARD ACCEPT');
  await until(() => world.coexistence.status().problems.length === 0);
  assert.equal(world.sh('iptables -S').replace('FORWARD ACCEPT', 'FORWARD DROP'), rules);
});

test('Coexistence names a firewall that is somebody’s own, and does not touch it', async () => {
  await using world = await setUp('true');
  world.sh(`nft add table inet mine
    nft 'add chain inet mine through { type filter hook forward priority 0; policy drop; }'`);
  await until(() => world.coexistence.status().problems.length > 0);
  assert.match(
    world.coexistence.status().problems.join(),
    /chain "through" of nftables table "inet mine" drops forwarded packets by policy/,
  );
  assert.doesNotMatch(world.sh('nft list ruleset'), /TULLE/);
});
