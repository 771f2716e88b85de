import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type AcceptedConnection,
  type ConnectionRefusal,
  connectionLimits,
  createConnectionGate,
  possibleConnections,
} from './connection-gate.ts';
import { MAX_CONNECTIONS, RESERVED_FILES } from './limits.ts';

const LIMITS = { strangers: 3, known: 6, others: 4, perPrincipal: 2 };
const NODE = { name: 'system:node:m1', isVital: true };
const person = (name: string) => ({ name, isVital: false });

function openGate() {
  const refused: ConnectionRefusal[] = [];
  const closed: string[] = [];
  const gate = createConnectionGate(LIMITS, (reason) => refused.push(reason));
  const accept = (address: string, name = address): AcceptedConnection =>
    gate.accept(address, () => closed.push(name));
  return { gate, refused, closed, accept };
}

test('possibleConnections() leaves files for everything else, and has a most', () => {
  const limits = (files: string) =>
    `Max processes  1 1 processes\nMax open files  ${files} 9 files`;
  assert.equal(possibleConnections(limits('1024')), 1024 - RESERVED_FILES);
  assert.equal(possibleConnections(limits('1048576')), MAX_CONNECTIONS);
  assert.equal(possibleConnections(limits('unlimited')), MAX_CONNECTIONS);
  assert.equal(possibleConnections(limits('100')), 1);
  assert.ok(possibleConnections() > 1);
});

test('connectionLimits() gives everybody something, and never more than there is', () => {
  for (const total of [1, 2, 7, 824, 20_000]) {
    const { strangers, known, others, perPrincipal } = connectionLimits(total);
    assert.ok(strangers >= 1 && known >= 1 && others >= 1 && perPrincipal >= 1);
    if (total > 1) assert.equal(strangers + known, total);
    assert.ok(others <= known && perPrincipal <= known);
  }
});

test('of too many strangers the oldest goes, of the address that has most', () => {
  const { gate, refused, closed, accept } = openGate();
  accept('192.0.2.1', 'quiet');
  accept('192.0.2.2', 'first');
  accept('192.0.2.2', 'second');
  accept('192.0.2.3', 'third');
  assert.deepEqual(closed, ['first']);
  assert.deepEqual(refused, ['strangers']);
  assert.deepEqual(gate.counts, { strangers: 3, known: 0 });
});

test('one IPv6 network is one place, and an IPv4 address inside IPv6 is itself', () => {
  const { closed, accept } = openGate();
  accept('::ffff:192.0.2.1', 'mapped');
  accept('2001:db8::1', 'a');
  accept('2001:db8::ffff:2', 'b');
  accept('2001:db8:0:1::1', 'other network');
  assert.deepEqual(closed, ['a']);
  accept('192.0.2.1', 'plain');
  assert.deepEqual(closed, ['a', 'mapped']);
});

test('who is known is no stranger, and keeps his place until he leaves', () => {
  const { gate, closed, accept } = openGate();
  const known = accept('192.0.2.1');
  assert.equal(known.claim(person('jane')), undefined);
  for (let i = 0; i < 9; i++) accept('192.0.2.1', 'flood');
  assert.deepEqual(gate.counts, { strangers: 3, known: 1 });
  assert.ok(closed.every((name) => name === 'flood'));
  known.leave();
  known.leave();
  assert.deepEqual(gate.counts, { strangers: 3, known: 0 });
  assert.equal(known.claim(person('jane')), undefined);
  assert.deepEqual(gate.counts, { strangers: 3, known: 0 });
});

test('one principal has his share, all but nodes have theirs, and nodes the rest', () => {
  const { refused, accept } = openGate();
  const claim = (owner: { name: string; isVital: boolean }) => {
    const connection = accept('192.0.2.1');
    const refusal = connection.claim(owner);
    // What is said first counts.
    assert.equal(connection.claim(person('somebody')), refusal);
    if (refusal !== undefined) connection.leave();
    return [refusal, connection] as const;
  };
  const [, first] = claim(person('jane'));
  assert.equal(claim(person('jane'))[0], undefined);
  assert.equal(claim(person('jane'))[0], 'principal');
  assert.equal(claim(person('jim'))[0], undefined);
  assert.equal(claim(person('jim'))[0], undefined);
  assert.equal(claim(person('joe'))[0], 'full');
  assert.equal(claim(NODE)[0], undefined);
  assert.equal(claim({ ...NODE, name: 'system:node:m2' })[0], undefined);
  assert.equal(claim({ ...NODE, name: 'system:node:m3' })[0], 'full');
  first.leave();
  assert.equal(claim({ ...NODE, name: 'system:node:m3' })[0], undefined);
  assert.deepEqual(refused, ['principal', 'full', 'full']);
});
