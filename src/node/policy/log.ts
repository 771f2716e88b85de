/** What the kernel logs of refused packets, with names in place of addresses and hashes. */
import type { Ip } from '#lib/ip.ts';
import type { CompiledPolicy, Direction } from '#policy/model.ts';
import { protocolName } from '#policy/model.ts';
import { type LoggedPacket, readPacketEnds } from '#wire/nflog/codec.ts';
import type { RuleSet } from './chains.ts';
import { type LogVerdict, parseLogPrefix, shortHash } from './names.ts';

export interface PolicyLogRecord {
  /** RFC 3339. */
  readonly time: string;
  readonly verdict: LogVerdict;
  readonly direction: Direction;
  /** The policy whose rule decided, or those that isolate the pod. */
  readonly policies: readonly string[];
  readonly rule: number | undefined;
  readonly protocol: string;
  readonly source: LogEnd;
  readonly destination: LogEnd;
  readonly icmpType: number | undefined;
}

export interface LogEnd {
  readonly ip: Ip;
  readonly port: number | undefined;
  /** `pod ns/name`, `node name`, or undefined for the rest of the world. */
  readonly name: string | undefined;
  /** Services that have the pod as endpoint. */
  readonly services: readonly string[];
}

export interface LogContext {
  readonly nameOf: (address: Ip) => string | undefined;
  readonly servicesOf: (address: Ip) => readonly string[];
  readonly policyByHash: (hash: string) => CompiledPolicy | undefined;
  readonly ruleSetByHash: (hash: string) => RuleSet | undefined;
}

/** @returns undefined for a packet that is not ours to tell of, or that cannot be read */
export function describePacket(
  packet: LoggedPacket,
  context: LogContext,
  nowMs: number,
): PolicyLogRecord | undefined {
  const mark = parseLogPrefix(packet.prefix);
  const ends = readPacketEnds(packet.payload);
  if (mark === undefined || ends === undefined) return undefined;
  const endOf = (ip: Ip, port: number | undefined): LogEnd => ({
    ip,
    port,
    name: context.nameOf(ip),
    services: context.servicesOf(ip),
  });
  return {
    time: new Date(nowMs).toISOString(),
    verdict: mark.verdict,
    direction: mark.direction,
    policies: policiesOf(mark, context),
    rule: mark.rule < 0 ? undefined : mark.rule,
    protocol: protocolName(ends.protocol),
    source: endOf(ends.source, ends.sourcePort),
    destination: endOf(ends.destination, ends.destinationPort),
    icmpType: ends.icmpType,
  };
}

function policiesOf(
  { verdict, source }: { verdict: LogVerdict; source: string },
  context: LogContext,
): string[] {
  if (verdict === 'isolated')
    return (context.ruleSetByHash(source)?.policies ?? [])
      .filter((policy) => policy.tier === 'NetworkPolicy' && !policy.staged)
      .map(({ id }) => id);
  if (verdict === 'staged')
    return (context.ruleSetByHash(source)?.policies ?? [])
      .filter((policy) => policy.staged)
      .map(({ id }) => id);
  const policy = source === '' ? undefined : context.policyByHash(source);
  return policy === undefined ? [] : [policy.id];
}

/** Finds policies by the hash in their rules' log prefix; made anew when the policies are others. */
export function indexByHash(policies: Iterable<CompiledPolicy>): Map<string, CompiledPolicy> {
  return new Map([...policies].map((policy) => [shortHash(policy.id), policy] as const));
}

/** Records kept for those who begin to watch. */
const MAX_RECORDS = 1000;
/** Of all rules together; what is more is counted. */
const MAX_RECORDS_PER_SECOND = 200;

export class PolicyLog {
  readonly #records: PolicyLogRecord[] = [];
  readonly #listeners = new Set<(record: PolicyLogRecord) => void>();
  #second = 0;
  #inSecond = 0;
  /** Records left out because there were too many, or because the kernel's queue overflowed. */
  suppressed = 0;

  get recent(): readonly PolicyLogRecord[] {
    return this.#records;
  }

  add(record: PolicyLogRecord, nowMs: number): void {
    const second = Math.floor(nowMs / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#inSecond = 0;
    }
    if (++this.#inSecond > MAX_RECORDS_PER_SECOND) {
      this.suppressed++;
      return;
    }
    this.#records.push(record);
    if (this.#records.length > MAX_RECORDS) this.#records.shift();
    for (const listener of this.#listeners) listener(record);
  }

  /** @returns a function that ends it */
  follow(listener: (record: PolicyLogRecord) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}
