import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ip } from '#lib/ip.ts';
import {
  hostUpstreams,
  parseNameservers,
  RESOLV_CONF,
  RESOLVED_RESOLV_CONF,
} from './resolv-conf.ts';

function upstreamsOf(files: Record<string, string>, own: readonly string[] = []): string[] {
  const readText = (path: string) => {
    const text = files[path];
    if (text === undefined) throw Object.assign(new Error('no such file'), { code: 'ENOENT' });
    return text;
  };
  return hostUpstreams({ own: own.map(ip), readText }).map((u) => u.address);
}

test('parseNameservers() reads the nameserver lines and nothing else', () => {
  const text =
    '# nameserver 192.0.2.1\n; nameserver 192.0.2.2\nsearch a b\n  nameserver 192.0.2.3 # x\nnameserver\tfe80::1%eth0\nnameserver bogus\nnameserver\noptions ndots:5\r\n';
  assert.deepEqual(parseNameservers(text), ['192.0.2.3', 'fe80::1%eth0']);
  assert.deepEqual(parseNameservers(''), []);
});

test('hostUpstreams() takes the first three name servers, each once', () => {
  const text = ['1', '2', '1', '3', '4'].map((n) => `nameserver 192.0.2.${n}`).join('\n');
  assert.deepEqual(upstreamsOf({ [RESOLV_CONF]: text }), ['192.0.2.1', '192.0.2.2', '192.0.2.3']);
});

test('hostUpstreams() looks behind the stub of systemd-resolved', () => {
  const stub = { [RESOLV_CONF]: 'nameserver 127.0.0.53\n' };
  assert.deepEqual(upstreamsOf({ ...stub, [RESOLVED_RESOLV_CONF]: 'nameserver 192.0.2.9\n' }), [
    '192.0.2.9',
  ]);
  assert.deepEqual(upstreamsOf(stub), ['127.0.0.53']);
});

test('hostUpstreams() never names ourselves', () => {
  const text = 'nameserver 10.96.0.10\nnameserver 192.0.2.1\n';
  assert.deepEqual(upstreamsOf({ [RESOLV_CONF]: text }, ['10.96.0.10']), ['192.0.2.1']);
});

test('hostUpstreams() is empty on a host without resolv.conf, and throws what else goes wrong', () => {
  assert.deepEqual(upstreamsOf({}), []);
  const readText = () => {
    throw Object.assign(new Error('permission denied'), { code: 'EACCES' });
  };
  assert.throws(() => hostUpstreams({ own: [], readText }), /permission denied/);
});
