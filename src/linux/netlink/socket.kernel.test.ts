import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ENOBUFS, ENODEV, isErrno } from '#lib/errors.ts';
import { NETLINK_ROUTE, NLM_F_ACK, NLM_F_REQUEST } from '#wire/netlink/constants.ts';
import {
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_NEWLINK,
  RTM_SETLINK,
  RTNLGRP_LINK,
} from '#wire/rtnetlink/constants.ts';
import {
  decodeLink,
  encodeDeleteLink,
  encodeGetLink,
  encodeNewLink,
  encodeSetLink,
} from '#wire/rtnetlink/link.ts';
import { ScratchNetns } from '../testing/scratch-netns.ts';
import { NetlinkSocket } from './socket.ts';

const NLM_F_CREATE_EXCL = 0x600;
const LOOPBACK = 1;

test('request() gives the answer, and the kernel’s errno and words on failure', () => {
  using netns = new ScratchNetns();
  using socket = new NetlinkSocket({ protocol: NETLINK_ROUTE, netns: netns.path });
  const [answer] = socket.request('read lo', { type: RTM_GETLINK }, (w) => encodeGetLink(w, 'lo'));
  assert.equal(answer && decodeLink(answer.payload).name, 'lo');
  assert.throws(
    () => socket.request('read no0', { type: RTM_GETLINK }, (w) => encodeGetLink(w, 'no0')),
    (error) => isErrno(error, ENODEV) && error.op === 'read no0',
  );
  const create = () =>
    socket.request('make x', { type: RTM_NEWLINK, flags: NLM_F_CREATE_EXCL }, (w) => {
      const vxlan = { vni: 1 << 24, port: 1, local: undefined, device: undefined, learning: false };
      encodeNewLink(w, { name: 'x', kind: 'vxlan', vxlan });
    });
  assert.throws(create, (error) => error instanceof Error && /\(kernel: .+\)/.test(error.message));
  // The socket is as good as before.
  assert.equal(socket.dump('list', { type: RTM_GETLINK }, (w) => encodeGetLink(w)).length, 1);
});

test('dump() gives every link, also in more than one datagram', () => {
  using netns = new ScratchNetns();
  using socket = new NetlinkSocket({ protocol: NETLINK_ROUTE, netns: netns.path });
  const count = 60;
  const results = socket.pipeline('make bridges', (writer) => {
    for (let n = 0; n < count; n++) {
      const start = writer.beginMessage(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE_EXCL);
      encodeNewLink(writer, { name: `br${n}`, kind: 'bridge' });
      writer.endMessage(start);
    }
  });
  assert.ok(results.every(({ errno }) => errno === 0));
  const names = socket
    .dump('list', { type: RTM_GETLINK }, (w) => encodeGetLink(w))
    .map((message) => decodeLink(message.payload).name);
  assert.equal(new Set(names).size, count + 1);
});

test('pipeline() reports each message by its place', () => {
  using netns = new ScratchNetns();
  using socket = new NetlinkSocket({ protocol: NETLINK_ROUTE, netns: netns.path });
  const results = socket.pipeline('set links', (writer) => {
    for (const index of [LOOPBACK, 4711, LOOPBACK]) {
      const start = writer.beginMessage(RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK);
      encodeSetLink(writer, index, { up: true });
      writer.endMessage(start);
    }
  });
  assert.deepEqual(
    results.map(({ errno }) => errno),
    [0, ENODEV, 0],
  );
  assert.deepEqual(
    socket.pipeline('nothing', () => undefined),
    [],
  );
});

test('receive() without waiting gives nothing, then the events of its groups, then ENOBUFS when too many came', () => {
  using netns = new ScratchNetns();
  using socket = new NetlinkSocket({ protocol: NETLINK_ROUTE, netns: netns.path });
  using listener = new NetlinkSocket({
    protocol: NETLINK_ROUTE,
    netns: netns.path,
    groups: [RTNLGRP_LINK],
    receiveQueueBytes: 4096,
  });
  const set = (up: boolean) =>
    socket.request('set lo', { type: RTM_SETLINK }, (w) => encodeSetLink(w, LOOPBACK, { up }));
  assert.deepEqual(listener.receive('read events', false), []);
  set(true);
  assert.equal(listener.receive('read events', false)[0]?.type, RTM_NEWLINK);
  for (let n = 0; n < 50; n++) set(n % 2 === 0);
  assert.throws(
    () => {
      while (listener.receive('read events', false).length > 0);
    },
    (error) => isErrno(error, ENOBUFS),
  );
});

test('a socket keeps working in its namespace, and fails plainly when a group does not exist', () => {
  using netns = new ScratchNetns();
  using socket = new NetlinkSocket({ protocol: NETLINK_ROUTE, netns: netns.path });
  socket.request('make br0', { type: RTM_NEWLINK, flags: NLM_F_CREATE_EXCL }, (w) =>
    encodeNewLink(w, { name: 'br0', kind: 'bridge' }),
  );
  assert.match(netns.run('ip', '-o', 'link', 'show', 'br0'), /br0/);
  const [answer] = socket.request('read br0', { type: RTM_GETLINK }, (w) =>
    encodeGetLink(w, 'br0'),
  );
  const index = answer === undefined ? 0 : decodeLink(answer.payload).index;
  socket.request('delete br0', { type: RTM_DELLINK }, (w) => encodeDeleteLink(w, index));
  assert.throws(
    () => new NetlinkSocket({ protocol: NETLINK_ROUTE, groups: [100_000] }),
    /set netlink socket option/,
  );
});
