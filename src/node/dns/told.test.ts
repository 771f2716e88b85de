import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ip } from '#lib/ip.ts';
import {
  RCODE_NXDOMAIN,
  RCODE_SERVFAIL,
  TYPE_A,
  TYPE_AAAA,
  TYPE_CNAME,
  TYPE_TXT,
} from '#wire/dns/constants.ts';
import { encodeMessage, makeQuery, type ResourceRecord } from '#wire/dns/message.ts';
import { name } from '#wire/dns/name.ts';
import { type AnswerListener, watchAnswers } from './told.ts';

const CLASS_IN = 1;
const record = (owner: string, ttlS: number, data: ResourceRecord['data']): ResourceRecord => ({
  name: name(owner),
  type: data.kind === 'CNAME' ? TYPE_CNAME : data.kind === 'A' ? TYPE_A : TYPE_AAAA,
  class: CLASS_IN,
  ttlS,
  data,
});

async function told(
  answers: readonly ResourceRecord[] | undefined,
  options: { type?: number; rcode?: number; wanted?: boolean } = {},
): Promise<string[]> {
  const { type = TYPE_A, rcode = 0, wanted = true } = options;
  const heard: string[] = [];
  const watch: AnswerListener = {
    wants: () => wanted,
    asked: (asked, family) => heard.push(`asked ${asked} ${family}`),
    async answered(asked, family, addresses) {
      // The answer waits for it.
      await new Promise(setImmediate);
      const told = addresses?.map(({ address, ttlS }) => `${address} ${ttlS}`).join(', ');
      heard.push(`${asked} ${family}: ${told}`);
    },
  };
  const query = makeQuery(1, { name: name('www.example.com.'), type });
  const bytes =
    answers === undefined ? undefined : encodeMessage({ ...query, response: true, rcode, answers });
  const forwarder = watchAnswers(
    {
      resolve: () => {
        heard.push('forward');
        return Promise.resolve(bytes);
      },
    },
    watch,
  );
  const question = {
    name: name('WWW.example.com.'),
    type,
    dnssecOk: false,
    checkingDisabled: false,
  };
  assert.equal(await forwarder.resolve(question), bytes);
  return heard;
}

describe('watchAnswers()', () => {
  test('tells the addresses at the end of a chain, for the least of its times', async () => {
    const chain = [
      record('www.example.com.', 20, { kind: 'CNAME', target: name('host.example.net.') }),
      record('host.example.net.', 300, { kind: 'A', address: ip('192.0.2.1') }),
      record('host.example.net.', 300, { kind: 'A', address: ip('192.0.2.2') }),
    ];
    assert.deepEqual(await told(chain), [
      'asked www.example.com 4',
      'forward',
      'www.example.com 4: 192.0.2.1 20, 192.0.2.2 20',
    ]);
  });

  test('an IPv6 address, and a TTL with its top bit set', async () => {
    const answer = [
      record('www.example.com.', 2 ** 31, { kind: 'AAAA', address: ip('2001:db8::1') }),
    ];
    assert.equal(
      (await told(answer, { type: TYPE_AAAA })).at(-1),
      'www.example.com 6: 2001:db8::1 0',
    );
  });

  test('"no such name" is an answer without addresses; a failure is none', async () => {
    assert.equal((await told([], { rcode: RCODE_NXDOMAIN })).at(-1), 'www.example.com 4: ');
    assert.equal(
      (await told([], { rcode: RCODE_SERVFAIL })).at(-1),
      'www.example.com 4: undefined',
    );
    assert.equal((await told(undefined)).at(-1), 'www.example.com 4: undefined');
  });

  test('other types and names that nobody wants are only forwarded', async () => {
    assert.deepEqual(await told([], { type: TYPE_TXT }), ['forward']);
    assert.deepEqual(await told([], { wanted: false }), ['forward']);
  });
});
