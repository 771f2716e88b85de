import assert from 'node:assert/strict';
import { createSocket, type RemoteInfo } from 'node:dgram';
import { once } from 'node:events';
import { test } from 'node:test';
import { TYPE_HINFO } from '#wire/dns/constants.ts';
import { decodeMessage, encodeMessage, type Message } from '#wire/dns/message.ts';
import { name } from '#wire/dns/name.ts';
import { DEFAULT_CONFIG, type DnsConfig, type ForwardPolicy, type ForwardRule } from './config.ts';
import { answerWith, type Behaviour, startFakeUpstream } from './fake-upstream.ts';
import { Forwarder, type ForwarderOptions, type ForwardQuestion } from './forward.ts';
import { describeMessage } from './testing.ts';
import type { Upstream } from './upstream.ts';

const QUESTION = {
  name: name('www.example.com'),
  type: 1,
  dnssecOk: false,
  checkingDisabled: false,
};
/** Short where a test waits for it; long where the answer must come by itself. */
const SHORT_MS = 150;
const LONG_MS = 20_000;

const good: Behaviour = (query) => [answerWith(query, ['192.0.2.80'])];
const silent: Behaviour = () => [];

function forwarderTo(
  upstreams: readonly Upstream[],
  options: Partial<ForwarderOptions> = {},
): Forwarder {
  return new Forwarder({ upstreams: () => upstreams, timeoutMs: LONG_MS, ...options });
}

async function resolveText(forwarder: Forwarder): Promise<string[] | undefined> {
  const answer = await forwarder.resolve(QUESTION);
  return answer === undefined ? undefined : describeMessage(decodeMessage(answer));
}

const GOOD = ['NOERROR', 'www.example.com. 300 A 192.0.2.80'];

test('Forwarder asks over UDP with EDNS and recursion', async () => {
  await using fake = await startFakeUpstream(good);
  await using forwarder = forwarderTo([fake.upstream]);
  assert.deepEqual(await resolveText(forwarder), GOOD);
  const [asked] = fake.asked;
  assert.equal(asked?.transport, 'udp');
  assert.equal(asked?.query.recursionDesired, true);
  assert.equal(asked?.query.edns?.udpPayloadBytes, 1232);
});

test('Forwarder asks again over TCP when the answer is truncated', async () => {
  await using fake = await startFakeUpstream((query, transport) => [
    transport === 'udp'
      ? answerWith(query, [], { truncated: true })
      : answerWith(query, ['192.0.2.80']),
  ]);
  await using forwarder = forwarderTo([fake.upstream]);
  assert.deepEqual(await resolveText(forwarder), GOOD);
  assert.deepEqual(
    fake.asked.map((a) => a.transport),
    ['udp', 'tcp'],
  );
});

test('Forwarder ignores forged answers and takes the right one after them', async () => {
  const forged =
    (change: (query: Message) => Message): Behaviour =>
    (query) => [change(answerWith(query, ['203.0.113.66'])), answerWith(query, ['192.0.2.80'])];
  const otherName = (m: Message) => ({
    ...m,
    questions: m.questions.map((q) => ({ ...q, name: name('www.example.org') })),
  });
  for (const behaviour of [
    forged((m) => ({ ...m, id: (m.id + 1) & 0xffff })),
    forged(otherName),
    forged((m) => ({ ...m, questions: m.questions.map((q) => ({ ...q, type: 28 })) })),
    forged((m) => ({ ...m, questions: [] })),
    forged((m) => ({ ...m, response: false })),
  ]) {
    await using fake = await startFakeUpstream(behaviour);
    await using forwarder = forwarderTo([fake.upstream]);
    assert.deepEqual(await resolveText(forwarder), GOOD);
  }
});

test('Forwarder takes an answer in another case of letters', async () => {
  await using fake = await startFakeUpstream((query) => [
    answerWith(
      {
        ...query,
        questions: query.questions.map((q) => ({ ...q, name: name('WWW.example.COM') })),
      },
      ['192.0.2.80'],
    ),
  ]);
  await using forwarder = forwarderTo([fake.upstream]);
  assert.equal((await resolveText(forwarder))?.[0], 'NOERROR');
});

test('Forwarder goes to TCP when many answers are forged', async () => {
  await using fake = await startFakeUpstream((query, transport) =>
    transport === 'tcp'
      ? [answerWith(query, ['192.0.2.80'])]
      : Array.from({ length: 16 }, (_, i) =>
          answerWith({ ...query, id: (query.id + 1 + i) & 0xffff }, ['203.0.113.66']),
        ),
  );
  await using forwarder = forwarderTo([fake.upstream]);
  assert.deepEqual(await resolveText(forwarder), GOOD);
});

test('Forwarder takes no answer from another address or port than the one it asked', async (t) => {
  // The asked server hands its question to another socket, which answers well, but is not who was asked.
  const asked = createSocket('udp4').bind(0, '127.0.0.1');
  const other = createSocket('udp4').bind(0, '127.0.0.1');
  t.after(() => {
    asked.close();
    other.close();
  });
  await Promise.all([once(asked, 'listening'), once(other, 'listening')]);
  let sent = 0;
  asked.on('message', (bytes: Buffer, peer: RemoteInfo) => {
    const query = decodeMessage(bytes);
    if (query.questions[0]?.type === TYPE_HINFO) return; // a probe for loops
    other.send(encodeMessage(answerWith(query, ['203.0.113.66'])), peer.port, peer.address);
    sent++;
  });
  const upstream = { address: '127.0.0.1', port: asked.address().port };
  await using forwarder = forwarderTo([upstream], { timeoutMs: SHORT_MS });
  assert.equal(await resolveText(forwarder), undefined);
  assert.equal(sent, 2);
});

test('Forwarder goes on to the next upstream after a timeout, a refusal and a closed port', async () => {
  await using last = await startFakeUpstream(good);
  await using dead = await startFakeUpstream(silent);
  const closed = { address: '127.0.0.1', port: 1 };
  for (const behaviour of [
    silent,
    ((query) => [answerWith(query, [], { rcode: 2 })]) satisfies Behaviour,
    ((query) => [answerWith(query, [], { rcode: 5 })]) satisfies Behaviour,
  ]) {
    dead.behaviour = behaviour;
    await using forwarder = forwarderTo([dead.upstream, closed, last.upstream], { timeoutMs: 400 });
    assert.deepEqual(await resolveText(forwarder), GOOD);
  }
});

test('Forwarder asks an upstream that failed twice after the others, until it answers', async () => {
  await using bad = await startFakeUpstream(silent);
  await using second = await startFakeUpstream(good);
  await using forwarder = forwarderTo([bad.upstream, second.upstream], { timeoutMs: SHORT_MS });
  for (let i = 0; i < 4; i++) assert.deepEqual(await resolveText(forwarder), GOOD);
  assert.equal(bad.asked.length, 2);
  assert.equal(second.asked.length, 4);
});

test('Forwarder asks a server that is known to fail once and not twice', async () => {
  await using bad = await startFakeUpstream(silent);
  await using forwarder = forwarderTo([bad.upstream], {
    ...{ timeoutMs: SHORT_MS, healthIntervalMs: LONG_MS },
  });
  assert.equal(await forwarder.resolve(named('n0.example')), undefined);
  assert.equal(bad.asked.length, 2);
  assert.equal(await forwarder.resolve(named('n1.example')), undefined);
  assert.equal(bad.asked.length, 3);
});

test('Forwarder returns the refusal when no upstream gives better', async () => {
  await using fake = await startFakeUpstream((query) => [answerWith(query, [], { rcode: 5 })]);
  await using forwarder = forwarderTo([fake.upstream]);
  assert.deepEqual(await resolveText(forwarder), ['REFUSED']);
});

test('Forwarder asks without EDNS a server that does not know it', async () => {
  await using fake = await startFakeUpstream((query) => [
    query.edns === undefined
      ? answerWith(query, ['192.0.2.80'])
      : answerWith(query, [], { rcode: 1, edns: undefined }),
  ]);
  await using forwarder = forwarderTo([fake.upstream]);
  assert.deepEqual(await resolveText(forwarder), GOOD);
});

test('Forwarder sends the same question once, however many ask', async () => {
  await using fake = await startFakeUpstream(good);
  await using forwarder = forwarderTo([fake.upstream]);
  const answers = await Promise.all(Array.from({ length: 20 }, () => resolveText(forwarder)));
  for (const answer of answers) assert.deepEqual(answer, GOOD);
  assert.equal(fake.asked.length, 1);
});

test('Forwarder says why when there is no upstream, and refuses more than it can hold', async () => {
  const reasons: string[] = [];
  let rejected = 0;
  const observer = { tried: () => undefined, rejected: () => rejected++ };
  await using none = forwarderTo([], { onFailure: (_, reason) => reasons.push(reason) });
  assert.equal(await none.resolve(QUESTION), undefined);
  assert.match(reasons[0] ?? '', /no upstream name server/);
  await using full = forwarderTo([], {
    config: () => ({ ...DEFAULT_CONFIG, maxConcurrent: 0 }),
    observer,
  });
  assert.equal(await full.resolve(QUESTION), undefined);
  assert.equal(rejected, 1);
});

test('Forwarder ends what is under way when it is disposed', async () => {
  await using fake = await startFakeUpstream(silent);
  const forwarder = forwarderTo([fake.upstream]);
  const pending = forwarder.resolve(QUESTION);
  await forwarder[Symbol.asyncDispose]();
  assert.equal(await pending, undefined);
});

const named = (owner: string) => ({ ...QUESTION, name: name(owner) });
const config = (changes: Partial<DnsConfig>) => ({
  config: () => ({ ...DEFAULT_CONFIG, ...changes }),
});

test('Forwarder asks the servers of the most specific zone', async () => {
  await using root = await startFakeUpstream(good);
  await using corp = await startFakeUpstream(good);
  await using lab = await startFakeUpstream(good);
  const rule = (zone: string, fake: { upstream: Upstream }): ForwardRule => ({
    zone: name(zone),
    upstreams: [fake.upstream],
    policy: 'sequential',
  });
  const zones = [rule('corp.example', corp), rule('lab.corp.example', lab)];
  await using forwarder = forwarderTo([root.upstream], config({ zones }));
  for (const owner of ['a.corp.example', 'A.LAB.Corp.Example', 'notcorp.example', 'corp.example'])
    await forwarder.resolve(named(owner));
  const askedOf = (fake: { asked: readonly { query: Message }[] }) =>
    fake.asked.map((a) => a.query.questions[0]?.name);
  assert.deepEqual(askedOf(corp), ['a.corp.example.', 'corp.example.']);
  assert.deepEqual(askedOf(lab), ['A.LAB.Corp.Example.']);
  assert.deepEqual(askedOf(root), ['notcorp.example.']);
});

test('Forwarder takes turns, or chances, as the policy says', async () => {
  await using one = await startFakeUpstream(good);
  await using two = await startFakeUpstream(good);
  const upstreams = [one.upstream, two.upstream];
  const forward = (policy: ForwardPolicy) =>
    config({ forward: { zone: name('.'), upstreams, policy } });
  await using turns = forwarderTo([], forward('roundRobin'));
  for (let i = 0; i < 6; i++) await turns.resolve(named(`n${i}.example`));
  assert.deepEqual([one.asked.length, two.asked.length], [3, 3]);
  let coin = 0;
  const random = () => (coin = (coin + 0.3) % 1);
  await using chance = forwarderTo([], { ...forward('random'), random });
  for (let i = 0; i < 20; i++) await chance.resolve(named(`n${i}.example`));
  assert.ok(one.asked.length > 3 && two.asked.length > 3);
});

test('Forwarder goes back to a server that failed as soon as it answers a probe', async () => {
  await using first = await startFakeUpstream(silent);
  await using second = await startFakeUpstream(good);
  await using forwarder = forwarderTo([first.upstream, second.upstream], {
    timeoutMs: SHORT_MS,
    healthIntervalMs: 10,
  });
  for (let i = 0; i < 2; i++) await forwarder.resolve(named(`n${i}.example`));
  assert.match(forwarder.problems().join(), /does not answer/);
  first.behaviour = good;
  for (let i = 0; i < 1000 && forwarder.problems().length > 0; i++)
    await new Promise((resolve) => setTimeout(resolve, 10));
  assert.deepEqual(forwarder.problems(), []);
  const before = second.asked.length;
  await forwarder.resolve(named('back.example'));
  assert.equal(second.asked.length, before);
});

test('Forwarder stops asking a server that leads back to us, and says so', async () => {
  await using fake = await startFakeUpstream(good);
  const questions: ForwardQuestion[] = [];
  fake.onProbe = (query) => {
    const [question] = query.questions;
    if (question !== undefined) questions.push({ ...QUESTION, ...question });
    return [];
  };
  await using forwarder = forwarderTo([fake.upstream]);
  assert.deepEqual(await resolveText(forwarder), GOOD);
  for (let i = 0; i < 500 && questions.length === 0; i++)
    await new Promise((resolve) => setTimeout(resolve, 10));
  // The probe comes back as if a client asked it.
  const [probe] = questions;
  assert.ok(probe);
  assert.equal(await forwarder.resolve(probe), undefined);
  assert.match(forwarder.problems().join(), /sends our questions back/);
  assert.equal(await forwarder.resolve(named('other.example')), undefined);
  assert.equal(fake.asked.length, 1);
});

test('Forwarder finds a loop in which no question is ever answered', async () => {
  await using fake = await startFakeUpstream(() => []);
  await using forwarder = forwarderTo([fake.upstream], { timeoutMs: SHORT_MS });
  // As systemd-resolved does that was told to ask us for everything.
  fake.onProbe = (query) => {
    const [asked] = query.questions;
    if (asked !== undefined)
      void forwarder.resolve({ ...QUESTION, name: asked.name, type: asked.type });
    return [];
  };
  assert.equal(await resolveText(forwarder), undefined);
  assert.match(forwarder.problems().join(), /sends our questions back/);
  const before = fake.asked.length;
  assert.equal(await forwarder.resolve(named('other.example')), undefined);
  assert.equal(fake.asked.length, before, 'it is not asked any more');
});

test('Forwarder randomises the case of letters when told, and takes no answer in another', async () => {
  const spellings = new Set<string>();
  await using fake = await startFakeUpstream((query) => {
    spellings.add(query.questions[0]?.name ?? '');
    const lower = {
      ...query,
      questions: query.questions.map((q) => ({ ...q, name: QUESTION.name })),
    };
    return [answerWith(lower, ['192.0.2.66']), answerWith(query, ['192.0.2.80'])];
  });
  await using forwarder = forwarderTo([fake.upstream], config({ randomizeCase: true }));
  for (let i = 0; i < 8; i++) {
    const answer = await forwarder.resolve({ ...QUESTION, checkingDisabled: i % 2 === 0 });
    const [record] = decodeMessage(answer ?? new Uint8Array()).answers;
    // One spelling in 2^13 is the forged one.
    if (![...spellings].at(-1)?.match(/^www\.example\.com\.$/))
      assert.deepEqual(record?.data, { kind: 'A', address: '192.0.2.80' });
  }
  assert.ok(spellings.size > 4);
});
