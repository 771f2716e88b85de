import assert from 'node:assert/strict';
import { readSync, writeSync } from 'node:fs';
import { test } from 'node:test';
import { EBUSY, EINVAL, ERANGE, isErrno } from '#lib/errors.ts';
import { cidr, ip } from '#lib/ip.ts';
import { ScratchNetns } from '../testing/scratch-netns.ts';
import { openNetworkStack } from './kernel.ts';
import { Tuntap } from './tuntap.ts';

test('Tuntap makes a link in the namespace named, which goes with the descriptor', () => {
  using netns = new ScratchNetns();
  using stack = openNetworkStack({ netns: netns.path });
  {
    using tap = new Tuntap({ kind: 'tap', name: 'tap%d', netns: netns.path });
    assert.equal(tap.name, 'tap0');
    assert.equal(stack.links.get('tap0')?.kind, 'tun');
  }
  assert.equal(stack.links.get('tap0'), undefined);
});

test('Tuntap persistent stays until it is opened again and told not to', () => {
  using netns = new ScratchNetns();
  using stack = openNetworkStack({ netns: netns.path });
  const spec = { kind: 'tun', name: 'tun0', netns: netns.path } as const;
  new Tuntap({ ...spec, persistent: true })[Symbol.dispose]();
  assert.equal(stack.links.get('tun0')?.kind, 'tun');
  new Tuntap({ ...spec, persistent: false })[Symbol.dispose]();
  assert.equal(stack.links.get('tun0'), undefined);
});

test('Tuntap carries packets between the descriptor and the kernel', () => {
  using netns = new ScratchNetns();
  using stack = openNetworkStack({ netns: netns.path });
  using tun = new Tuntap({ kind: 'tun', name: 'tun0', netns: netns.path });
  const link = stack.links.get('tun0')?.index ?? 0;
  stack.links.set(link, { up: true });
  stack.addresses.add({ link, address: ip('192.0.2.1'), prefixLength: 32 });
  stack.routes.replace([{ destination: cidr('192.0.2.2/32'), link, protocol: 84 }]);
  // An ICMP echo request from 192.0.2.2 to 192.0.2.1; the kernel answers it inside the write.
  const request = Buffer.from(
    '4500001c000100004001f6cd' + 'c0000202' + 'c0000201' + '0800f7fd00010001',
    'hex',
  );
  request.writeUInt16BE(0, 10);
  request.writeUInt16BE(checksum(request.subarray(0, 20)), 10);
  writeSync(tun.fd, request);
  const answer = nextIpv4(tun.fd);
  assert.equal(answer.subarray(12, 20).toString('hex'), 'c0000201c0000202');
  assert.equal(answer.readUInt8(20), 0);
});

test('Tuntap refuses a name that is taken or too long', () => {
  using netns = new ScratchNetns();
  using stack = openNetworkStack({ netns: netns.path });
  stack.links.create({ kind: 'bridge', name: 'br0' });
  const make = (name: string) => new Tuntap({ kind: 'tap', name, netns: netns.path });
  assert.throws(
    () => make('br0'),
    (error) => isErrno(error, EINVAL) && error.op.includes('"br0"'),
  );
  assert.throws(
    () => make('a-name-of-16-byte'),
    (error) => isErrno(error, ERANGE),
  );
  using _attached = make('tap0');
  assert.throws(
    () => make('tap0'),
    (error) => isErrno(error, EBUSY),
  );
});

/** The kernel also sends IPv6 router solicitations, which are passed over. */
function nextIpv4(fd: number): Buffer {
  const packet = Buffer.alloc(2048);
  for (;;) {
    const length = readSync(fd, packet);
    if (packet.readUInt8(0) >> 4 === 4) return packet.subarray(0, length);
  }
}

function checksum(header: Buffer): number {
  let sum = 0;
  for (let at = 0; at < header.length; at += 2) sum += header.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}
