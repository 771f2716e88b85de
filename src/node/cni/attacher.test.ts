/** Failures of the kernel in the middle of things; what works is tried in `attacher.kernel.test.ts`. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { FakeClock } from '#lib/clock.ts';
import { ENOBUFS } from '#lib/errors.ts';
import { ip } from '#lib/ip.ts';
import { ROUTE_PROTOCOL } from '#lib/kernel-objects.ts';
import { silentLogger } from '#lib/log.ts';
import { Lull } from '#lib/lull.ts';
import { FakeNetwork } from '#linux/network/fake.ts';
import { parseCniRequest } from '#wire/cni/request.ts';
import { Attacher, type AttacherOptions } from './attacher.ts';
import { AttachmentRecords } from './records.ts';
import type { AddRequest } from './target.ts';
import { TestAddresses } from './test-addresses.ts';

const NETNS = '/run/netns/c1';

class Machine implements AsyncDisposable {
  readonly network = new FakeNetwork();
  readonly addresses = new TestAddresses();
  readonly directory = mkdtempSync(join(tmpdir(), 'tulle-attacher-'));
  readonly host = this.network.open();
  readonly options: AttacherOptions = {
    host: this.host,
    openStack: this.network.open,
    records: new AttachmentRecords(this.directory, silentLogger),
    addresses: this.addresses,
    mtuBytes: () => 1450,
    dns: { nameservers: [], clusterDomain: 'cluster.local' },
    log: silentLogger,
    netnsIdentity: (path) => path,
  };
  readonly attacher = new Attacher(this.options);

  constructor() {
    this.network.addNamespace(NETNS);
  }

  /** What the kernel has now, and of the rest what stays. */
  async leftovers(attacher = this.attacher): Promise<unknown> {
    const links = this.host.links.list().map((it) => it.name);
    await attacher.undone();
    return {
      links,
      addresses: this.addresses.given.size,
      records: readdirSync(this.directory),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.attacher[Symbol.asyncDispose]();
    rmSync(this.directory, { recursive: true });
  }
}

const ENV = { CNI_CONTAINERID: 'c1', CNI_NETNS: NETNS, CNI_IFNAME: 'eth0', CNI_PATH: '/bin' };
const STDIN = JSON.stringify({ cniVersion: '1.1.0', name: 'tulle' });
const ADD = parseCniRequest({ ...ENV, CNI_COMMAND: 'ADD' }, STDIN) as AddRequest;
const NOTHING = { links: ['lo'], addresses: 0, records: [] };

/** @returns the destinations of its routes */
async function linkIsMade(machine: Machine): Promise<string[]> {
  for (;;) {
    const routes = machine.host.routes.list({ protocol: ROUTE_PROTOCOL });
    if (routes.length === 2) return routes.map(({ destination }) => destination);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe('Attacher', () => {
  for (const op of [
    /create /,
    /set sysctl .*conf/,
    /set sysctl .*proxy_delay/,
    /add address/,
    /neighbour/,
    /route .*192\.0\.2\.1/,
    /route .*0\.0\.0\.0\/0/,
  ])
    test(`ADD leaves nothing behind when the kernel refuses ${op}`, async () => {
      await using machine = new Machine();
      machine.network.failNext(op, ENOBUFS);
      await assert.rejects(machine.attacher.add(ADD), /ENOBUFS/);
      assert.deepEqual(await machine.leftovers(), NOTHING);
      await machine.attacher.add(ADD);
      assert.equal(machine.attacher.list().length, 1);
    });

  test('DEL goes on in the background when the kernel refuses to delete the link', async () => {
    await using machine = new Machine();
    await machine.attacher.add(ADD);
    machine.network.failNext(/delete link/, ENOBUFS);
    await machine.attacher.delete({ ...ADD, command: 'DEL' });
    assert.equal(machine.addresses.given.size, 1, 'the address is kept while the link has it');
    await machine.attacher.undone();
    assert.deepEqual(await machine.leftovers(), NOTHING);
  });

  test('DEL is answered before the address goes back; who asks for the same container has it back at once', async () => {
    await using machine = new Machine();
    const lull = new Lull(new FakeClock());
    lull.begin();
    const { given } = machine.addresses;
    await using attacher = new Attacher({ ...machine.options, lull });
    const told: boolean[] = [];
    attacher.onEach((_, isComplete) => told.push(isComplete));
    await attacher.add(ADD);
    assert.deepEqual(told, [false, true], 'at once, in the middle of calls');
    await attacher.delete({ ...ADD, command: 'DEL' });
    assert.deepEqual(told, [false, true, false]);
    assert.deepEqual([given.size, attacher.list(), attacher.handles().length], [1, [], 1]);
    // The clock stands still: nothing but this call can end the waiting.
    await attacher.add(ADD);
    assert.deepEqual([given.size, attacher.list().length], [1, 1]);
    await attacher.delete({ ...ADD, command: 'DEL' });
    await attacher[Symbol.asyncDispose]();
    assert.deepEqual(await machine.leftovers(), NOTHING);
  });

  test('tells listeners of attachments that come and go', async () => {
    await using machine = new Machine();
    const counts: number[] = [];
    let wake = () => {};
    machine.attacher.onChange(() => {
      counts.push(machine.attacher.list().length);
      wake();
    });
    const told = () =>
      new Promise<void>((resolve) => {
        wake = resolve;
      });
    const first = told();
    await machine.attacher.add(ADD);
    await first;
    await machine.attacher.add(ADD);
    const second = told();
    await machine.attacher.delete({ ...ADD, command: 'DEL' });
    await second;
    assert.deepEqual(counts, [1, 0]);
  });

  test('makes the link while the address is being written, and answers when both are done', async () => {
    await using machine = new Machine();
    const write = Promise.withResolvers<void>();
    machine.addresses.write = write.promise;
    const answer = machine.attacher.add(ADD);
    await linkIsMade(machine);
    assert.deepEqual(machine.attacher.list(), []);
    const early = await Promise.race([answer, new Promise((go) => setImmediate(go, 'not yet'))]);
    assert.equal(early, 'not yet');
    write.resolve();
    const { ips } = await answer;
    assert.deepEqual(
      ips.map(({ address }) => address.split('/')[0]),
      machine.addresses.given.get('tulle.c1.eth0')?.map(({ address }) => address),
    );
  });

  test('leaves nothing of a link whose address could not be written', async () => {
    await using machine = new Machine();
    const write = Promise.withResolvers<void>();
    machine.addresses.write = write.promise;
    const answer = machine.attacher.add(ADD);
    await linkIsMade(machine);
    write.reject(new Error('the API is away'));
    await assert.rejects(answer, /cannot allocate an address now/);
    assert.deepEqual(await machine.leftovers(), NOTHING);
  });

  test('makes the link anew when its address was overtaken by another', async () => {
    await using machine = new Machine();
    const write = Promise.withResolvers<void>();
    machine.addresses.write = write.promise;
    machine.addresses.isOvertaken = true;
    const answer = machine.attacher.add(ADD);
    const chosen = await linkIsMade(machine);
    write.resolve();
    const { ips } = await answer;
    const given = ips.map(({ address }) => address);
    const routed = machine.host.routes
      .list({ protocol: ROUTE_PROTOCOL })
      .map(({ destination }) => destination);
    assert.deepEqual(routed.sort(), given.toSorted());
    assert.ok(!routed.some((it) => chosen.includes(it)), `${routed} has none of ${chosen}`);
  });

  test('an agent that dies between link and address leaves nothing to the next', async () => {
    await using machine = new Machine();
    machine.addresses.write = new Promise(() => {});
    void machine.attacher.add(ADD);
    await linkIsMade(machine);
    machine.addresses.write = undefined;
    await using next = new Attacher({
      ...machine.options,
      records: new AttachmentRecords(machine.directory, silentLogger),
    });
    next.recover();
    assert.deepEqual(await machine.leftovers(next), NOTHING);
  });

  test('answers DEL when the link is gone, and gives the address back whenever the API comes', async () => {
    await using machine = new Machine();
    await machine.attacher.add(ADD);
    const api = Promise.withResolvers<void>();
    machine.addresses.released = api.promise;
    await machine.attacher.delete({ ...ADD, command: 'DEL' });
    assert.deepEqual(
      machine.host.links.list().map((it) => it.name),
      ['lo'],
    );
    assert.deepEqual(machine.attacher.list(), []);
    assert.equal(machine.addresses.given.size, 1);
    assert.deepEqual(readdirSync(machine.directory), ['tulle.c1.eth0.json']);
    // The next life waits for the end of the last.
    const again = machine.attacher.add(ADD);
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(machine.addresses.given.size, 1);
    api.resolve();
    await again;
    assert.equal(machine.attacher.list().length, 1);
  });

  test('who asks for an address whose DEL was just answered waits until it is back', async () => {
    await using machine = new Machine();
    await machine.attacher.add(ADD);
    const api = Promise.withResolvers<void>();
    machine.addresses.released = api.promise;
    await machine.attacher.delete({ ...ADD, command: 'DEL' });
    machine.addresses.refusal = {
      kind: 'refused',
      address: ip('192.0.2.1'),
      message: 'it is in use',
    };
    const other = machine.attacher.add({ ...ADD, containerId: 'c2' });
    await new Promise((resolve) => setImmediate(resolve));
    machine.addresses.refusal = undefined;
    api.resolve();
    await other;
    assert.deepEqual([...machine.addresses.given.keys()], ['tulle.c2.eth0']);
  });

  test('calls for one attachment at the same time do not meet', async () => {
    await using machine = new Machine();
    const del = () => machine.attacher.delete({ ...ADD, command: 'DEL' });
    await Promise.all([machine.attacher.add(ADD), del(), machine.attacher.add(ADD), del()]);
    assert.deepEqual(await machine.leftovers(), NOTHING);
  });
});
