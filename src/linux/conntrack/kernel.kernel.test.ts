import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONNTRACK_STATUS } from '#wire/conntrack/codec.ts';
import { accept, CT_STATE } from '#wire/nftables/expressions.ts';
import { anyBit, ct } from '#wire/nftables/match.ts';
import { inTable } from '#wire/nftables/objects.ts';
import { openNftables } from '../nftables/kernel.ts';
import { ScratchNetns } from '../testing/scratch-netns.ts';
import { conntrackContract } from './contract.ts';
import { openConntrack } from './kernel.ts';

conntrackContract('kernel', () => {
  const namespace = new ScratchNetns();
  const conntrack = openConntrack({ netns: namespace.path });
  return {
    conntrack,
    add(original, reply) {
      // The reference implementation makes the entry, so that ours is not only read back by itself.
      namespace.run(
        'conntrack',
        '--create',
        ...['--proto', original.protocol === 6 ? 'tcp' : 'udp', '--timeout', '60'],
        ...(original.protocol === 6 ? ['--state', 'ESTABLISHED'] : []),
        ...['--orig-src', original.source, '--orig-dst', original.destination],
        ...['--sport', String(original.sourcePort), '--dport', String(original.destinationPort)],
        ...['--reply-src', reply.source, '--reply-dst', reply.destination],
        ...['--reply-port-src', String(reply.sourcePort)],
        ...['--reply-port-dst', String(reply.destinationPort)],
      );
    },
    [Symbol.dispose]() {
      conntrack[Symbol.dispose]();
      namespace[Symbol.dispose]();
    },
  };
});

test('openConntrack() sees and deletes the flow that a packet made', () => {
  using namespace = new ScratchNetns();
  namespace.run('ip', 'link', 'set', 'lo', 'up');
  // Conntrack looks at packets only where a rule asks for it.
  using nft = openNftables({ netns: namespace.path });
  const t = inTable('ip', 'track');
  nft.commit([
    t.table.add(),
    t.chain.add('output', { base: { type: 'filter', hook: 'output', priority: 0 } }),
    t.rule.add('output', [...anyBit(ct('state'), CT_STATE.new), accept]),
  ]);
  namespace.run(
    process.execPath,
    '-e',
    `const s = require('node:dgram').createSocket('udp4');
     s.bind(4567, () => s.send('x', 7654, '127.0.0.1', () => s.close()));`,
  );
  using conntrack = openConntrack({ netns: namespace.path });
  const flows = conntrack.list({ protocol: 17, originalDestinationPort: 7654 });
  assert.deepEqual(
    flows.map((flow) => [
      flow.original.sourcePort,
      flow.reply.destinationPort,
      flow.status & CONNTRACK_STATUS.confirmed,
    ]),
    [[4567, 4567, 8]],
  );
  assert.equal(conntrack.flush({ originalDestinationPort: 7654 }), 1);
  assert.equal(namespace.run('conntrack', '-L', '-p', 'udp').trim(), '');
});
