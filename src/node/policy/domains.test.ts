import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { FakeClock } from '#lib/clock.ts';
import { type Family, type Ip, ip } from '#lib/ip.ts';
import { silentLogger } from '#lib/log.ts';
import { compileClusterPolicy } from '#policy/compile.ts';
import { AnswerRelay, type AnswerWatch, isWanted } from '../answer-watch.ts';
import { Domains } from './domain-watch.ts';
import { DomainMemory, GRACE_MS } from './domains.ts';
import { clusterPolicy } from './testing.ts';

const [A, B, C] = [ip('192.0.2.1'), ip('192.0.2.2'), ip('2001:db8::3')];

/** A memory with what is open by pattern, told change by change. */
function remember(patterns: readonly string[]) {
  const open = new Map<string, Ip[]>();
  const memory = new DomainMemory((pattern, before, after) => {
    const left = [...(open.get(pattern) ?? [])];
    for (const address of before) {
      const at = left.indexOf(address);
      assert.notEqual(at, -1, `${address} was never opened for ${pattern}`);
      left.splice(at, 1);
    }
    open.set(pattern, [...left, ...after]);
  });
  memory.setPatterns(new Set(patterns));
  const tell = (name: string, addresses: readonly (readonly [Ip, number])[], nowMs = 0) => {
    for (const family of [4, 6] as const)
      memory.answered(
        name,
        {
          family,
          addresses: addresses
            .filter(([address]) => address.includes(':') === (family === 6))
            .map(([address, ttlS]) => ({ address, ttlS })),
        },
        nowMs,
      );
  };
  return { memory, tell, open: (pattern: string) => [...(open.get(pattern) ?? [])].sort() };
}

describe('names', () => {
  for (const [pattern, name, isMeant] of [
    ['example.com', 'example.com', true],
    ['example.com', 'www.example.com', false],
    ['example.com', 'anexample.com', false],
    ['*.example.com', 'example.com', false],
    ['*.example.com', 'www.example.com', true],
    ['*.example.com', 'a.b.example.com', true],
    ['*.example.com', 'www.anexample.com', false],
  ] as const)
    test(`${pattern} ${isMeant ? 'means' : 'does not mean'} ${name}`, () => {
      const { memory, tell, open } = remember([pattern]);
      tell(name, [[A, 60]]);
      assert.equal(memory.wants(name), isMeant);
      assert.deepEqual(open(pattern), isMeant ? [A] : []);
      assert.deepEqual(memory.resolved(pattern), isMeant ? [A] : []);
    });
});

describe('time', () => {
  test('an address is open for its TTL and the grace, and known after it', () => {
    const { memory, tell, open } = remember(['example.com']);
    tell('example.com', [
      [A, 60],
      [C, 600],
    ]);
    assert.deepEqual(open('example.com'), [A, C]);
    assert.equal(memory.expire(60_000 + GRACE_MS - 1), 60_000 + GRACE_MS);
    assert.deepEqual(open('example.com'), [A, C]);
    memory.expire(60_000 + GRACE_MS);
    assert.deepEqual(open('example.com'), [C]);
    assert.deepEqual(memory.everResolved('example.com'), [A, C]);
    assert.equal(memory.expire(1e9), undefined);
  });

  test('a later answer with less time takes nothing back', () => {
    const { memory, tell, open } = remember(['example.com']);
    tell('example.com', [[A, 60]]);
    tell('example.com', [[B, 5]], 1000);
    memory.expire(40_000);
    assert.deepEqual(open('example.com'), [A]);
  });

  test('while upstreams do not answer, what is over may be used', () => {
    const { memory, tell, open } = remember(['example.com']);
    tell('example.com', [[A, 1]]);
    memory.expire(100_000);
    assert.deepEqual(open('example.com'), []);
    memory.asked('example.com', 4, 100_000);
    assert.deepEqual(open('example.com'), [A]);
    memory.answered('example.com', { family: 4, addresses: undefined }, 105_000);
    assert.deepEqual(open('example.com'), [A]);
    tell('example.com', [[B, 60]], 106_000);
    assert.deepEqual(open('example.com'), [B]);
    // Longer than any DNS server of ours gives what is over.
    memory.asked('example.com', 4, 8 * 86_400_000);
    assert.deepEqual(open('example.com'), []);
  });
});

describe('patterns and bounds', () => {
  test('names that several patterns mean, and addresses that several names have, are counted', () => {
    const { memory, tell, open } = remember(['a.example', '*.example']);
    tell('a.example', [[A, 60]]);
    tell('b.example', [[A, 10]]);
    assert.deepEqual(open('*.example'), [A, A]);
    memory.expire(10_000 + GRACE_MS);
    assert.deepEqual([open('*.example'), open('a.example')], [[A], [A]]);
    assert.equal(memory.setPatterns(new Set(['*.example'])), false);
    assert.deepEqual([open('*.example'), open('a.example')], [[A], []]);
    assert.equal(memory.setPatterns(new Set(['a.example'])), true);
    assert.deepEqual([open('*.example'), open('a.example')], [[], [A]]);
    assert.equal(memory.wants('b.example'), false);
  });

  test('the names of a wildcard are bounded, and so are the addresses of a name', () => {
    let openCount = 0;
    const memory = new DomainMemory((_, before, after) => {
      openCount += after.length - before.length;
    });
    memory.setPatterns(new Set(['*.example']));
    const tell = (name: string, [[address, ttlS]]: [[Ip, number]]) =>
      memory.answered(name, { family: 4, addresses: [{ address, ttlS }] }, 0);
    for (let i = 0; i < 10_050; i++) tell(`n${i}.example`, [[A, 60]]);
    assert.equal(memory.forgotten, 50);
    assert.equal(openCount, 10_000);
    for (let i = 0; i < 1_100; i++) tell('many.example', [[ip(`10.0.${i >> 8}.${i & 255}`), i]]);
    const many = [...memory.states()].filter(({ name }) => name === 'many.example');
    assert.equal(many.length, 1_000);
    assert.ok(Math.min(...many.map(({ untilMs }) => untilMs)) >= 100_000);
  });
});

describe('Domains', () => {
  const allow = (...domainNames: string[]) =>
    compileClusterPolicy(
      clusterPolicy('allow', {
        ...{ tier: 'Admin', priority: 1, subject: { namespaces: {} } },
        egress: [{ action: 'Accept', to: [{ domainNames }] }],
      }),
    );

  test('tells before it returns, asks for fresh answers, and leaves its knowledge to the next', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'tulle-domains-'));
    try {
      const file = join(directory, 'policy', 'domains.json');
      const clock = new FakeClock(1_000_000);
      const told: string[] = [];
      const make = () =>
        new Domains({
          ...{ file, clock, log: silentLogger },
          onResolved: (pattern, _, after) => told.push(`${pattern}: ${after.join()}`),
          onChanged: () => told.push('program'),
          onNewPatterns: () => told.push('ask anew'),
        });
      const domains = make();
      domains.setPolicies([allow('*.Example.com.')]);
      domains.answered('www.example.com', 4, [{ address: A, ttlS: 60 }]);
      assert.deepEqual(told.splice(0), ['ask anew', `*.example.com: ${A}`, 'program']);
      domains.answered('www.example.org', 4, [{ address: B, ttlS: 60 }]);
      domains.answered('www.example.com', 4, [{ address: A, ttlS: 60 }]);
      assert.deepEqual(told.splice(0), []);
      clock.advance(0);
      await new Promise((resolve) => setTimeout(resolve, 50));
      await domains[Symbol.asyncDispose]();
      const next = make();
      next.setPolicies([allow('*.example.com')]);
      assert.deepEqual(told.splice(0), [`*.example.com: ${A}`, 'ask anew']);
      clock.advance(60_000 + GRACE_MS);
      assert.deepEqual(told.splice(0), ['*.example.com: ', 'program']);
      await next[Symbol.asyncDispose]();
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

test('Domains closes each name in its time, whichever was answered first', async () => {
  const clock = new FakeClock(0);
  const told: string[] = [];
  await using domains = new Domains({
    ...{ file: undefined, clock, log: silentLogger },
    onResolved: (pattern, _, after) => told.push(`${pattern}: ${after.join()}`),
    onChanged: () => {},
    onNewPatterns: () => {},
  });
  domains.setPolicies([
    compileClusterPolicy(
      clusterPolicy('allow', {
        ...{ tier: 'Admin', priority: 1, subject: { namespaces: {} } },
        egress: [{ action: 'Accept', to: [{ domainNames: ['long.example', 'short.example'] }] }],
      }),
    ),
  ]);
  domains.answered('long.example', 4, [{ address: A, ttlS: 600 }]);
  domains.answered('short.example', 4, [{ address: B, ttlS: 5 }]);
  told.splice(0);
  // Somebody sets the time of day: that is no time that has gone by, nor time won.
  clock.jump(86_400_000);
  clock.advance(1_000);
  assert.deepEqual(told, []);
  clock.jump(-2 * 86_400_000);
  clock.advance(4_000 + GRACE_MS);
  assert.deepEqual(told.splice(0), ['short.example: ']);
  clock.advance(595_000);
  assert.deepEqual(told.splice(0), ['long.example: ']);
});

test('AnswerRelay keeps early answers for the one that will listen', () => {
  const relay = new AnswerRelay();
  const heard: string[] = [];
  const listener: AnswerWatch = {
    wanted: () => new Set(['wanted.example']),
    asked: (name: string, family: Family) => heard.push(`asked ${name} ${family}`),
    answered: (name, family, addresses) => heard.push(`${name} ${family} ${addresses?.length}`),
  };
  assert.equal(relay.wanted(), undefined, 'whatever is asked');
  relay.onAttach(() => heard.push('attached'));
  relay.answered('wanted.example', 4, [{ address: A, ttlS: 1 }]);
  relay.answered('other.example', 4, [{ address: A, ttlS: 1 }]);
  relay.answered('wanted.example', 6, undefined);
  relay.attach(listener);
  relay.asked('wanted.example', 6);
  relay.answered('wanted.example', 6, undefined);
  assert.deepEqual(heard, [
    'wanted.example 4 1',
    'attached',
    'asked wanted.example 6',
    'wanted.example 6 undefined',
  ]);
  assert.ok(!isWanted('other.example', relay.wanted()));
});
