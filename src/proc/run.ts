/** Child processes that run to their end: with a time limit, bounded output, and their error text kept. */
import { type ChildProcess, spawn } from 'node:child_process';

export interface RunResult {
  /** `undefined` if a signal ended it. */
  readonly exitCode: number | undefined;
  readonly signal: NodeJS.Signals | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  /** Default 30 s; then SIGKILL. */
  timeoutMs?: number;
  signal?: AbortSignal;
  /** Written to standard input, which is then closed. Without it, standard input is empty. */
  input?: string;
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  /** Each output stream is cut here, so that a child cannot fill our memory. Default 4 MiB. */
  maxOutputBytes?: number;
}

const DEFAULT_TIMEOUT_MS = 30_000;
const DEFAULT_MAX_OUTPUT_BYTES = 4 * 1024 * 1024;

/** A program that could not be started, ended badly, or took too long. */
export class RunError extends Error {
  readonly code = 'RUN' as const;
  readonly argv: readonly string[];
  readonly result: RunResult | undefined;
  constructor(message: string, argv: readonly string[], result?: RunResult, cause?: unknown) {
    super(message, { cause });
    this.name = 'RunError';
    this.argv = argv;
    this.result = result;
  }
}

/**
 * Runs a program and collects what it prints, whatever its exit status.
 * @param argv program and arguments; no shell is involved
 * @throws RunError if it cannot be started or its time is up; the signal's reason if it was aborted
 */
export function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const [program = '', ...args] = argv;
  const maxBytes = options.maxOutputBytes ?? DEFAULT_MAX_OUTPUT_BYTES;
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  return new Promise((resolve, reject) => {
    if (options.signal?.aborted) return reject(options.signal.reason);
    const child = spawn(program, args, {
      stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
      // A group of its own, so that what the program has started can be ended with it.
      detached: true,
      ...(options.env === undefined ? {} : { env: options.env }),
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    const stdout = collect(child.stdout, maxBytes);
    const stderr = collect(child.stderr, maxBytes);
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      killGroup(child);
    }, timeoutMs);
    const onAbort = () => killGroup(child);
    options.signal?.addEventListener('abort', onAbort, { once: true });
    const finish = () => {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', onAbort);
    };
    child.on('error', (cause) => {
      finish();
      reject(new RunError(`Cannot start "${program}": ${cause.message}`, argv, undefined, cause));
    });
    child.on('close', (exitCode, signal) => {
      finish();
      const result: RunResult = {
        exitCode: exitCode ?? undefined,
        signal: signal ?? undefined,
        stdout: stdout(),
        stderr: stderr(),
      };
      if (options.signal?.aborted) reject(options.signal.reason);
      else if (timedOut)
        reject(new RunError(`"${argv.join(' ')}" took over ${timeoutMs} ms`, argv, result));
      else resolve(result);
    });
    if (options.input !== undefined) {
      // A child that does not read its input closes the pipe early; that is its right.
      child.stdin?.on('error', () => child.stdin?.destroy());
      child.stdin?.end(options.input);
    }
  });
}

/**
 * Like {@link run}, for when anything but exit status 0 is a failure.
 * @returns standard output
 * @throws RunError with the end of what it printed
 */
export async function runOk(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const result = await run(argv, options);
  if (result.exitCode === 0) return result.stdout;
  const said = (result.stderr.trim() || result.stdout.trim()).split('\n').slice(-5).join('\n');
  const how =
    result.exitCode === undefined ? `was ended by ${result.signal}` : `failed (${result.exitCode})`;
  throw new RunError(`"${argv.join(' ')}" ${how}: ${said}`, argv, result);
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch (error) {
    // All of them ended between the decision and the kill.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
  // Whoever left the group may hold the pipes for ever; nobody reads them any more.
  child.stdout?.destroy();
  child.stderr?.destroy();
}

function collect(stream: NodeJS.ReadableStream | null, maxBytes: number): () => string {
  const chunks: Buffer[] = [];
  let bytes = 0;
  stream?.on('data', (chunk: Buffer) => {
    if (bytes < maxBytes) chunks.push(chunk.subarray(0, maxBytes - bytes));
    bytes += chunk.length;
  });
  return () => Buffer.concat(chunks).toString('utf8');
}
