import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ip, ipToBytes } from '#lib/ip.ts';
import { OPTION_COOKIE, RCODE_FORMERR } from '#wire/dns/constants.ts';
import { encodeMessage, makeQuery } from '#wire/dns/message.ts';
import { name } from '#wire/dns/name.ts';
import { Cookies } from './cookies.ts';
import { newQuery, readQuery } from './query.ts';

const hex = (text: string) => new Uint8Array(Buffer.from(text, 'hex'));

function withCookie(cookie: string): Uint8Array {
  const options = [{ code: OPTION_COOKIE, bytes: hex(cookie) }];
  return encodeMessage(makeQuery(1, { name: name('example.com'), type: 1 }, { options }));
}

function check(it: { secret: string; cookie: string; from: string; nowS: number }) {
  const bytes = withCookie(it.cookie);
  const query = newQuery();
  assert.equal(readQuery(bytes, bytes.length, 1, query), 0);
  const address = ipToBytes(ip(it.from));
  const isProven = new Cookies(hex(it.secret)).check(bytes, query, address, it.nowS);
  return { isProven, answered: Buffer.from(query.cookie).toString('hex') };
}

// RFC 9018, appendix A.
const SECRET = 'e5e973e5a6b2a43f48e7dc849e37bfcf';
const V4 = { secret: SECRET, from: '198.51.100.100', nowS: 1_559_731_985 };
const FIRST = '2464c4abcf10c957010000005cf79f111f8130c3eee29480';

test('Cookies gives a new client the cookie of RFC 9018 A.1', () => {
  assert.deepEqual(check({ ...V4, cookie: '2464c4abcf10c957' }), {
    isProven: false,
    answered: FIRST,
  });
});

test('Cookies knows its cookie again, and gives the one of RFC 9018 A.2 later', () => {
  const it = { ...V4, cookie: FIRST, nowS: 1_559_734_385 };
  assert.deepEqual(check(it), {
    isProven: true,
    answered: '2464c4abcf10c957010000005cf7a871d4a564a1442aca77',
  });
});

test('Cookies gives an IPv6 client the cookie of RFC 9018 A.4', () => {
  const { answered } = check({
    secret: '445536bcd2513298075a5d379663c962',
    from: '2001:db8:220:1:59de:d0f4:8769:82b8',
    nowS: 1_559_741_961,
    cookie: '22681ab97d52c298010000005cf7c57926556bd0934c72f8',
  });
  assert.equal(answered, '22681ab97d52c298010000005cf7c609a6bb79d16625507a');
});

test('Cookies trusts no cookie of another client, secret, time or version', () => {
  const good = { ...V4, cookie: FIRST, nowS: V4.nowS + 10 };
  assert.equal(check(good).isProven, true);
  for (const [what, change] of [
    ['another address', { from: '198.51.100.101' }],
    ['another secret', { secret: 'f5e973e5a6b2a43f48e7dc849e37bfcf' }],
    ['another client cookie', { cookie: FIRST.replace('24', '25') }],
    ['another hash', { cookie: FIRST.replace(/80$/, '81') }],
    ['another version', { cookie: FIRST.replace('57010000', '57020000') }],
    ['too old', { nowS: V4.nowS + 3601 }],
    ['of the future', { nowS: V4.nowS - 301 }],
    ['longer', { cookie: `${FIRST}00` }],
  ] as const)
    assert.equal(check({ ...good, ...change }).isProven, false, what);
});

test('readQuery() refuses cookies and options of a length that cannot be', () => {
  for (const length of [0, 7, 9, 15, 41]) {
    const bytes = withCookie('00'.repeat(length));
    assert.equal(readQuery(bytes, bytes.length, 1, newQuery()), RCODE_FORMERR, String(length));
  }
  const cut = withCookie('2464c4abcf10c957');
  cut[cut.length - 9] = 9; // the option's length, beyond the record
  assert.equal(readQuery(cut, cut.length, 1, newQuery()), RCODE_FORMERR);
});
