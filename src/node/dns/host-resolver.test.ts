import assert from 'node:assert/strict';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { HostResolver, releaseHostResolver } from './host-resolver.ts';
import { hostUpstreams } from './resolv-conf.ts';

const SERVER = ip('169.254.20.10');
const folder = mkdtempSync(join(tmpdir(), 'tulle-host-resolver-'));
after(() => rmSync(folder, { recursive: true }));
let count = 0;

function machine() {
  const root = join(folder, String(count++));
  mkdirSync(root);
  const paths = {
    resolvConf: join(root, 'resolv.conf'),
    resolvedDropIn: join(root, 'resolved.conf.d', 'tulle.conf'),
    resolvedSettings: [join(root, 'resolved.conf'), join(root, 'resolved.conf.d')],
    record: join(root, 'data', 'before.json'),
  };
  const calls = { reloads: 0, ready: true };
  const options = { paths, reloadResolved: async () => void calls.reloads++ };
  const start = () =>
    new HostResolver({
      ...options,
      server: SERVER,
      domain: 'cluster.local',
      isReady: () => calls.ready,
      log: silentLogger,
      intervalMs: 1_000_000,
    });
  return { root, paths, options, calls, start, text: () => readFileSync(paths.resolvConf, 'utf8') };
}

const OLD = 'search example.com\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions edns0\n';

test('HostResolver puts the server first, keeps the rest, and gives the file back to the octet', async () => {
  const { paths, start, text } = machine();
  writeFileSync(paths.resolvConf, OLD, { mode: 0o640 });
  const resolver = start();
  await resolver.sync();
  assert.match(text(), /^#.*\n#.*\nnameserver 169\.254\.20\.10\nsearch example\.com\n/);
  assert.ok(text().endsWith(OLD));
  // Outside names are asked where they were asked before: never at ourselves.
  const upstreams = hostUpstreams({ own: [SERVER], readText: text });
  assert.deepEqual(
    upstreams.map(({ address }) => address),
    ['192.0.2.1', '192.0.2.2'],
  );
  await resolver[Symbol.asyncDispose]();
  assert.equal(text(), OLD);
  assert.equal(lstatSync(paths.resolvConf).mode & 0o777, 0o640);
  assert.ok(!existsSync(paths.record));
});

test('HostResolver touches nothing before the server answers', async () => {
  const { paths, calls, start, text } = machine();
  writeFileSync(paths.resolvConf, OLD);
  calls.ready = false;
  await using resolver = start();
  await resolver.sync();
  assert.equal(text(), OLD);
  calls.ready = true;
  await resolver.sync();
  assert.notEqual(text(), OLD);
});

test('HostResolver follows what a link leads to, and puts the link back', async () => {
  const { root, paths, start, text } = machine();
  writeFileSync(join(root, 'dhcp.conf'), OLD);
  symlinkSync('dhcp.conf', paths.resolvConf);
  const resolver = start();
  await resolver.sync();
  assert.ok(text().endsWith(OLD));
  assert.equal(readFileSync(join(root, 'dhcp.conf'), 'utf8'), OLD);
  writeFileSync(join(root, 'dhcp.conf'), 'nameserver 192.0.2.9\n');
  await resolver.sync();
  assert.match(text(), /nameserver 169\.254\.20\.10\nnameserver 192\.0\.2\.9\n/);
  await resolver[Symbol.asyncDispose]();
  assert.equal(readlinkSync(paths.resolvConf), 'dhcp.conf');
});

test('HostResolver takes a file again that somebody has written anew, and gives back the new one', async () => {
  const { paths, start, text } = machine();
  writeFileSync(paths.resolvConf, OLD);
  const resolver = start();
  await resolver.sync();
  writeFileSync(paths.resolvConf, 'nameserver 192.0.2.9\n');
  await resolver.sync();
  assert.match(text(), /nameserver 169\.254\.20\.10\nnameserver 192\.0\.2\.9\n/);
  await resolver[Symbol.asyncDispose]();
  assert.equal(text(), 'nameserver 192.0.2.9\n');
});

test('what an agent left that was killed is given back by the next one, and by releaseHostResolver()', async () => {
  const { paths, options, start, text } = machine();
  writeFileSync(paths.resolvConf, OLD);
  const killed = start();
  await killed.sync();
  const next = start();
  await next.sync();
  await next.sync();
  assert.equal(text().match(/169\.254\.20\.10/g)?.length, 1);
  assert.deepEqual(await releaseHostResolver(options, SERVER), [
    `our name server from ${paths.resolvConf}`,
  ]);
  assert.equal(text(), OLD);
  assert.deepEqual(await releaseHostResolver(options, SERVER), []);
  assert.equal(text(), OLD);
});

test('releaseHostResolver() leaves a file that is not ours, and does without a record', async () => {
  const { paths, options, start, text } = machine();
  writeFileSync(paths.resolvConf, OLD);
  await start().sync();
  rmSync(paths.record);
  await releaseHostResolver(options, SERVER);
  assert.equal(text(), OLD);
  await start().sync();
  writeFileSync(paths.resolvConf, 'nameserver 192.0.2.9\n');
  await releaseHostResolver(options, SERVER);
  assert.equal(text(), 'nameserver 192.0.2.9\n');
});

test('HostResolver tells systemd-resolved by a drop-in where its stub is used, once', async () => {
  const { paths, calls, start, text } = machine();
  const stub = 'nameserver 127.0.0.53\noptions trust-ad\n';
  writeFileSync(paths.resolvConf, stub);
  const resolver = start();
  await resolver.sync();
  await resolver.sync();
  assert.equal(text(), stub);
  assert.match(
    readFileSync(paths.resolvedDropIn, 'utf8'),
    /\[Resolve\]\nDNS=169\.254\.20\.10\nDomains=~cluster\.local\n/,
  );
  assert.equal(calls.reloads, 1);
  await resolver[Symbol.asyncDispose]();
  assert.ok(!existsSync(paths.resolvedDropIn));
  assert.equal(calls.reloads, 2);
});

test('HostResolver comes before the stub of a systemd-resolved whose files name servers, which it would ask for all', async () => {
  const { root, paths, calls, start, text } = machine();
  const stub = 'nameserver 127.0.0.53\n';
  writeFileSync(paths.resolvConf, stub);
  writeFileSync(join(root, 'resolved.conf'), '[Resolve]\n#DNS=192.0.2.1\nDNS=\n');
  const resolver = start();
  await resolver.sync();
  assert.ok(existsSync(paths.resolvedDropIn), 'they name none');
  writeFileSync(join(root, 'resolved.conf.d', 'theirs.conf'), '[Resolve]\nDNS = 192.0.2.1\n');
  await resolver.sync();
  await resolver.sync();
  assert.ok(!existsSync(paths.resolvedDropIn));
  assert.equal(calls.reloads, 2);
  assert.match(text(), /nameserver 169\.254\.20\.10\nnameserver 127\.0\.0\.53\n$/);
  await resolver[Symbol.asyncDispose]();
  assert.equal(text(), stub);
});

test('HostResolver says why it cannot, and goes on', async () => {
  const { paths, start } = machine();
  mkdirSync(paths.resolvConf);
  await using resolver = start();
  await resolver.sync();
  assert.match(resolver.problem ?? '', /EISDIR|directory/);
  rmSync(paths.resolvConf, { recursive: true });
  await resolver.sync();
  assert.equal(resolver.problem, undefined);
});
