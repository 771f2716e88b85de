/** Numbers of the DNS protocol, under the names of the IANA registry and the RFCs. */

export const HEADER_BYTES = 12;
/** RFC 1035 section 2.3.4. */
export const MAX_LABEL_BYTES = 63;
/** RFC 1035 section 2.3.4: a whole name on the wire, with length octets and the root's. */
export const MAX_NAME_BYTES = 255;
/** The length field of a message over TCP has 16 bits (RFC 1035 section 4.2.2). */
export const MAX_MESSAGE_BYTES = 65_535;
/** What every client takes over UDP without EDNS (RFC 1035 section 2.3.4). */
export const MIN_UDP_PAYLOAD_BYTES = 512;
/** Fits an Ethernet frame with IPv6 and tunnel headers, so that no answer is fragmented (DNS flag day 2020). */
export const UDP_PAYLOAD_BYTES = 1232;

export const TYPE_A = 1;
export const TYPE_NS = 2;
export const TYPE_CNAME = 5;
export const TYPE_SOA = 6;
export const TYPE_PTR = 12;
export const TYPE_HINFO = 13;
export const TYPE_MX = 15;
export const TYPE_TXT = 16;
/** RFC 3596 */
export const TYPE_AAAA = 28;
/** RFC 2782 */
export const TYPE_SRV = 33;
export const TYPE_NAPTR = 35;
/** RFC 6672 */
export const TYPE_DNAME = 39;
export const TYPE_DS = 43;
/** RFC 6891 */
export const TYPE_OPT = 41;
export const TYPE_RRSIG = 46;
export const TYPE_NSEC = 47;
export const TYPE_DNSKEY = 48;
/** RFC 9460 */
export const TYPE_SVCB = 64;
/** RFC 9460 */
export const TYPE_HTTPS = 65;
/** RFC 1995 */
export const TYPE_IXFR = 251;
export const TYPE_AXFR = 252;
export const TYPE_ANY = 255;

export const CLASS_IN = 1;
export const CLASS_CH = 3;
export const CLASS_ANY = 255;

export const OPCODE_QUERY = 0;
/** RFC 1996 */
export const OPCODE_NOTIFY = 4;
/** RFC 2136 */
export const OPCODE_UPDATE = 5;

export const RCODE_NOERROR = 0;
export const RCODE_FORMERR = 1;
export const RCODE_SERVFAIL = 2;
export const RCODE_NXDOMAIN = 3;
export const RCODE_NOTIMP = 4;
export const RCODE_REFUSED = 5;
/** RFC 6891 section 9: 16, of which the upper eight bits travel in the OPT record. */
export const RCODE_BADVERS = 16;

// The second 16-bit word of the header (RFC 1035 section 4.1.1, RFC 4035 section 3).
export const FLAG_QR = 0x8000;
export const OPCODE_MASK = 0x7800;
export const OPCODE_SHIFT = 11;
export const FLAG_AA = 0x0400;
export const FLAG_TC = 0x0200;
export const FLAG_RD = 0x0100;
export const FLAG_RA = 0x0080;
export const FLAG_AD = 0x0020;
export const FLAG_CD = 0x0010;
export const RCODE_MASK = 0x000f;

/** "DNSSEC OK" in the lower half of an OPT record's TTL (RFC 3225). */
export const EDNS_DO = 0x8000;
/** An OPT record without options: root, type, size, extended rcode, version, flags, length 0. */
export const OPT_BYTES = 11;
/** The option that holds a DNS cookie (RFC 7873 section 4). */
export const OPTION_COOKIE = 10;

/** The types' mnemonics; one that is missing is written `TYPE123` (RFC 3597). */
export const TYPE_NAMES: Readonly<Record<number, string>> = {
  [TYPE_A]: 'A',
  [TYPE_NS]: 'NS',
  [TYPE_CNAME]: 'CNAME',
  [TYPE_SOA]: 'SOA',
  [TYPE_PTR]: 'PTR',
  [TYPE_HINFO]: 'HINFO',
  [TYPE_MX]: 'MX',
  [TYPE_TXT]: 'TXT',
  [TYPE_AAAA]: 'AAAA',
  [TYPE_SRV]: 'SRV',
  [TYPE_NAPTR]: 'NAPTR',
  [TYPE_DS]: 'DS',
  [TYPE_OPT]: 'OPT',
  [TYPE_RRSIG]: 'RRSIG',
  [TYPE_NSEC]: 'NSEC',
  [TYPE_DNSKEY]: 'DNSKEY',
  [TYPE_SVCB]: 'SVCB',
  [TYPE_HTTPS]: 'HTTPS',
  [TYPE_IXFR]: 'IXFR',
  [TYPE_AXFR]: 'AXFR',
  [TYPE_ANY]: 'ANY',
};

export const RCODE_NAMES: Readonly<Record<number, string>> = {
  [RCODE_NOERROR]: 'NOERROR',
  [RCODE_FORMERR]: 'FORMERR',
  [RCODE_SERVFAIL]: 'SERVFAIL',
  [RCODE_NXDOMAIN]: 'NXDOMAIN',
  [RCODE_NOTIMP]: 'NOTIMP',
  [RCODE_REFUSED]: 'REFUSED',
  [RCODE_BADVERS]: 'BADVERS',
};
