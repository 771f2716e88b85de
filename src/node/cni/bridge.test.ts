import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EOPNOTSUPP, EPERM, KernelError } from '#lib/errors.ts';
import type { IfIndex } from '#linux/network/port.ts';
import { setPort } from './bridge.ts';

const PORT = { port: 7 as IfIndex, master: 3 as IfIndex };
const OPTIONS = { hairpinMode: true, portIsolation: false };

/** Links whose port somebody takes out of the bridge so many times. */
function linksThat(times: number, errno: number) {
  const done: string[] = [];
  let left = times;
  return {
    done,
    set: (index: number, { master }: { master?: number | undefined }) => {
      done.push(`${index} into ${master}`);
    },
    setBridgePort: (index: number, change: object) => {
      if (left-- > 0) throw new KernelError(`change bridge port ${index}`, errno);
      done.push(`${index} ${JSON.stringify(change)}`);
    },
  };
}

test('setPort() puts a port back that somebody took out of the bridge, and not for ever', () => {
  const set = '7 {"hairpin":true,"isolated":false}';
  const once = linksThat(1, EOPNOTSUPP);
  setPort(once, PORT, OPTIONS);
  assert.deepEqual(once.done, ['7 into 3', set]);
  const always = linksThat(100, EOPNOTSUPP);
  assert.throws(() => setPort(always, PORT, OPTIONS), { errno: EOPNOTSUPP });
  const refused = linksThat(1, EPERM);
  assert.throws(() => setPort(refused, PORT, OPTIONS), { errno: EPERM });
  assert.deepEqual(refused.done, []);
});
