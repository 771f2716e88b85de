/**
 * What is known of this node's containers: asks the runtime about each attachment and watches its process.
 *
 * The runtime is asked after ADD, never inside it, because it holds the container's lock until ADD is answered.
 * The process is watched, because a runtime tells of a death only when it has tidied up after it.
 */
import { Backoff } from '#lib/backoff.ts';
import { type Clock, sleep, systemClock } from '#lib/clock.ts';
import { explainError } from '#lib/errors.ts';
import type { Logger } from '#lib/log.ts';
import type { Attachment, Attachments } from '../attachment.ts';
import { type Container, withoutFormerSandboxes } from './plan.ts';
import type { ContainerInfo, ContainerRuntime } from './runtimes/runtime.ts';

/** A container that is not started by then is asked for again at the next start of the agent. */
const MAX_START_QUESTIONS = 40;
/** A runtime that does not know the container after this many questions will not know it later, unless it speaks CRI. */
const MAX_UNKNOWN_ANSWERS = 3;
/** conmon writes the exit status right after the process has ended. */
const MAX_EXIT_QUESTIONS = 8;
/** Questions at a time: each is a process, and a machine that starts a hundred pods has other work. */
const MAX_QUESTIONS_AT_ONCE = 4;

export interface ContainersOptions {
  readonly attachments: Attachments;
  /** Asked in turn until one knows the container. */
  readonly runtimes: readonly ContainerRuntime[];
  /** Calls back once when the process has ended. @returns a function that stops watching */
  readonly watchExit: (pid: number, onExit: () => void) => () => void;
  /** Whether the process is in the attachment's namespace: proof that the number still means the same process. */
  readonly isInNetns: (pid: number, netns: string) => boolean;
  readonly log: Logger;
  readonly clock?: Clock;
  readonly onChange: () => void;
}

interface Entry {
  readonly attachment: Attachment;
  readonly stop: AbortController;
  /** Undefined until the first question is answered. */
  container: Container | undefined;
  unwatch: (() => void) | undefined;
}

export class Containers implements AsyncDisposable {
  readonly #options: ContainersOptions;
  readonly #clock: Clock;
  readonly #entries = new Map<string, Entry>();
  readonly #work = new Set<Promise<void>>();
  readonly #removeListener: () => void;
  #asking = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(options: ContainersOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#removeListener = options.attachments.onChange(() => {
      this.#follow();
      options.onChange();
    });
    this.#follow();
  }

  /** Containers of which anything is known yet; those of a kubelet are not among them. */
  list(): readonly Container[] {
    return [...this.#entries.values()].flatMap(({ container }) =>
      container === undefined ? [] : [container],
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#removeListener();
    for (const entry of this.#entries.values()) end(entry);
    this.#entries.clear();
    await Promise.all(this.#work);
  }

  /** Begins with new attachments and ends with those that are gone. */
  #follow(): void {
    const current = new Map<string, Attachment>();
    for (const attachment of withoutFormerSandboxes(this.#options.attachments.list())) {
      if (attachment.pod.kubelet) continue;
      // Of several interfaces of a container the first by name is the one that its Pod has.
      const other = current.get(attachment.containerId);
      if (other === undefined || attachment.ifName < other.ifName)
        current.set(attachment.containerId, attachment);
    }
    for (const [id, entry] of this.#entries) {
      if (current.get(id)?.createdAt === entry.attachment.createdAt) continue;
      end(entry);
      this.#entries.delete(id);
    }
    for (const [id, attachment] of current) {
      if (this.#entries.has(id)) continue;
      const entry: Entry = {
        attachment,
        stop: new AbortController(),
        container: undefined,
        unwatch: undefined,
      };
      this.#entries.set(id, entry);
      this.#run(entry, () => this.#learn(entry));
    }
  }

  #run(entry: Entry, action: () => Promise<void>): void {
    const work = action()
      .catch((err: unknown) => {
        if (!entry.stop.signal.aborted)
          this.#options.log.error(
            { err, handle: entry.attachment.handle },
            'lost track of a container',
          );
      })
      .finally(() => this.#work.delete(work));
    this.#work.add(work);
  }

  /** Asks until the container runs, has ended, or is unknown for good. */
  async #learn(entry: Entry): Promise<void> {
    const { signal } = entry.stop;
    const backoff = new Backoff({ minMs: 25, maxMs: 2_000 });
    const maxUnknown = entry.attachment.pod.sandbox ? MAX_START_QUESTIONS : MAX_UNKNOWN_ANSWERS;
    let unknown = 0;
    for (let i = 0; i < MAX_START_QUESTIONS; i++) {
      const answer = await this.#ask(entry);
      if (answer === undefined) unknown++;
      if (unknown >= maxUnknown) return this.#set(entry, { runtime: undefined });
      if (answer !== undefined) {
        this.#set(entry, answer);
        if (answer.info.state === 'ended') return;
        if (answer.info.pid !== undefined) return this.#watch(entry, answer.info.pid);
      }
      await sleep(backoff.next(), signal);
    }
    this.#options.log.warn({ handle: entry.attachment.handle }, 'a container does not start');
  }

  #watch(entry: Entry, pid: number): void {
    const onExit = () => {
      entry.unwatch = undefined;
      this.#run(entry, () => this.#learnExit(entry));
    };
    entry.unwatch = this.#options.watchExit(pid, onExit);
    // Between the answer and the watch the process may have ended and its number be another's.
    if (this.#options.isInNetns(pid, entry.attachment.netns)) return;
    entry.unwatch();
    onExit();
  }

  /** Says at once that it has ended, then finds out how. */
  async #learnExit(entry: Entry): Promise<void> {
    const at = new Date(this.#clock.now()).toISOString();
    this.#set(entry, { ended: { at, exitCode: undefined } });
    const backoff = new Backoff({ minMs: 50, maxMs: 1_000 });
    for (let i = 0; i < MAX_EXIT_QUESTIONS; i++) {
      const answer = await this.#ask(entry);
      if (answer?.info.state === 'ended')
        return this.#set(entry, { ...answer, ended: { at, exitCode: answer.info.exitCode } });
      await sleep(backoff.next(), entry.stop.signal);
    }
    // 255 is what a runtime gives a container whose end it did not see.
    this.#set(entry, { ended: { at, exitCode: 255 } });
  }

  #set(entry: Entry, change: Partial<Omit<Container, 'attachment'>>): void {
    if (entry.stop.signal.aborted) return;
    const old = entry.container ?? { runtime: undefined, info: undefined, ended: undefined };
    entry.container = { ...old, ...change, attachment: entry.attachment };
    this.#options.onChange();
  }

  /** @returns undefined if no runtime knows the container, or none can be asked */
  async #ask(entry: Entry): Promise<{ runtime: string; info: ContainerInfo } | undefined> {
    const { signal } = entry.stop;
    await this.#enter();
    try {
      for (const runtime of this.#options.runtimes) {
        signal.throwIfAborted();
        const info = await runtime
          .inspect(entry.attachment.containerId, signal)
          .catch((error: unknown) => {
            signal.throwIfAborted();
            this.#options.log.debug(
              { runtime: runtime.name, reason: explainError(error) },
              'could not ask a runtime',
            );
            return undefined;
          });
        if (info !== undefined) return { runtime: runtime.name, info };
      }
      return undefined;
    } finally {
      this.#leave();
    }
  }

  async #enter(): Promise<void> {
    if (this.#asking >= MAX_QUESTIONS_AT_ONCE)
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#asking++;
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#asking--;
    else next();
  }
}

function end(entry: Entry): void {
  entry.stop.abort(new Error('the container is gone'));
  entry.unwatch?.();
  entry.unwatch = undefined;
}
