/** What every {@link Conntrack} must do: run over the fake and over the kernel. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ip } from '#lib/ip.ts';
import type { ConntrackEntry, ConntrackTuple } from '#wire/conntrack/codec.ts';
import type { Conntrack } from './port.ts';

export interface ConntrackUnderTest extends Disposable {
  readonly conntrack: Conntrack;
  /** Makes an entry as if packets had passed. */
  add(original: ConntrackTuple, reply: ConntrackTuple): void;
}

const UDP = 17;
const TCP = 6;

/** A client's flow to a service's address that went to an endpoint. */
interface Flow {
  readonly client: string;
  readonly service: string;
  readonly endpoint: string;
  readonly protocol?: number;
  readonly clientPort?: number;
}

/** @param create makes an empty table */
export function conntrackContract(name: string, create: () => ConntrackUnderTest): void {
  describe(`${name}: contract of Conntrack`, () => {
    const run = (title: string, body: (under: ConntrackUnderTest) => void) =>
      test(title, () => {
        using under = create();
        body(under);
      });

    run('list() gives both directions of an entry', (under) => {
      add(under, { client: '192.0.2.1', service: '10.96.0.10', endpoint: '10.0.0.5' });
      const [entry] = under.conntrack.list();
      assert.ok(entry !== undefined);
      assert.equal(entry.family, 4);
      assert.deepEqual(entry.original, {
        source: '192.0.2.1',
        destination: '10.96.0.10',
        protocol: UDP,
        sourcePort: 4000,
        destinationPort: 53,
      });
      assert.equal(entry.reply.source, '10.0.0.5');
      assert.equal(entry.reply.sourcePort, 5353);
      assert.ok(entry.timeoutSeconds > 0);
    });

    test('listOnThread() gives what list() gives, and several may be under way', async () => {
      using under = create();
      for (const client of ['192.0.2.1', '192.0.2.2'])
        add(under, { client, service: '10.96.0.10', endpoint: '10.0.0.5' });
      const walks = Array.from({ length: 3 }, () => under.conntrack.listOnThread());
      const clients = (entries: readonly ConntrackEntry[]) =>
        entries.map((entry) => entry.original.source).sort();
      for (const entries of await Promise.all(walks))
        assert.deepEqual(clients(entries), clients(under.conntrack.list()));
      assert.equal(under.conntrack.list().length, 2);
    });

    run('list() filters by family and protocol', (under) => {
      add(under, { client: '192.0.2.1', service: '10.96.0.10', endpoint: '10.0.0.5' });
      add(under, {
        client: '192.0.2.1',
        service: '10.96.0.10',
        endpoint: '10.0.0.5',
        protocol: TCP,
      });
      add(under, { client: '2001:db8::1', service: 'fd00::10', endpoint: 'fd00:1::5' });
      const { conntrack } = under;
      assert.equal(conntrack.list().length, 3);
      assert.deepEqual(
        conntrack.list({ family: 6 }).map((e) => e.original.source),
        ['2001:db8::1'],
      );
      assert.deepEqual(
        conntrack.list({ family: 4, protocol: TCP }).map((e) => e.original.protocol),
        [TCP],
      );
    });

    run('delete() deletes exactly the given entries and accepts that they are gone', (under) => {
      for (const clientPort of [4001, 4002, 4003])
        add(under, {
          client: '192.0.2.1',
          service: '10.96.0.10',
          endpoint: '10.0.0.5',
          clientPort,
        });
      const { conntrack } = under;
      const some = conntrack.list().filter((entry) => entry.original.sourcePort !== 4002);
      assert.equal(conntrack.delete(some), 2);
      assert.equal(conntrack.delete(some), 0);
      assert.deepEqual(
        conntrack.list().map((entry) => entry.original.sourcePort),
        [4002],
      );
    });

    run(
      'delete() takes a tuple without an id, and leaves a newer entry alone with one',
      (under) => {
        const flow = { client: '192.0.2.1', service: '10.96.0.10', endpoint: '10.0.0.5' };
        add(under, flow);
        const { conntrack } = under;
        const [old] = conntrack.list();
        assert.ok(old !== undefined);
        assert.equal(conntrack.delete([{ original: old.original }]), 1);
        add(under, flow);
        const [renewed] = conntrack.list();
        assert.ok(renewed !== undefined);
        const other = { ...renewed, id: (renewed.id ^ 0x5555) >>> 0 };
        assert.equal(conntrack.delete([other]), 0);
        assert.equal(conntrack.delete([renewed]), 1);
      },
    );

    run('mark() changes the bits of the mask and no others', (under) => {
      add(under, { client: '192.0.2.1', service: '10.96.0.10', endpoint: '10.0.0.5' });
      add(under, { client: '192.0.2.2', service: '10.96.0.10', endpoint: '10.0.0.5' });
      const { conntrack } = under;
      const marks = () =>
        conntrack
          .list()
          .sort((a, b) => (a.original.source < b.original.source ? -1 : 1))
          .map((entry) => entry.mark);
      const first = conntrack.list().filter((e) => e.original.source === '192.0.2.1');
      assert.equal(conntrack.mark(first, { mask: 0x0f, value: 0x05 }), 1);
      assert.equal(conntrack.mark(first, { mask: 0x0800_0000, value: 0x0800_0000 }), 1);
      assert.deepEqual(marks(), [0x0800_0005, 0]);
      assert.equal(conntrack.mark(first, { mask: 0x0800_0000, value: 0 }), 1);
      assert.deepEqual(marks(), [0x05, 0]);
      conntrack.delete(first);
      assert.equal(conntrack.mark(first, { mask: 1, value: 1 }), 0);
      assert.equal(conntrack.list().length, 1);
    });

    run('flush() deletes what went to one endpoint of one service', (under) => {
      const service = '10.96.0.10';
      add(under, { client: '192.0.2.1', service, endpoint: '10.0.0.5', clientPort: 4001 });
      add(under, { client: '192.0.2.1', service, endpoint: '10.0.0.6', clientPort: 4002 });
      add(under, {
        client: '192.0.2.1',
        service: '10.96.0.11',
        endpoint: '10.0.0.5',
        clientPort: 4003,
      });
      const deleted = under.conntrack.flush({
        protocol: UDP,
        originalDestination: ip(service),
        originalDestinationPort: 53,
        replySource: ip('10.0.0.5'),
      });
      assert.equal(deleted, 1);
      const left = under.conntrack.list().map((entry) => entry.original.sourcePort);
      assert.deepEqual(left.sort(), [4002, 4003]);
      assert.equal(under.conntrack.flush({}), 2);
    });
  });
}

function add(under: ConntrackUnderTest, flow: Flow): void {
  const { protocol = UDP, clientPort = 4000 } = flow;
  under.add(
    {
      source: ip(flow.client),
      destination: ip(flow.service),
      protocol,
      sourcePort: clientPort,
      destinationPort: 53,
    },
    {
      source: ip(flow.endpoint),
      destination: ip(flow.client),
      protocol,
      sourcePort: 5353,
      destinationPort: clientPort,
    },
  );
}
