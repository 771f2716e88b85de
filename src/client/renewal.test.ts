import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { FakeClock } from '#lib/clock.ts';
import { silentLogger } from '#lib/log.ts';
import { isDue, startRenewal } from './renewal.ts';
import { makeTestTls } from './test-tls.ts';

const HOUR_MS = 3_600_000;

test('startRenewal() renews in the last third of a life, and again after a failure', async () => {
  const { client } = await makeTestTls();
  const { validFromDate, validToDate } = new X509Certificate(client.cert);
  const lifeMs = validToDate.getTime() - validFromDate.getTime();
  const clock = new FakeClock(validFromDate.getTime());
  const tries: number[] = [];
  await using renewal = startRenewal({
    ...{ what: 'a test', certificatePem: client.cert, log: silentLogger, clock },
    async renew() {
      tries.push((clock.now() - validFromDate.getTime()) / lifeMs);
      if (tries.length === 1) throw new Error('the server is away');
      return client.cert;
    },
  });
  const pass = async (ms: number) => {
    for (let left = ms; left > 0; left -= HOUR_MS) {
      clock.advance(HOUR_MS);
      for (let turn = 0; turn < 6; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
  };
  await pass(lifeMs * 0.66);
  assert.deepEqual(tries, []);
  await pass(lifeMs * 0.02);
  assert.ok(tries.length >= 2, String(tries));
  assert.ok(tries.every((at) => at > 0.66));
  assert.ok(renewal !== undefined);
});

test('isDue() holds for what has run out', async () => {
  const { client } = await makeTestTls();
  const certificate = new X509Certificate(client.cert);
  assert.equal(isDue(certificate, certificate.validToDate.getTime() + 1), true);
});
