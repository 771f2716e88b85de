/** A worker thread that is started again when it crashes, and told to stop in the end. */
import {
  MessageChannel,
  type MessagePort,
  receiveMessageOnPort,
  Worker,
} from 'node:worker_threads';
import { Backoff } from '#lib/backoff.ts';
import { explainError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';

/** A thread that does not stop by itself is ended. */
const STOP_TIMEOUT_MS = 3000;
/** Between a crash and the next start. */
const MIN_RESTART_MS = 50;
const MAX_RESTART_MS = 5000;
/** What lives so long does not crash in a loop. */
const STABLE_MS = 2000;

export interface ThreadOptions<From> {
  readonly name: string;
  readonly url: URL;
  readonly log: Logger;
  readonly maxYoungGenerationMb: number;
  /** What a new thread is given, beside the port of its messages. */
  readonly config: () => object;
  /** A thread has been made: it is time to tell it what it has to know. */
  readonly onStart: () => void;
  readonly onMessage: (message: From) => void;
  /** It has ended, and all that it said is told. */
  readonly onExit?: () => void;
  /** Sends it the message after which it ends. */
  readonly stop: () => void;
}

export class Thread<To, From> implements AsyncDisposable {
  readonly #options: ThreadOptions<From>;
  readonly #backoff = new Backoff({ minMs: MIN_RESTART_MS, maxMs: MAX_RESTART_MS });
  #current: { worker: Worker; port: MessagePort; exited: Promise<void> } | undefined;
  #restartTimer: NodeJS.Timeout | undefined;
  #startedMs = 0;
  #stopping = false;
  /** How often it was started again. */
  restarts = 0;

  constructor(options: ThreadOptions<From>) {
    this.#options = options;
  }

  get isRunning(): boolean {
    return this.#current !== undefined;
  }

  /** Call once. */
  start(): void {
    const { name, url, log, maxYoungGenerationMb, onMessage, onStart } = this.#options;
    const channel = new MessageChannel();
    const worker = new Worker(url, {
      workerData: { port: channel.port2, config: this.#options.config() },
      transferList: [channel.port2],
      name,
      resourceLimits: { maxYoungGenerationSizeMb: maxYoungGenerationMb },
    });
    worker.on('error', (error) => {
      log.error({ err: error, thread: name }, `a DNS thread crashed: ${explainError(error)}`);
    });
    const exited = new Promise<void>((resolve) => {
      worker.on('exit', () => {
        // What it said last counts.
        for (let last = receiveMessageOnPort(channel.port1); last !== undefined; ) {
          onMessage(last.message as From);
          last = receiveMessageOnPort(channel.port1);
        }
        channel.port1.close();
        this.#onExit();
        resolve();
      });
    });
    channel.port1.on('message', onMessage);
    this.#startedMs = performance.now();
    this.#current = { worker, port: channel.port1, exited };
    onStart();
  }

  /** Without a thread there is nobody to tell; the next one is told everything. */
  send(message: To, transfer: readonly MessagePort[] = []): void {
    this.#current?.port.postMessage(message, [...transfer]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#restartTimer);
    const { stop, log, name } = this.#options;
    const current = this.#current;
    if (current === undefined) return;
    stop();
    const timer = setTimeout(() => {
      log.warn({ thread: name }, 'a DNS thread does not stop and is ended');
      current.worker.terminate().catch((error: unknown) => {
        log.error({ err: error, thread: name }, 'a DNS thread cannot be ended');
      });
    }, STOP_TIMEOUT_MS);
    await current.exited;
    clearTimeout(timer);
  }

  #onExit(): void {
    this.#current = undefined;
    this.#options.onExit?.();
    if (this.#stopping) return;
    this.restarts++;
    if (performance.now() - this.#startedMs > STABLE_MS) this.#backoff.reset();
    this.#restartTimer = setTimeout(() => this.start(), this.#backoff.next());
  }
}
