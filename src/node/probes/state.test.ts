import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Probe } from './settings.ts';
import { initialState, nextState } from './state.ts';

const PROBE: Probe = {
  action: { kind: 'tcp', port: 1 },
  periodMs: 10,
  timeoutMs: 10,
  successThreshold: 2,
  failureThreshold: 3,
  startPeriodMs: 0,
};

/** `+` good, `-` bad, one a second from the start; readiness after each as `R` and `.`. */
function story(answers: string, was: boolean, probe: Partial<Probe> = {}): string {
  let state = initialState(was ? { ready: true, since: undefined } : undefined, 0);
  return [...answers]
    .map((answer, i) => {
      const result = answer === '+' ? { ok: true as const } : { ok: false as const, message: 'no' };
      const at = { probe: { ...PROBE, ...probe }, startedMs: 0, nowMs: i * 1000 };
      state = nextState(state, result, at);
      assert.equal(state.message === '', state.ready);
      return state.ready ? 'R' : '.';
    })
    .join('');
}

describe('nextState()', () => {
  for (const [name, answers, was, expected, probe] of [
    ['a new container needs its good answers in a row', '+-++', false, '...R', {}],
    ['one of before stays until its bad answers in a row', '--+---', true, 'RRRRR.', {}],
    ['a bad answer begins the good ones anew', '++---+-++', false, '.RRR....R', {}],
    [
      'bad answers in the start period do not count',
      '++-----',
      false,
      '.RRRRR.',
      { startPeriodMs: 4000 },
    ],
    ['good ones do', '-++', false, '..R', { startPeriodMs: 9000 }],
    [
      'with thresholds of one each answer decides',
      '+-+',
      false,
      'R.R',
      { successThreshold: 1, failureThreshold: 1 },
    ],
  ] as const)
    test(name, () => assert.equal(story(answers, was, probe), expected));

  test('keeps when it began, over a start of the agent too', () => {
    const was = { ready: true, since: '2026-01-01T00:00:00Z' };
    const state = initialState(was, 5);
    assert.equal(state.sinceMs, Date.UTC(2026, 0, 1));
    const at = { probe: PROBE, startedMs: 0, nowMs: 7 };
    assert.equal(nextState(state, { ok: true }, at).sinceMs, state.sinceMs);
  });
});
