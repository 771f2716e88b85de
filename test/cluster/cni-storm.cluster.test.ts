/**
 * A storm of ADD and DEL on one lab machine while its agent is killed again and again: no address is given twice, none
 * is lost, and nothing is left behind.
 *
 * TULLE_STORM_CALLS sets how many containers come and go; 1,000 take minutes, so the default is less.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { NODE } from '#api/core/v1/node.ts';
import { IP_BLOCK } from '#api/tulle/v1alpha1/ip-block.ts';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { findAddressProblems } from '#cli/ipam-report.ts';
import { LabCluster, until } from '#lab/cluster.ts';
import { Lab } from '#lab/lab.ts';
import type { Machine } from '#lab/machine.ts';

const CONTAINERS = Number(process.env.TULLE_STORM_CALLS ?? 60);
const AT_ONCE = 8;
/** One death for so many containers. */
const CONTAINERS_PER_DEATH = 12;
const WAIT_MS = 60_000;
/** For the set-up, and for each container on a busy machine. */
const TIMEOUT_MS = 220_000 + CONTAINERS * 1_500;
const NAME = 'test-cni-storm';

describe('a storm of ADD and DEL with an agent that dies', () => {
  let lab: Lab;
  let cluster: LabCluster;
  let machine: Machine;

  before(async () => {
    await Lab.remove(NAME);
    lab = await Lab.create({ name: NAME, machines: 1 });
    cluster = new LabCluster(lab);
    machine = lab.machine('m1');
    await cluster.startServer();
    await cluster.startAgent(machine);
    await cluster.nodesReady();
  });
  after(() => Lab.remove(NAME));

  /** As a runtime does it: again while the answer is "try again later". */
  async function call(command: string, name: string): Promise<{ ips?: { address: string }[] }> {
    const argv = ['env', `CNI_COMMAND=${command}`, `CNI_CONTAINERID=${name}`, 'CNI_IFNAME=eth0'];
    argv.push(`CNI_NETNS=/run/netns/${name}`, 'CNI_PATH=/opt/cni/bin', '/opt/cni/bin/tulle');
    const input = JSON.stringify({ cniVersion: '1.0.0', name: 'tulle', type: 'tulle' });
    for (const end = Date.now() + WAIT_MS; ; ) {
      const { exitCode, stdout } = await machine.run(argv, { input, timeoutMs: WAIT_MS });
      if (exitCode === 0) return stdout === '' ? {} : JSON.parse(stdout);
      const { code } = JSON.parse(stdout) as { code: number };
      if (code !== 11 || Date.now() > end) throw new Error(`${command} ${name}: ${stdout}`);
    }
  }

  test(`${CONTAINERS} containers come and go and leave nothing`, {
    timeout: TIMEOUT_MS,
  }, async () => {
    const holders = new Map<string, string>();
    let started = 0;
    let deaths = 0;
    const live = async () => {
      while (started < CONTAINERS) {
        const name = `s${started++}`;
        await machine.runOk(['ip', 'netns', 'add', name]);
        const { ips = [] } = await call('ADD', name);
        assert.equal(ips.length > 0, true, `${name} has an address`);
        for (const { address } of ips) {
          assert.equal(holders.get(address), undefined, `${address} is given twice`);
          holders.set(address, name);
        }
        if (started % 3 !== 0) await call('ADD', name);
        // From here the address may be another's.
        for (const { address } of ips) holders.delete(address);
        await call('DEL', name);
        if (started % 4 === 0) await call('DEL', name);
        await machine.runOk(['ip', 'netns', 'del', name]);
      }
    };
    const die = async () => {
      while (started < CONTAINERS) {
        const next = started + Math.ceil(Math.random() * CONTAINERS_PER_DEATH * 2);
        await until(
          'more containers came',
          WAIT_MS,
          async () => started >= Math.min(next, CONTAINERS),
        );
        await cluster.killAgent(machine);
        await cluster.startAgent(machine);
        deaths++;
      }
    };
    await Promise.all([...Array.from({ length: AT_ONCE }, live), die()]);
    assert.ok(deaths > 0);
    await cluster.nodesReady();
    const read = async () => ({
      pools: (await cluster.client.list(IP_POOL)).items,
      blocks: (await cluster.client.list(IP_BLOCK)).items,
      nodes: (await cluster.client.list(NODE)).items,
      pods: [],
    });
    await until('all addresses of pods are back', WAIT_MS, async () =>
      (await read()).blocks.every(({ spec }) =>
        Object.values(spec.allocations).every((it) => it.purpose !== 'Pod'),
      ),
    );
    assert.deepEqual(findAddressProblems(await read()), []);
    const links = await machine.runOk(['ip', '-o', 'link']);
    assert.doesNotMatch(links, /: tl/);
    for (const family of ['ip', 'ip6'])
      for (const set of ['map pod-links', 'set pod-sources'])
        assert.doesNotMatch(
          await machine.runOk(['nft', 'list', ...set.split(' ').toSpliced(1, 0, family, 'tulle')]),
          /elements/,
        );
    const routes = await machine.runOk(['ip', 'route', 'show', 'proto', '84']);
    assert.doesNotMatch(routes, /dev tl/);
    assert.doesNotMatch(readFileSync(machine.logFile('agent'), 'utf8'), /"level":50/);
  });
});
