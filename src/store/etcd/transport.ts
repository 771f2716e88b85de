/**
 * Requests to the members of an etcd cluster.
 *
 * Any member answers for the cluster, so one is used until it fails and then the next. What may have reached a member is
 * sent again only if it is a read: a write whose answer was lost may have happened, and its caller must know.
 */
import { Backoff } from '#lib/backoff.ts';
import { sleep } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import type { Pieces } from '#wire/protobuf/writer.ts';
import {
  EtcdConnectionError,
  EtcdError,
  isOldToken,
  isRefusal,
  isTransient,
  UNAUTHENTICATED,
  UNAVAILABLE,
} from './errors.ts';
import { EtcdLink, type LinkTls } from './link.ts';
import {
  authenticateRequest,
  decodeClusterId,
  decodeToken,
  METHODS,
  type Method,
} from './messages.ts';

export interface EtcdConnection {
  /** `http://` or `https://` URLs of members' client ports. */
  readonly endpoints: readonly string[];
  /** PEM. `ca` replaces the system's authorities; `cert` and `key` are for members that ask for a certificate. */
  readonly tls?: LinkTls;
  /** For a cluster with authentication enabled. */
  readonly user?: { readonly name: string; readonly password: string };
}

/** A read that a member has not answered in this time is tried elsewhere: a member cut off from the others holds it back. */
const READ_ATTEMPT_MS = 2_000;
/** etcd's own limit for a write is 5 s and two election timeouts; a little more, so that its answer is heard. */
const WRITE_TIMEOUT_MS = 9_000;
const DEFAULT_READ_TIMEOUT_MS = 10_000;

export interface CallOptions {
  /** It changes something: never sent twice. */
  readonly isWrite?: boolean;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** A question that is allowed, with the message that asks it. */
export interface Question {
  readonly method: Method;
  readonly message: Pieces;
}

export class EtcdTransport implements Disposable {
  readonly #links: readonly { readonly origin: string; readonly link: EtcdLink }[];
  readonly #user: EtcdConnection['user'];
  readonly #closed = new AbortController();
  /** The member in use. */
  #current = 0;
  #token: Promise<string> | undefined;
  /** All members must be of one cluster: two URLs that are not would lose writes silently. */
  #clusterId: bigint | undefined;
  /** Members that are known to be of it. */
  readonly #verified = new Set<string>();
  readonly #probe: Question;

  /**
   * @param probe asked of each member before it is sent a first write
   * @throws TypeError if an endpoint is no URL, or there is none
   */
  constructor({ endpoints, tls = {}, user }: EtcdConnection, probe: Question) {
    this.#probe = probe;
    this.#links = endpoints.map((endpoint) => {
      const url = new URL(endpoint);
      return { origin: url.origin, link: new EtcdLink(url, tls) };
    });
    if (this.#links.length === 0) throw new TypeError('an etcd cluster has at least one URL');
    this.#user = user;
  }

  /** Ends everything that is under way. */
  [Symbol.dispose](): void {
    this.#closed.abort(new Error('the connection to etcd is closed'));
    for (const { link } of this.#links) link[Symbol.dispose]();
  }

  /** The member that the next request goes to. */
  get currentEndpoint(): string {
    return this.#memberInUse().origin;
  }

  /** Use another member from now on, unless somebody has moved on already. */
  passOver(endpoint: string): void {
    if (this.currentEndpoint === endpoint) this.#current++;
  }

  /**
   * Asks a question and gives the answer's bytes.
   * @throws EtcdError, EtcdConnectionError, EtcdAnswerTooLargeError; the signal's reason
   */
  async call(method: Method, message: Pieces, options: CallOptions = {}): Promise<Uint8Array> {
    const { isWrite = false, signal } = options;
    const timeoutMs = options.timeoutMs ?? (isWrite ? WRITE_TIMEOUT_MS : DEFAULT_READ_TIMEOUT_MS);
    const deadlineMs = performance.now() + timeoutMs;
    let backoff: Backoff | undefined;
    let renewedToken = false;
    for (let attempt = 1; ; attempt++) {
      const leftMs = Math.max(1, Math.ceil(deadlineMs - performance.now()));
      const member = this.#memberInUse();
      try {
        const limitMs = isWrite ? leftMs : Math.min(leftMs, READ_ATTEMPT_MS);
        if (isWrite) await this.#verify(member);
        return await this.#attempt(member, { method, message }, { signal, timeoutMs: limitMs });
      } catch (error) {
        if (signal?.aborted || this.#closed.signal.aborted) throw error;
        if (this.#user !== undefined && isOldToken(error) && !renewedToken) {
          renewedToken = true;
          this.#token = undefined;
          continue;
        }
        if (!isTransient(error)) throw error;
        this.passOver(member.origin);
        const isRepeatable = !isWrite || isRefusal(error);
        backoff ??= new Backoff({ minMs: 10, maxMs: 500 });
        const waitMs = attempt < this.#links.length ? 0 : backoff.next();
        if (!isRepeatable || performance.now() + waitMs >= deadlineMs) throw error;
        await sleep(waitMs, signal ?? this.#closed.signal);
      }
    }
  }

  /**
   * Asks the member in use for a stream of messages.
   * @param onMessage gets each message
   * @throws EtcdError, EtcdConnectionError, also when the stream ends; what `onMessage` throws; the signal's reason
   */
  async stream(
    method: Method,
    message: Pieces,
    options: { readonly signal: AbortSignal; readonly onMessage: (message: Uint8Array) => void },
  ): Promise<never> {
    const { origin, link } = this.#memberInUse();
    const { signal, onMessage } = options;
    const token = await this.#authenticate();
    await link.exchange({
      method,
      message,
      token,
      signal,
      onMessage: (answer) => {
        this.#checkCluster(origin, answer);
        onMessage(answer);
      },
    });
    throw new EtcdConnectionError(origin, 'the stream has ended');
  }

  #memberInUse(): Member {
    const member = this.#links[this.#current % this.#links.length];
    if (member === undefined) throw new TypeError('an etcd cluster has at least one URL');
    return member;
  }

  async #attempt(
    { origin, link }: Member,
    { method, message }: Question,
    options: { readonly timeoutMs: number; readonly signal?: AbortSignal | undefined },
  ): Promise<Uint8Array> {
    const token = method === METHODS.authenticate ? undefined : await this.#authenticate();
    let answer: Uint8Array | undefined;
    const onMessage = (found: Uint8Array) => {
      answer ??= found;
    };
    await link.exchange({ ...options, method, message, token, onMessage });
    if (answer === undefined) throw new EtcdConnectionError(origin, 'the answer is empty');
    this.#checkCluster(origin, answer);
    return answer;
  }

  /** @throws EtcdConnectionError, which says that nothing was written */
  async #verify(member: Member): Promise<void> {
    if (this.#verified.has(member.origin)) return;
    try {
      await this.#attempt(member, this.#probe, { timeoutMs: READ_ATTEMPT_MS });
    } catch (cause) {
      if (isOldToken(cause)) throw cause;
      throw new EtcdConnectionError(member.origin, explainError(cause), { wasSent: false, cause });
    }
  }

  /** @returns `undefined` if no user is configured */
  async #authenticate(): Promise<string | undefined> {
    const user = this.#user;
    if (user === undefined) return undefined;
    this.#token ??= (async () => {
      const request = authenticateRequest(user.name, user.password);
      const token = decodeToken(await this.call(METHODS.authenticate, request));
      if (token === '')
        throw new EtcdError('its answer to the password has no token', {
          grpcCode: UNAUTHENTICATED,
          endpoint: this.currentEndpoint,
        });
      return token;
    })();
    const mine = this.#token;
    try {
      return await mine;
    } catch (error) {
      if (this.#token === mine) this.#token = undefined;
      throw error;
    }
  }

  #checkCluster(origin: string, answer: Uint8Array): void {
    const id = decodeClusterId(answer);
    if (id === undefined) return;
    this.#clusterId ??= id;
    if (id === this.#clusterId) this.#verified.add(origin);
    if (id !== this.#clusterId)
      throw new EtcdError(
        `it belongs to another cluster (${id}) than the members used before (${this.#clusterId}); the URLs must all be of one cluster`,
        { grpcCode: UNAVAILABLE, endpoint: origin },
      );
  }
}

interface Member {
  readonly origin: string;
  readonly link: EtcdLink;
}
