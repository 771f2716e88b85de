/**
 * For tests: whole SCTP associations, where the kernel has no SCTP sockets. Raw sockets carry the packets; the four-way
 * handshake, one message each way and the shutdown (RFC 9260 sections 5.1, 6, 9.2) are here. It hears what an SCTP stack
 * would hear: packets with the right checksum and the right verification tag, from whom it speaks with.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { inPlace, type Place } from './pod-program.testing.ts';
import { crc32c } from './sctp.testing.ts';

/** Lines `ADDRESS HEX` in are packets out, and the other way round. A raw socket of IPv4 gives the IP header, too. */
const CARRY = `
use Socket qw(:all); $| = 1; my $six = $ARGV[0] eq "6";
socket(my $s, $six ? AF_INET6 : AF_INET, SOCK_RAW, 132) or die "socket: $!"; print "ready\\n";
my $left = "";
while (1) {
  my $set = ""; vec($set, fileno($_), 1) = 1 for ($s, *STDIN); select($set, undef, undef, undef);
  if (vec($set, fileno($s), 1)) {
    my $from = recv($s, my $packet, 65535, 0);
    my ($port, $host) = $six ? unpack_sockaddr_in6($from) : unpack_sockaddr_in($from);
    print inet_ntop($six ? AF_INET6 : AF_INET, $host), " ", unpack("H*", substr($packet, $six ? 0 : 20)), "\\n";
  }
  if (vec($set, fileno(STDIN), 1)) {
    sysread(STDIN, $left, 65535, length $left) or exit;
    while ($left =~ s/^(\\S+) (\\S+)\\n//) {
      my ($host, $hex) = ($1, $2);
      my $to = $six ? pack_sockaddr_in6(0, inet_pton(AF_INET6, $host)) : pack_sockaddr_in(0, inet_aton($host));
      send($s, pack("H*", $hex), 0, $to) or die "send: $!";
    }
  }
}`;

/** Chunk types, RFC 9260 section 3.2. */
const CHUNK = {
  DATA: 0,
  INIT: 1,
  INIT_ACK: 2,
  SACK: 3,
  SHUTDOWN: 7,
  SHUTDOWN_ACK: 8,
  COOKIE_ECHO: 10,
  COOKIE_ACK: 11,
  SHUTDOWN_COMPLETE: 14,
} as const;
/** Parameter of INIT ACK, RFC 9260 section 3.3.3. */
const STATE_COOKIE = 7;
const HEADER_BYTES = 12;
/** Before the parameters of INIT and INIT ACK: the chunk's header, tag, window, streams, TSN. */
const INIT_BYTES = 20;
const DATA_HEADER_BYTES = 16;
/** First, last, stream, sequence: a message in one piece. */
const WHOLE_MESSAGE = 3;

interface Packet {
  readonly peer: string;
  readonly sourcePort: number;
  readonly port: number;
  readonly tag: number;
  readonly type: number;
  /** The chunk, with its header. */
  readonly chunk: Buffer;
}

/** A raw socket in a namespace. */
interface Carrier extends Disposable {
  send(to: string, packet: Buffer): void;
  /** Calls back for every packet whose checksum is right. */
  receive(listener: (packet: Packet) => void): void;
}

/**
 * Answers associations on a port with `ADDRESS PEER`, until it is disposed.
 * @param address its own, as the answer names it
 */
export async function serveSctp(
  place: Place,
  { address, port }: { readonly address: string; readonly port: number },
): Promise<Disposable> {
  const carrier = await openCarrier(place, address);
  /** Tags of those that it speaks with. */
  const known = new Map<string, number>();
  carrier.receive((packet) => {
    if (packet.port !== port) return;
    const reply = (tag: number, type: number, body: Uint8Array = Buffer.alloc(0), flags = 0) =>
      carrier.send(
        packet.peer,
        encode({ sourcePort: port, port: packet.sourcePort, tag }, { type, flags, body }),
      );
    const { chunk, tag, type } = packet;
    if (type === CHUNK.INIT) {
      if (tag !== 0) return;
      const theirs = chunk.subarray(4, 8);
      const cookie = Buffer.concat([Buffer.from([0, STATE_COOKIE, 0, 12]), theirs, newTag()]);
      return reply(theirs.readUInt32BE(), CHUNK.INIT_ACK, initBody(cookie.readUInt32BE(8), cookie));
    }
    // What it told of itself came back with the cookie.
    if (type === CHUNK.COOKIE_ECHO) {
      if (chunk.length !== 12 || chunk.readUInt32BE(8) !== tag) return;
      known.set(`${packet.peer} ${packet.sourcePort} ${tag}`, chunk.readUInt32BE(4));
      return reply(chunk.readUInt32BE(4), CHUNK.COOKIE_ACK);
    }
    const theirs = known.get(`${packet.peer} ${packet.sourcePort} ${tag}`);
    if (theirs === undefined) return;
    if (type === CHUNK.DATA) {
      reply(theirs, CHUNK.SACK, sackBody(chunk));
      reply(theirs, CHUNK.DATA, dataBody(`${address} ${packet.peer}`), WHOLE_MESSAGE);
    }
    if (type === CHUNK.SHUTDOWN) reply(theirs, CHUNK.SHUTDOWN_ACK);
  });
  return carrier;
}

/**
 * Makes an association, sends a message, takes the answer, and shuts it down.
 * @returns the answer, or what it was waiting for when the time was up
 */
export async function associateSctp(
  place: Place,
  { host, port, waitMs = 5_000 }: { host: string; port: number; waitMs?: number },
): Promise<string> {
  using carrier = await openCarrier(place, host);
  const sourcePort = 1_024 + (randomBytes(2).readUInt16BE() % 60_000);
  const ownTag = newTag().readUInt32BE();
  let theirTag = 0;
  let answer = '';
  let waitsFor: number = CHUNK.INIT_ACK;
  const send = (type: number, body: Uint8Array = Buffer.alloc(0), flags = 0) =>
    carrier.send(host, encode({ sourcePort, port, tag: theirTag }, { type, flags, body }));
  const done = new Promise<void>((resolve) => {
    carrier.receive((packet) => {
      const { chunk, type } = packet;
      const isOurs = packet.port === sourcePort && packet.sourcePort === port;
      if (!isOurs || packet.peer !== host || packet.tag !== ownTag || type !== waitsFor) return;
      if (type === CHUNK.INIT_ACK) {
        theirTag = chunk.readUInt32BE(4);
        send(CHUNK.COOKIE_ECHO, chunk.subarray(INIT_BYTES + 4));
        waitsFor = CHUNK.COOKIE_ACK;
      } else if (type === CHUNK.COOKIE_ACK) {
        send(CHUNK.DATA, dataBody('?'), WHOLE_MESSAGE);
        waitsFor = CHUNK.SACK;
      } else if (type === CHUNK.SACK) waitsFor = CHUNK.DATA;
      else if (type === CHUNK.DATA) {
        answer = chunk.subarray(DATA_HEADER_BYTES, chunk.readUInt16BE(2)).toString();
        send(CHUNK.SACK, sackBody(chunk));
        send(CHUNK.SHUTDOWN, chunk.subarray(4, 8));
        waitsFor = CHUNK.SHUTDOWN_ACK;
      } else {
        send(CHUNK.SHUTDOWN_COMPLETE);
        resolve();
      }
    });
  });
  send(CHUNK.INIT, initBody(ownTag));
  const late = new Promise<'late'>((resolve) => setTimeout(resolve, waitMs, 'late').unref());
  if ((await Promise.race([done, late])) !== 'late') return answer;
  const name = Object.entries(CHUNK).find(([, type]) => type === waitsFor)?.[0];
  return `no ${name} for ${waitMs} ms`;
}

async function openCarrier(place: Place, address: string): Promise<Carrier> {
  const family = address.includes(':') ? '6' : '4';
  const [program = '', ...argv] = inPlace(place, ['perl', '-e', CARRY, family]);
  const child = spawn(program, argv, { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout });
  await once(lines, 'line');
  return {
    send: (to, packet) => child.stdin.write(`${to} ${packet.toString('hex')}\n`),
    receive: (listener) =>
      lines.on('line', (line) => {
        const [peer = '', hex = ''] = line.split(' ');
        const packet = decode(peer, Buffer.from(hex, 'hex'));
        if (packet !== undefined) listener(packet);
      }),
    [Symbol.dispose]: () => child.kill('SIGKILL'),
  };
}

/** | source u16 | destination u16 | tag u32 | CRC32c u32, little | type u8 | flags u8 | length u16 | body, padded | */
function encode(
  to: { readonly sourcePort: number; readonly port: number; readonly tag: number },
  chunk: { readonly type: number; readonly flags: number; readonly body: Uint8Array },
): Buffer {
  const length = 4 + chunk.body.length;
  const packet = Buffer.alloc(HEADER_BYTES + Math.ceil(length / 4) * 4);
  packet.writeUInt16BE(to.sourcePort, 0);
  packet.writeUInt16BE(to.port, 2);
  packet.writeUInt32BE(to.tag, 4);
  packet.writeUInt8(chunk.type, HEADER_BYTES);
  packet.writeUInt8(chunk.flags, HEADER_BYTES + 1);
  packet.writeUInt16BE(length, HEADER_BYTES + 2);
  packet.set(chunk.body, HEADER_BYTES + 4);
  packet.writeUInt32LE(crc32c(packet), 8);
  return packet;
}

/** @returns undefined if its checksum is wrong: whoever translated it has not made that anew */
function decode(peer: string, packet: Buffer): Packet | undefined {
  if (packet.length < HEADER_BYTES + 4) return undefined;
  const sum = packet.readUInt32LE(8);
  packet.writeUInt32LE(0, 8);
  if (crc32c(packet) !== sum) return undefined;
  return {
    peer,
    sourcePort: packet.readUInt16BE(0),
    port: packet.readUInt16BE(2),
    tag: packet.readUInt32BE(4),
    type: packet.readUInt8(HEADER_BYTES),
    chunk: packet.subarray(HEADER_BYTES),
  };
}

/** Tag, window, one stream each way, first TSN; parameters. */
function initBody(tag: number, parameters: Uint8Array = Buffer.alloc(0)): Buffer {
  const body = Buffer.alloc(16);
  body.writeUInt32BE(tag, 0);
  body.writeUInt32BE(65_535, 4);
  body.writeUInt16BE(1, 8);
  body.writeUInt16BE(1, 10);
  body.writeUInt32BE(1, 12);
  return Buffer.concat([body, parameters]);
}

/** TSN 1, stream 0, sequence 0, no protocol. */
function dataBody(text: string): Buffer {
  const body = Buffer.alloc(DATA_HEADER_BYTES - 4);
  body.writeUInt32BE(1, 0);
  return Buffer.concat([body, Buffer.from(text)]);
}

/** Its TSN, the window, no gaps, no duplicates. */
function sackBody(data: Buffer): Buffer {
  const body = Buffer.alloc(12);
  data.copy(body, 0, 4, 8);
  body.writeUInt32BE(65_535, 4);
  return body;
}

/** 0 is no tag. */
function newTag(): Buffer {
  const tag = randomBytes(4);
  tag.writeUInt8(1 + (tag.readUInt8() % 255));
  return tag;
}
