/**
 * What this node's DNS knows, kept on disk: an agent that starts while the API is away answers as the one before it did.
 *
 * ```text
 *   {"version":2,"domain":"cluster.local","serviceIps":["10.96.0.10"],"trusted":["10.244.0.0/16"]}
 *   {"name":…,"sets":"AAEA…"}               one line per name; the octets of `sets.ts` in base64
 *   {"names":12345}                          the end: a file without it was not written to its end
 * ```
 * The whole table is written some seconds after a change, in pieces between which the agent goes on with its work.
 */
import { createReadStream } from 'node:fs';
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { explainError } from '#lib/errors.ts';
import { type Cidr, type Ip, parseCidr, parseIp } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { SyncLoop } from '#lib/sync-loop.ts';
import { parseName } from '#wire/dns/name.ts';
import { decodeSets } from './sets.ts';
import type { NameChange } from './zone.ts';

const VERSION = 2;
/** Endpoints change all the time; what is remembered may be this much older than the last agent's end. */
const MIN_WRITE_INTERVAL_MS = 10_000;
/** Names between two turns of the event loop. */
const NAMES_PER_PIECE = 500;
/** More names than any cluster has; a file beyond it is not ours. */
const MAX_NAMES = 5_000_000;

/** What an agent needs beside the names. */
export interface DnsHead {
  readonly domain: string;
  /** The addresses of the DNS service. */
  readonly serviceIps: readonly Ip[];
  /** The pods' networks. */
  readonly trusted: readonly Cidr[];
}

export interface RememberedDns extends DnsHead {
  readonly names: readonly NameChange[];
}

/**
 * Reads what an earlier agent left.
 * @returns `undefined` if there is nothing, or nothing that can be trusted; the log says why
 */
export async function readDnsMemory(path: string, log: Logger): Promise<RememberedDns | undefined> {
  try {
    return await parseMemory(createInterface({ input: createReadStream(path, 'utf8') }));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
      log.warn({ path, reason: explainError(error) }, 'cannot use what DNS remembered');
    return undefined;
  }
}

async function parseMemory(lines: AsyncIterable<string>): Promise<RememberedDns> {
  let head: DnsHead | undefined;
  let isComplete = false;
  const names: NameChange[] = [];
  for await (const line of lines) {
    const value = JSON.parse(line) as Record<string, unknown>;
    if (isComplete || names.length > MAX_NAMES) throw new Error('it goes on after its end');
    if (head === undefined) head = parseHead(value);
    else if (value.names !== undefined) {
      if (value.names !== names.length) throw new Error('names are missing in it');
      isComplete = true;
    } else {
      const name = parseName(String(value.name));
      if (name === undefined || typeof value.sets !== 'string')
        throw new Error('a line is no name');
      const sets = Buffer.from(value.sets, 'base64').toString('latin1');
      decodeSets(name, sets); // throws for what is none
      names.push({ name, sets });
    }
  }
  if (head === undefined || !isComplete) throw new Error('it was not written to its end');
  return { ...head, names };
}

function parseHead(value: Record<string, unknown>): DnsHead {
  if (value.version !== VERSION) throw new Error(`its version is ${String(value.version)}`);
  const { domain, serviceIps, trusted } = value;
  if (typeof domain !== 'string' || !Array.isArray(serviceIps) || !Array.isArray(trusted))
    throw new Error('its head is broken');
  return {
    domain,
    serviceIps: serviceIps.flatMap((text) => parseIp(String(text)) ?? []),
    trusted: trusted.flatMap((text) => parseCidr(String(text)) ?? []),
  };
}

export interface DnsMemoryOptions {
  readonly path: string;
  readonly head: () => DnsHead;
  /** What is remembered of an earlier agent. */
  readonly names?: readonly NameChange[];
  readonly minIntervalMs?: number;
  readonly log: Logger;
}

/** Writes what DNS knows, now and then. */
export class DnsMemory implements AsyncDisposable {
  readonly names: readonly NameChange[];
  readonly #options: DnsMemoryOptions;
  readonly #loop: SyncLoop;
  #all: (() => Iterable<NameChange>) | undefined;

  constructor(options: DnsMemoryOptions) {
    this.#options = options;
    this.names = options.names ?? [];
    this.#loop = new SyncLoop(() => this.#write(), {
      name: 'dns: remember',
      log: options.log,
      minIntervalMs: options.minIntervalMs ?? MIN_WRITE_INTERVAL_MS,
    });
  }

  /** Something has changed. @param all gives every name when it is time to write */
  changed(all: () => Iterable<NameChange>): void {
    this.#all = all;
    this.#loop.trigger();
  }

  /** Resolves when all changes so far are on disk. */
  settled(): Promise<void> {
    return this.#loop.settled();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#loop[Symbol.asyncDispose]();
  }

  async #write(): Promise<void> {
    const { path, head } = this.#options;
    if (this.#all === undefined) return;
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const temporary = `${path}.new-${process.pid}`;
    const file = await open(temporary, 'w', 0o600);
    try {
      await file.write(`${JSON.stringify({ version: VERSION, ...head() })}\n`);
      // A name that changes while this goes on is written as it was or as it is, and again next time.
      let lines: string[] = [];
      let count = 0;
      for (const { name, sets } of [...this.#all()]) {
        if (sets === undefined) continue;
        const octets = Buffer.from(sets, 'latin1').toString('base64');
        lines.push(`${JSON.stringify({ name, sets: octets })}\n`);
        count++;
        if (lines.length < NAMES_PER_PIECE) continue;
        await file.write(lines.join(''));
        lines = [];
      }
      await file.write(`${lines.join('')}${JSON.stringify({ names: count })}\n`);
      await file.sync();
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  }
}
