/** The agent's end of the CNI socket: one call per connection, any number of calls at a time up to a bound. */
import { mkdirSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { explainError, UserError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Lull } from '#lib/lull.ts';
import {
  decodeCall,
  decodeFrame,
  encodeAnswer,
  MAX_FRAME_BYTES,
  type PluginAnswer,
  type PluginCall,
} from './protocol.ts';

export const DEFAULT_CNI_SOCKET = '/run/tulle/cni.sock';

/** A runtime that starts hundreds of pods at once waits in the kernel's queue for its turn. */
const MAX_CONNECTIONS = 512;
/** A call is written at once; who does not finish it is not the shim. */
const MAX_SILENCE_MS = 10_000;

export type CallHandler = (call: PluginCall) => Promise<PluginAnswer>;

export interface CniServerOptions {
  readonly path: string;
  readonly handler: CallHandler;
  readonly log: Logger;
  /** Is told of the calls. */
  readonly lull?: Lull;
}

/** Listens until disposed; disposing waits for the calls that are being handled. */
export class CniServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #handler: CallHandler;
  readonly #log: Logger;
  readonly #lull: Lull | undefined;
  readonly #busy = new Set<Promise<void>>();
  readonly #idle = new Set<Socket>();

  private constructor({ handler, log, lull }: CniServerOptions) {
    this.#handler = handler;
    this.#log = log;
    this.#lull = lull;
    this.#server = createServer({ allowHalfOpen: true }, (socket) => this.#accept(socket));
    this.#server.maxConnections = MAX_CONNECTIONS;
  }

  /**
   * Listens on the socket, which only its owner (root) can open.
   * @throws UserError if another agent listens there, or the path cannot be used
   */
  static async listen(options: CniServerOptions): Promise<CniServer> {
    const { path } = options;
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    if (await isAnswered(path))
      throw new UserError(`Cannot listen on "${path}": another agent is listening there`, {
        hint: 'Stop the other agent first, or give this one another CNI socket.',
      });
    rmSync(path, { force: true });
    const server = new CniServer(options);
    await server.#bind(path);
    return server;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#idle) socket.destroy();
    await Promise.all(this.#busy);
    await closed;
  }

  async #bind(path: string): Promise<void> {
    const ready = Promise.withResolvers<void>();
    this.#server.once('error', (cause) =>
      ready.reject(new UserError(`Cannot listen on "${path}": ${explainError(cause)}`, { cause })),
    );
    // Node binds a unix socket within the call, so nobody else can connect before the mode is right.
    const umask = process.umask(0o177);
    try {
      this.#server.listen(path, () => ready.resolve());
    } finally {
      process.umask(umask);
    }
    await ready.promise;
    this.#server.removeAllListeners('error');
    this.#server.on('error', (err) => this.#log.error({ err }, 'CNI socket failed'));
  }

  #accept(socket: Socket): void {
    let received = Buffer.alloc(0);
    this.#idle.add(socket);
    const ended = this.#lull?.begin();
    socket.setTimeout(MAX_SILENCE_MS, () => socket.destroy());
    socket.on('error', (err) => this.#log.debug({ err }, 'CNI connection failed'));
    socket.on('close', () => {
      this.#idle.delete(socket);
      ended?.();
    });
    const onData = (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      if (received.length > MAX_FRAME_BYTES + 4) return void socket.destroy();
      let call: PluginCall;
      try {
        const fields = decodeFrame(received);
        if (fields === undefined) return;
        call = decodeCall(fields);
      } catch (err) {
        this.#log.warn({ err }, 'refused a malformed call on the CNI socket');
        return void socket.destroy();
      }
      socket.off('data', onData);
      socket.setTimeout(0);
      this.#idle.delete(socket);
      const work = this.#answer(socket, call).finally(() => this.#busy.delete(work));
      this.#busy.add(work);
    };
    socket.on('data', onData);
    // Half a request, then the end: nothing will come of it.
    socket.on('end', () => {
      if (this.#idle.has(socket)) socket.destroy();
    });
  }

  async #answer(socket: Socket, call: PluginCall): Promise<void> {
    // A shim that was killed meanwhile is no reason to stop half way: its runtime will call DEL.
    socket.resume();
    try {
      const answer = encodeAnswer(await this.#handler(call));
      await new Promise<void>((resolve) => {
        socket.once('close', () => resolve());
        socket.end(answer, () => socket.destroy());
      });
    } catch (err) {
      this.#log.error({ err }, 'a CNI call failed without an answer');
      socket.destroy();
    }
  }
}

/** True if something accepts connections on the path. */
function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
