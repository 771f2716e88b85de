/**
 * Who asks: the pods of this node by their addresses, and everybody else. One object per client carries all that the
 * server keeps of it, so that a query costs one look-up.
 *
 * The pods come from the node's attachments, which know of an address's new pod before that pod runs; so an address
 * that is used again never gets the search list of the pod that had it before.
 */
import { type Cidr, type Ip, ipToBytes, networkAddress, prefixLengthOf } from '#lib/ip.ts';
import { searchSuffixOf } from '../search.ts';

/** Clients that are no pods: other machines, processes of this one. Forgotten together when there are more. */
const MAX_STRANGERS = 4096;

export interface PodClient {
  readonly address: Ip;
  /** `namespace/name` */
  readonly pod: string;
}

export interface ClientLimits {
  /** Queries a second; 0: any number. */
  readonly queriesPerSecond: number;
  readonly namespaces: Readonly<Record<string, number>>;
}

/** A client of the server. */
export interface ClientState {
  /** `namespace/name`; `undefined` for who is no pod of this node. */
  readonly pod: string | undefined;
  readonly searchSuffix: Uint8Array | undefined;
  /** May get answers larger than its questions: nobody outside can send with this source address. */
  readonly trusted: boolean;
  readonly address: Uint8Array;
  /** Its queries are logged. */
  logged: boolean;
  queriesPerSecond: number;
  /** Queries it may send now. A second's worth at most, so that an idle client can send a burst. */
  tokens: number;
  refilledAtMs: number;
  next: ClientState | undefined;
}

export class Clients {
  readonly #zone: string;
  #pods = new Map<number, ClientState>();
  readonly #strangers = new Map<number, ClientState>();
  #strangerCount = 0;
  #trusted: readonly { bytes: Uint8Array; prefixLength: number }[] = [];
  #limits: ClientLimits = { queriesPerSecond: 0, namespaces: {} };
  readonly #logged = new Set<string>();

  constructor(zone: string) {
    this.#zone = zone;
  }

  /** Replaces the pods of this node. */
  setPods(pods: readonly PodClient[]): void {
    const old = this.#pods;
    this.#pods = new Map();
    for (const { address, pod } of pods) {
      const bytes = ipToBytes(address);
      const key = keyOf(bytes, 0, bytes.length);
      const known = findIn(old, key, bytes, 0, bytes.length);
      // The same pod keeps what it has used up.
      const { tokens, refilledAtMs } =
        known?.pod === pod ? known : { tokens: Number.POSITIVE_INFINITY, refilledAtMs: 0 };
      const namespace = pod.slice(0, pod.indexOf('/'));
      this.#pods.set(key, {
        pod,
        searchSuffix: searchSuffixOf(namespace, this.#zone),
        trusted: true,
        address: bytes,
        logged: this.#logged.has(pod),
        queriesPerSecond: this.#limitOf(namespace),
        tokens,
        refilledAtMs,
        next: this.#pods.get(key),
      });
    }
  }

  /** Replaces the prefixes whose addresses nobody outside can send from. */
  setTrusted(prefixes: readonly Cidr[]): void {
    this.#trusted = prefixes.map((prefix) => ({
      bytes: ipToBytes(networkAddress(prefix)),
      prefixLength: prefixLengthOf(prefix),
    }));
    this.#forgetStrangers();
  }

  setLimits(limits: ClientLimits): void {
    this.#limits = limits;
    for (const first of this.#pods.values())
      for (let pod: ClientState | undefined = first; pod !== undefined; pod = pod.next)
        pod.queriesPerSecond = this.#limitOf(pod.pod?.slice(0, pod.pod.indexOf('/')) ?? '');
    this.#forgetStrangers();
  }

  /** Turns the log of a pod's queries on or off; also for a pod that comes later. */
  setLogged(pod: string, logged: boolean): void {
    if (logged) this.#logged.add(pod);
    else this.#logged.delete(pod);
    for (const first of this.#pods.values())
      for (let at: ClientState | undefined = first; at !== undefined; at = at.next)
        if (at.pod === pod) at.logged = logged;
  }

  /** @param bytes holds the client's address, of 4 or 16 octets, at `at` */
  find(bytes: Uint8Array, at: number, length: number): ClientState {
    const key = keyOf(bytes, at, length);
    return (
      findIn(this.#pods, key, bytes, at, length) ??
      findIn(this.#strangers, key, bytes, at, length) ??
      this.#addStranger(key, bytes.slice(at, at + length))
    );
  }

  findIp(address: Ip): ClientState {
    const bytes = ipToBytes(address);
    return this.find(bytes, 0, bytes.length);
  }

  #addStranger(key: number, address: Uint8Array): ClientState {
    if (this.#strangerCount >= MAX_STRANGERS) this.#forgetStrangers();
    const client: ClientState = {
      pod: undefined,
      searchSuffix: undefined,
      trusted: this.#trusted.some((prefix) => isInPrefix(address, prefix)),
      address,
      logged: false,
      queriesPerSecond: this.#limits.queriesPerSecond,
      tokens: Number.POSITIVE_INFINITY,
      refilledAtMs: 0,
      next: this.#strangers.get(key),
    };
    this.#strangers.set(key, client);
    this.#strangerCount++;
    return client;
  }

  #forgetStrangers(): void {
    this.#strangers.clear();
    this.#strangerCount = 0;
  }

  #limitOf(namespace: string): number {
    return this.#limits.namespaces[namespace] ?? this.#limits.queriesPerSecond;
  }
}

/** Takes one query from a client's allowance. @returns whether there was one */
export function allow(client: ClientState, nowMs: number): boolean {
  const { queriesPerSecond } = client;
  if (queriesPerSecond === 0) return true;
  const passedS = Math.max(0, nowMs - client.refilledAtMs) / 1000;
  client.refilledAtMs = nowMs;
  client.tokens = Math.min(queriesPerSecond, client.tokens + passedS * queriesPerSecond);
  if (client.tokens < 1) return false;
  client.tokens--;
  return true;
}

function findIn(
  map: ReadonlyMap<number, ClientState>,
  key: number,
  bytes: Uint8Array,
  at: number,
  length: number,
): ClientState | undefined {
  for (let client = map.get(key); client !== undefined; client = client.next)
    if (sameAddress(client.address, bytes, at, length)) return client;
  return undefined;
}

/** In 30 bits, which are a small integer for the engine. */
function keyOf(bytes: Uint8Array, at: number, length: number): number {
  let key = 0;
  for (let i = 0; i < length; i++) key = Math.imul(key ^ (bytes[at + i] ?? 0), 0x01000193);
  return (key ^ (key >>> 15)) & 0x3fffffff;
}

function sameAddress(a: Uint8Array, bytes: Uint8Array, at: number, length: number): boolean {
  if (a.length !== length) return false;
  for (let i = 0; i < length; i++) if (a[i] !== bytes[at + i]) return false;
  return true;
}

function isInPrefix(
  address: Uint8Array,
  prefix: { bytes: Uint8Array; prefixLength: number },
): boolean {
  if (address.length !== prefix.bytes.length) return false;
  for (let i = 0; i < address.length; i++) {
    const bits = Math.min(8, Math.max(0, prefix.prefixLength - i * 8));
    const mask = (0xff00 >> bits) & 0xff;
    if (((address[i] ?? 0) & mask) !== ((prefix.bytes[i] ?? 0) & mask)) return false;
  }
  return true;
}
