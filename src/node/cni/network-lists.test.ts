import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, test } from 'node:test';
import { conflistText } from './install.ts';
import { isIngressFree } from './network-lists.ts';

const folder = mkdtempSync(join(tmpdir(), 'tulle-lists-'));
const write = (file: string, content: object | string) =>
  writeFileSync(
    join(folder, file),
    typeof content === 'string' ? content : JSON.stringify(content),
  );
const list = (name: string, ...types: string[]) => ({
  cniVersion: '1.0.0',
  name,
  plugins: types.map((type) => ({ type })),
});

beforeEach(() => {
  write('10-tulle.conflist', conflistText());
});
after(() => rmSync(folder, { recursive: true }));

test('the configuration that we install leaves the place to us', () => {
  assert.equal(isIngressFree('tulle', folder), true);
});

test('other plugins may be called with ours, but none that limits, and none that nobody knows', () => {
  write('20-a.conflist', list('a', 'tulle', 'tuning', 'portmap'));
  write('20-b.conflist', list('b', 'tulle', 'bandwidth'));
  write('20-c.conflist', list('c', 'tulle', 'somebody-else'));
  assert.deepEqual(
    ['a', 'b', 'c'].map((name) => isIngressFree(name, folder)),
    [true, false, false],
  );
});

test('of two lists of one name either may be the one that is used', () => {
  write('05-own.conflist', list('tulle', 'tulle', 'bandwidth'));
  assert.equal(isIngressFree('tulle', folder), false);
  rmSync(join(folder, '05-own.conflist'));
  assert.equal(isIngressFree('tulle', folder), true);
});

test('what is not known is not free: no such network, no such folder, no JSON', () => {
  write('30-broken.conflist', '{ "name": "broken"');
  write('30-text.txt', list('text', 'tulle'));
  write('30-null.conf', 'null');
  for (const name of ['broken', 'text', 'none']) assert.equal(isIngressFree(name, folder), false);
  assert.equal(isIngressFree('tulle', join(folder, 'none')), false);
});

test('a configuration of a single plugin counts', () => {
  write('40-single.conf', { cniVersion: '0.4.0', name: 'single', type: 'tulle' });
  assert.equal(isIngressFree('single', folder), true);
});
