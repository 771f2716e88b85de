/**
 * The machine's own resolver, when asked to: its resolv.conf names the node's DNS server first, and what stood there before
 * after it, so that the machine finds outside names also while no agent runs.
 *
 * ```text
 *   resolv.conf is a file or a link      it is replaced in one step; what it was is kept in the record beside the agent's
 *                                        data, first. What a link leads to is followed as it changes
 *   …names systemd-resolved's stub       it stays, and a drop-in tells systemd-resolved whom to ask for the cluster's names
 *   …and resolved's files name servers   it is replaced: resolved takes all servers of its files for one list, and would
 *                                        ask the others for the cluster's names too
 * ```
 * Level based: each pass compares what is there with what has to be there, so a DHCP client that writes the file anew is
 * followed. Nothing is touched before the node's server answers.
 */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { writeFileAtomic } from '#lib/atomic-file.ts';
import { explainError } from '#lib/errors.ts';
import type { Ip } from '#lib/ip.ts';
import type { Logger } from '#lib/log.ts';
import { parseNameservers, STUB_ADDRESSES } from './resolv-conf.ts';

/** How soon a file that somebody else has written is noticed. */
const CHECK_INTERVAL_MS = 2000;
const MARK = '# Tulle: the DNS server of this node comes first.';
const FILE_MODE = 0o644;

export interface HostResolverPaths {
  readonly resolvConf: string;
  /** Below /run: gone with the next boot, as the agent is until it starts. */
  readonly resolvedDropIn: string;
  /** Where systemd-resolved's settings stand: files, and directories of drop-ins. */
  readonly resolvedSettings: readonly string[];
  /** Keeps what resolv.conf was. */
  readonly record: string;
}

export interface HostResolverOptions {
  readonly paths: HostResolverPaths;
  /** Makes systemd-resolved read its drop-ins. */
  readonly reloadResolved: () => Promise<void>;
}

/** What resolv.conf was. */
type Before =
  | { readonly kind: 'file'; readonly text: string; readonly mode: number }
  | { readonly kind: 'link'; readonly target: string }
  | { readonly kind: 'none' };

/** @param dataDirectory the agent's */
export function hostResolverPaths(dataDirectory: string): HostResolverPaths {
  return {
    resolvConf: '/etc/resolv.conf',
    resolvedDropIn: '/run/systemd/resolved.conf.d/tulle.conf',
    resolvedSettings: ['/etc', '/run', '/usr/local/lib', '/usr/lib'].flatMap((root) => [
      `${root}/systemd/resolved.conf`,
      `${root}/systemd/resolved.conf.d`,
    ]),
    record: resolve(dataDirectory, 'dns/resolv.conf-before.json'),
  };
}

/** The text of a resolv.conf that names the server first. @param before the text without it */
export function withServer(before: string, server: Ip): string {
  const rest = before.split('\n').filter((line) => parseNameservers(line)[0] !== server);
  return [MARK, '# What else stands here was here before.', `nameserver ${server}`, ...rest].join(
    '\n',
  );
}

/** What stood in a file of {@link withServer}. */
export function withoutServer(text: string, server: Ip): string {
  const lines = text.split('\n').filter((line) => parseNameservers(line)[0] !== server);
  return lines.slice(2).join('\n');
}

/** What systemd-resolved is told: the cluster's names belong to this server, others may be asked there too. */
export function resolvedDropIn(server: Ip, domain: string): string {
  return `# Written by Tulle's agent, which takes it away again.\n[Resolve]\nDNS=${server}\nDomains=~${domain}\n`;
}

/** Keeps the machine's resolver at the node's DNS server until it is disposed. */
export class HostResolver implements AsyncDisposable {
  readonly #options: HostResolverOptions & {
    readonly server: Ip;
    readonly domain: string;
    readonly isReady: () => boolean;
    readonly log: Logger;
  };
  readonly #timer: NodeJS.Timeout;
  #running: Promise<void> = Promise.resolve();
  #problem: string | undefined;

  constructor(
    options: HostResolverOptions & {
      /** An address of the node's DNS server that every process of the machine reaches. */
      readonly server: Ip;
      /** The cluster domain. */
      readonly domain: string;
      /** Whether the server answers; before that nobody is sent there. */
      readonly isReady: () => boolean;
      readonly log: Logger;
      readonly intervalMs?: number;
    },
  ) {
    this.#options = options;
    const check = () => {
      this.#running = this.#running.then(() => this.sync());
    };
    this.#timer = setInterval(check, options.intervalMs ?? CHECK_INTERVAL_MS).unref();
    check();
  }

  /** Why the machine's resolver is not as it should be; `undefined` if it is. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Makes it so now. Does not throw: what fails is told by {@link problem} and tried again. */
  async sync(): Promise<void> {
    const { paths, server, domain, isReady, reloadResolved, log } = this.#options;
    if (!isReady()) return;
    try {
      const text = textOf(paths.resolvConf);
      const usesStub = parseNameservers(text ?? '').some((it) => STUB_ADDRESSES.includes(it));
      if (usesStub && !hasOtherServers(paths)) {
        const wanted = resolvedDropIn(server, domain);
        if (textOf(paths.resolvedDropIn) !== wanted) {
          mkdirSync(dirname(paths.resolvedDropIn), { recursive: true });
          writeFileAtomic(paths.resolvedDropIn, wanted, { mode: FILE_MODE });
          await reloadResolved();
        }
      } else {
        if (existsSync(paths.resolvedDropIn)) {
          rmSync(paths.resolvedDropIn);
          await reloadResolved();
        }
        this.#replace(textOf(paths.resolvConf)); // read anew: reloading takes its time
      }
      this.#problem = undefined;
    } catch (error) {
      const reason = explainError(error);
      if (this.#problem !== reason)
        log.warn({ reason }, 'the machine’s resolver cannot be pointed at this node’s DNS');
      this.#problem = reason;
    }
  }

  /** Gives the machine its resolver back. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#running;
    await releaseHostResolver(this.#options, this.#options.server);
  }

  #replace(text: string | undefined): void {
    const { paths, server } = this.#options;
    let before = readRecord(paths.record);
    if (text === undefined || !text.startsWith(MARK)) {
      // Not ours, or not any more: whoever wrote it last says what comes after us.
      before = lookAt(paths.resolvConf);
      mkdirSync(dirname(paths.record), { recursive: true, mode: 0o700 });
      writeFileAtomic(paths.record, JSON.stringify(before), { mode: 0o600 });
    }
    const wanted = withServer(
      textBefore(paths, before) ?? withoutServer(text ?? '', server),
      server,
    );
    if (text !== wanted) writeFileAtomic(paths.resolvConf, wanted, { mode: FILE_MODE });
  }
}

/**
 * Puts the machine's resolver back to what it was, if it is as we made it; what somebody else has written since stays.
 * @returns what was put back, a line each
 */
export async function releaseHostResolver(
  { paths, reloadResolved }: HostResolverOptions,
  server: Ip,
): Promise<string[]> {
  const done: string[] = [];
  if (existsSync(paths.resolvedDropIn)) {
    rmSync(paths.resolvedDropIn);
    done.push(paths.resolvedDropIn);
    // The file is what counts: what is left in its memory goes with the service's next start.
    await reloadResolved().catch((error: unknown) => {
      done.push(`nothing of it from systemd-resolved's memory: ${explainError(error)}`);
    });
  }
  const text = textOf(paths.resolvConf);
  if (text?.startsWith(MARK)) {
    putBack(paths.resolvConf, readRecord(paths.record) ?? plainFile(withoutServer(text, server)));
    done.push(`our name server from ${paths.resolvConf}`);
  }
  rmSync(paths.record, { force: true });
  return done;
}

function putBack(path: string, before: Before): void {
  switch (before.kind) {
    case 'none':
      rmSync(path, { force: true });
      break;
    case 'file':
      writeFileAtomic(path, before.text, { mode: before.mode });
      break;
    case 'link': {
      const temporary = `${path}.new-${process.pid}`;
      rmSync(temporary, { force: true });
      symlinkSync(before.target, temporary);
      renameSync(temporary, path);
      break;
    }
  }
}

function plainFile(text: string): Before {
  return { kind: 'file', text, mode: FILE_MODE };
}

function lookAt(path: string): Before {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return { kind: 'none' };
  if (found.isSymbolicLink()) return { kind: 'link', target: readlinkSync(path) };
  return { kind: 'file', text: readFileSync(path, 'utf8'), mode: found.mode & 0o777 };
}

/** What comes after our line; of a link what it leads to now. @returns `undefined` if it is not known */
function textBefore(paths: HostResolverPaths, before: Before | undefined): string | undefined {
  switch (before?.kind) {
    case 'none':
      return '';
    case 'file':
      return before.text;
    case 'link':
      return textOf(resolve(dirname(paths.resolvConf), before.target)) ?? '';
    default:
      return undefined;
  }
}

function readRecord(path: string): Before | undefined {
  const text = textOf(path);
  return text === undefined ? undefined : (JSON.parse(text) as Before);
}

/** Whether systemd-resolved has name servers by its files, beside ours. Those of links are lists of their own. */
function hasOtherServers({ resolvedSettings, resolvedDropIn }: HostResolverPaths): boolean {
  const files = resolvedSettings.flatMap((path) =>
    lstatSync(path, { throwIfNoEntry: false })?.isDirectory()
      ? readdirSync(path).map((file) => join(path, file))
      : [path],
  );
  return files.some(
    (file) =>
      file.endsWith('.conf') &&
      file !== resolvedDropIn &&
      /^[ \t]*DNS[ \t]*=[ \t]*\S/m.test(textOf(file) ?? ''),
  );
}

/** @returns `undefined` if there is no such file */
function textOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
