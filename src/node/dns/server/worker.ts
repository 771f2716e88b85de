/**
 * The responder's thread, which owns the UDP sockets. It never returns to its event loop, which would cost more than most
 * answers: it waits in `poll(2)` for datagrams or for another thread's signal, and takes messages in between.
 */
import { randomBytes, randomInt } from 'node:crypto';
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { steady, systemClock } from '#lib/clock.ts';
import { KernelError } from '#lib/errors.ts';
import { MAX_BATCH, PollSet, UdpBatchSocket } from '#linux/udp-batch.ts';
import { drainWakeEvent } from '#linux/wake-event.ts';
import { UDP_PAYLOAD_BYTES } from '#wire/dns/constants.ts';
import { name } from '#wire/dns/name.ts';
import { AnswerCache } from '../cache.ts';
import { DEFAULT_CONFIG } from '../config.ts';
import { Cookies, SECRET_BYTES } from '../cookies.ts';
import { randomBelowFrom } from '../random-below.ts';
import { NameTable } from '../table.ts';
import { Clients } from './clients.ts';
import type {
  Answered,
  Asked,
  FailingEndpoint,
  FromResponder,
  Inbox,
  ResponderConfig,
  ResponderSettings,
  ToResponder,
} from './messages.ts';
import type { LoggedQuery, Request } from './request.ts';
import { Responder } from './responder.ts';

/** Room for a query with options; what is longer is cut and gets FORMERR. */
const REQUEST_BYTES = 1280;
/** Batches of one socket in a row, so that a flood on one leaves time for the others and for messages. */
const MAX_BATCHES_PER_TURN = 8;
/** Messages in a row, so that a storm of changes leaves time for queries. A few milliseconds' work. */
const MAX_MESSAGES_PER_TURN = 64;
/** Batches a stopping worker still answers: what was in the queue when the other one took over. */
const MAX_LAST_BATCHES = 64;
/** The sleep is ended by datagrams and by the main thread; this is only for the counters and for missing sockets. */
const MAX_SLEEP_MS = 1000;
const REPORT_INTERVAL_MS = 1000;
const TCP_REPLY = new Uint8Array(0xffff);

/** While somebody waits for an upstream: how late a stale answer may be. */
const MAX_WAIT_SLEEP_MS = 50;
/** Logged queries between two reports; a log is for reading, and a pod that asks more is told of by the count. */
const MAX_LOGGED = 1000;
/** How soon a logged query is seen. */
const LOG_INTERVAL_MS = 200;

const { port, config } = workerData as { port: MessagePort; config: ResponderConfig };
const table = new NameTable({ zone: name(config.zone), seed: config.seed });
const cache = new AnswerCache({
  maxEntries: DEFAULT_CONFIG.cacheEntries,
  maxStaleS: DEFAULT_CONFIG.serveStaleS,
});
const clients = new Clients(config.zone);
/** What is kept gets old by it: a time of day that is set would make all of it old, or young again. */
const clock = steady(systemClock);
let logged: LoggedQuery[] = [];
let lostLogs = 0;
const responder = new Responder({
  table,
  cache,
  random: randomBelowFrom(randomInt(2 ** 31)),
  nowMs: clock.now,
  cookies: new Cookies(randomBytes(SECRET_BYTES)),
  // Without a forwarder it waits until there is one.
  forward: (token, question) => ask(forwarder, { kind: 'forward', token, question }),
  log: (query) => {
    if (logged.length < MAX_LOGGED) logged.push(query);
    else lostLogs++;
  },
});
/** Messages of another thread; see {@link Inbox}. */
interface Mailbox {
  readonly port: MessagePort;
  readonly sent: Int32Array;
  taken: number;
}
const main = mailbox({ port, sent: config.sent });
let forwarder: Mailbox | undefined;
/** Whether all is known that a worker before this one knew. Until then queries wait. */
let ready = false;
let epoch = 0;
const sockets: Served[] = [];
let poll = new PollSet([config.wakeFd]);
let reported = '';
let stopping = false;

function mailbox({ port: from, sent }: Inbox): Mailbox {
  return { port: from, sent: new Int32Array(sent), taken: 0 };
}

function post(message: FromResponder): void {
  port.postMessage(message);
}

function ask(whom: Mailbox | undefined, message: Asked): void {
  whom?.port.postMessage(message);
}

/** Opens the sockets that are not open: an address may come to this machine later than we do. */
function openSockets(): void {
  const failing: FailingEndpoint[] = [];
  for (const wanted of config.listen) {
    if (sockets.some(({ socket }) => socket.address === wanted.address)) continue;
    try {
      const options = { requestBytes: REQUEST_BYTES, replyBytes: UDP_PAYLOAD_BYTES };
      const inherited = config.inherited.find(({ address }) => address === wanted.address);
      sockets.push(serve(new UdpBatchSocket({ ...wanted, ...options, ...inherited })));
      poll = new PollSet([config.wakeFd, ...sockets.map(({ socket }) => socket.fd)]);
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      failing.push({ ...wanted, reason: error.message });
    }
  }
  const open = sockets.map(({ socket: { address, port, fd } }) => ({ address, port, fd }));
  const text = JSON.stringify([open, failing]);
  if (text === reported) return;
  reported = text;
  post({ kind: 'sockets', open, failing });
}

/** @returns whether there may be more */
function takeMessages(): boolean {
  const mainHasMore = takeFrom<ToResponder>(main, onMain);
  if (!ready || forwarder === undefined) return mainHasMore;
  return takeFrom<Answered>(forwarder, onForwarder) || mainHasMore;
}

/** @returns whether there may be more */
function takeFrom<T>(box: Mailbox, receive: (message: T) => void): boolean {
  for (let i = 0; i < MAX_MESSAGES_PER_TURN; i++) {
    if (box.taken === Atomics.load(box.sent, 0)) return false;
    const got = receiveMessageOnPort(box.port);
    if (got === undefined) return false;
    box.taken = (box.taken + 1) | 0;
    receive(got.message as T);
  }
  return true;
}

function onMain(message: ToResponder): void {
  switch (message.kind) {
    case 'names':
      table.apply(message.changes);
      table.serial = message.serial;
      if (message.synced) table.synced = true;
      break;
    case 'ready':
      ready = true;
      break;
    case 'settings':
      applySettings(message.settings);
      if (message.epoch !== epoch) cache.clear();
      epoch = message.epoch;
      break;
    case 'clients':
      clients.setPods(message.clients.pods);
      clients.setTrusted(message.clients.trusted);
      break;
    case 'log':
      clients.setLogged(message.pod, message.on);
      break;
    case 'forwarder':
      forwarder?.port.close();
      forwarder = mailbox(message.inbox);
      responder.askAgain();
      break;
    case 'stop':
      stopping = true;
      break;
  }
}

function onForwarder(message: Answered): void {
  if (message.kind === 'query') respondTcp(message);
  else responder.resolved(message.token, message.bytes, { keep: message.epoch === epoch });
}

function applySettings(settings: ResponderSettings): void {
  table.podMode = settings.podMode;
  table.searchPath = settings.searchPath;
  responder.prefetch = settings.prefetch;
  responder.cookies = settings.cookies;
  cache.setLimits({ maxEntries: settings.cacheEntries, maxStaleS: settings.serveStaleS });
  clients.setLimits(settings.limits);
}

function respondTcp({ token, bytes, peer }: Extract<Answered, { kind: 'query' }>): void {
  const asker = forwarder;
  const send = (reply: Uint8Array, length: number) =>
    ask(asker, { kind: 'reply', token, bytes: length === 0 ? undefined : reply.slice(0, length) });
  let isLater = false;
  const startMs = performance.now();
  const request: Request = {
    bytes,
    length: bytes.length,
    reply: TCP_REPLY,
    transport: 'tcp',
    client: clients.findIp(peer),
    searchSuffix: undefined,
    defer: () => {
      isLater = true;
      return send;
    },
  };
  const length = responder.respond(request, clock.now());
  if (isLater) return;
  if (length > 0) responder.stats.observe((performance.now() - startMs) / 1000, 1);
  send(TCP_REPLY, length);
}

/** A socket with the one request object that all its queries use. */
interface Served {
  readonly socket: UdpBatchSocket;
  readonly request: Request;
  /** The place in the batch of the query that is being answered. */
  index: number;
}

function serve(socket: UdpBatchSocket): Served {
  const served: Served = {
    socket,
    index: 0,
    request: {
      bytes: socket.request(0),
      length: 0,
      reply: socket.reply(0),
      transport: 'udp',
      client: clients.findIp(socket.address),
      searchSuffix: undefined,
      defer: () => {
        const peer = socket.peer(served.index);
        return (reply, size) => {
          if (size > 0) socket.sendTo(peer, reply, size);
        };
      },
    },
  };
  return served;
}

/** @returns whether there may be more */
function serveBatch(served: Served): boolean {
  const { socket, request } = served;
  const count = socket.receive();
  if (count === 0) return false;
  const startMs = performance.now();
  const nowMs = clock.now();
  const { peers, peerAddressBytes } = socket;
  let answered = 0;
  for (let i = 0; i < count; i++) {
    served.index = i;
    request.bytes = socket.request(i);
    request.length = socket.requestLength(i);
    request.reply = socket.reply(i);
    request.client = clients.find(peers, socket.peerAddressAt(i), peerAddressBytes);
    const length = responder.respond(request, nowMs);
    socket.setReplyLength(i, length);
    if (length > 0) answered++;
  }
  socket.send();
  // The batch is the measure: each of its answers left when the last was ready.
  responder.stats.observe((performance.now() - startMs) / 1000, answered);
  responder.stats.sendErrors += socket.sendErrors;
  socket.sendErrors = 0;
  return count === MAX_BATCH;
}

function report(): void {
  const { success, denial } = cache.sizes;
  const sizes = { names: table.size, cacheSuccess: success, cacheDenial: denial };
  responder.stats.evictions = cache.evictions;
  cache.evictions = 0;
  post({ kind: 'stats', stats: responder.stats.take(sizes) });
}

function reportLogged(): void {
  if (logged.length === 0) return;
  post({ kind: 'logged', queries: logged, lost: lostLogs });
  logged = [];
  lostLogs = 0;
}

function run(): void {
  // It wakes for nothing else: there is no socket yet.
  while (!ready && !stopping) {
    poll.wait(MAX_SLEEP_MS);
    drainWakeEvent(config.wakeFd);
    while (takeMessages());
  }
  openSockets();
  let nextReportMs = performance.now() + REPORT_INTERVAL_MS;
  let nextLogMs = 0;
  let hasMessages = false;
  while (!stopping) {
    const sleepMs = responder.isWaiting
      ? MAX_WAIT_SLEEP_MS
      : logged.length > 0
        ? LOG_INTERVAL_MS
        : MAX_SLEEP_MS;
    poll.wait(hasMessages ? 0 : sleepMs);
    if (poll.isReady(0)) drainWakeEvent(config.wakeFd);
    hasMessages = takeMessages();
    // The descriptor that wakes this thread stands in front of theirs.
    let place = 0;
    for (const served of sockets) {
      if (!poll.isReady(++place)) continue;
      // Messages between two batches: a pod that came a moment ago is known before its first query is answered.
      for (let i = 0; i < MAX_BATCHES_PER_TURN && serveBatch(served); i++)
        hasMessages = takeMessages();
    }
    if (responder.isWaiting) responder.tick(clock.now());
    const now = performance.now();
    if (now >= nextLogMs) {
      nextLogMs = now + LOG_INTERVAL_MS;
      reportLogged();
    }
    if (now < nextReportMs) continue;
    nextReportMs = now + REPORT_INTERVAL_MS;
    openSockets();
    report();
  }
  for (const served of sockets) {
    for (let i = 0; i < MAX_LAST_BATCHES && serveBatch(served); i++);
    served.socket[Symbol.dispose]();
  }
  report();
  reportLogged();
  post({ kind: 'stopped' });
  forwarder?.port.close();
  port.close();
}

run();
