/**
 * Loading and changing the two service maps of a large cluster, against `nft -f` with the same content.
 *
 * usage: ./dev bench nft-load [SERVICES] [ENDPOINTS_EACH]     (root; in a network namespace of its own)
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { parseIp } from '#lib/ip.ts';
import { openNftables } from '#linux/nftables/kernel.ts';
import type { Nftables } from '#linux/nftables/port.ts';
import { dnat, goTo } from '#wire/nftables/expressions.ts';
import { ip, mapTo, meta, numgen, th } from '#wire/nftables/match.ts';
import type { SetElement, Transaction } from '#wire/nftables/objects.ts';
import { inTable } from '#wire/nftables/objects.ts';
import { encodeTransaction } from '#wire/nftables/transaction-encoder.ts';

const ROUNDS = 5;
const CHANGES = 500;
const PORT = 80;
const TARGET_PORT = 8080;
const TCP = 6;
const FIRST_SERVICE = 0x0a600000;
const FIRST_ENDPOINT = 0x0a800000;

const services = Number(process.argv[2] ?? 44_000);
const endpointsEach = Number(process.argv[3] ?? 5);
const tulle = inTable('ip', 'tulle');

const namespace = `tulle-bench-${process.pid}`;
execFileSync('ip', ['netns', 'add', namespace]);
try {
  using nft = openNftables({ netns: `/run/netns/${namespace}` });
  load(nft);
  change(nft);
} finally {
  execFileSync('ip', ['netns', 'delete', namespace]);
}

function load(nft: Nftables): void {
  const elements = services * (endpointsEach + 1);
  const encode: number[] = [];
  const ours: number[] = [];
  const peer: number[] = [];
  const hasPeer = spawnSync('nft', ['--version']).status === 0;
  const script = hasPeer ? nftScript() : '';
  for (let round = 0; round < ROUNDS; round++) {
    empty(nft);
    encode.push(elapsedMs(() => encodeTransaction(fill())));
    ours.push(elapsedMs(() => nft.commit(fill())));
    if (!hasPeer) continue;
    empty(nft);
    peer.push(
      elapsedMs(() => {
        execFileSync('ip', ['netns', 'exec', namespace, 'nft', '-f', '-'], { input: script });
      }),
    );
  }
  report(`encode ${elements} elements`, median(encode), 'ms');
  report(`load ${services} services x ${endpointsEach} endpoints`, median(ours), 'ms', {
    name: 'nft -f',
    value: hasPeer ? median(peer) : undefined,
  });
  empty(nft);
  nft.commit(fill());
}

/** One endpoint replaced by another, at that size. */
function change(nft: Nftables): void {
  const times: number[] = [];
  for (let i = 0; i < Math.min(CHANGES, services); i++)
    times.push(
      elapsedMs(() =>
        nft.commit([
          tulle.elements.delete('endpoints', [{ key: keyOf(i, 0) }]),
          tulle.elements.add('endpoints', [{ key: keyOf(i, 0), data: dataOf(900_000 + i) }]),
        ]),
      ) * 1000,
    );
  times.sort((a, b) => a - b);
  report('replace one endpoint p50', median(times), 'us');
  report('replace one endpoint p99', times[Math.floor(times.length * 0.99)] ?? 0, 'us');
}

function empty(nft: Nftables): void {
  const key = ['ip daddr', 'meta l4proto', 'th dport'] as const;
  const slot = `numgen random mod ${endpointsEach}` as const;
  nft.commit([
    tulle.table.destroy(),
    tulle.table.add(),
    tulle.set.add('frontends', { key, data: 'verdict', size: services }),
    tulle.set.add('endpoints', {
      key: [...key, slot],
      data: ['ip daddr', 'th dport'],
      size: services * endpointsEach + CHANGES,
    }),
    tulle.chain.add(`n${endpointsEach}`),
    tulle.rule.add(`n${endpointsEach}`, [
      ...mapTo([ip.daddr, meta.l4proto, th.dport, numgen('random', endpointsEach)], 'endpoints'),
      dnat('ip', { address: 0, port: 1 }),
    ]),
  ]);
}

function fill(): Transaction {
  return [
    tulle.elements.add('endpoints', { [Symbol.iterator]: endpoints }),
    tulle.elements.add('frontends', { [Symbol.iterator]: frontends }),
  ];
}

function* endpoints(): Generator<SetElement> {
  for (let service = 0; service < services; service++)
    for (let slot = 0; slot < endpointsEach; slot++)
      yield { key: keyOf(service, slot), data: dataOf(service * endpointsEach + slot) };
}
function* frontends(): Generator<SetElement> {
  const verdict = goTo(`n${endpointsEach}`);
  for (let service = 0; service < services; service++)
    yield { key: keyOf(service).subarray(0, 12), verdict };
}

function keyOf(service: number, slot = 0): Uint8Array {
  const key = new Uint8Array(16);
  writeU32(key, 0, FIRST_SERVICE + service);
  key[4] = TCP;
  key[9] = PORT;
  key[12] = slot;
  return key;
}
function dataOf(endpoint: number): Uint8Array {
  const data = new Uint8Array(8);
  writeU32(data, 0, FIRST_ENDPOINT + endpoint);
  data[4] = TARGET_PORT >>> 8;
  data[5] = TARGET_PORT & 0xff;
  return data;
}
function writeU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

function nftScript(): string {
  const address = (value: number) =>
    parseIp([24, 16, 8, 0].map((shift) => (value >>> shift) & 0xff).join('.'));
  const lines: string[] = [];
  for (let service = 0; service < services; service++) {
    const key = `${address(FIRST_SERVICE + service)} . tcp . ${PORT}`;
    const slots = Array.from({ length: endpointsEach }, (_, slot) => {
      const endpoint = address(FIRST_ENDPOINT + service * endpointsEach + slot);
      return `${key} . ${slot} : ${endpoint} . ${TARGET_PORT}`;
    });
    lines.push(`add element ip tulle endpoints { ${slots.join(', ')} }`);
    lines.push(`add element ip tulle frontends { ${key} : goto n${endpointsEach} }`);
  }
  return `${lines.join('\n')}\n`;
}

function report(
  name: string,
  value: number,
  unit: string,
  peer: { name?: string; value?: number | undefined } = {},
): void {
  const line = {
    bench: 'nft-load',
    case: name,
    value: round(value),
    unit,
    peer: peer.value === undefined ? null : (peer.name ?? null),
    peer_value: peer.value === undefined ? null : round(peer.value),
    ratio: peer.value === undefined ? null : round(value / peer.value),
  };
  console.log(JSON.stringify(line));
}

function elapsedMs(action: () => void): number {
  const start = process.hrtime.bigint();
  action();
  return Number(process.hrtime.bigint() - start) / 1e6;
}
function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? 0;
}
function round(value: number): number {
  return Number(value.toPrecision(4));
}
