/**
 * The DNS server's second thread: what needs an event loop, which is asking name servers outside and serving TCP. It
 * talks with the responder's thread directly, so that a main thread that is busy with the API delays no answer. Only the
 * addresses of names that policies want to know go by the main thread, because the kernel has to know them first.
 */
import { writeSync } from 'node:fs';
import { type MessagePort, workerData } from 'node:worker_threads';
import { explainError } from '#lib/errors.ts';
import type { Ip } from '#lib/ip.ts';
import { type Logger, silentLogger } from '#lib/log.ts';
import { isWanted } from '../../answer-watch.ts';
import { Forwarder } from '../forward.ts';
import { ForwardStats } from '../forward-stats.ts';
import { watchAnswers } from '../told.ts';
import { upstreamSource } from '../upstream-source.ts';
import type {
  Answered,
  Asked,
  ForwarderConfig,
  ForwarderReport,
  FromForwarder,
  ToForwarder,
} from './messages.ts';
import { TcpListener } from './tcp.ts';

/** Queries over TCP that wait for the responder; bounded by connections too, this is for all listeners. */
const MAX_TCP_PENDING = 4096;
/** Times a query over TCP is given to a responder: once more when one dies, but what it may have died of not for ever. */
const MAX_TIMES_ASKED = 2;
/** For counters, and for what changes by time alone. */
const REPORT_INTERVAL_MS = 1000;
/** Lines of the log between two reports: a network that is away would fill a disk. */
const MAX_LINES = 50;
/** What wakes the responder: an eventfd takes a number of 64 bits. */
const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);

type Settings = Extract<ToForwarder, { kind: 'settings' }>;

const { port, config } = workerData as { port: MessagePort; config: ForwarderConfig };
const stats = new ForwardStats();
let settings: Settings | undefined;
let lines = 0;
let reported = '';
let nextToken = 1;
/** Answers that the main thread is being told of. */
const tellings = new Map<number, { resolve: () => void; reject: (error: Error) => void }>();
/** The responder's end. */
let responder: { port: MessagePort; sent: Int32Array; wakeFd: number } | undefined;
const tcpPending = new Map<number, TcpQuery>();
let listeners: TcpListener[] = [];

interface TcpQuery {
  readonly bytes: Uint8Array;
  readonly peer: Ip;
  readonly answer: (bytes: Uint8Array | undefined) => void;
  timesAsked: number;
}

const upstreams = upstreamSource({
  own: config.listen,
  onFailure: (error) =>
    line('warn', { reason: explainError(error) }, 'cannot read the host’s resolv.conf'),
});
const forwarder = new Forwarder({
  upstreams: () => (settings === undefined ? [] : upstreams(settings.upstreams)),
  ...{ config: () => settings?.config, observer: stats },
  onFailure: ({ name, type }, reason) =>
    line('debug', { name, type, reason }, 'no upstream answered a query'),
});
const watched = watchAnswers(forwarder, {
  wants: (name) => isWanted(name, settings?.wanted),
  asked: (name, family) => tell({ kind: 'asked', name, family }),
  answered(name, family, addresses) {
    const token = nextToken++;
    tell({ kind: 'answered', token, name, family, addresses });
    return new Promise((resolve, reject) => tellings.set(token, { resolve, reject }));
  },
});
const log: Logger = {
  ...silentLogger,
  warn: (fields, text) => line('warn', fields, text),
  error: (fields, text) => line('error', fields, text),
};
const timer = setInterval(reportAll, REPORT_INTERVAL_MS);
port.on('message', (message: ToForwarder) => receive(message));

function tell(message: FromForwarder): void {
  port.postMessage(message);
}

function line(level: 'debug' | 'warn' | 'error', fields: object, text: string): void {
  if (++lines <= MAX_LINES) tell({ kind: 'line', level, fields, text });
}

function receive(message: ToForwarder): void {
  switch (message.kind) {
    case 'settings': {
      const isNew = message.epoch !== settings?.epoch;
      settings = message;
      if (isNew) forwarder.forgetPending();
      report();
      break;
    }
    case 'responder':
      meet(message);
      break;
    case 'told': {
      const telling = tellings.get(message.token);
      tellings.delete(message.token);
      if (message.ok) telling?.resolve();
      else telling?.reject(new Error('policies could not be told of the answer'));
      break;
    }
    case 'stop':
      stop().catch((error: unknown) => {
        // Waited for by nobody: the thread ends by it, as it should.
        queueMicrotask(() => {
          throw error;
        });
      });
      break;
  }
}

function meet({ inbox, wakeFd }: Extract<ToForwarder, { kind: 'responder' }>): void {
  responder?.port.close();
  const met = { port: inbox.port, sent: new Int32Array(inbox.sent), wakeFd };
  responder = met;
  met.port.on('message', (message: Asked) => onAsked(message));
  met.port.on('close', () => {
    if (responder === met) responder = undefined;
  });
  for (const [token, query] of tcpPending) {
    if (query.timesAsked < MAX_TIMES_ASKED) send(token, query);
    else finish(token, undefined);
  }
  if (listeners.length === 0)
    listeners = config.listen.map(
      (place) => new TcpListener({ ...place, log, answer: answerTcp, onState: report }),
    );
}

function respond(message: Answered): void {
  if (responder === undefined) return;
  responder.port.postMessage(message);
  // After the message: who sees the number finds the message.
  Atomics.add(responder.sent, 0, 1);
  writeSync(responder.wakeFd, ONE);
}

function onAsked(message: Asked): void {
  if (message.kind === 'reply') {
    finish(message.token, message.bytes);
    return;
  }
  const { token, question } = message;
  const epoch = settings?.epoch ?? 0;
  watched.resolve(question).then(
    (bytes) => respond({ kind: 'resolved', token, bytes, epoch }),
    (error: unknown) => {
      log.error({ reason: explainError(error), name: question.name }, 'forwarding a query failed');
      respond({ kind: 'resolved', token, bytes: undefined, epoch });
    },
  );
}

function answerTcp(bytes: Uint8Array, peer: Ip): Promise<Uint8Array | undefined> {
  if (tcpPending.size >= MAX_TCP_PENDING) return Promise.resolve(undefined);
  const token = nextToken++;
  return new Promise((answer) => {
    const query: TcpQuery = { bytes, peer, answer, timesAsked: 0 };
    tcpPending.set(token, query);
    send(token, query);
  });
}

function send(token: number, query: TcpQuery): void {
  if (responder === undefined) return; // when there is one
  query.timesAsked++;
  respond({ kind: 'query', token, bytes: query.bytes, peer: query.peer });
}

function finish(token: number, bytes: Uint8Array | undefined): void {
  tcpPending.get(token)?.answer(bytes);
  tcpPending.delete(token);
}

function reportAll(): void {
  lines = 0;
  const counts = stats.take();
  if (counts !== undefined) tell({ kind: 'counts', counts });
  report();
}

/** Tells how it goes, if that is new. */
function report(): void {
  const states = config.listen.map(({ address, port: wanted }, i) => {
    const listener = listeners[i];
    return { address, port: listener?.port ?? wanted, reason: listener?.failure };
  });
  const next: ForwarderReport = {
    open: states.filter((_, i) => listeners[i] !== undefined && listeners[i].failure === undefined),
    failing: states.flatMap(({ reason, ...place }) =>
      reason === undefined ? [] : [{ ...place, reason }],
    ),
    upstreams: settings === undefined ? [] : upstreams(settings.upstreams),
    problems: forwarder.problems(),
  };
  const text = JSON.stringify(next);
  if (text === reported) return;
  reported = text;
  tell({ kind: 'report', report: next });
}

async function stop(): Promise<void> {
  clearInterval(timer);
  const parts: AsyncDisposable[] = [forwarder, ...listeners];
  await Promise.all(parts.map((part) => part[Symbol.asyncDispose]()));
  reportAll();
  responder?.port.close();
  port.close();
}
