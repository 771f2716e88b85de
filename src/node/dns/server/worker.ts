/**
 * The DNS worker: the thread that owns the UDP sockets. It never returns to its event loop, which would cost more than
 * most answers: it waits in `poll(2)` for datagrams or for the main thread's signal, and takes messages in between.
 */
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { KernelError } from '#lib/errors.ts';
import { familyOf } from '#lib/ip.ts';
import { UdpBatchSocket, waitReadable } from '#linux/udp-batch.ts';
import { drainWakeEvent } from '#linux/wake-event.ts';
import { UDP_PAYLOAD_BYTES } from '#wire/dns/constants.ts';
import { name } from '#wire/dns/name.ts';
import { NameTable } from '../table.ts';
import type { FromWorker, ToWorker, WorkerConfig } from './messages.ts';
import { Responder } from './responder.ts';

/** Room for a query with options; what is longer is cut and gets FORMERR. */
const REQUEST_BYTES = 1280;
/** Batches of one socket in a row, so that a flood on one leaves time for the others and for messages. */
const MAX_BATCHES_PER_TURN = 8;
/** Batches a stopping worker still answers: what was in the queue when the other one took over. */
const MAX_LAST_BATCHES = 64;
/** The sleep is ended by datagrams and by the main thread; this is only for the counters and for missing sockets. */
const MAX_SLEEP_MS = 1000;
const REPORT_INTERVAL_MS = 1000;
const TCP_REPLY = new Uint8Array(0xffff);

const { port, config } = workerData as { port: MessagePort; config: WorkerConfig };
const table = new NameTable({ zone: name(config.zone), seed: config.seed });
const responder = new Responder({
  table,
  random: Math.random,
  nowMs: Date.now,
  forward: (token, question) => post({ kind: 'forward', token, question }),
});
const sockets: UdpBatchSocket[] = [];
let reported = '';
let stopping = false;

function post(message: FromWorker): void {
  port.postMessage(message);
}

/** Opens the sockets that are not open: an address may come to this machine later than we do. */
function openSockets(): void {
  const failing: {
    address: (typeof config.listen)[number]['address'];
    port: number;
    reason: string;
  }[] = [];
  for (const wanted of config.listen) {
    if (sockets.some((socket) => socket.address === wanted.address)) continue;
    try {
      const options = { requestBytes: REQUEST_BYTES, replyBytes: UDP_PAYLOAD_BYTES };
      sockets.push(new UdpBatchSocket({ ...wanted, ...options }));
    } catch (error) {
      if (!(error instanceof KernelError)) throw error;
      failing.push({ ...wanted, reason: error.message });
    }
  }
  const open = sockets.map((socket) => ({ address: socket.address, port: socket.port }));
  const text = JSON.stringify([open, failing]);
  if (text === reported) return;
  reported = text;
  post({ kind: 'sockets', open, failing });
}

function takeMessages(): void {
  for (let got = receiveMessageOnPort(port); got !== undefined; got = receiveMessageOnPort(port)) {
    const message = got.message as ToWorker;
    if (message.kind === 'names') {
      table.apply(message.changes);
      table.serial = message.serial;
      if (message.synced) table.synced = true;
    } else if (message.kind === 'resolved') responder.resolved(message.token, message.bytes);
    else if (message.kind === 'query') respondTcp(message.token, message.bytes, message.family);
    else stopping = true;
  }
}

function respondTcp(token: number, bytes: Uint8Array, family: 4 | 6): void {
  const send = (reply: Uint8Array, length: number) =>
    post({ kind: 'reply', token, bytes: length === 0 ? undefined : reply.slice(0, length) });
  const dropped = responder.stats.dropped;
  let isLater = false;
  const startMs = performance.now();
  const options = { length: bytes.length, reply: TCP_REPLY, transport: 'tcp', family } as const;
  const length = responder.respond(bytes, options, () => {
    isLater = true;
    return { transport: 'tcp', family, send };
  });
  if (isLater) return;
  if (responder.stats.dropped === dropped)
    responder.stats.observe((performance.now() - startMs) / 1000, 1);
  send(TCP_REPLY, length);
}

/** @returns whether there may be more */
function serveBatch(socket: UdpBatchSocket): boolean {
  const count = socket.receive();
  if (count === 0) return false;
  const startMs = performance.now();
  const family = familyOf(socket.address);
  let answered = 0;
  for (let i = 0; i < count; i++) {
    const length = responder.respond(
      socket.request(i),
      { length: socket.requestLength(i), reply: socket.reply(i), transport: 'udp', family },
      () => {
        const peer = socket.peer(i);
        const send = (reply: Uint8Array, size: number) => socket.sendTo(peer, reply, size);
        return { transport: 'udp', family, send };
      },
    );
    socket.setReplyLength(i, length);
    if (length > 0) answered++;
  }
  socket.send();
  // The batch is the measure: each of its answers left when the last was ready.
  responder.stats.observe((performance.now() - startMs) / 1000, answered);
  responder.stats.sendErrors += socket.sendErrors;
  socket.sendErrors = 0;
  return true;
}

function report(): void {
  const { success, denial } = responder.cacheSizes;
  const sizes = { names: table.size, cacheSuccess: success, cacheDenial: denial };
  post({ kind: 'stats', stats: responder.stats.take(sizes) });
}

function run(): void {
  openSockets();
  let nextReportMs = performance.now() + REPORT_INTERVAL_MS;
  while (!stopping) {
    const ready = waitReadable([config.wakeFd, ...sockets.map((s) => s.fd)], MAX_SLEEP_MS);
    if (ready[0] === 0) drainWakeEvent(config.wakeFd);
    takeMessages();
    for (const index of ready) {
      const socket = sockets[index - 1];
      if (socket === undefined) continue;
      for (let i = 0; i < MAX_BATCHES_PER_TURN && serveBatch(socket); i++);
    }
    if (performance.now() < nextReportMs) continue;
    nextReportMs = performance.now() + REPORT_INTERVAL_MS;
    openSockets();
    report();
  }
  for (const socket of sockets) {
    for (let i = 0; i < MAX_LAST_BATCHES && serveBatch(socket); i++);
    socket[Symbol.dispose]();
  }
  report();
  post({ kind: 'stopped' });
  port.close();
}

run();
