/** Queries that ask for no data, or ask in an unusual way, and the first line of their answers. */
import { encodeMessage, type Message, makeQuery } from '#wire/dns/message.ts';
import { name } from '#wire/dns/name.ts';

const BASE = makeQuery(9, { name: name('web.default.svc.cluster.local'), type: 1 });

function asking(change: object): Message {
  return { ...BASE, questions: BASE.questions.map((question) => ({ ...question, ...change })) };
}

function withOptions(version: number, ...options: readonly [number, readonly number[]][]): Message {
  const edns = {
    udpPayloadBytes: 1232,
    version,
    dnssecOk: false,
    options: options.map(([code, octets]) => ({ code, bytes: Uint8Array.from(octets) })),
  };
  return { ...BASE, edns };
}

const VECTORS: readonly (readonly [what: string, Message, expected: string])[] = [
  ['NOTIFY', { ...BASE, opcode: 4 }, 'REFUSED'],
  ['UPDATE', { ...BASE, opcode: 5 }, 'REFUSED'],
  ['STATUS', { ...BASE, opcode: 2 }, 'NOTIMP'],
  ['an opcode that nobody knows', { ...BASE, opcode: 11 }, 'NOTIMP'],
  ['AXFR', asking({ type: 252 }), 'REFUSED'],
  ['IXFR', asking({ type: 251 }), 'REFUSED'],
  ['class CH', asking({ class: 3 }), 'REFUSED'],
  ['class ANY', asking({ class: 255 }), 'REFUSED'],
  ['a class that nobody knows', asking({ class: 4711 }), 'REFUSED'],
  ['a type that nobody knows', asking({ type: 65_280 }), 'NOERROR aa'],
  ['two questions', { ...BASE, questions: [...BASE.questions, ...BASE.questions] }, 'FORMERR'],
  ['no question', { ...BASE, questions: [] }, 'FORMERR'],
  ['a response', { ...BASE, response: true }, 'drop'],
  ['EDNS version 1', withOptions(1), 'BADVERS'],
  // RFC 7871: 192.0.2.0/24. It is of no meaning for a name of the cluster.
  ['a client subnet', withOptions(0, [8, [0, 1, 24, 0, 192, 0, 2]]), 'NOERROR aa'],
  ['an option that nobody knows', withOptions(0, [65_001, [1, 2, 3]]), 'NOERROR aa'],
  ['a cookie', withOptions(0, [10, [1, 2, 3, 4, 5, 6, 7, 8]]), 'NOERROR aa'],
  ['a cookie that is too short', withOptions(0, [10, [1, 2, 3]]), 'FORMERR'],
  [
    'another name without recursion',
    { ...asking({ name: name('example.com') }), recursionDesired: false },
    'REFUSED',
  ],
];

/** `drop`: no answer. */
export const PROTOCOL_QUERIES: readonly (readonly [what: string, Uint8Array, expected: string])[] =
  VECTORS.map(([what, message, expected]) => [what, encodeMessage(message), expected]);
