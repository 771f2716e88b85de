import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { type Probe, parseProbe } from './settings.ts';

const DEFAULTS: Omit<Probe, 'action'> = {
  periodMs: 10_000,
  timeoutMs: 1_000,
  startPeriodMs: 0,
  successThreshold: 1,
  failureThreshold: 3,
};

describe('parseProbe()', () => {
  test('finds nothing where nothing is asked for', () => {
    assert.deepEqual(parseProbe({ period: '5s' }), { kind: 'none' });
  });

  for (const [settings, probe] of [
    [
      { http: ':8080/healthz?full=1' },
      { action: { kind: 'http', tls: false, port: 8080, path: '/healthz?full=1' } },
    ],
    [{ http: '80' }, { action: { kind: 'http', tls: false, port: 80, path: '/' } }],
    [{ http: 'https://:8443/' }, { action: { kind: 'http', tls: true, port: 8443, path: '/' } }],
    [{ tcp: ':5432' }, { action: { kind: 'tcp', port: 5432 } }],
    [{ grpc: ':9000' }, { action: { kind: 'grpc', port: 9000, service: '' } }],
    [{ grpc: '9000/my.Service' }, { action: { kind: 'grpc', port: 9000, service: 'my.Service' } }],
    [{ exec: '["cat","/tmp/a b"]' }, { action: { kind: 'exec', argv: ['cat', '/tmp/a b'] } }],
    [{ exec: 'test -f /x' }, { action: { kind: 'exec', argv: ['/bin/sh', '-c', 'test -f /x'] } }],
    [
      {
        tcp: '1',
        period: '500ms',
        timeout: '2',
        'start-period': '1.5m',
        'success-threshold': '2',
        'failure-threshold': '5',
      },
      {
        action: { kind: 'tcp', port: 1 },
        periodMs: 500,
        timeoutMs: 2_000,
        startPeriodMs: 90_000,
        successThreshold: 2,
        failureThreshold: 5,
      },
    ],
  ] satisfies [Record<string, string>, Partial<Probe>][])
    test(`reads ${JSON.stringify(settings)}`, () => {
      assert.deepEqual(parseProbe(settings), { kind: 'probe', probe: { ...DEFAULTS, ...probe } });
    });

  for (const [settings, message] of [
    [{ http: 'http://192.0.2.1:80/' }, /readiness-http "http:\/\/192.*expected :PORT\/path/],
    [{ http: ':0/' }, /expected :PORT/],
    [{ http: ':80/a b' }, /expected :PORT/],
    [{ http: ':80/\r\nHost: x' }, /expected :PORT/],
    [{ tcp: ':65536' }, /readiness-tcp ":65536"/],
    [{ tcp: ':80/x' }, /readiness-tcp/],
    [{ tcp: 'https://:80' }, /readiness-tcp/],
    [{ exec: ' ' }, /a command/],
    [{ exec: '["a",1]' }, /JSON list of 1 to 64 words/],
    [{ exec: '["a"' }, /JSON list/],
    [{ tcp: '80', http: '80' }, /readiness-http and tulle.dev\/readiness-tcp exclude each other/],
    [{ tcp: '80', period: '10ms' }, /readiness-period "10ms" is wrong: expected a time between/],
    [{ tcp: '80', timeout: '2h' }, /readiness-timeout/],
    [{ tcp: '80', 'failure-threshold': '0' }, /1 to 1000/],
  ] satisfies [Record<string, string>, RegExp][])
    test(`refuses ${JSON.stringify(settings)}`, () => {
      const parsed = parseProbe(settings);
      assert.ok(parsed.kind === 'malformed');
      assert.match(parsed.message, message);
    });

  test('never throws, whatever a label says', () => {
    const keys = fc.constantFrom('http', 'tcp', 'grpc', 'exec', 'period', 'timeout', 'x');
    fc.assert(
      fc.property(fc.dictionary(keys, fc.string()), (settings) => void parseProbe(settings)),
    );
  });
});
