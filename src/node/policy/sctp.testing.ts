/**
 * For tests: SCTP as packets. Few kernels have SCTP sockets; a raw one sends the first packet of an association (INIT,
 * RFC 9260 section 3.3.2) and another sees whether it arrives. Connection tracking knows it like any other.
 */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { inPlace, type Place } from './pod-program.testing.ts';

const FIRST_SOURCE_PORT = 40_000;
const SOURCE_PORTS = 20_000;
let sent = 0;
/** What a raw socket receives: IPv4 comes with its header, IPv6 without. */
const HEADER_BYTES = { 4: 20, 6: 0 } as const;
const LISTEN = `
use Socket; $| = 1; my ($family, $skip) = @ARGV;
socket(my $s, $family == 6 ? AF_INET6 : AF_INET, SOCK_RAW, 132) or die "socket: $!"; print "ready\\n";
while (defined recv($s, my $packet, 65535, 0)) { print unpack("H*", substr($packet, $skip)), "\\n"; }`;
const SEND = `
use Socket qw(:DEFAULT inet_pton pack_sockaddr_in6); my ($family, $host, $hex) = @ARGV;
my $to = $family == 6 ? pack_sockaddr_in6(0, inet_pton(AF_INET6, $host)) : pack_sockaddr_in(0, inet_aton($host));
socket(my $s, $family == 6 ? AF_INET6 : AF_INET, SOCK_RAW, 132) or die "socket: $!";
send($s, pack("H*", $hex), 0, $to) or die "send: $!";`;

export interface SctpTarget {
  readonly host: string;
  readonly port: number;
  /** The port that it is led to; `port` by default. */
  readonly arrivesAt?: number;
  readonly waitMs?: number;
}

/**
 * Sends an INIT from one namespace to another.
 * @returns `ok` if it arrives, `timeout` if it does not
 */
export async function sctpInit(
  ends: { readonly from: Place; readonly to: Place },
  { host, port, arrivesAt, waitMs = 400 }: SctpTarget,
): Promise<'ok' | 'timeout'> {
  const family = host.includes(':') ? 6 : 4;
  const [program = '', ...argv] = inPlace(ends.to, [
    ...['perl', '-e', LISTEN, String(family), String(HEADER_BYTES[family])],
  ]);
  const listener = spawn(program, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
  try {
    const lines = createInterface({ input: listener.stdout });
    await once(lines, 'line');
    const packet = initPacket(port);
    const init = packet.toString('hex');
    // Whoever translates the port makes the checksum anew.
    const expected = arrivesAt === undefined ? init : withPort(packet, arrivesAt).toString('hex');
    const arrived = new Promise<'ok'>((resolve) => {
      lines.on('line', (line) => line === expected && resolve('ok'));
    });
    const [sender = '', ...rest] = inPlace(ends.from, [
      'perl',
      '-e',
      SEND,
      String(family),
      host,
      init,
    ]);
    execFileSync(sender, rest);
    const late = new Promise<'timeout'>((resolve) => setTimeout(resolve, waitMs, 'timeout'));
    return await Promise.race([arrived, late]);
  } finally {
    listener.kill('SIGKILL');
  }
}

/** | source u16 | destination u16 | tag u32 = 0 | CRC32c u32 | type 1, flags 0, length 20 | tag | window | streams | TSN | */
function initPacket(port: number): Buffer {
  const packet = Buffer.alloc(12 + 20);
  // Another port each time: connection tracking takes a second INIT for part of the first association, and gives one of
  // two that meet behind a service another port.
  packet.writeUInt16BE(FIRST_SOURCE_PORT + (sent++ % SOURCE_PORTS), 0);
  packet.writeUInt8(1, 12);
  packet.writeUInt16BE(20, 14);
  // Another tag each time: a packet of an earlier try must not count.
  packet.writeUInt32BE(1 + Math.floor(Math.random() * 0xffff_fffe), 16);
  packet.writeUInt32BE(65_535, 20);
  packet.writeUInt16BE(1, 24);
  packet.writeUInt16BE(1, 26);
  packet.writeUInt32BE(1, 28);
  return withPort(packet, port);
}

function withPort(packet: Buffer, port: number): Buffer {
  packet.writeUInt16BE(port, 2);
  packet.writeUInt32LE(0, 8);
  packet.writeUInt32LE(crc32c(packet), 8);
  return packet;
}

const CASTAGNOLI = 0x82f6_3b78;

/** The checksum of SCTP, RFC 9260 appendix A. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? CASTAGNOLI : 0);
  }
  return (crc ^ 0xffff_ffff) >>> 0;
}
