import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { IP_POOL } from '#api/tulle/v1alpha1/ip-pool.ts';
import { startCache } from '#client/cache.ts';
import { FakeApi } from '#client/fake.ts';
import { silentLogger } from '#lib/log.ts';
import { until } from '#lib/testing/until.ts';
import { FakeNftables } from '#linux/nftables/fake.ts';
import { Ruleset } from '../ruleset.ts';
import { MASQUERADE_PART, Masquerade } from './masquerade.ts';

const log = silentLogger;

test('Masquerade follows pools and the file, and keeps what it had when the file is wrong', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'tulle-masquerade-'));
  const file = join(directory, 'ip-masq-agent');
  const api = new FakeApi();
  const pool = (name: string, cidr: string) =>
    api.put(IP_POOL, {
      apiVersion: 'tulle.dev/v1alpha1',
      kind: 'IPPool',
      metadata: { name },
      spec: { cidr },
    });
  pool('a', '10.244.0.0/16');
  const nftables = new FakeNftables();
  const content = (set: string) =>
    nftables
      .dumpTable('ip', 'tulle')
      ?.sets.find((candidate) => candidate.set === set)
      ?.elements.filter((element) => !element.intervalEnd)
      .map((element) => element.key.join('.'))
      .sort()
      .join();
  try {
    await using pools = startCache(api, IP_POOL, { log });
    await using ruleset = new Ruleset(
      { nftables, log },
      { family: 'ip', table: 'tulle', parts: [MASQUERADE_PART] },
    );
    await using masquerade = new Masquerade({ rulesets: [ruleset], pools, log }, { file });
    await masquerade.start();
    assert.deepEqual([content('pod-networks'), content('exempt-networks')], ['10.244.0.0', '']);
    pool('b', '10.245.0.0/16');
    await until(() => content('pod-networks') === '10.244.0.0,10.245.0.0');
    writeFileSync(file, 'nonMasqueradeCIDRs: [192.168.0.0/16]\nmasqLinkLocal: true\n');
    await until(() => content('exempt-networks') === '192.168.0.0');
    writeFileSync(file, 'nonMasqueradeCIDRs: nonsense\n');
    await until(() => masquerade.problem !== undefined);
    assert.equal(content('exempt-networks'), '192.168.0.0');
    rmSync(file);
    await until(() => content('exempt-networks') === '');
    assert.equal(masquerade.problem, undefined);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
