/**
 * Load for the churn test: programs as source text for `node -e` in a namespace.
 *
 * The server answers on many ports, each connection with its own address and port: that names the endpoint. A
 * connection that sends a byte is kept and echoed. The client makes connections until its standard input ends and then
 * prints them, one JSON line each. Times are of the machine's monotonic clock, which all namespaces share.
 */

/** One connection that a load client made. */
export interface Connection {
  /** As the client was given it: an address, with `|port` if that is not 80. */
  readonly host: string;
  /** Milliseconds of the monotonic clock; `startMs` is before the first packet. */
  readonly startMs: number;
  readonly endMs: number;
  /** `address|port` of the endpoint that answered, an error's name, `timeout`, or `mute`: connected, and no word. */
  readonly answer: string;
  /** For one that is kept: how many times it was answered. */
  readonly echoes?: number;
}

/** As {@link Connection} has it. */
export function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** Longer than the second after which a lost first packet is sent again, and the two after that. */
const TIMEOUT_MS = 8000;
/** Connections at a time of one client. */
const WORKERS = 4;
/** Pause of a worker between two connections: what is wanted is many moments, not a busy machine. */
const PAUSE_MS = 4;
const ECHO_INTERVAL_MS = 20;

export const LOAD_SERVER = `
const [hosts, ports] = process.argv.slice(1).map((list) => list.split(','));
(async () => {
  for (const host of hosts)
    for (const port of ports) {
      const server = require('node:net').createServer((s) => {
        s.on('error', () => {});
        s.write(s.localAddress + '|' + s.localPort + '\\n');
        s.on('data', (d) => s.write(d));
      });
      await new Promise((done) => server.listen(Number(port), host, 4096, done));
    }
  console.log('ready');
})();`;

export const LOAD_CLIENT = `
const net = require('node:net');
const [hosts, kept, [pause = ${PAUSE_MS}] = []] = process.argv.slice(1).map((list) => list.split(',').filter((it) => it !== ''));
const now = () => Number(process.hrtime.bigint()) / 1e6;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const made = [];
let isOver = false;
const connect = (host, keep) => new Promise((done) => {
  const startMs = now();
  let said = '', answer = '', echoes = 0, timer;
  const [address, port = 80] = host.split('|');
  const s = net.connect(Number(port), address);
  const patience = setTimeout(() => { answer = s.connecting ? 'timeout' : 'mute'; s.destroy(); }, ${TIMEOUT_MS});
  // Who only listened would never learn that the connection is no more.
  const asking = setInterval(() => s.connecting || s.write('?'), ${ECHO_INTERVAL_MS});
  s.on('data', (d) => {
    if (answer !== '') { echoes++; return; }
    said += d;
    if (!said.includes('\\n')) return;
    answer = said.split('\\n')[0];
    clearTimeout(patience);
    clearInterval(asking);
    // Closed with a reset: the ports are free again at once.
    if (!keep) return s.resetAndDestroy();
    timer = setInterval(() => isOver ? s.resetAndDestroy() : s.write('x'), ${ECHO_INTERVAL_MS});
  });
  s.on('error', (e) => (answer = e.code));
  s.on('close', () => {
    clearTimeout(patience);
    clearInterval(asking);
    clearInterval(timer);
    made.push({ host, startMs, endMs: now(), answer: answer || 'closed', ...(keep ? { echoes } : {}) });
    done();
  });
});
(async () => {
  process.stdin.resume();
  process.stdin.on('end', () => (isOver = true));
  let next = 0;
  const work = async () => {
    while (!isOver) {
      await connect(hosts[next++ % hosts.length], false);
      await sleep(Number(pause));
    }
  };
  await Promise.all([
    ...Array.from({ length: ${WORKERS} }, work),
    ...kept.map((host) => connect(host, true)),
  ]);
  for (const connection of made) process.stdout.write(JSON.stringify(connection) + '\\n');
})();`;
