/** What every TrafficControl does, run over the fake and over the kernel. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { IfIndex } from '../network/port.ts';
import type { TrafficControl } from './port.ts';

const BUCKET = { rateBytesPerSecond: 1_250_000, burstBytes: 65_536, limitBytes: 96_786 };
/** The kernel keeps the burst as time and rounds it. */
const MAX_ROUNDING = 0.001;

/** @param create gives traffic control and a link of its namespace */
export function trafficControlContract(
  create: () => { tc: TrafficControl; link: IfIndex } & Disposable,
): void {
  test('keeps a limit as it was given, replaces it and ends it', () => {
    using world = create();
    const { tc, link } = world;
    assert.equal(tc.limitOf(link), undefined);
    tc.limit(link, BUCKET);
    const seen = tc.limitOf(link);
    assert.equal(seen?.rateBytesPerSecond, BUCKET.rateBytesPerSecond);
    assert.equal(seen?.limitBytes, BUCKET.limitBytes);
    const off = Math.abs((seen?.burstBytes ?? 0) - BUCKET.burstBytes) / BUCKET.burstBytes;
    assert.ok(off < MAX_ROUNDING, `burst is ${seen?.burstBytes}`);
    tc.limit(link, { ...BUCKET, rateBytesPerSecond: 10_000_000_000 });
    assert.equal(tc.limitOf(link)?.rateBytesPerSecond, 10_000_000_000);
    tc.unlimit(link);
    tc.unlimit(link);
    assert.equal(tc.limitOf(link), undefined);
  });

  test('redirects input to a block, again and again, and ends it', () => {
    using world = create();
    const { tc, link } = world;
    const ifb = tc.createIfb('tli0123456789', 1450);
    assert.equal(tc.createIfb('tli0123456789', 1450), ifb, 'it is found the second time');
    assert.equal(tc.isRedirected(link), false);
    tc.redirect(link, ifb);
    tc.redirect(link, ifb);
    assert.equal(tc.isRedirected(link), true);
    tc.unredirect(link);
    tc.unredirect(link);
    assert.equal(tc.isRedirected(link), false);
  });
}
